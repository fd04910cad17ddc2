//! The CPU backend: kernels compiled for several instruction sets, chosen at run time, on a fixed
//! set of threads.
//!
//! Every number is one chain of operations in a fixed order, so results depend neither on the
//! number of threads nor, row by row, on the other rows of a batch. They do depend on [`Isa`]
//! and [`Precision`].

#[cfg_attr(not(all(target_arch = "x86_64", target_os = "linux")), path = "amx_absent.rs")]
mod amx;
mod arena;
mod attention;
mod backend;
mod cast;
mod columns;
mod dora;
mod dropout;
mod embed;
mod gated;
mod gemm;
mod head;
mod isa;
mod math;
mod norm;
mod operand;
mod optimizer;
mod panel;
mod pool;
mod rope;
mod rows;
mod sample;
mod simd;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod weight;
mod workspace;

pub use crate::Precision;
pub use backend::{Cpu, CpuConfig};
pub use isa::Isa;
pub(crate) use isa::versions;
pub(crate) use pool::{Pool, Scratch};
