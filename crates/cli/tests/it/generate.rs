use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;

use crate::house::House;

#[test]
fn answers_do_not_depend_on_company() {
    let house = House::with_model();
    let answers = |prompts: &[&str], batch: &str| -> Vec<String> {
        let prompts = prompts.iter().flat_map(|prompt| ["--prompt", prompt]);
        let head = ["generate", "tiny", "--json", "--max-new-tokens", "8", "--batch", batch];
        let result =
            house.run(&head.into_iter().chain(prompts).collect::<Vec<_>>()).done().result();
        let results = result["results"].as_array().unwrap();
        results.iter().map(|result| result["answer"].as_str().unwrap().to_owned()).collect()
    };
    let together = answers(&["one", "and two", "3"], "32");
    assert_eq!(together, answers(&["one", "and two", "3"], "1"));
    assert_eq!(together[1..2], answers(&["and two"], "32"));
}

#[test]
fn a_result_has_its_figures() {
    let house = House::with_model();
    let base = ["generate", "tiny", "--json", "--max-new-tokens", "6"];
    let asked = [&base[..], &["--prompt", "hi"]].concat();
    let result = house.run(&asked).done().result();
    let one = &result["results"][0];
    // `u:hi<|end|>a:` in characters, the marker as one.
    assert_eq!((&one["prompt"], &one["prompt_tokens"]), (&"hi".into(), &7.into()));
    assert_eq!((&one["finish"], &one["tokens"]), (&"length".into(), &6.into()));
    assert!(result["tokens_per_s"].as_f64().unwrap() > 0.0);
    // A raw text has nothing around it.
    let result = house.run(&[&asked[..], &["--raw"]].concat()).done().result();
    assert_eq!(result["results"][0]["prompt_tokens"], 2);
}

#[test]
fn one_answer_streams_and_stops_where_it_should() {
    let house = House::with_model();
    let asked = ["generate", "tiny", "--prompt", "hi", "--max-new-tokens", "12"];
    let whole = house.run(&asked).done().stdout;
    let text = whole.trim_end_matches('\n');
    let stop: String = text.chars().skip(3).take(2).collect();
    let cut = house.run(&[&asked[..], &["--stop", &stop]].concat()).done().stdout;
    let expected = &text[..text.find(&stop).unwrap()];
    assert_eq!(cut, format!("{expected}\n"));
}

#[test]
fn several_answers_go_to_a_pipe_as_json_lines() {
    let house = House::with_model();
    house.write(
        "p.jsonl",
        "{\"prompt\": \"a\"}\n{\"messages\": [{\"role\": \"user\", \"content\": \"b\"}]}\n",
    );
    let asked = ["generate", "tiny", "--prompts", "p.jsonl", "--max-new-tokens", "3"];
    let ended = house.run(&asked).done();
    let rows: Vec<Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let prompts: Vec<&Value> = rows.iter().map(|row| &row["prompt"]).collect();
    assert_eq!(prompts, ["a", "b"]);
}

#[test]
fn standard_input_is_a_prompt() {
    let house = House::with_model();
    let mut command = house.command(&["generate", "tiny", "--json", "--max-new-tokens", "2"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hi\n").unwrap();
    let ended = house.ended(&child.wait_with_output().unwrap()).done();
    assert_eq!(ended.result()["results"][0]["prompt"], "hi");
    let ended = house.run(&["generate", "tiny"]);
    let expected =
        "error: standard input is empty\nhint: give `--prompt TEXT` or `--prompts FILE`\n";
    assert_eq!((ended.stderr.as_str(), ended.code), (expected, 2));
}

#[test]
fn draws_depend_on_the_seed_only() {
    let house = House::with_model();
    let draw = |seed: &str| {
        let asked = ["generate", "tiny", "--prompt", "hi", "--temperature", "2", "--seed", seed];
        house.run(&asked).done().stdout
    };
    assert_eq!(draw("1"), draw("1"));
    assert_ne!(draw("1"), draw("2"));
}

#[test]
fn what_cannot_be_answered_is_told() {
    let house = House::with_model();
    let check = |arguments: &[&str], expected: &str, code: i32| {
        let ended = house.run(&[&["generate"], arguments].concat());
        assert_eq!((ended.stderr.as_str(), ended.code), (expected, code), "{arguments:?}");
    };
    check(
        &["./absent", "--prompt", "a"],
        "error: HOUSE/absent: no such model\nhint: a model is a Hugging Face folder, a `.gguf` \
         file, an adapter folder, a run folder or a hub id such as `owner/name`\n",
        2,
    );
    check(
        &["tiny", "--prompt", "a", "--compare"],
        "error: model `tiny` has no adapter to compare its base with\nhint: name one with `--adapter`\n",
        2,
    );
    check(
        &["tiny", "--prompt", "a", "--adapter", "tiny"],
        "error: HOUSE/tiny: is not an adapter folder\nhint: an adapter folder holds adapter_config.json \
         and adapter_model.safetensors\n",
        2,
    );
    let long = "x".repeat(80);
    check(
        &["tiny", "--prompt", &long],
        "error: the prompt has 85 tokens, and the model takes 64 with the answer\n",
        2,
    );
    std::fs::remove_file(house.path().join("tiny/chat_template.jinja")).unwrap();
    check(
        &["tiny", "--prompt", "a"],
        "error: the model has no chat template\nhint: `--raw` continues the text as it is\n",
        2,
    );
    house.write("tiny/config.json", r#"{"model_type": "mamba"}"#);
    check(
        &["tiny", "--prompt", "a"],
        "error: HOUSE/tiny/config.json: `model_type` is `mamba`, which is not supported\n\
         hint: supported: llama, mistral, qwen2, qwen3, gemma2, gemma3, gemma3_text, phi3, smollm3, \
         olmo2, granite\n",
        1,
    );
}

/// As [`House::with_model`], with a template that shows tools.
fn house_with_tools() -> House {
    let house = House::with_model();
    house.write(
        "tiny/chat_template.jinja",
        "{% for t in tools or [] %}t:{{ t.function.name }}<|end|>{% endfor %}\
         {% for m in messages %}{{ m.role[0] }}:{{ m.content }}<|end|>{% endfor %}\
         {% if add_generation_prompt %}a:{% endif %}",
    );
    house
}

/// Tokens before what is learned of the first row, as `check` shows it.
fn unlearned(house: &House, recipe: &str) -> usize {
    house.write("r.yaml", recipe);
    let report = house.run(&["check", "r.yaml", "--json", "--samples", "1"]).done().result();
    let tokens = report["samples"][0]["tokens"].as_array().unwrap();
    tokens.iter().position(|token| token["weight"] != 0.0).unwrap()
}

#[test]
fn prompts_of_every_format_are_shown_as_check_shows_them() {
    let house = house_with_tools();
    let tools = r#"[{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]"#;
    let turns = r#"[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]"#;
    let mut seen = Vec::new();
    for row in [
        format!(r#"{{"messages": {turns}}}"#),
        format!(r#"{{"messages": {turns}, "system": "Be brief."}}"#),
        format!(r#"{{"messages": {turns}, "tools": {tools}}}"#),
        r#"{"conversations": [{"from": "human", "value": "qq"}, {"from": "gpt", "value": "a"}]}"#.into(),
        r#"{"instruction": "qq", "input": "x", "output": "a"}"#.into(),
        r#"{"prompt": [{"role": "user", "content": "qqqq"}], "completion": [{"role": "assistant", "content": "a"}]}"#.into(),
    ] {
        house.write("one.jsonl", &format!("{row}\n"));
        let recipe = "model: ./tiny\nmethod: sft\ndata: {train: one.jsonl}\n";
        let expected = unlearned(&house, recipe);
        let asked = ["generate", "tiny", "--prompts", "one.jsonl", "--max-new-tokens", "2", "--json"];
        let result = house.run(&asked).done().result();
        let one = &result["results"][0];
        assert_eq!(one["prompt_tokens"], expected, "{row}");
        seen.push(expected);
        if !row.contains("messages") {
            continue;
        }
        assert_eq!((&one["reference"], &one["columns"]), (&"a".into(), &Value::Null));
    }
    // Each of them says something of its own.
    assert_eq!(seen.iter().collect::<std::collections::BTreeSet<_>>().len(), 5, "{seen:?}");
}

#[test]
fn a_run_asks_as_its_recipe_says() {
    let house = House::with_model();
    house.write("ask.csv", "ask,reply,id\nq,a,7\nr,b,8\n");
    let train = "train: {max_steps: 1, batch_size: 2}\nadapter: {rank: 2}\n";
    let recipe = |data: &str| {
        let columns = "columns: {prompt: ask, completion: reply}";
        format!(
            "model: ./tiny\nmethod: sft\n{train}data: {{train: [{{path: ask.csv, {columns}{data}\n"
        )
    };
    let tokens = |run: &str, more: &[&str]| -> (usize, Value) {
        let asked = [&["generate", run, "--max-new-tokens", "2", "--json"], more].concat();
        let result = house.run(&asked).done().result();
        let one = result["results"][0].clone();
        (one["prompt_tokens"].as_u64().unwrap() as usize, one)
    };
    for (number, data, system) in
        [(1, ", system: Own.}]}", "Own."), (2, "}], system: {set: Set.}}", "Set.")]
    {
        let expected = unlearned(&house, &recipe(data));
        house.run(&["train", "r.yaml"]).done();
        let run = format!("runs/r-00{number}");
        let (found, one) = tokens(&run, &["--prompts", "ask.csv"]);
        assert_eq!(found, expected, "{data}");
        assert_eq!((&one["reference"], &one["columns"]["id"]), (&"a".into(), &"7".into()));
        // A prompt that is typed is asked like the rows of training, unless its system message is said.
        assert_eq!(tokens(&run, &["--prompt", "q"]).0, expected);
        let said = tokens(&run, &["--prompt", "q", "--system", "Said so."]).0;
        assert_eq!(said, expected + "Said so.".len() - system.len());
        // Rows of another file are read as they are.
        house.write("other.jsonl", "{\"prompt\": \"q\"}\n");
        assert_eq!(tokens(&run, &["--prompts", "other.jsonl"]).0, expected);
    }
}

#[test]
fn bad_rows_of_prompts_are_named() {
    let house = House::with_model();
    house.write("p.jsonl", "{\"prompt\": \"a\"}\n{\"prompt\": 3}\n{\"id\": 1}\n");
    let ended = house.run(&["generate", "tiny", "--prompts", "p.jsonl"]);
    let expected = "error: p.jsonl:2: `prompt` is a number, not text\n\
                    p.jsonl:3: unknown format: the rows have `id`\n\
                    hint: write it as a string\n";
    assert_eq!((ended.stderr.as_str(), ended.code), (expected, 1));
    let long = "x".repeat(80);
    house.write("p.jsonl", &format!("{{\"prompt\": \"a\"}}\n{{\"prompt\": \"{long}\"}}\n"));
    let ended = house.run(&["generate", "tiny", "--prompts", "p.jsonl"]);
    let expected = "p.jsonl:2: the prompt has 85 tokens, and the model takes 64 with the answer\n";
    assert!(ended.stderr.ends_with(expected), "{}", ended.stderr);
}

/// Files that contradict each other are decided as transformers decides, and that is said.
#[test]
fn what_is_odd_about_the_files_is_said() {
    let house = House::with_model();
    let asked = ["generate", "tiny", "--prompt", "hi", "--max-new-tokens", "4"];
    let plain = house.run(&asked).done();
    let said = "`model.safetensors.index.json`: the first is used";
    assert!(!plain.stderr.contains(said), "{}", plain.stderr);
    let index = r#"{"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}"#;
    house.write("tiny/model.safetensors.index.json", index);
    let ended = house.run(&asked).done();
    assert_eq!(ended.stdout, plain.stdout);
    assert!(ended.stderr.contains(said), "{}", ended.stderr);
}
