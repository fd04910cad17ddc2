//! How training scales: against length, batch, threads and model, by `tunesmith bench`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::arguments::Arguments;
use super::figures::Reading;
use super::machine::{self, Machine};
use super::plots;
use super::runner::{self, Invocation};

/// The model whose length, batch and threads are varied.
const SHAPE: &str = "smollm2-135m";
/// Models of growing size.
const SHAPES: [&str; 4] = ["smollm2-135m", "smollm2-360m", "qwen2.5-0.5b", "llama-3.2-1b"];
/// Lengths of sequences, with as many sequences as make a step of the longest.
const LENGTHS: [usize; 5] = [128, 256, 512, 1024, 2048];
/// Lengths of a sequence that is a step by itself, each in one micro-batch.
const ALONE: [usize; 5] = [256, 512, 1024, 2048, 4096];
/// Sequences in a step.
const BATCHES: [usize; 5] = [1, 2, 4, 8, 16];
/// Tokens of a sequence where the length is not varied.
const LENGTH: usize = 256;
const RANK: usize = 16;
/// A point that takes longer is left out.
const LONGEST: Duration = Duration::from_secs(30 * 60);

/// A curve, measured or to be measured.
#[derive(Debug)]
pub(super) struct Curve {
    /// Name of its file.
    pub(super) name: &'static str,
    /// What is drawn.
    pub(super) title: String,
    /// What is varied.
    pub(super) axis: &'static str,
    /// In the order of the axis.
    pub(super) points: Vec<Point>,
}

/// A place on a curve.
#[derive(Debug)]
pub(super) struct Point {
    /// What stands under it.
    pub(super) label: String,
    shape: &'static str,
    sequences: usize,
    tokens: usize,
    threads: usize,
    /// Tokens a second and bytes held.
    pub(super) measured: Option<(f64, Option<u64>)>,
}

/// Measures every curve and draws it into a folder, with the figures as JSON beside.
pub(super) fn draw(arguments: &Arguments, folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let machine = Machine::look();
    let mut kept = Vec::new();
    for mut curve in curves(arguments) {
        println!("{}", curve.title);
        for point in &mut curve.points {
            match point.measure(arguments) {
                Ok(measured) => {
                    println!("  {}: {:.0} tokens/s", point.label, measured.0);
                    point.measured = Some(measured);
                }
                Err(why) => println!("  {}: {why}", point.label),
            }
        }
        kept.push(curve.to_json());
        let path = folder.join(format!("{}.svg", curve.name));
        if curve.points.iter().any(|point| point.measured.is_some()) {
            plots::write(&curve, &machine.shown(), &path)?;
            println!("  drawn in {}", path.display());
        }
    }
    let report = json!({
        "date": machine::today(),
        "machine": machine.to_json(),
        "commit": machine::commit(),
        "curves": kept,
    });
    let path = folder.join("scaling.json");
    fs::write(&path, format!("{report:#}\n"))
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// What is to be measured; every other point where it shall be quick.
fn curves(arguments: &Arguments) -> Vec<Curve> {
    let &Arguments { threads, quick, .. } = arguments;
    let point = |label: String, shape, sequences, tokens, threads| Point {
        label,
        shape,
        sequences,
        tokens,
        threads,
        measured: None,
    };
    let step = LENGTHS[LENGTHS.len() - 1];
    let lengths =
        LENGTHS.map(|length| point(length.to_string(), SHAPE, step / length, length, threads));
    let batches = BATCHES.map(|sequences| {
        point((sequences * LENGTH).to_string(), SHAPE, sequences, LENGTH, threads)
    });
    let by_threads = thread_counts(threads)
        .into_iter()
        .map(|threads| point(threads.to_string(), SHAPE, 8, LENGTH, threads));
    let models = SHAPES.map(|shape| point(shape.to_owned(), shape, 4, LENGTH, threads));
    let curve = |name, title, axis, points: Vec<Point>| {
        let every = if quick { 2 } else { 1 };
        let points = points.into_iter().step_by(every).collect();
        Curve { name, title, axis, points }
    };
    let of = |what: &str| format!("training {what}, LoRA rank {RANK}");
    vec![
        curve(
            "length",
            of(&format!("{SHAPE} by length, {step} tokens a step")),
            "tokens of a sequence",
            lengths.into(),
        ),
        curve(
            "alone",
            of(&format!("{SHAPE}, one sequence a step")),
            "tokens of the sequence",
            ALONE.map(|tokens| point(tokens.to_string(), SHAPE, 1, tokens, threads)).into(),
        ),
        curve(
            "batch",
            of(&format!("{SHAPE} by batch, sequences of {LENGTH}")),
            "tokens of a step",
            batches.into(),
        ),
        curve(
            "threads",
            of(&format!("{SHAPE} by threads, 8 x {LENGTH} tokens a step")),
            "threads",
            by_threads.collect(),
        ),
        curve(
            "model",
            of(&format!("models by size, 4 x {LENGTH} tokens a step")),
            "model",
            models.into(),
        ),
    ]
}

/// Powers of two up to the number of threads, and that number.
fn thread_counts(threads: usize) -> Vec<usize> {
    let doubled = std::iter::successors(Some(1), |count| Some(count * 2));
    doubled.take_while(|&count| count < threads).chain([threads]).collect()
}

impl Point {
    fn measure(&self, arguments: &Arguments) -> Result<(f64, Option<u64>), String> {
        let Point { shape, sequences, tokens, threads, .. } = self;
        let words = format!(
            "bench --shape {shape} --only train --sequences {sequences} --tokens {tokens} \
             --rank {RANK} --json --offline --threads {threads}"
        );
        let invocation = Invocation {
            program: arguments.tunesmith.clone(),
            arguments: words.split(' ').map(str::to_owned).collect(),
            leaves: None,
        };
        let output = runner::run(&invocation, &[], LONGEST)?;
        let figures = Reading::BenchRow("train").of(output)?;
        Ok((figures.figure, figures.peak_bytes))
    }
}

impl Curve {
    fn to_json(&self) -> Value {
        let points = self.points.iter().map(|point| {
            let (tokens_per_s, peak_bytes) = point.measured.unzip();
            json!({
                "label": point.label,
                "shape": point.shape,
                "sequences": point.sequences,
                "tokens": point.tokens,
                "threads": point.threads,
                "tokens_per_s": tokens_per_s,
                "peak_bytes": peak_bytes.flatten(),
            })
        });
        json!({"name": self.name, "title": self.title, "points": points.collect::<Vec<_>>()})
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Curves with made-up figures.
    pub(in super::super) fn examples() -> Vec<Curve> {
        let arguments = Arguments::parse(&["/peers", "--threads", "6"]).unwrap();
        let mut curves = curves(&arguments);
        for curve in &mut curves {
            for (at, point) in curve.points.iter_mut().enumerate() {
                point.measured = Some((100.0 * (at + 1) as f64, Some(400_000_000)));
            }
        }
        curves
    }

    #[test]
    fn threads_double() {
        assert_eq!(thread_counts(1), [1]);
        assert_eq!(thread_counts(6), [1, 2, 4, 6]);
        assert_eq!(thread_counts(8), [1, 2, 4, 8]);
    }

    #[test]
    fn a_step_is_as_long_whatever_the_length() {
        let curves = examples();
        let steps = curves[0].points.iter().map(|point| point.sequences * point.tokens);
        assert!(steps.into_iter().all(|tokens| tokens == 2048));
        assert_eq!(curves[0].to_json()["points"][1]["tokens_per_s"], 200.0);
        assert!(curves[1].points.iter().all(|point| point.sequences == 1));
        assert_eq!(curves[3].points.len(), 4);
    }
}
