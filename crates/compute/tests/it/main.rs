//! Tests of the public face of `compute`.

mod cpu;
mod dequant;
mod measure;
mod optimizers;
mod quantize;
mod reference;
