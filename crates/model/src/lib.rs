//! Decoders over a [`compute::Backend`]: what a checkpoint's tensors mean, the
//! forward and backward through them, adapters, the head, and generation.
//!
//! This room knows shapes and names; how a weight is stored and multiplied belongs
//! to `compute`, and what a loss is to `train`.

pub mod adapter;
pub mod architecture;
pub mod checkpoint;
pub mod config;
pub mod decoder;
pub mod divergence;
mod error;
pub mod generate;
pub mod merge;
mod scalar_head;
pub mod tensor;

pub use adapter::{Adapter, LoraConfig};
pub use checkpoint::Base;
pub use config::Config;
pub use decoder::{Decoder, Hidden, Keep, LoadOptions, Module, Pass, Selection, Training};
pub use decoder::{DivergenceRequest, TeacherStates};
pub use decoder::{HeadGradients, HeadOutputs, HeadRequest, LookupSums, Want};
pub use error::{Error, Result};
pub use scalar_head::ScalarHead;
pub use tensor::{Optimizers, Role, TrainedTensor};
