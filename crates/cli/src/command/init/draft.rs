//! The recipe that `init` writes, every choice with its reason.

use std::fmt::Write as _;
use std::path::Path;

use keys::{Document, Origin, Settings as _};
use train::method::Method;
use train::recipe::{ModelSize, fill_by_data, schema};

use super::look::Look;
use super::objective::{objective, of_training};
use crate::context::Context;
use crate::error::Result;
use crate::terminal::style::count;

/// Fewer rows are all needed for training.
const ROWS_FOR_VALIDATION: usize = 20;
/// Validation rows: enough to see a trend, not so many that they slow the run down.
const VALIDATION_ROWS: (usize, usize) = (8, 500);
/// From so many rows on one pass is worth more than several.
const ROWS_FOR_ONE_EPOCH: usize = 20_000;
/// A run should make at least this many steps.
const STEPS_MIN: usize = 50;

/// What a recipe is written from.
pub(super) struct Draft<'a> {
    /// The model as the recipe names it.
    pub(super) model: String,
    /// The files as the recipe names them.
    pub(super) files: Vec<String>,
    /// Where the recipe will stand.
    pub(super) path: &'a Path,
    /// What the data look like.
    pub(super) look: &'a Look,
}

/// A recipe's text, and what to say about it.
pub(super) struct Written {
    pub(super) text: String,
    /// The run in a few words.
    pub(super) plan: String,
    pub(super) warnings: Vec<String>,
}

impl Draft<'_> {
    /// Writes the recipe and reads it again: what the user gets is known to be right.
    pub(super) fn write(&self, context: &Context) -> Result<Written> {
        let rows = self.look.rows;
        let kept_back = validation_rows(rows);
        let train_rows = rows - kept_back;
        // The defaults of `train` itself, with its own reasons.
        let mut document = self.parse(&self.first_half(kept_back), context)?;
        fill_by_data(&mut document, train_rows, ModelSize::default());
        let batch = document.get_usize("train.batch_size");
        let epochs = document.get_f64("train.epochs");
        let steps = (train_rows as f64 * epochs / batch as f64).ceil() as usize;
        let text = self.text(&document, kept_back, steps);
        self.parse(&text, context)?;

        let mut warnings = Vec::new();
        if kept_back == 0 {
            warnings.push(format!(
                "{rows} rows are too few to keep some back: nothing will tell when to stop"
            ));
        }
        if steps < STEPS_MIN {
            warnings
                .push(format!("{steps} steps are few: more rows will help more than any setting"));
        }
        let plan = format!(
            "{} steps of {batch} rows, {} rows kept back for validation",
            count(steps as u64),
            count(kept_back as u64)
        );
        Ok(Written { text, plan, warnings })
    }

    fn parse(&self, text: &str, context: &Context) -> Result<Document> {
        let read = |around: &keys::Surroundings<'_>| schema().parse(text, self.path, &[], around);
        Ok(context.environment.with_surroundings(read)?)
    }

    /// Model, method and data; epochs, on which the defaults of the rest depend.
    fn first_half(&self, kept_back: usize) -> String {
        let data = self.data(kept_back);
        let epochs = epochs(self.look.method, self.look.rows, kept_back).0;
        let (model, method) = (scalar(&self.model), self.look.method.name);
        format!("model: {model}\nmethod: {method}\n{data}train:\n  epochs: {epochs}\n")
    }

    fn data(&self, kept_back: usize) -> String {
        let Look { rows, lengths, max_positions, .. } = self.look;
        let mut text = String::from("data:\n  train:\n");
        for file in &self.files {
            _ = writeln!(text, "    - path: {}", scalar(file));
        }
        if kept_back > 0 {
            // Rounded so that it reads well; the rows come out the same within one.
            let fraction = (kept_back as f64 / *rows as f64 * 1000.0).round() / 1000.0;
            _ = writeln!(text, "  validation:");
            let why = match kept_back {
                n if n == VALIDATION_ROWS.0 => "few rows, so a larger share".to_owned(),
                n if n == VALIDATION_ROWS.1 => format!("{n} rows are enough to see a trend"),
                n => format!("one row in ten: {n} rows"),
            };
            text += &line(4, "fraction", &fraction.max(0.001).to_string(), &why);
        }
        let longest = lengths.longest();
        let about = if lengths.is_estimate() { "about " } else { "" };
        match max_positions.filter(|&positions| lengths.beyond(positions) > 0) {
            Some(positions) => {
                let why = "the most that the model was made for".to_owned();
                text += &line(2, "max_seq_len", &positions.to_string(), &why);
                let why = format!("{} rows are longer", lengths.beyond(positions));
                text += &line(2, "overlong", "skip", &(why + "; `truncate` keeps their beginning"));
            }
            None => {
                let why = format!("the longest row: {about}{longest} tokens");
                text += &line(2, "max_seq_len", "auto", &why);
            }
        }
        text
    }

    fn text(&self, document: &Document, kept_back: usize, steps: usize) -> String {
        let shown = |key: &str| document.get_f64(key).to_string();
        let why = |key: &str| reason(document, key);
        let rows = count(self.look.rows as u64);
        let method = self.look.method.name;
        let learned = self.look.learned();
        let mut text = format!("# Written by `tunesmith init {method}`. {rows} rows, {learned}.\n");
        _ = writeln!(text, "# Tokens: {}.", self.look.lengths.tell());
        _ = writeln!(text, "\nmodel: {}\nmethod: {method}\n", scalar(&self.model));
        text += "adapter:\n";
        text += &line(2, "type", "lora", "small matrices over a frozen base");
        text += &line(2, "rank", &shown("adapter.rank"), &why("adapter.rank"));
        text += &line(2, "alpha", &shown("adapter.alpha"), &why("adapter.alpha"));
        text += &line(2, "target_modules", "all-linear", "of attention and MLP alike");
        text += "\n";
        text += &objective(self.look.method, document);
        text += &self.data(kept_back);
        text += &sampled(self.look.method, document);
        text += "\ntrain:\n";
        let (epochs, reason) = epochs(self.look.method, self.look.rows, kept_back);
        text += &line(2, "epochs", &epochs.to_string(), &reason);
        let why_batch = format!("{}; {steps} steps in all", why("train.batch_size"));
        text += &line(2, "batch_size", &shown("train.batch_size"), &why_batch);
        // It depends on the model, which is not read here.
        let rate = format!("{:.1e}", document.get_f64("train.learning_rate"));
        let why_rate = format!("{}; the default follows the model", why("train.learning_rate"));
        text += &line(2, "# learning_rate", &rate, &why_rate);
        text +=
            &line(2, "schedule", "{type: cosine, warmup_ratio: 0.03}", "up fast, then slowly to 0");
        if kept_back > 0 {
            let every = shown("train.evaluate_every.steps");
            text += &line(2, "evaluate_every", &every, "steps between two validations");
        }
        text += &of_training(self.look.method);
        text += "\nseed: 1\n# output: runs/NAME      without it runs/<recipe>-NNN\n";
        text
    }
}

/// How answers are sampled and rewarded; empty for methods that learn from rows as they are.
fn sampled(method: &Method, document: &Document) -> String {
    if method.online.is_none() {
        return String::new();
    }
    let mut text = "\nrollout:\n".to_owned();
    let group = document.get_usize("rollout.group_size").to_string();
    text += &line(2, "group_size", &group, "answers to each prompt");
    let longest = document.get_usize("rollout.max_new_tokens").to_string();
    text += &line(2, "max_new_tokens", &longest, "a longer answer is cut");
    let temperature = document.get_f64("rollout.temperature").to_string();
    text += &line(2, "# temperature", &temperature, "lower for a small model that rambles");
    if !method.learns_from_rewards() {
        text += "\ndistill:\n";
        text += "  # teacher: org/large      a larger model with the same tokenizer; without it the model itself teaches\n";
        text += "  system: You are an expert. Think first, then answer exactly what was asked.      # what the teacher sees\n";
        return text;
    }
    text += "\nrewards:\n";
    text += "  - grader: number      # the last number of an answer is that of the row; docs/graders.md has the others\n";
    text += "  # - {command: [python3, reward.py], weight: 1}      a program: docs/rewards.md\n";
    text
}

/// Rows to keep back.
fn validation_rows(rows: usize) -> usize {
    match rows {
        0..ROWS_FOR_VALIDATION => 0,
        _ => (rows / 10).clamp(VALIDATION_ROWS.0, VALIDATION_ROWS.1),
    }
}

fn epochs(method: &Method, rows: usize, kept_back: usize) -> (f64, String) {
    let usual = method.usual.epochs;
    if rows >= ROWS_FOR_ONE_EPOCH {
        return (1.0, "with so many rows one pass does most of the work".into());
    }
    let why = match kept_back {
        _ if usual == 1.0 => format!("one pass is usual for {}", method.name),
        0 => "passes over the rows".into(),
        _ => "the best adapter on the way is kept, by validation loss".into(),
    };
    (usual, why)
}

/// Why the program chose a value.
fn reason(document: &Document, key: &str) -> String {
    match document.setting(key).map(|setting| &setting.origin) {
        Some(Origin::Chosen(reason)) => reason.clone(),
        _ => "default".to_owned(),
    }
}

/// `key: value  # why`, the reasons in one column.
pub(super) fn line(indent: usize, key: &str, value: &str, why: &str) -> String {
    let setting = format!("{:indent$}{key}: {value}", "");
    format!("{setting:<29} # {why}\n")
}

/// A text as YAML: as it is where it can only be read as itself, else quoted.
fn scalar(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./@+".contains(c);
    let begins_well = text.starts_with(|c: char| c.is_alphabetic() || c == '.' || c == '/');
    let words = ["true", "false", "null", "yes", "no", "on", "off", "none"];
    if begins_well && text.chars().all(plain) && !words.contains(&text.to_lowercase().as_str()) {
        return text.to_owned();
    }
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_rows_are_kept_back_where_there_are_enough() {
        for (rows, expected) in
            [(0, 0), (19, 0), (20, 8), (50, 8), (100, 10), (4_990, 499), (90_000, 500)]
        {
            assert_eq!(validation_rows(rows), expected, "{rows}");
        }
    }

    #[test]
    fn names_are_quoted_where_yaml_would_read_something_else() {
        for (text, expected) in [
            ("a.jsonl", "a.jsonl"),
            ("/data/a b.jsonl", "\"/data/a b.jsonl\""),
            ("owner/name", "owner/name"),
            ("123", "\"123\""),
            ("a: b", "\"a: b\""),
            ("off", "\"off\""),
        ] {
            assert_eq!(scalar(text), expected);
        }
    }
}
