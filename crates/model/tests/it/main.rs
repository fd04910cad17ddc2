//! Decoders against PyTorch, and the invariants that PyTorch cannot show.

mod adapters;
mod architectures;
mod batcher;
mod bitsandbytes;
mod broken;
mod checkpoint;
mod classifier;
mod combinations;
mod differences;
mod generation;
mod gguf_file;
mod invariants;
mod longrope;
mod merged;
mod peft;
mod quantized_files;
mod reward;
mod smollm2;
mod subject;
mod support;
mod tiny;
mod watched;
