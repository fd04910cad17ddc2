//! The data pipeline from outside: files in, sequences and forests out.

mod asking;
mod audit;
mod context;
mod forests;
mod masks;
mod pipeline;
mod prepared;
mod records;
mod records_kinds;
mod records_tools;
mod shared;
mod sources;
mod supervision;
mod supervision_proof;
mod supervision_properties;
mod supervision_records;
mod support;
mod tables;
