//! Goldens: numbers from PyTorch that tests compare with, made by scripts.

use crate::process;

/// A script under `xtask/golden`.
#[derive(Debug, PartialEq, Eq)]
struct Script {
    name: &'static str,
    /// Whether it reads the folder of SmolLM2-135M-Instruct.
    needs_model: bool,
}

const fn script(name: &'static str) -> Script {
    Script { name, needs_model: false }
}

const fn over_model(name: &'static str) -> Script {
    Script { name, needs_model: true }
}

/// In this order: later ones read what `tiny_llama`, `tiny_models` and `adapters` make.
const SCRIPTS: &[Script] = &[
    script("tiny_llama"),
    script("tiny_models"),
    script("ropes"),
    script("gguf_models"),
    script("peft_files"),
    script("reward_models"),
    script("classifiers"),
    script("adapters"),
    script("merged"),
    script("bnb"),
    script("longrope"),
    script("fused"),
    script("trainer"),
    script("objectives"),
    script("preferences"),
    script("policy_gradient"),
    script("class_losses"),
    script("preference_curves"),
    script("rollout_curves"),
    script("update_curves"),
    script("full_curve"),
    script("schedule"),
    script("divergences"),
    script("agreement"),
    script("bag_of_words"),
    script("adamw"),
    script("optimizers"),
    script("nf4"),
    script("gguf_blocks"),
    script("jinja"),
    script("tokenizer_files"),
    script("chat_templates"),
    script("masks"),
    over_model("tokenizer"),
    over_model("smollm2"),
];

/// What is to be made, and with what.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    scripts: &'static [Script],
    python: String,
    model: Option<String>,
}

impl Arguments {
    /// Reads `NAME|all [--python PYTHON] [--model FOLDER]`.
    pub(crate) fn parse(given: &[&str]) -> Result<Self, String> {
        let mut chosen = None;
        let mut python = "python3".to_owned();
        let mut model = None;
        let mut rest = given.iter();
        while let Some(&word) = rest.next() {
            let mut value = || rest.next().ok_or_else(|| format!("`{word}` needs a value"));
            match word {
                "--python" => python = (*value()?).to_owned(),
                "--model" => model = Some((*value()?).to_owned()),
                name if chosen.is_none() => chosen = Some(find(name)?),
                _ => return Err(format!("`{word}` is one too many")),
            }
        }
        let scripts = chosen.ok_or_else(|| format!("which goldens? {}", names()))?;
        if model.is_none() && scripts.iter().any(|script| script.needs_model) {
            let needing = scripts.iter().filter(|script| script.needs_model);
            let names: Vec<&str> = needing.map(|script| script.name).collect();
            return Err(format!(
                "{} read SmolLM2: name its folder with `--model`",
                names.join(", ")
            ));
        }
        Ok(Arguments { scripts, python, model })
    }
}

/// Runs the scripts.
pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    for script in arguments.scripts {
        let path = format!("xtask/golden/{}.py", script.name);
        let model = arguments.model.as_deref().filter(|_| script.needs_model);
        let words: Vec<&str> = [path.as_str()].into_iter().chain(model).collect();
        process::run(&arguments.python, &words, &[])?;
    }
    Ok(())
}

fn find(name: &str) -> Result<&'static [Script], String> {
    if name == "all" {
        return Ok(SCRIPTS);
    }
    let index = SCRIPTS.iter().position(|script| script.name == name);
    let index = index.ok_or_else(|| format!("no goldens `{name}`; there are {}", names()))?;
    Ok(&SCRIPTS[index..=index])
}

fn names() -> String {
    let names: Vec<&str> = SCRIPTS.iter().map(|script| script.name).collect();
    format!("all, {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// None of these makes a golden: four are read by others, one looks at an adapter.
    const OTHERS: [&str; 5] = ["store", "hashed", "trl_losses", "trl_online", "check_adapter"];

    #[test]
    fn every_script_is_listed() {
        let files = std::fs::read_dir(crate::root().join("xtask/golden")).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let found: BTreeSet<String> =
            names.filter_map(|name| Some(name.strip_suffix(".py")?.to_owned())).collect();
        let known = SCRIPTS.iter().map(|script| script.name).chain(OTHERS).map(str::to_owned);
        assert_eq!(found, known.collect());
    }

    #[track_caller]
    fn check(given: &[&str], expected: Result<usize, &str>) {
        let parsed = Arguments::parse(given);
        match expected {
            Ok(count) => assert_eq!(parsed.map(|parsed| parsed.scripts.len()), Ok(count)),
            Err(part) => {
                let message = parsed.unwrap_err();
                assert!(message.contains(part), "{message}");
            }
        }
    }

    #[test]
    fn arguments() {
        check(&["adamw", "--python", "py"], Ok(1));
        check(&["--model", "m", "all"], Ok(SCRIPTS.len()));
        check(&[], Err("which goldens?"));
        check(&["all"], Err("tokenizer, smollm2 read SmolLM2"));
        check(&["adam"], Err("no goldens `adam`; there are all, tiny_llama"));
        check(&["adamw", "--python"], Err("`--python` needs a value"));
        check(&["adamw", "schedule"], Err("`schedule` is one too many"));
    }
}
