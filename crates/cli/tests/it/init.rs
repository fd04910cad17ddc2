use crate::house::House;

#[test]
fn a_recipe_fits_the_data_and_trains() {
    let house = House::with_model();
    let ended = house.run(&["init", "sft", "--data", "rows.jsonl", "--model", "./tiny"]).done();
    let expected = "\
file        format             rows
rows.jsonl  prompt_completion    24
learns  one answer a row
tokens  13 a row (median), 13 at the 95th percentile, 13 at most; 293 in all, 63 of them supervised
wrote recipe.yaml: 48 steps of 1 rows, 8 rows kept back for validation
next
  tunesmith check recipe.yaml
  tunesmith train recipe.yaml
warning: 48 steps are few: more rows will help more than any setting
";
    assert_eq!(ended.stdout + &ended.stderr, expected);
    let recipe = house.read("recipe.yaml");
    for line in [
        "model: ./tiny",
        "  rank: 16                    # 16 rows: under 2000 a small adapter is enough",
        "    - path: rows.jsonl",
        "    fraction: 0.333           # few rows, so a larger share",
        "  max_seq_len: auto           # the longest row: 13 tokens",
        "  # learning_rate: 5.0e-4     # sft with an adapter, hidden size 2000; the default follows the model",
    ] {
        assert!(recipe.lines().any(|own| own == line), "`{line}` is not in\n{recipe}");
    }
    house.run(&["train", "recipe.yaml", "train.epochs=0.25"]).done();
}

#[test]
fn a_recipe_that_is_there_is_kept() {
    let house = House::with_model();
    house.write("recipe.yaml", "mine");
    let ended = house.run(&["init", "sft", "--data", "rows.jsonl", "--model", "./tiny"]);
    let expected = "error: recipe.yaml: already exists\nhint: `--output FILE` takes another \
                    name, `--force` writes over it\n";
    assert_eq!((ended.stderr.as_str(), ended.code), (expected, 2));
    assert_eq!(house.read("recipe.yaml"), "mine");
    house.run(&["init", "sft", "--data", "rows.jsonl", "--model", "./tiny", "--force"]).done();
    assert!(house.read("recipe.yaml").contains("model: ./tiny"));
}

#[test]
fn few_rows_and_an_absent_model_are_told() {
    let house = House::with_model();
    house.write("few/rows.json", r#"[{"instruction": "a", "output": "b"}]"#);
    let ended = house.run(&["init", "sft", "--data", "few/rows.json", "--json"]).done();
    let result = ended.result();
    assert_eq!((&result["rows"], &result["tokens"]["estimated"]), (&1.into(), &true.into()));
    let warnings = result["warnings"].to_string();
    assert!(warnings.contains("1 rows are too few to keep some back"), "{warnings}");
    assert!(!house.read("recipe.yaml").contains("validation"));
}

#[test]
fn data_that_cannot_be_used_leaves_no_recipe() {
    let house = House::new();
    house.write("rows.jsonl", "{\"question\": \"a\"}\n");
    let ended = house.run(&["init", "sft", "--data", "rows.jsonl"]);
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(ended.stderr.starts_with("error: rows.jsonl: unknown format"), "{}", ended.stderr);
    assert!(!house.path().join("recipe.yaml").exists());
}

#[test]
fn every_method_over_preferences_has_its_keys_in_the_recipe() {
    let pair = |i: usize| {
        format!("{{\"prompt\": \"{i}?\", \"chosen\": \"yes {i}\", \"rejected\": \"no\"}}\n")
    };
    let pairs: String = (0..24).map(pair).collect();
    for (method, lines) in [
        ("dpo", &["  beta: 0.1", "  # loss: sigmoid", "  # losses:", "# reference: start"][..]),
        ("kto", &["  beta: 0.1", "  # desirable_weight:", "  batch_size: 2", "# reference: start"]),
        ("bco", &["  beta: 0.1", "# reference: start"]),
        ("orpo", &["  beta: 0.1"]),
        ("simpo", &["  beta: 2.0", "  # gamma: 1.0", "  # gamma_over_beta:"]),
        ("cpo", &["  beta: 0.1", "  # nll_weight: 1.0", "  # best_by: loss"]),
        ("reward", &["  center: 0.0", "  # loss:", "  # best_by: accuracy"]),
    ] {
        let house = House::with_model();
        house.write("pairs.jsonl", &pairs);
        house.run(&["init", method, "--data", "pairs.jsonl", "--model", "./tiny"]).done();
        let recipe = house.read("recipe.yaml");
        for line in [&["objective:", "  epochs: 1"], lines].concat() {
            let has = |own: &str| {
                own.split("  #").next().unwrap().trim_end() == line
                    || own.starts_with(&format!("{line} "))
            };
            assert!(recipe.lines().any(has), "{method}: `{line}` is not in\n{recipe}");
        }
        assert_eq!(
            recipe.contains("# reference:"),
            lines.contains(&"# reference: start"),
            "{recipe}"
        );
        house.run(&["plan", "recipe.yaml", "--json"]).done();
    }
}

#[test]
fn labelled_rows_get_a_recipe() {
    let house = House::with_model();
    let rows: String = (0..30)
        .map(|i| format!("{{\"text\": \"text {i}\", \"label\": \"{}\"}}\n", ["a", "b"][i % 2]))
        .collect();
    house.write("rows.jsonl", &rows);
    house.run(&["init", "classify", "--data", "rows.jsonl", "--model", "./tiny"]).done();
    assert!(house.read("recipe.yaml").contains("method: classify"));
    let planned = house.run(&["plan", "recipe.yaml", "--json"]).done().result();
    assert!(planned["steps"].as_u64().unwrap() > 0, "{planned}");
}

#[test]
fn methods_that_sample_begin_with_a_recipe_that_runs() {
    let house = House::with_model();
    let rows: String = (0..30)
        .map(|i| format!("{{\"prompt\": \"{i}+1?\", \"answer\": \"{}\"}}\n", i + 1))
        .collect();
    house.write("rows.jsonl", &rows);
    for method in ["grpo", "online_dpo", "distill"] {
        let init = ["init", method, "--data", "rows.jsonl", "--model", "./tiny", "--force"];
        house.run(&init).done();
        // The tiny model reads 64 tokens, one a character.
        let mut plan = vec!["plan", "recipe.yaml", "rollout.max_new_tokens=16", "--json"];
        if method == "distill" {
            plan.push("distill.system=add");
        }
        let planned = house.run(&plan).done().result();
        assert!(planned["steps"].as_u64().unwrap() > 0, "{method}: {planned}");
    }
}

#[test]
fn rows_of_another_method_say_what_to_type() {
    let house = House::new();
    house.write("pairs.jsonl", "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n");
    for method in ["sft", "pretrain"] {
        let ended = house.run(&["init", method, "--data", "pairs.jsonl"]);
        let hint = "hint: the rows fit `dpo`, `kto`, `bco`, `orpo`, `simpo`, `cpo`, `reward`, `ppo`, `grpo`, `rloo`, `reinforce_pp`, `online_dpo`, `distill`: \
                    `tunesmith init dpo --data pairs.jsonl`\n";
        assert!(ended.stderr.ends_with(hint), "{method}: {}", ended.stderr);
        assert!(!house.path().join("recipe.yaml").exists());
    }
}
