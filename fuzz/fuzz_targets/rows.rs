//! Any bytes as a file whose content alone tells the format.
#![no_main]

use std::path::Path;

libfuzzer_sys::fuzz_target!(init: {
    // Without this any panic ends the run; `source` makes errors of those of
    // the Arrow readers. One that gets out of it still aborts.
    std::panic::set_hook(Box::new(|_| {}));
}, |bytes: &[u8]| {
    let _ = data::source::parse(Path::new("rows"), bytes);
});
