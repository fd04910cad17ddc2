//! What is to be compared, and how thoroughly.

use std::path::{Path, PathBuf};

/// What `cargo xtask bench-peers` takes.
pub(super) const USAGE: &str = "\
cargo xtask bench-peers DIR [--only PART,...] [--rows FILE] [--count N] [--rounds N] [--quick]
                        [--threads N] [--also KEY=VALUE]... [--tunesmith PATH] [--python PYTHON]
    measures Tunesmith beside TRL, a PyTorch loop, transformers and llama.cpp, sides alternating;
    makes DIR ready where it is not (several GB). Parts: sft, dpo, random, decode, prompt, start; sft
    needs an Alpaca file of rows, dpo one with `chosen` and `rejected`, and `--also` gives them a second
    Tunesmith with that recipe key
cargo xtask bench-peers DIR --plots OUT [--quick] [--threads N] [--tunesmith PATH]
    draws speed and memory of training against length, batch, threads and model into OUT
";

/// A kind of work that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Supervised fine-tuning on instruction rows.
    Sft,
    /// Preference optimization on pairs of answers.
    Dpo,
    /// Training on random tokens, every one learned.
    Random,
    /// New tokens after short prompts.
    Decode,
    /// A long prompt.
    Prompt,
    /// A cold start to the first token.
    Start,
}

impl Part {
    /// In the order in which they are measured.
    pub(super) const ALL: [Part; 6] =
        [Part::Sft, Part::Dpo, Part::Random, Part::Decode, Part::Prompt, Part::Start];

    /// The word on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Part::Sft => "sft",
            Part::Dpo => "dpo",
            Part::Random => "random",
            Part::Decode => "decode",
            Part::Prompt => "prompt",
            Part::Start => "start",
        }
    }

    /// What every row of `--rows` must have; nothing where there are no rows.
    pub(super) fn columns(self) -> &'static [&'static str] {
        match self {
            Part::Sft => &["instruction", "output"],
            Part::Dpo => &["instruction", "chosen", "rejected"],
            Part::Random | Part::Decode | Part::Prompt | Part::Start => &[],
        }
    }

    /// Whether llama.cpp is a side of it.
    pub(super) fn has_llama(self) -> bool {
        matches!(self, Part::Decode | Part::Prompt | Part::Start)
    }
}

/// The words after `bench-peers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// Where the peers are, and what is measured is kept.
    pub(super) folder: PathBuf,
    /// What is compared.
    pub(super) only: Vec<Part>,
    /// An Alpaca file of instruction rows.
    pub(super) rows: Option<PathBuf>,
    /// How many of them are trained on.
    pub(super) count: usize,
    /// How often every side runs.
    pub(super) rounds: usize,
    /// Half the work.
    pub(super) quick: bool,
    /// Compute threads of every side.
    pub(super) threads: usize,
    /// Recipe keys of further Tunesmiths.
    pub(super) also: Vec<String>,
    /// The binary that is measured.
    pub(super) tunesmith: PathBuf,
    /// What makes the virtual environment.
    pub(super) python: String,
    /// Where curves are drawn, in place of comparisons.
    pub(super) plots: Option<PathBuf>,
}

impl Arguments {
    /// Reads what stands after `bench-peers`.
    pub(crate) fn parse(given: &[&str]) -> Result<Self, String> {
        let mut folder = None;
        let mut made = Arguments {
            folder: PathBuf::new(),
            only: Part::ALL.to_vec(),
            rows: None,
            count: 0,
            rounds: 3,
            quick: false,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            also: Vec::new(),
            tunesmith: crate::root().join("target/release/tunesmith"),
            python: "python3".to_owned(),
            plots: None,
        };
        let mut rest = given.iter();
        while let Some(&word) = rest.next() {
            let mut value =
                || rest.next().copied().ok_or_else(|| format!("`{word}` needs a value"));
            match word {
                "--only" => made.only = parts(value()?)?,
                "--rows" => made.rows = Some(absolute(value()?)?),
                "--count" => made.count = number(word, value()?)?,
                "--rounds" => made.rounds = number(word, value()?)?,
                "--quick" => made.quick = true,
                "--threads" => made.threads = number(word, value()?)?,
                "--also" => made.also.push(value()?.to_owned()),
                "--tunesmith" => made.tunesmith = absolute(value()?)?,
                "--python" => made.python = value()?.to_owned(),
                "--plots" => made.plots = Some(absolute(value()?)?),
                option if option.starts_with('-') => {
                    return Err(format!("there is no option `{option}`"));
                }
                path if folder.is_none() => folder = Some(absolute(path)?),
                _ => return Err(format!("`{word}` is one too many")),
            }
        }
        made.folder = folder.ok_or("which folder holds the peers, or shall hold them?")?;
        if made.count == 0 {
            made.count = if made.quick { 48 } else { 96 };
        }
        Ok(made)
    }

    /// The command as it can be typed again; paths of this machine do not matter.
    pub(super) fn shown(&self, part: Part) -> String {
        let mut line = format!("cargo xtask bench-peers DIR --only {}", part.name());
        if !part.columns().is_empty() {
            line += &format!(" --rows FILE --count {}", self.count);
            for setting in &self.also {
                line += &format!(" --also {setting}");
            }
        }
        if self.quick {
            line += " --quick";
        }
        format!("{line} --threads {} --rounds {}", self.threads, self.rounds)
    }
}

fn absolute(path: &str) -> Result<PathBuf, String> {
    std::path::absolute(Path::new(path)).map_err(|error| format!("{path}: {error}"))
}

fn number(option: &str, value: &str) -> Result<usize, String> {
    let parsed = value.parse().ok().filter(|&number| number > 0);
    parsed.ok_or_else(|| format!("`{option}` takes a whole number of at least 1, not `{value}`"))
}

fn parts(list: &str) -> Result<Vec<Part>, String> {
    let find = |name: &str| {
        let part = Part::ALL.into_iter().find(|part| part.name() == name);
        let names = || Part::ALL.map(Part::name).join(", ");
        part.ok_or_else(|| format!("no part `{name}`; there are {}", names()))
    };
    list.split(',').map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let given = "/peers --only decode,sft --rows /r.json --quick --rounds 2 --threads 3";
        let given: Vec<&str> = given.split(' ').collect();
        let parsed = Arguments::parse(&given).unwrap();
        assert_eq!(parsed.folder, Path::new("/peers"));
        assert_eq!(parsed.only, [Part::Decode, Part::Sft]);
        assert_eq!((parsed.count, parsed.rounds, parsed.threads), (48, 2, 3));
        assert_eq!(
            parsed.shown(Part::Sft),
            "cargo xtask bench-peers DIR --only sft --rows FILE --count 48 --quick --threads 3 --rounds 2"
        );
    }

    #[track_caller]
    fn check_refused(given: &[&str], part: &str) {
        let message = Arguments::parse(given).unwrap_err();
        assert!(message.contains(part), "{message}");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        check_refused(&[], "which folder");
        check_refused(&["a", "b"], "`b` is one too many");
        check_refused(&["a", "--only", "sft,fast"], "no part `fast`; there are sft, dpo, random");
        check_refused(&["a", "--rounds", "0"], "whole number of at least 1, not `0`");
        check_refused(&["a", "--rows"], "`--rows` needs a value");
        check_refused(&["a", "--slow"], "no option `--slow`");
    }
}
