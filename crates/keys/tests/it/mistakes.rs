use std::path::Path;

use crate::fixture::parse;
use keys::{Error, Fault, Key, Schema, Settings as _, Surroundings};

/// Reads a recipe that has `more` below what every recipe needs, from line 3 on;
/// the mistakes are compared with `expected`, hints behind ` | `.
#[track_caller]
fn check(more: &str, expected: &[&str]) {
    check_whole(&format!("model: org/tiny\ndata.train: a.jsonl\n{more}"), expected);
}

#[track_caller]
fn check_whole(text: &str, expected: &[&str]) {
    let error = parse(text, &[]).expect_err("the recipe has mistakes");
    let shown: Vec<String> = error
        .problems()
        .iter()
        .map(|problem| match &problem.hint {
            Some(hint) => format!("{problem} | {hint}"),
            None => problem.to_string(),
        })
        .map(|problem| problem.replace("/recipes/", ""))
        .collect();
    assert_eq!(shown, expected);
}

#[test]
fn unknown_keys_name_the_nearest() {
    let rate = "a.yaml:3:9: unknown key `train.learnin_rate` | did you mean `train.learning_rate`?";
    check("train: {learnin_rate: 1e-4}", &[rate]);
    let rank = "a.yaml:3:1: unknown key `rank` | did you mean `adapter.rank`?";
    check("rank: 8", &[rank]);
    let path = "a.yaml:3:7: unknown key `log.0.pth` | \
                did you mean `data.train[].path` or `data.validation.path`?";
    check("log: {pth: x}", &[path]);
    check("frobnicate: 1", &["a.yaml:3:1: unknown key `frobnicate`"]);
}

#[test]
fn peers_names_are_known() {
    let rows = [
        ("lora_r: 8", "lora_r", "here: `adapter.rank: 8`"),
        ("learning_rate: 2e-4", "learning_rate", "here: `train.learning_rate: 2e-4`"),
        ("cutoff_len: 2048", "cutoff_len", "here: `data.max_seq_len: 2048`"),
        ("load_in_4bit: true", "load_in_4bit", "here: `quantization: nf4`"),
        ("load_in_4bit: false", "load_in_4bit", "here: `quantization: none`"),
        ("stage: sft", "stage", "here: `method: sft`"),
        ("stage: new", "stage", "here: `method`"),
        ("finetuning_type: full", "finetuning_type", "here: `adapter: none`"),
        ("lora_target: q_proj,v_proj", "lora_target", "here: `adapter.target_modules`"),
        (
            "lora_target_linear: true",
            "lora_target_linear",
            "here: `adapter.target_modules: all-linear`",
        ),
        ("datasets: [{path: x}]", "datasets", "here: `data.train`"),
        ("val_set_size: 0.05", "val_set_size", "here: `data.validation.fraction: 0.05`"),
        ("num_train_epochs: 3", "num_train_epochs", "here: `train.epochs: 3`"),
        ("output_dir: x", "output_dir", "here: `output: x`"),
        ("micro_batch_size: 2", "micro_batch_size", "here: `train.batch_size: 2`"),
        ("lr_scheduler_type: cosine", "lr_scheduler_type", "here: `train.schedule.type: cosine`"),
        (
            "num_generations: 8",
            "num_generations",
            "here: `rollout.group_size: 8`, which this version does not support",
        ),
    ];
    for (line, name, hint) in rows {
        check(line, &[&format!("a.yaml:3:1: unknown key `{name}` | {hint}")]);
    }
}

#[test]
fn a_batch_is_the_product_of_its_parts() {
    let error = parse(
        "model: x\ndata.train: y\nper_device_train_batch_size: 4\ngradient_accumulation_steps: 8\n",
        &[],
    )
    .unwrap_err();
    let hints: Vec<&str> = error.problems().iter().filter_map(|p| p.hint.as_deref()).collect();
    assert_eq!(hints[0], "here: `train.batch_size: 32`");
    assert!(hints[1].starts_with("leave it out: `train.batch_size` counts"), "{}", hints[1]);
}

#[test]
fn values_are_checked() {
    check(
        "adapter: {type: lorra, rank: 0}\ntrain: {epochs: many}\ndeterministic: yes\nadapter.dropout: 1.0",
        &[
            "a.yaml:3:17: `adapter.type` is `lorra`, but must be one of `lora`, `rslora`, `none` \
             | did you mean `lora`?",
            "a.yaml:3:30: `adapter.rank` is `0`, but must be 1 to 4096",
            "a.yaml:4:17: `train.epochs` is `many`, but must be a number, over 0 to 1000",
            "a.yaml:5:16: `deterministic` is `yes`, but must be `true` or `false` | write `true`",
            "a.yaml:6:18: `adapter.dropout` is `1.0`, but must be 0 to under 1",
        ],
    );
    let qlora = "a.yaml:3:10: `adapter.type` is `qlora`, but must be one of `lora`, `rslora`, \
                 `none` | write `adapter: lora` and `quantization: nf4`";
    check("adapter: qlora", &[qlora]);
    let betas = "a.yaml:3:28: `train.optimizer.betas` must have 2 items";
    check("train: {optimizer: {betas: [0.9]}}", &[betas]);
}

#[test]
fn groups_are_mappings() {
    let train = "a.yaml:3:8: `train` is `fast`, but must be a mapping | its keys: `epochs`, \
                 `max_steps`, `batch_size`, `learning_rate`, `schedule`, `optimizer`, \
                 `evaluate_every`";
    check("train: fast", &[train]);
    check("log: [tensorboard, ~]", &["a.yaml:3:20: `log.1` has no value"]);
}

#[test]
fn what_comes_later_is_refused_by_name() {
    let int8 = "a.yaml:3:15: `quantization` is `int8`, which this version does not support \
                | supported: `none`, `nf4`";
    check("quantization: int8", &[int8]);
    let by = "a.yaml:3:23: `data.validation.by` is `time:sent`, which this version does not \
              support | supported: `row`";
    check("data.validation: {by: time:sent}", &[by]);
    let rollout = "a.yaml:3:1: `rollout` is not supported by this version | it comes with grpo";
    check("rollout: {group_size: 8}", &[rollout]);
    check_whole(
        "model: x\ndata: {train: [{path: a, weight: 2}]}",
        &["a.yaml:2:26: `data.train.0.weight` is not supported by this version"],
    );
}

#[test]
fn a_key_stands_once() {
    let twice = "a.yaml:4:1: `seed` stands twice, first on line 3 | keep one of the two";
    check("seed: 1\nseed: 2", &[twice]);
    let twice = "a.yaml:4:1: `train.epochs` is given twice, first on line 3 | keep one of the two";
    check("train: {epochs: 1}\ntrain.epochs: 2", &[twice]);
    let both = "a.yaml:3:33: `train.max_steps` cannot stand beside `train.epochs` on line 3 \
                | keep one of the two";
    check("train: {epochs: 1,   max_steps: 2}", &[both]);
}

#[test]
fn what_every_recipe_needs_is_missed() {
    check_whole(
        "seed: 1",
        &[
            "a.yaml: `model` is missing | model: Hub id, folder or file.",
            "a.yaml: `data.train` is missing | data.train: Training data.",
        ],
    );
    check_whole(
        "",
        &[
            "a.yaml: `model` is missing | model: Hub id, folder or file.",
            "a.yaml: `data.train` is missing | data.train: Training data.",
        ],
    );
    check_whole(
        "model: x\ndata:\n  train:\n    - columns: {a: b}\n",
        &["a.yaml:4:7: `data.train.0.path`, or `data.train.0.hub` is missing \
           | data.train.0.path: File of rows."],
    );
}

#[test]
fn no_value_is_no_choice() {
    let adapter = "a.yaml:3:1: `adapter.type` has no value | write `none` to switch it off, or \
                   leave the key out for its default";
    check("adapter:", &[adapter]);
    let quantization = adapter.replace("adapter.type", "quantization");
    check("quantization: null", &[&quantization]);
}

#[test]
fn variables_have_to_be_there() {
    let output = "a.yaml:3:9: `output`: the variable `NOWHERE` is not set | set it, or write \
                  `$${NOWHERE}` for the text itself";
    check("output: ${NOWHERE}/x", &[output]);
}

#[test]
fn bad_yaml_says_where() {
    let rows = [
        (
            "a: [1, 2",
            "a.yaml:4:1: not valid YAML: while parsing a flow sequence, expected ',' or ']'",
        ),
        (
            "a:\n\tb: 1",
            "a.yaml:4:2: not valid YAML: tabs disallowed within this context (block indentation)",
        ),
        (
            "seed: !!int 1",
            "a.yaml:3:7: the tag `!!int` means nothing in a recipe | write the value alone",
        ),
        ("? [a]\n: 1", "a.yaml:3:3: a key must be plain text"),
        ("a: &a [*a]", "a.yaml:3:8: an alias cannot stand within its own anchor"),
        ("---\nseed: 2", "a.yaml:3:1: a recipe is one YAML document | remove the second `---`"),
    ];
    for (more, expected) in rows {
        check(more, &[expected]);
    }
    let list = "a.yaml:1:1: a recipe is a mapping of keys, not a list | write `key: value` lines";
    let Err(Error::Recipe(problems)) = parse("- a", &[]) else { panic!("a list is no recipe") };
    assert_eq!(
        format!("{} | {}", problems[0], problems[0].hint.as_ref().unwrap()),
        list.replace("a.yaml", "/recipes/a.yaml")
    );
    assert_eq!(problems[0].fault, Fault::WrongType);
}

#[test]
fn aliases_cannot_grow_without_bound() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..9 {
        let alias = format!("*a{}", i - 1);
        text += &format!("a{i}: &a{i} [{}]\n", vec![alias; 10].join(", "));
    }
    let error = parse(&text, &[]).unwrap_err();
    assert!(error.to_string().contains("more than 100000 values"), "{error}");
    let deep = "[".repeat(100);
    let error = parse(&format!("a: {deep}"), &[]).unwrap_err();
    assert!(error.to_string().contains("nested deeper than 64 levels"), "{error}");
}

#[test]
fn all_mistakes_are_told_in_their_order() {
    let text = "model: x\nlora_r: 8\nseed: -1\ndata: {train: a}\n";
    let error = parse(text, &["sede=1", "adapter.rank=x"]).unwrap_err();
    let expected = "\
/recipes/a.yaml:2:1: unknown key `lora_r`
  hint: here: `adapter.rank: 8`
/recipes/a.yaml:3:7: `seed` is `-1`, but must be at least 0
command line, argument `sede=1`: unknown key `sede`
  hint: did you mean `seed`?
command line, argument `adapter.rank=x`: `adapter.rank` is `x`, but must be a whole number, 1 to 4096";
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.problems()[1].fault.code(), "out_of_range");
    assert_eq!(error.problems()[1].key.as_deref(), Some("seed"));
}

#[test]
fn a_missing_file_is_named() {
    let around = keys::Surroundings {
        current_dir: std::path::Path::new("/"),
        home: None,
        variable: &|_| None,
    };
    let path = std::path::Path::new("/no/such/recipe.yaml");
    let error = crate::fixture::schema().read(path, &[], &around).unwrap_err();
    assert!(error.to_string().starts_with("/no/such/recipe.yaml: cannot be read: "), "{error}");
}

#[test]
fn no_text_makes_it_panic() {
    let text = "model: {id: ./b, template_kwargs: {a: *x}}\n? &x data\n:\n  train:\n  - path: 'a'\n    \
                columns: &x {k: \"v\\n\"}\nlog: [tensorboard]\noutput: |\n  ${DATA}\n<<: *x\n";
    for (at, c) in text.char_indices() {
        _ = parse(&text[..at], &[&text[at..]]);
        for other in "{}[]:-*&!|>'\"%@#?,.\n\t0\u{0}\u{feff}".chars() {
            let mut changed = text.to_owned();
            changed.replace_range(at..at + c.len_utf8(), other.encode_utf8(&mut [0; 4]));
            _ = parse(&changed, &[]);
        }
    }
}

#[test]
fn a_key_that_has_no_effect_is_refused_and_never_written() {
    static KEYS: &[Key] = &[
        Key::choice("kind", &["lion", "sgd"]).default("lion").doc("Optimizer."),
        Key::float("momentum", 0.0, 1.0).when("kind", &["sgd"]).default("0.9").doc("Momentum."),
        Key::float("beta", 0.0, 1.0).when("kind", &["lion"]).default_by("kind").doc("Beta."),
        Key::int("steps", 1, 9).when("kind", &["sgd"]).default("5").doc("Steps of SGD."),
        Key::int("steps", 10, 99).when("kind", &["lion"]).default("50").doc("Steps of Lion."),
    ];
    let schema = Schema::new(&[KEYS]);
    let around = Surroundings { current_dir: Path::new("/now"), home: None, variable: &|_| None };
    let parse = |text: &str| schema.parse(text, Path::new("/r/a.yaml"), &[], &around);

    // The choice may stand behind the key that asks for it.
    assert_eq!(parse("momentum: 0.5\nkind: sgd\n").unwrap().opt_f64("momentum"), Some(0.5));
    let Err(Error::Recipe(problems)) = parse("momentum: 0.5\n") else { panic!("it is refused") };
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].message, "`momentum` has no effect: `kind` is `lion`");
    assert_eq!(problems[0].hint.as_deref(), Some("leave it out; it belongs to `kind`: sgd"));

    // Neither a default nor what the program chooses is written beside another choice.
    let mut document = parse("kind: sgd\n").unwrap();
    document.fill("beta", 0.99, "lion");
    assert_eq!(document.opt_f64("momentum"), Some(0.9));
    assert_eq!(document.opt_f64("beta"), None);
    assert!(!document.to_yaml().contains("beta"), "{}", document.to_yaml());
    let mut document = parse("").unwrap();
    document.fill("beta", 0.99, "lion");
    assert_eq!((document.opt_f64("momentum"), document.opt_f64("beta")), (None, Some(0.99)));

    // One name, declared for each choice.
    let steps = |text: &str| parse(text).map(|document| document.opt_i64("steps"));
    assert_eq!(steps("kind: sgd\n").unwrap(), Some(5));
    assert_eq!(steps("").unwrap(), Some(50));
    assert_eq!(steps("steps: 7\nkind: sgd\n").unwrap(), Some(7));
    assert!(steps("steps: 7\n").is_err());
}
