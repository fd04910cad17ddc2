//! Recipes and commands that are wrong: each is told where and how to mend it, and ends with 2.

use crate::house::House;

const RECIPE: &str = "model: ./tiny\nmethod: sft\ndata: {train: rows.jsonl}\n";

#[track_caller]
fn check(recipe: &str, arguments: &[&str], expected: &str) {
    let house = House::with_model();
    house.write("r.yaml", recipe);
    let all = [&["train", "r.yaml"], arguments].concat();
    let ended = house.run(&all);
    assert_eq!((ended.stderr.as_str(), ended.code), (expected, 2), "{}", ended.stdout);
    assert!(!house.path().join("runs").exists(), "a wrong recipe leaves nothing behind");
}

#[test]
fn an_unknown_key_has_a_place_and_a_cure() {
    check(
        &format!("{RECIPE}train: {{learning_rat: 1e-4}}\n"),
        &[],
        "error: r.yaml:4:9: unknown key `train.learning_rat`\nhint: did you mean `train.learning_rate`?\n",
    );
    check(
        &format!("{RECIPE}lora_r: 8\n"),
        &[],
        "error: r.yaml:4:1: unknown key `lora_r`\nhint: here: `adapter.rank: 8`\n",
    );
}

#[test]
fn an_override_is_checked_like_the_recipe() {
    check(
        RECIPE,
        &["adapter.rank=0"],
        "error: command line, argument `adapter.rank=0`: `adapter.rank` is `0`, but must be 1 to 4096\n",
    );
    check(
        RECIPE,
        &["fast"],
        "error: command line, argument `fast`: is not `key=value`\nhint: write it as `train.epochs=3`\n",
    );
}

#[test]
fn files_that_are_not_there_are_named() {
    let house = House::with_model();
    let ended = house.run(&["train", "absent.yaml"]);
    let expected = "error: absent.yaml: no such file or directory\n\
                    hint: `tunesmith init sft --data FILE` writes a recipe\n";
    assert_eq!((ended.stderr.as_str(), ended.code), (expected, 2));
    check(
        &RECIPE.replace("rows.jsonl", "absent.jsonl"),
        &[],
        "error: HOUSE/absent.jsonl: no such file or directory\n",
    );
    check(
        &RECIPE.replace("./tiny", "./absent"),
        &[],
        "error: r.yaml:1:8: HOUSE/absent: no such model\nhint: a model is a Hugging Face folder, a \
         `.gguf` file, an adapter folder, a run folder or a hub id such as `owner/name`\n",
    );
}

#[test]
fn a_hub_id_without_a_network_is_told() {
    check(
        &RECIPE.replace("./tiny", "owner/name"),
        &["--offline"],
        "error: r.yaml:1:8: `owner/name` is not in the cache, and the network is forbidden\n\
         hint: leave out `--offline`, or name a folder or a `.gguf` file\n",
    );
}

#[test]
fn a_program_gets_the_same_as_json() {
    let house = House::with_model();
    house.write("r.yaml", &format!("{RECIPE}lora_r: 8\n"));
    let ended = house.run(&["train", "r.yaml", "--json"]);
    let expected = serde_json::json!({
        "schema": 1,
        "error": {
            "code": "unknown_key", "message": "r.yaml:4:1: unknown key `lora_r`", "file": "r.yaml",
            "line": 4, "key": "lora_r", "hint": "here: `adapter.rank: 8`",
        },
    });
    assert_eq!((ended.result(), ended.code), (expected, 2));
}

#[test]
fn an_instruction_set_that_is_not_there_is_refused() {
    let isa = if cfg!(target_arch = "aarch64") { "avx2" } else { "neon" };
    let house = House::with_model();
    house.write("r.yaml", RECIPE);
    let ended = house.run(&["train", "r.yaml", "--isa", isa]);
    assert_eq!(ended.code, 2);
    let begins = format!("error: cpu: this processor has no `{isa}`; its best level is `");
    assert!(ended.stderr.starts_with(&begins), "{}", ended.stderr);
}

#[test]
fn bad_rows_are_all_named() {
    let house = House::with_model();
    house.write(
        "rows.jsonl",
        "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"a\"}\n{\"prompt\": \"c\"}\n",
    );
    house.write("r.yaml", RECIPE);
    let ended = house.run(&["train", "r.yaml", "--json"]);
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    for line in ["rows.jsonl:2: ", "rows.jsonl:3: "] {
        assert!(ended.stderr.contains(line), "{}", ended.stderr);
    }
    assert_eq!(ended.result()["error"]["line"], 2);
}
