//! Who is compared with whom, at what.

use std::path::Path;

use super::arguments::Part;
use super::commands::{BATCH, Commands, RANK};
use super::contest::{Candidate, Comparison, Side};
use super::figures::Unit;
use super::instructions::Instructions;

/// Training without prompts and padding: sequences, and tokens of each.
const RANDOM: (usize, usize) = (8, 256);
/// Decoding: tokens of a prompt, and how many are answered at a time.
const PROMPT_TOKENS: usize = 48;
const SEQUENCES: [usize; 2] = [1, 16];
/// Tokens of a long prompt.
const LONG_PROMPT: usize = 512;

/// The comparisons of a part, or why there are none.
pub(super) fn of(part: Part, commands: &Commands<'_>) -> Result<Vec<Comparison>, String> {
    match part {
        Part::Sft => Ok(vec![sft(commands)?]),
        Part::Dpo => Ok(vec![dpo(commands)?]),
        Part::Random => Ok(vec![random(commands)]),
        Part::Decode => Ok(SEQUENCES.iter().flat_map(|&count| decode(commands, count)).collect()),
        Part::Prompt => Ok(prompt(commands).into()),
        Part::Start => Ok(start(commands).into()),
    }
}

fn sft(commands: &Commands<'_>) -> Result<Comparison, String> {
    let rows = rows_of(Part::Sft, commands)?;
    let mut sides = training(Part::Sft, &rows, commands)?;
    sides.push(peer("TRL, no checkpointing", commands.trl_without_checkpointing(&rows)));
    sides.push(peer("TRL, best of a sweep", commands.trl_sweep(&rows)));
    sides.push(peer("PyTorch loop", commands.loop_over(&rows)));
    let count = commands.arguments.count;
    let title = format!("{count} instruction rows, one epoch, LoRA rank {RANK}, batch {BATCH}");
    Ok(Comparison { part: Part::Sft, title, unit: Unit::RowsPerSecond, sides })
}

/// With the log-probabilities of the reference computed live, and kept before the first step.
fn dpo(commands: &Commands<'_>) -> Result<Comparison, String> {
    let rows = rows_of(Part::Dpo, commands)?;
    let mut sides = training(Part::Dpo, &rows, commands)?;
    for logprobs in ["live", "cached"] {
        let setting = format!("reference.logprobs={logprobs}");
        let name = format!("Tunesmith, {setting}");
        sides.push(ours(&name, commands.train(Part::Dpo, &rows, Some(&setting))?));
    }
    sides.push(peer("TRL, reference live", commands.trl_dpo_sweep(&rows, false)));
    sides.push(peer("TRL, reference precomputed", commands.trl_dpo_sweep(&rows, true)));
    let count = commands.arguments.count;
    let title = format!("{count} pairs, one epoch, LoRA rank {RANK}, batch {BATCH}");
    Ok(Comparison { part: Part::Dpo, title, unit: Unit::RowsPerSecond, sides })
}

fn rows_of(part: Part, commands: &Commands<'_>) -> Result<Instructions, String> {
    let arguments = commands.arguments;
    let file = arguments.rows.as_deref();
    let file = file.ok_or("no rows to train on: name an Alpaca file with `--rows`")?;
    Instructions::choose(file, part.columns(), arguments.count, &commands.place.bench())
}

/// Tunesmith, alone and with each further setting, and TRL as it comes.
fn training(part: Part, rows: &Instructions, commands: &Commands<'_>) -> Result<Vec<Side>, String> {
    let mut sides = vec![ours("Tunesmith", commands.train(part, rows, None)?)];
    for setting in &commands.arguments.also {
        let name = format!("Tunesmith, {setting}");
        sides.push(ours(&name, commands.train(part, rows, Some(setting))?));
    }
    sides.push(peer("TRL with default settings", commands.trl_as_it_comes(part, rows)));
    Ok(sides)
}

fn random(commands: &Commands<'_>) -> Comparison {
    let (sequences, tokens) = RANDOM;
    let words = format!("--sequences {sequences} --tokens {tokens} --rank {RANK}");
    let tunesmith = commands.bench(&commands.place.model_folder(), "train", &words);
    let torch = commands.loop_over_random(sequences, tokens);
    Comparison {
        part: Part::Random,
        title: format!("training, {sequences} x {tokens} random tokens, LoRA rank {RANK}"),
        unit: Unit::TokensPerSecond,
        sides: vec![ours("Tunesmith", tunesmith), peer("PyTorch loop", torch)],
    }
}

/// Over plain numbers and over blocks.
fn decode(commands: &Commands<'_>, sequences: usize) -> [Comparison; 2] {
    let new_tokens = if commands.arguments.quick { 32 } else { 64 };
    let words = format!(
        "--sequences {sequences} --prompt-tokens {PROMPT_TOKENS} --new-tokens {new_tokens}"
    );
    let over = |weights: &str, model: &Path, peers: Vec<Side>| Comparison {
        part: Part::Decode,
        title: format!("{sequences} at a time, {new_tokens} new tokens, {weights} weights"),
        unit: Unit::TokensPerSecond,
        sides: all(commands.bench(model, "decode", &words), peers),
    };
    let (folder, gguf) = (commands.place.model_folder(), &commands.place.gguf);
    let plain = vec![
        peer("transformers", commands.transformers_decode(&words)),
        peer("llama.cpp", commands.llama_plain(&words)),
    ];
    let blocks = vec![peer("llama.cpp", vec![commands.llama(gguf, &words)])];
    [over("bf16", &folder, plain), over("Q4_1", gguf, blocks)]
}

/// Over plain numbers and over blocks.
fn prompt(commands: &Commands<'_>) -> [Comparison; 2] {
    let llama_words = format!("--prompt {LONG_PROMPT}");
    let words = format!("--tokens {LONG_PROMPT}");
    let over = |weights: &str, model: &Path, llama: Vec<Candidate>| Comparison {
        part: Part::Prompt,
        title: format!("{LONG_PROMPT} tokens, {weights} weights"),
        unit: Unit::TokensPerSecond,
        sides: all(commands.bench(model, "prompt", &words), vec![peer("llama.cpp", llama)]),
    };
    let (folder, gguf) = (commands.place.model_folder(), &commands.place.gguf);
    [
        over("bf16", &folder, commands.llama_plain(&llama_words)),
        over("Q4_1", gguf, vec![commands.llama(gguf, &llama_words)]),
    ]
}

/// Over plain numbers and over blocks.
fn start(commands: &Commands<'_>) -> [Comparison; 2] {
    let over = |weights: &str, model: &Path, peers: Vec<Side>| Comparison {
        part: Part::Start,
        title: format!("from nothing to the first token, {weights} weights"),
        unit: Unit::Seconds,
        sides: all(commands.first_token(model), peers),
    };
    let llama = |model: &Path| {
        let [whole, inner] = commands.llama_start(model);
        [peer("llama-cpp-python", vec![whole]), peer("llama.cpp", vec![inner])]
    };
    let (folder, gguf) = (commands.place.model_folder(), &commands.place.gguf);
    let transformers = peer("transformers", commands.transformers_start());
    let plain = [transformers].into_iter().chain(llama(&commands.place.plain_gguf("bf16")));
    [over("bf16", &folder, plain.collect()), over("Q4_1", gguf, llama(gguf).into())]
}

fn all(tunesmith: Candidate, peers: Vec<Side>) -> Vec<Side> {
    [ours("Tunesmith", tunesmith)].into_iter().chain(peers).collect()
}

fn ours(name: &str, candidate: Candidate) -> Side {
    Side { name: name.to_owned(), is_peer: false, candidates: vec![candidate] }
}

fn peer(name: &str, candidates: Vec<Candidate>) -> Side {
    Side { name: name.to_owned(), is_peer: true, candidates }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::arguments::Arguments;
    use super::super::machine::Machine;
    use super::super::setup::Place;
    use super::*;

    #[test]
    fn every_part_sets_tunesmith_against_peers() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("bench")).unwrap();
        let file = folder.path().join("rows.json");
        let row =
            "{\"instruction\": \"a\", \"output\": \"b\", \"chosen\": \"c\", \"rejected\": \"d\"}";
        let rows = vec![row; 40].join(",");
        std::fs::write(&file, format!("[{rows}]")).unwrap();
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let given = [&path(folder.path()), "--rows", &path(&file), "--count", "8"];
        let arguments = Arguments::parse(&given).unwrap();
        let place = Place::at(folder.path(), PathBuf::from("/m/SmolLM2.Q4_1.gguf"));
        let machine = Machine::look();
        let commands = Commands { arguments: &arguments, place: &place, machine: &machine };
        let counts = Part::ALL.map(|part| {
            let comparisons = of(part, &commands).unwrap();
            for comparison in &comparisons {
                assert!(!comparison.sides[0].is_peer);
                assert!(comparison.sides.iter().any(|side| side.is_peer));
                assert!(comparison.sides.iter().all(|side| !side.candidates.is_empty()));
            }
            comparisons.len()
        });
        assert_eq!(counts, [1, 1, 1, 4, 2, 2]);
        let decode = of(Part::Decode, &commands).unwrap();
        assert_eq!(decode[1].sides[1].candidates[0].configuration, "Q4_1");
        let without = Arguments { rows: None, ..arguments.clone() };
        let commands = Commands { arguments: &without, ..commands };
        assert!(of(Part::Sft, &commands).unwrap_err().contains("`--rows`"));
    }
}
