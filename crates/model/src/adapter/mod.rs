//! Adapters: small trained matrices over a decoder, and their files.

mod adapted;
mod config;
mod coverage;
mod dora;
mod eigen;
mod initial;
mod lora;
mod peft;
mod pissa;
mod principal;
mod stack;

pub use config::{LoraConfig, LoraKind, MatrixInfo};
pub use coverage::{Coverage, Target};
pub use dora::Dora;
pub use lora::{Adapter, Lora, TokenRows};
pub use peft::{LoadedAdapter, PeftMetadata};
