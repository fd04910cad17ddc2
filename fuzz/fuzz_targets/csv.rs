//! Any bytes as CSV and as TSV.
#![no_main]

use std::path::Path;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = data::source::parse(Path::new("rows.csv"), bytes);
    let _ = data::source::parse(Path::new("rows.tsv"), bytes);
});
