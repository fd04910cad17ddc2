//! Tasks, graders, metrics, statistics and comparisons: is the model better?
//!
//! A task holds prompts and expected answers. A [`grader`] turns one answer
//! into numbers, [`metric`] sums them up with the uncertainty of
//! [`interval`], and [`compare`] sets several arms beside each other and beside
//! the trivial [`floor`]. [`agreement`] says how far raters agree,
//! [`preference`] whether a model of preferences knows more than trivial rules,
//! and [`classification`] how often a classifier is right, class by class.
//! [`probe`] tries a grader with answers that should score nothing, and
//! [`pass_at_k`] says how often one of k samples is right.
//! A grade is also a reward, so this crate stands below `train`; it prints
//! nothing and reads no environment.
//!
//! ```
//! use eval::grader::{Grader as _, Json, Schema};
//! use eval::metric::Metrics;
//! use serde_json::json;
//!
//! let schema = Schema::from_json(&json!({
//!     "type": "object",
//!     "properties": {"mood": {"enum": ["good", "bad"]}, "stars": {"type": "integer", "minimum": 1, "maximum": 5}},
//! }))?;
//! let grader = Json::new(schema);
//! let grades = grader.grade(r#"{"mood": "good", "stars": 4}"#, &json!({"mood": "good", "stars": 5}));
//! assert_eq!(grades.get("schema_valid"), Some(1.0));
//! assert_eq!(grades.get("fields_exact"), Some(0.5));
//! let metrics = Metrics::of(&[grades], 1);
//! assert_eq!(metrics.get("fields_exact").map(|interval| interval.mean), Some(0.5));
//! # Ok::<(), eval::Error>(())
//! ```

pub mod agreement;
pub mod classification;
pub mod compare;
mod error;
pub mod floor;
pub mod grader;
pub mod interval;
pub mod metric;
pub mod pass_at_k;
pub mod preference;
pub mod probe;
pub mod task;

pub use error::{Error, Result};
