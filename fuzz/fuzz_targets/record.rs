//! Any bytes as rows, and those as conversations.
#![no_main]

use std::path::Path;

use data::{Findings, Reading, record, source};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(rows) = source::parse(Path::new("rows.jsonl"), bytes) {
        let mut findings = Findings::default();
        let _ = record::conversations(rows, &Reading::default(), &mut findings);
    }
});
