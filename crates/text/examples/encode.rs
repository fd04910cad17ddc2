//! How fast texts are encoded, by the `tokenizers` library and by this crate, in turn:
//! `cargo run --release --example encode -- TEXT_FILE TOKENIZER`, the latter a GGUF file or a `tokenizer.json`.
#![allow(clippy::print_stdout)]

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use std::{env, fs, thread};

use text::{Tokenizer, gguf};

type Encode<'a> = &'a (dyn Fn(&str) -> usize + Sync);

fn main() {
    let mut args = env::args().skip(1);
    let (Some(text), Some(path)) = (args.next(), args.next()) else {
        panic!("usage: encode TEXT_FILE TOKENIZER");
    };
    let text = fs::read_to_string(text).expect("the text is UTF-8");
    let lines: Vec<&str> = text.lines().collect();
    let bytes = fs::read(&path).expect("the tokenizer can be read");

    let start = Instant::now();
    let tokenizer = match path.ends_with(".gguf") {
        true => gguf::Metadata::parse(Path::new(&path), &bytes, bytes.len() as u64)
            .and_then(|metadata| Tokenizer::from_gguf(&metadata)),
        false => Tokenizer::from_bytes(&bytes),
    }
    .expect("a tokenizer");
    let loaded = start.elapsed();
    let json = tokenizer.to_json().expect("JSON");
    let start = Instant::now();
    let library = tokenizers::Tokenizer::from_bytes(&json).expect("the same tokenizer");
    println!("loaded in {loaded:?}, by the library from JSON in {:?}", start.elapsed());
    println!("fast path: {}", tokenizer.has_fast_path());

    let slow = |line: &str| library.encode_fast(line, false).expect("ids").get_ids().len();
    let fast = |line: &str| tokenizer.encode(line).expect("ids").len();
    for round in 1..=3 {
        for threads in [1, 2] {
            for (name, encode) in [("library", &slow as Encode<'_>), ("fast", &fast)] {
                let (tokens, seconds) = measure(&lines, encode, threads);
                let speed = text.len() as f64 / 1e6 / seconds;
                println!(
                    "round {round}, {threads} threads, {name}: {speed:.1} MB/s, {tokens} tokens"
                );
            }
        }
    }
}

/// The number of tokens of all lines, and the seconds that it took.
fn measure(lines: &[&str], encode: Encode<'_>, threads: usize) -> (usize, f64) {
    let (next, tokens) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(line) = lines.get(next.fetch_add(1, Ordering::Relaxed)) {
                    tokens.fetch_add(encode(line), Ordering::Relaxed);
                }
            });
        }
    });
    (tokens.into_inner(), start.elapsed().as_secs_f64())
}
