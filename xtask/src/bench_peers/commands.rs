//! The command lines of every side: Tunesmith's own, and those of the scripts in `xtask/bench/peers`.

use std::fs;
use std::path::Path;

use super::arguments::{Arguments, Part};
use super::contest::Candidate;
use super::figures::Reading;
use super::instructions::Instructions;
use super::machine::Machine;
use super::runner::Invocation;
use super::setup::{Place, word};

/// LoRA of every side that trains.
pub(super) const RANK: usize = 16;
const ALPHA: usize = 32;
/// Rows in an optimizer step.
pub(super) const BATCH: usize = 8;
/// What a cold start answers.
const GREETING: &str = "Hi";

/// What command lines depend on.
pub(super) struct Commands<'a> {
    /// What was asked for.
    pub(super) arguments: &'a Arguments,
    /// Where the peers are.
    pub(super) place: &'a Place,
    /// What the machine can do.
    pub(super) machine: &'a Machine,
}

impl Commands<'_> {
    /// `tunesmith train` over the rows, with one more setting.
    pub(super) fn train(
        &self,
        part: Part,
        rows: &Instructions,
        also: Option<&str>,
    ) -> Result<Candidate, String> {
        let (recipe, run) =
            (self.place.bench().join("recipe.yaml"), self.place.bench().join("run"));
        // A JSON string is a YAML string, whatever stands in the path.
        let quoted = |path: &Path| serde_json::Value::from(word(path)).to_string();
        let text = format!(
            "model: {}\nmethod: {}\nadapter: {{type: lora, rank: {RANK}, alpha: {ALPHA}}}\n\
             data: {{train: [{{path: {}}}]}}\ntrain: {{epochs: 1, batch_size: {BATCH}}}\n\
             output: {}\n",
            quoted(&self.place.model_folder()),
            part.name(),
            quoted(&rows.timed),
            quoted(&run)
        );
        fs::write(&recipe, text).map_err(|error| format!("{}: {error}", recipe.display()))?;
        let mut words = vec!["train".to_owned(), word(&recipe)];
        words.extend(also.map(str::to_owned));
        let invocation = Invocation { leaves: Some(run), ..self.tunesmith(words) };
        Ok(candidate("bf16", invocation, Reading::Field("rows_per_s")))
    }

    /// A part of `tunesmith bench` over a folder or a GGUF file.
    pub(super) fn bench(&self, model: &Path, part: &'static str, words: &str) -> Candidate {
        let mut all: Vec<String> =
            ["bench", &word(model), "--only", part].map(str::to_owned).into();
        all.extend(words.split_whitespace().map(str::to_owned));
        candidate(weights(model), self.tunesmith(all), Reading::BenchRow(part))
    }

    /// `tunesmith generate` for one token.
    pub(super) fn first_token(&self, model: &Path) -> Candidate {
        let words = ["generate", &word(model), "--prompt", GREETING, "--max-new-tokens", "1"];
        let invocation = self.tunesmith(words.map(str::to_owned).into());
        candidate(weights(model), invocation, Reading::Wall)
    }

    /// TRL's defaults, which keep few activations: batch 8, no packing. Where bf16 is slow, f32 too.
    pub(super) fn trl_as_it_comes(&self, part: Part, rows: &Instructions) -> Vec<Candidate> {
        let words = |dtype: &&str| format!("--batch {BATCH} --dtype {dtype}");
        self.usable_dtypes().iter().map(|dtype| self.trl(part, rows, &words(dtype))).collect()
    }

    /// The same, with all activations kept.
    pub(super) fn trl_without_checkpointing(&self, rows: &Instructions) -> Vec<Candidate> {
        let words = |dtype: &&str| format!("--batch {BATCH} --dtype {dtype} --no-checkpointing");
        self.usable_dtypes().iter().map(|dtype| self.trl(Part::Sft, rows, &words(dtype))).collect()
    }

    /// What somebody who wants speed would try, all activations kept.
    pub(super) fn trl_sweep(&self, rows: &Instructions) -> Vec<Candidate> {
        let [fast, other] = self.dtypes();
        let grouped = "--group-by-length";
        let mut sweep = vec![
            format!("--batch 8 {grouped} --dtype {fast}"),
            format!("--batch 4 --accumulate 2 {grouped} --dtype {fast}"),
            format!("--batch 2 --accumulate 4 --dtype {fast}"),
            format!("--batch 1 --pack 1024 --dtype {fast}"),
            format!("--batch 8 --padding-free --dtype {fast}"),
        ];
        if !self.arguments.quick {
            sweep.extend([
                format!("--batch 1 --accumulate 8 --dtype {fast}"),
                format!("--batch 2 --accumulate 4 {grouped} --dtype {fast}"),
                format!("--batch 4 --accumulate 2 --dtype {fast}"),
                format!("--batch 16 --dtype {fast}"),
                format!("--batch 16 {grouped} --dtype {fast}"),
                format!("--batch 1 --accumulate 2 --pack 512 --dtype {fast}"),
                format!("--batch 8 {grouped} --dtype {other}"),
                format!("--batch 8 {grouped} --dtype bf16 --no-autocast"),
            ]);
        }
        let keeping_all =
            |words: &String| self.trl(Part::Sft, rows, &format!("{words} --no-checkpointing"));
        sweep.iter().map(keeping_all).collect()
    }

    /// As [`trl_sweep`](Commands::trl_sweep), over pairs: a batch has twice as many sequences.
    pub(super) fn trl_dpo_sweep(&self, rows: &Instructions, precomputed: bool) -> Vec<Candidate> {
        let [fast, other] = self.dtypes();
        let mut ways = vec![
            format!("--batch 8 --sorted --dtype {fast}"),
            format!("--batch 4 --accumulate 2 --sorted --dtype {fast}"),
            format!("--batch 2 --accumulate 4 --sorted --dtype {fast}"),
        ];
        if !self.arguments.quick {
            ways.extend([
                format!("--batch 1 --accumulate 8 --dtype {fast}"),
                format!("--batch 8 --dtype {fast}"),
                format!("--batch 4 --accumulate 2 --dtype {fast}"),
                format!("--batch 8 --sorted --dtype {other}"),
                "--batch 8 --sorted --dtype bf16 --no-autocast".to_owned(),
            ]);
        }
        let reference = if precomputed { " --precompute 8" } else { "" };
        let keeping_all = |way: &String| {
            self.trl(Part::Dpo, rows, &format!("{way}{reference} --no-checkpointing"))
        };
        ways.iter().map(keeping_all).collect()
    }

    /// The PyTorch loop over the rows.
    pub(super) fn loop_over(&self, rows: &Instructions) -> Vec<Candidate> {
        let [fast, other] = self.dtypes();
        let mut ways = vec![
            format!("--head learned --dtype {fast}"),
            format!("--head learned --dtype {fast} --compile"),
            format!("--head learned --dtype {other}"),
        ];
        if !self.arguments.quick {
            ways.push(format!("--head all --dtype {fast}"));
            ways.push(format!("--head all --dtype {fast} --compile"));
        }
        let over_rows = |way: &String| {
            let words = format!("--batch {BATCH} {way}");
            self.torch_loop(way, &words, &rows_words(rows), "rows_per_s")
        };
        ways.iter().map(over_rows).collect()
    }

    /// The PyTorch loop over random sequences of one length.
    pub(super) fn loop_over_random(&self, sequences: usize, tokens: usize) -> Vec<Candidate> {
        let steps = if self.arguments.quick { 2 } else { 3 };
        let over_random = |way: String| {
            let words = format!("--random {sequences}x{tokens} --steps {steps} {way}");
            self.torch_loop(&way, &words, &[], "tokens_per_s")
        };
        let ways = self.dtypes().map(|dtype| format!("--dtype {dtype}"));
        ways.into_iter()
            .flat_map(|way| [way.clone(), way + " --compile"])
            .map(over_random)
            .collect()
    }

    /// transformers' generate.
    pub(super) fn transformers_decode(&self, words: &str) -> Vec<Candidate> {
        let generate = |dtype: &str| {
            let words = format!("{words} --dtype {dtype}");
            let model = self.place.model_folder();
            let script = self.script("transformers_generate", &model, &words, &[]);
            candidate(dtype, script, Reading::Field("tokens_per_s"))
        };
        self.dtypes().map(generate).into()
    }

    /// transformers' first token.
    pub(super) fn transformers_start(&self) -> Vec<Candidate> {
        let start = |dtype: &str| {
            let words = ["--start", GREETING, "--dtype", dtype].map(str::to_owned);
            let model = self.place.model_folder();
            let script = self.script("transformers_generate", &model, "", &words);
            candidate(dtype, script, Reading::Wall)
        };
        self.dtypes().map(start).into()
    }

    /// llama.cpp over one file.
    pub(super) fn llama(&self, model: &Path, words: &str) -> Candidate {
        let script = self.script("llama", model, words, &[]);
        candidate(weights(model), script, Reading::Field("tokens_per_s"))
    }

    /// llama.cpp over the model in plain numbers of any kind.
    pub(super) fn llama_plain(&self, words: &str) -> Vec<Candidate> {
        let [first, second] =
            if self.machine.multiplies_bf16() { ["bf16", "f16"] } else { ["f16", "bf16"] };
        let over = |kind| self.llama(&self.place.plain_gguf(kind), words);
        [first, second, "f32"].map(over).into()
    }

    /// llama.cpp's first token: for who waits, and without the time that Python takes to get ready.
    pub(super) fn llama_start(&self, model: &Path) -> [Candidate; 2] {
        let words = ["--start", GREETING].map(str::to_owned);
        let whole =
            candidate(weights(model), self.script("llama", model, "", &words), Reading::Wall);
        let inner = Candidate {
            configuration: format!("{}, without Python's imports", whole.configuration),
            reading: Reading::Field("seconds"),
            ..whole.clone()
        };
        [whole, inner]
    }

    fn trl(&self, part: Part, rows: &Instructions, words: &str) -> Candidate {
        let all = format!("--rank {RANK} --alpha {ALPHA} {words}");
        let model = self.place.model_folder();
        let script = format!("trl_{}", part.name());
        let invocation = self.script(&script, &model, &all, &rows_words(rows));
        candidate(&configuration(words), invocation, Reading::Field("rows_per_s"))
    }

    fn torch_loop(
        &self,
        way: &str,
        words: &str,
        more: &[String],
        field: &'static str,
    ) -> Candidate {
        let all = format!("--rank {RANK} --alpha {ALPHA} {words}");
        let invocation = self.script("torch_train", &self.place.model_folder(), &all, more);
        let eager = if way.contains("--compile") { "" } else { ", eager" };
        let shown = format!("{}{eager}", configuration(way));
        candidate(&shown, invocation, Reading::Field(field))
    }

    fn tunesmith(&self, mut words: Vec<String>) -> Invocation {
        let threads = self.arguments.threads.to_string();
        words.extend(["--json", "--offline", "--threads", &threads].map(str::to_owned));
        let program = self.arguments.tunesmith.clone();
        Invocation { program, arguments: words, leaves: None }
    }

    fn script(&self, name: &str, model: &Path, words: &str, more: &[String]) -> Invocation {
        let path = crate::root().join(format!("xtask/bench/peers/{name}.py"));
        let threads = self.arguments.threads.to_string();
        let mut all = vec![word(&path)];
        all.extend(["--model", &word(model), "--threads", &threads].map(str::to_owned));
        all.extend(words.split_whitespace().map(str::to_owned));
        all.extend_from_slice(more);
        Invocation { program: self.place.python(), arguments: all, leaves: None }
    }

    /// Types that PyTorch may compute in, the faster one first.
    fn dtypes(&self) -> [&'static str; 2] {
        if self.machine.multiplies_bf16() { ["bf16", "f32"] } else { ["f32", "bf16"] }
    }

    /// bf16, and f32 where the machine has no instructions for that.
    fn usable_dtypes(&self) -> Vec<&'static str> {
        let count = if self.machine.multiplies_bf16() { 1 } else { 2 };
        self.dtypes().into_iter().take(count).collect()
    }
}

fn candidate(configuration: &str, invocation: Invocation, reading: Reading) -> Candidate {
    Candidate { configuration: configuration.to_owned(), invocation, reading }
}

/// How the numbers of a model are kept, by the name of its file: the folder holds bf16.
fn weights(model: &Path) -> &str {
    let name = model.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let stem = name.strip_suffix(".gguf").and_then(|stem| stem.rsplit_once('.'));
    stem.map_or("bf16", |(_, kind)| kind)
}

fn rows_words(rows: &Instructions) -> [String; 4] {
    ["--rows", &word(&rows.timed), "--warm-up", &word(&rows.warm_up)].map(str::to_owned)
}

/// Options as a table shows them.
fn configuration(words: &str) -> String {
    let options = words.split("--").map(str::trim).filter(|option| !option.is_empty());
    let shown = options.filter_map(|option| match option.split_once(' ') {
        Some(("dtype", dtype)) => Some(dtype.to_owned()),
        Some(("head", tokens)) => Some(format!("head on {tokens} tokens")),
        Some((name, value)) => Some(format!("{name} {value}")),
        // Said by the name of the side, or true of all its candidates.
        None if option == "no-checkpointing" => None,
        None if option == "compile" => Some("compiled".to_owned()),
        None => Some(option.replace('-', " ")),
    });
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_says_what_sets_it_apart() {
        let words = "--batch 4 --accumulate 2 --group-by-length --dtype f32 --no-checkpointing";
        assert_eq!(configuration(words), "batch 4, accumulate 2, group by length, f32");
        let words = "--head learned --dtype bf16 --compile";
        assert_eq!(configuration(words), "head on learned tokens, bf16, compiled");
        assert_eq!(configuration(" --dtype f32 "), "f32");
    }

    #[test]
    fn a_file_says_how_its_numbers_are_kept() {
        assert_eq!(weights(Path::new("/m/SmolLM2-135M.Q4_1.gguf")), "Q4_1");
        assert_eq!(weights(Path::new("/m/smollm2")), "bf16");
    }
}
