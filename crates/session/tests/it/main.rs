//! A tiny model, asked as every command asks.

mod failing;
mod tiny;

mod answers;
mod scores;
