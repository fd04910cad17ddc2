//! What the text of a conversation becomes before any tensor exists: token ids,
//! chat templates, the metadata of model containers, and the batch they end in.
//!
//! ```
//! use text::{ChatTemplate, Date, Message, RenderOptions, SpecialTokens};
//!
//! let source = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}";
//! let today = Date::new(2026, 3, 1).unwrap();
//! let template = ChatTemplate::new(source, &SpecialTokens::default(), today)?;
//! let prompt = template.render(&[Message::new("user", "hi")], &RenderOptions::default())?;
//! assert_eq!(prompt, "<|user|>hi");
//! # Ok::<(), text::Error>(())
//! ```

pub mod batch;
pub mod metadata;
pub mod template;
pub mod tokenizer;

pub mod date;
mod error;
pub mod figures;
mod hash;
pub mod integer;
mod jinja;
pub mod language;
mod message;
mod special;

pub use batch::{Batch, LastRead, Segment, Target};
pub use date::Date;
pub use error::{Error, Result};
pub use message::Message;
pub use metadata::{Metadata, gguf};
pub use special::SpecialTokens;
pub use template::{ChatTemplate, RenderOptions};
pub use tokenizer::{DecodeStream, Note, Tokenizer};
