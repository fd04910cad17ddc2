//! What a recipe key is: name, type, range, default and doc, declared once.
//!
//! Every room declares the keys of its own section. A [`Schema`] puts them
//! together and feeds parsing, `--help`, the JSON schema and the docs. Reading a
//! recipe gives a [`Document`], in which every value is right in itself, or all
//! mistakes at once, each with place, key and cure. This crate knows no key of
//! its own, touches no file but the recipe and never looks at the environment.
//!
//! ```
//! use keys::{Key, Kind, Resume, Schema, Settings as _, Surroundings};
//! use std::path::Path;
//!
//! // What a room declares. `model: x` is short for `model: {id: x}`.
//! const KEYS: &[Key] = &[
//!     Key::section("model").shorthand("id").doc("Model to start from."),
//!     Key::path_or_name("model.id").required().doc("Hub id, folder or file."),
//!     Key::int("adapter.rank", 1, 4096).default("16").doc("Rank of the adapter matrices."),
//!     Key::list("adapter.target_modules", &Kind::Text)
//!         .or(&["all-linear"])
//!         .default("all-linear")
//!         .doc("Layers that get an adapter."),
//!     Key::float("train.learning_rate", 0.0, 1.0)
//!         .above_min()
//!         .default_by("method and adapter")
//!         .on_resume(Resume::WithNote)
//!         .doc("Largest learning rate."),
//!     Key::entries("data.train").shorthand("path").required().doc("Training data."),
//!     Key::path("data.train[].path").required().doc("File of rows."),
//!     Key::choice("quantization", &["none", "nf4"])
//!         .later_words(&["int8"])
//!         .default("none")
//!         .doc("Storage of the base."),
//! ];
//! let schema = Schema::new(&[KEYS]);
//!
//! let around = Surroundings {
//!     current_dir: Path::new("/home/ada"),
//!     home: None,
//!     variable: &|_| None,
//! };
//! let recipe = "model: org/tiny\ndata: {train: rows.jsonl}\n";
//! let overrides = ["adapter.rank=8".to_owned()];
//! let mut document = schema.parse(recipe, Path::new("r/a.yaml"), &overrides, &around)?;
//! document.fill("train.learning_rate", 2e-4, "sft with an adapter");
//!
//! assert_eq!(document.get_usize("adapter.rank"), 8);
//! assert!(document.is_word("adapter.target_modules", "all-linear"));
//! let train = &document.entries("data.train")[0];
//! assert_eq!(train.get_path("path"), Path::new("/home/ada/r/rows.jsonl"));
//! assert!(document.to_yaml().contains("learning_rate: 2.0e-4"));
//!
//! let recipe = "model: org/tiny\ndata: {train: rows.jsonl}\nlora_r: 8\n";
//! let error = schema.parse(recipe, Path::new("a.yaml"), &[], &around).unwrap_err();
//! assert_eq!(error.to_string(), "a.yaml:3:1: unknown key `lora_r`");
//! assert_eq!(error.hint(), Some("here: `adapter.rank: 8`"));
//! # Ok::<(), keys::Error>(())
//! ```

mod key;
mod schema;

mod draft;
mod path;
mod read;
mod value;
mod variable;
mod yaml;

mod describe;
mod nearest;
mod peers;
mod suggest;

mod change;
mod document;
mod emit;
mod json_schema;
mod resolved;
mod show;

mod error;

pub use change::Change;
pub use document::{Document, Origin, Section, Setting, Settings, Surroundings};
pub use error::{Error, Fault, Place, Problem};
pub use key::{DefaultValue, Key, Kind, Resume, is_secret_name};
pub use nearest::nearest;
pub use path::{Locator, is_local_path, resolve_path};
pub use schema::Schema;
pub use value::Value;
