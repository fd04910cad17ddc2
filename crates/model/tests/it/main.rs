//! Decoders against PyTorch, and the invariants that PyTorch cannot show.

mod checkpoint;
mod differences;
mod generation;
mod gguf_file;
mod invariants;
mod peft;
mod smollm2;
mod support;
mod tiny;
