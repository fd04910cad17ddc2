//! Adapters: small trained matrices over a frozen decoder, and their files.

mod lora;
mod peft;

pub use lora::{Adapter, Lora, LoraConfig, LoraKind};
pub use peft::PeftMetadata;
