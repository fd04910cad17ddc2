//! Any bytes as a Parquet file, an Arrow file and an Arrow stream.
#![no_main]

use std::path::Path;

const MAGICS: [&[u8]; 3] = [b"PAR1", b"ARROW1\0\0", b"\xff\xff\xff\xff"];

libfuzzer_sys::fuzz_target!(init: {
    // Without this any panic ends the run; `source` makes errors of those of
    // the Arrow readers. One that gets out of it still aborts.
    std::panic::set_hook(Box::new(|_| {}));
}, |bytes: &[u8]| {
    // As they are for a corpus of whole files, then behind each magic.
    read(bytes);
    for magic in MAGICS {
        read(&[magic, bytes].concat());
    }
});

/// The first rows: a few bytes may well stand for billions of equal ones.
fn read(bytes: &[u8]) {
    if let Ok(rows) = data::source::open_bytes(Path::new("rows"), bytes) {
        rows.take(1000).for_each(drop);
    }
}
