//! A loaded model that answers.
//!
//! ```text
//! Opened (files) -> Session (backend, decoder, adapter) -> encode(Question) -> answer -> text
//! ```
//!
//! Whoever asks a model does it here: `generate`, `chat`, `distill`, the quickstart, the sample answers of a
//! training run. A reward model gives scores instead: [`Scorer`]. Prompts are rendered by the code that renders the
//! rows of training. Nothing here prints or reads the environment.

mod answer;
mod error;
mod opened;
mod question;
mod scorer;
mod serving;
mod session;
mod stop;
mod stream;

pub use answer::{Answer, Finish, Prompt, Sampling, Speaker, Token};
pub use error::{Error, Result};
pub use model::generate::Flow;
pub use opened::Opened;
pub use question::Question;
pub use scorer::Scorer;
pub use serving::Serving;
pub use session::{Manner, Session};
