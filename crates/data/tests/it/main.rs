//! The data pipeline from outside: files in, sequences and forests out.

mod forests;
mod pipeline;
mod records;
mod shared;
mod supervision;
mod support;
