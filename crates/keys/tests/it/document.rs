use crate::fixture::{document, parse};
use keys::{Origin, Place, Settings as _, Value};
use std::path::Path;

#[test]
fn the_recipe_of_the_design_is_read() {
    let text = "
model: {id: ./base.gguf, template_kwargs: {enable_thinking: false}}
method: sft
adapter: {type: lora, rank: 16, target_modules: [q_proj, v_proj], dropout: 0.0}
quantization: nf4
data:
  train: [{path: tickets/train.jsonl}, more.jsonl, {hub: org/rows, columns: {key: text}}]
  validation: {fraction: 0.1, by: row}
  max_seq_len: auto
train:
  epochs: 3
  batch_size: 16
  learning_rate: 2e-4
  schedule: {type: linear, warmup_ratio: 0.03}
  optimizer: {betas: [0.9, 0.95]}
  evaluate_every: {tokens: 1_000}
log: [tensorboard, {command: [cat, '-']}]
output: runs/tickets
memory: 1.5GiB
";
    let document = parse(text, &[]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(document.get_locator("model.id").path, Path::new("/recipes/base.gguf"));
    assert!(document.get_locator("model.id").is_path);
    let kwargs = [("enable_thinking".to_owned(), Value::Bool(false))];
    assert_eq!(document.opt_map("model.template_kwargs").unwrap(), kwargs);
    assert_eq!(document.opt_strs("adapter.target_modules").unwrap(), ["q_proj", "v_proj"]);
    let train = document.entries("data.train");
    assert_eq!(train.len(), 3);
    assert_eq!(train[0].get_path("path"), Path::new("/recipes/tickets/train.jsonl"));
    assert_eq!(train[1].get_path("path"), Path::new("/recipes/more.jsonl"));
    assert_eq!((train[2].opt_path("path"), train[2].get_str("hub")), (None, "org/rows"));
    assert_eq!(document.opt_usize("data.max_seq_len"), None);
    assert!(document.is_word("data.max_seq_len", "auto"));
    let schedule = document.section("train.schedule");
    assert_eq!(schedule.get_str("type"), "linear");
    assert_eq!(document.get_f64("train.learning_rate"), 2e-4);
    assert_eq!(document.opt_f64s("train.optimizer.betas").unwrap(), [0.9, 0.95]);
    assert_eq!(document.opt_i64("train.evaluate_every.tokens"), Some(1000));
    assert_eq!(document.opt_i64("train.evaluate_every.steps"), None);
    let log = document.entries("log");
    assert_eq!(log[0].get_str("sink"), "tensorboard");
    assert_eq!(log[1].opt_strs("command").unwrap(), ["cat", "-"]);
    assert_eq!(document.get_path("output"), Path::new("/recipes/runs/tickets"));
    assert_eq!(document.get_i64("memory"), 1_610_612_736);
}

#[test]
fn what_is_not_given_has_its_default() {
    let document = document("adapter:\n  rank: 8\ntrain:\n  # epochs: 2\n", &[]);
    assert_eq!(document.get_f64("train.epochs"), 3.0);
    assert_eq!(document.setting("train.epochs").unwrap().origin, Origin::Default);
    assert!(document.is_given("adapter.rank") && !document.is_given("adapter.type"));
    assert_eq!(document.opt_f64("train.learning_rate"), None);
    assert_eq!(document.opt_str("model.revision"), None);
    assert!(document.get_bool("deterministic"));
    assert!(document.entries("log").is_empty());
}

#[test]
fn an_alternative_takes_the_place_of_a_default() {
    let document = document("train: {max_steps: 10}\ndata.validation.path: v.jsonl\n", &[]);
    assert_eq!(document.opt_f64("train.epochs"), None);
    assert_eq!(document.opt_f64("data.validation.fraction"), None);
    assert_eq!(document.get_path("data.validation.path"), Path::new("/recipes/v.jsonl"));
}

#[test]
fn the_program_fills_what_is_left_open() {
    let mut document = document("train: {learning_rate: 1e-5, max_steps: 3}\n", &[]);
    document.fill("train.learning_rate", 2e-4, "sft");
    assert_eq!(document.get_f64("train.learning_rate"), 1e-5);
    document.fill("train.epochs", 2.0, "few rows");
    assert_eq!(document.opt_f64("train.epochs"), None);
    document.fill("adapter.rank", 16usize, "under 2,000 rows");
    assert_eq!(document.get_usize("adapter.rank"), 16);
    let chosen = Origin::Chosen("under 2,000 rows".to_owned());
    assert_eq!(document.setting("adapter.rank").unwrap().origin, chosen);
    document.choose("data.max_seq_len", 312usize, "the longest row");
    assert_eq!(document.get_usize("data.max_seq_len"), 312);
    document.choose("data.train.1.path", Path::new("/b").to_owned(), "more");
    assert_eq!(document.entries("data.train")[1].get_path("path"), Path::new("/b"));
    document.choose("data.max_seq_len", "auto", "");
    assert!(document.is_word("data.max_seq_len", "auto"));
}

#[test]
#[should_panic(expected = "`adapter.rank` is chosen wrongly: it takes a whole number, 1 to 4096")]
fn a_program_cannot_choose_out_of_range() {
    document("", &[]).choose("adapter.rank", 0usize, "");
}

#[test]
#[should_panic(expected = "`train.learning_rate` has no value")]
fn a_program_cannot_get_what_is_not_there() {
    document("", &[]).get_f64("train.learning_rate");
}

#[test]
fn aliases_merges_and_dotted_names_are_understood() {
    let text = "
model: org/tiny
data:
  train:
    - &first {path: a.jsonl, columns: {prompt: q}}
    - {<<: *first, path: b.jsonl}
train.epochs: 2
";
    let document = parse(text, &[]).unwrap();
    let train = document.entries("data.train");
    assert_eq!(train[1].get_path("path"), Path::new("/recipes/b.jsonl"));
    assert_eq!(train[1].opt_map("columns"), train[0].opt_map("columns"));
    assert_eq!(document.get_f64("train.epochs"), 2.0);
}

#[test]
fn a_byte_order_mark_is_no_key() {
    let document = parse("\u{feff}model: x\r\ndata: {train: a}\r\n", &[]).unwrap();
    assert_eq!(document.get_locator("model.id").name, "x");
}

#[test]
fn variables_and_home_are_replaced() {
    let more = "adapter: {rank: '${RANK}'}\noutput: ${DATA}/runs\n";
    let mut document = document(more, &["data.train.0.path=~/rows.jsonl"]);
    assert_eq!(document.get_usize("adapter.rank"), 8);
    assert_eq!(document.get_path("output"), Path::new("/big/disk/runs"));
    let train = document.entries("data.train");
    assert_eq!(train[0].get_path("path"), Path::new("/home/ada/rows.jsonl"));
    document.choose("output", Path::new("/x").to_owned(), "");
    assert_eq!(document.get_path("output"), Path::new("/x"));
}

#[test]
fn a_later_mistake_is_put_where_the_key_stands() {
    let document = document("train:\n  batch_size: 7\n", &["adapter.rank=4"]);
    let problem = document.error_at("train.batch_size", "`train.batch_size` is odd", None);
    assert_eq!(problem.to_string(), "/recipes/a.yaml:4:15: `train.batch_size` is odd");
    assert_eq!((problem.place.line(), problem.place.column()), (Some(4), Some(15)));
    assert_eq!(document.place("train.learning_rate").line(), Some(3));
    assert_eq!(document.place("seed"), &Place::File("/recipes/a.yaml".into()));
    assert_eq!(document.place("adapter.rank"), &Place::Argument("adapter.rank=4".into()));
    let entry = &document.entries("data.train")[0];
    let problem = entry.problem("path", "no such file", None);
    assert_eq!(problem.key.as_deref(), Some("data.train.0.path"));
    assert_eq!(problem.to_string(), "/recipes/a.yaml:2:15: no such file");
    assert_eq!(entry.problem("", "bad entry", None).key.as_deref(), Some("data.train.0"));
}
