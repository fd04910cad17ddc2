//! Devices: memory, weights and about twenty operations, each with its backward.
//!
//! This room knows no model and no objective. [`Backend`] is the seam; the f64
//! `reference` is the oracle that every other backend is compared with, and
//! `conformance` holds the rows of that comparison.

pub mod backend;
pub mod buffer;
pub mod conformance;
pub mod cpu;
pub mod dequant;
mod device;
mod error;
mod finite;
mod footprint;
pub mod measure;
pub mod op;
pub mod optimizer;
pub mod quantize;
pub mod random;
pub mod reference;
pub mod weight;
mod wrapper;

pub use backend::{Backend, Device, Precision};
pub use buffer::{Buffer, DType, Mark, Region};
pub use device::{DeviceConfig, MemoryLimits, open};
pub use error::{Error, Result};
pub use finite::all_finite;
pub use footprint::{Footprint, Kept};
pub use measure::{Measure, Measured};
pub use op::Op;
pub use optimizer::{DynamicMap, Optimizer, OptimizerKind, Shape};
pub use reference::Reference;
pub use weight::{
    Absmax, LookupSource, Owner, Parameter, ParameterPart, Quantization, QuantizedSource,
    QuantizedValues, Storage, Weight, WeightSource,
};
pub use wrapper::{Transfer, Wrapper};
