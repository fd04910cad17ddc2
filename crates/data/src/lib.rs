//! From files to token sequences to packed forests.
//!
//! ```text
//! source      files of any format           -> rows with their place, as a stream
//! record      alpaca, preference, ...       -> conversations, pairs, prompts, texts
//! context     documents                     -> passages in front of prompts
//! supervision template, tokenizer           -> sequences: tokens and weights
//! audit       rows as texts                 -> duplicates, leaks, odd contents
//! prepare     all of it, on many threads    -> prepared rows in a cache, findings
//! split       seed, clusters, columns       -> which rows are kept back
//! check       prepared rows                 -> the report
//! order       seed, batch size              -> the rows of every optimizer step
//! forest      sequences of one step         -> micro-batches, shared prefixes once
//! ```
//!
//! ```
//! use data::{Findings, Reading, record, source};
//! use std::path::Path;
//!
//! let file = br#"{"question": "2 + 2?", "answer": "4"}"#;
//! let rows = source::parse(Path::new("sums.jsonl"), file)?;
//! let mut findings = Findings::default();
//! let (shape, conversations) =
//!     record::conversations(rows, &Reading::default(), &mut findings)?;
//! assert_eq!(shape.name, "prompt_completion");
//! assert_eq!(conversations[0].messages[1].content, "4");
//! # Ok::<(), data::Error>(())
//! ```
//!
//! No tensors and no devices. Nothing is dropped or cut in silence: a row that
//! cannot be used is an error with its place, anything odd is a [`Finding`].

pub mod audit;
pub mod check;
pub mod checksum;
pub mod context;
pub mod finding;
pub mod forest;
pub mod mixture;
pub mod order;
pub mod overlong;
pub mod prepare;
pub mod random;
pub mod recipe;
pub mod record;
pub mod report;
pub mod sequences;
pub mod source;
pub mod split;
pub mod supervision;

mod error;
mod place;
mod sequence;
mod stop;
mod store;

pub use error::{Error, Result, RowError};
pub use finding::{Finding, Findings, Level};
pub use forest::{Micro, Packing, Reads, pack, pack_units};
pub use mixture::Mixture;
pub use order::{Cursor, Extent, Order, StepRows, StepSize, Units};
pub use overlong::Overlong;
pub use place::Place;
pub use prepare::{
    Config, Division, HubSet, Location, OnError, Prepared, Source, Stats, Validation, prepare,
};
pub use record::{Conversation, Reading, Wanted};
pub use sequence::{Sequence, Unit};
pub use sequences::Sequences;
pub use stop::Stop;
pub use supervision::{SupervisionOptions, Supervisor};
