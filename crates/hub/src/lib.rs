//! Where models and data sets come from and go to: folders, files, runs, and a hub with its cache.
//!
//! ```text
//! name -> Models -> folder | `.gguf` file | adapter over a base | run | hub id -> cache -> download
//! folder -> Models::push -> hub
//! ```
//!
//! Nothing here prints or reads the environment: [`Settings`] say where things are, and an [`Observer`] hears
//! what goes on.

mod cache;
mod data_set;
mod digest;
mod download;
mod error;
mod event;
mod fetch;
mod files;
mod http;
mod id;
mod models;
mod parallel;
mod push;
mod refusal;
mod settings;
#[cfg(test)]
mod test_server;

pub use digest::sha256;
pub use error::{Cause, Error, Result};
pub use event::{Direction, Event, Observer};
pub use models::{Models, Outline, Resolved};
pub use push::{PushRequest, Pushed};
pub use settings::{Settings, StandIn};
