//! A report with something of everything, for tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use data::report::{
    Bin, Cut, FileReport, Lengths, Packed, Pairs, Report, Sample, SampleToken, Split,
};
use data::{Finding, Level, Place};

fn finding(id: &'static str, level: Level, lines: &[usize], message: &str, hint: &str) -> Finding {
    let file: Arc<Path> = Path::new("rows.jsonl").into();
    let place = |&line: &usize| Place { file: Arc::clone(&file), line, element: None };
    Finding {
        id: id.into(),
        level,
        count: 3 * lines.len(),
        places: lines.iter().map(place).collect(),
        message: message.to_owned(),
        hint: hint.to_owned(),
    }
}

/// Tokens: text, weight, and whether they are of control.
fn sample(place: &str, role: &str, tokens: &[(&str, f32, bool)]) -> Sample {
    let token = |(id, &(text, weight, special)): (usize, &(&str, f32, bool))| SampleToken {
        id: id as u32 + 1,
        text: text.to_owned(),
        weight,
        special,
    };
    Sample {
        place: place.to_owned(),
        role: role.to_owned(),
        tokens: tokens.iter().enumerate().map(token).collect(),
    }
}

/// The report.
pub(super) fn report() -> Report {
    let bin =
        |(index, &count): (usize, &usize)| Bin { from: 32 * index, to: 32 * (index + 1), count };
    let bins = [120, 310, 260, 140, 60, 0, 90].iter().enumerate().map(bin).collect();
    Report {
        rows_in: 1000,
        rows_trained: 880,
        rows_validation: 100,
        rows_left_out: vec![("overlong".to_owned(), 18), ("cannot be read".to_owned(), 2)],
        files: vec![FileReport {
            path: PathBuf::from("rows.jsonl"),
            purpose: "train",
            format: "alpaca".to_owned(),
            why: "every row has `instruction` and `output`".to_owned(),
            rows: 1000,
        }],
        findings: findings(),
        sequences: 980,
        tokens: 64_000,
        tokens_supervised: 16_000,
        lengths: Lengths {
            median: 60,
            p95: 200,
            longest: 223,
            bins,
            cuts: vec![Cut { max_seq_len: 128, sequences: 150, tokens: 7_100 }],
        },
        pairs: Some(Pairs {
            count: 1000,
            chosen_longer: 620,
            rejected_longer: 301,
            identical: 3,
            length_ratio: Some(1.12),
        }),
        packing: Packed {
            sequences: 1000,
            micro_batch_tokens: 1024,
            micro_batches: 64,
            fill: 0.955,
            tokens_computed: 56_320,
            shared: 0.12,
        },
        steps_per_epoch: Some(55),
        split: Some(Split { by: "cluster".to_owned(), rows: 100, parts: 87 }),
        size_guide: "1,000 rows: enough for a domain".to_owned(),
        samples: samples(),
        seconds: 0.4,
    }
}

fn findings() -> Vec<Finding> {
    vec![
        finding(
            "no-end-of-turn",
            Level::Error,
            &[4, 9],
            "the end of the turn is never trained",
            "end the template's turn with the model's end-of-turn token",
        ),
        finding(
            "double-bos",
            Level::Error,
            &[12],
            "the text begins with two `<s>`",
            "take `<s>` out of the rows & the template",
        ),
        finding(
            "near-duplicates",
            Level::Warning,
            &[1, 2, 3],
            "rows that are nearly the same",
            "look at them: copies weigh more than they should",
        ),
        finding(
            "unused-columns",
            Level::Note,
            &[1],
            "columns that are not trained on: `id`",
            "if one of them is meant, name it with `columns`",
        ),
    ]
}

fn samples() -> Vec<Sample> {
    vec![
        sample(
            "rows.jsonl:1",
            "row",
            &[
                ("<|user|>", 0.0, true),
                ("\n", 0.0, false),
                ("2 <", 0.0, false),
                (" 3?", 0.0, false),
                ("<|assistant|>", 0.0, true),
                ("\n", 0.0, false),
                ("Yes", 1.0, false),
                (",\n", 1.0, false),
                ("it is.", 1.0, false),
                ("<|end|>", 1.0, true),
                ("\n", 0.0, false),
            ],
        ),
        sample(
            "rows.jsonl:2",
            "chosen",
            &[("<|user|>", 0.0, true), ("a\tb", 0.0, false), ("half", 0.5, false)],
        ),
    ]
}
