use keys::{Document, Error, Key, Kind, Resume, Schema, Surroundings};
use std::path::Path;

const SHARE: Kind = Kind::Float { min: 0.0, max: 1.0, open_min: false, open_max: true };

const MODEL: &[Key] = &[
    Key::section("model").shorthand("id").doc("Model to start from."),
    Key::path_or_name("model.id").required().doc("Hub id, folder or file."),
    Key::text("model.revision").doc("Branch, tag or commit on the hub."),
    Key::map("model.template_kwargs").doc("Variables of the chat template."),
    Key::choice("method", &["sft"]).later_words(&["dpo", "grpo"]).default("sft").doc("Method."),
    Key::section("adapter").shorthand("type").doc("What is trained."),
    Key::choice("adapter.type", &["lora", "rslora", "none"])
        .later_words(&["dora"])
        .default("lora")
        .doc("Kind of adapter."),
    Key::int("adapter.rank", 1, 4096).default_by("rows").doc("Rank of the adapter matrices."),
    Key::float("adapter.dropout", 0.0, 1.0).below_max().default("0.0").doc("Dropout before A."),
    Key::list("adapter.target_modules", &Kind::Text)
        .or(&["all-linear"])
        .default("all-linear")
        .doc("Layers that get an adapter."),
    Key::choice("quantization", &["none", "nf4"])
        .later_words(&["int8"])
        .default("none")
        .doc("Storage of the base."),
];

const DATA: &[Key] = &[
    Key::entries("data.train").shorthand("path").required().doc("Training data."),
    Key::path("data.train[].path").required().excludes(&["data.train[].hub"]).doc("File of rows."),
    Key::text("data.train[].hub").doc("Data set on the hub."),
    Key::map("data.train[].columns").secret(false).doc("Own names of columns."),
    Key::float("data.train[].weight", 0.0, f64::INFINITY).later("").doc("Share of the rows."),
    Key::float("data.validation.fraction", 0.0, 1.0)
        .below_max()
        .default("0.1")
        .excludes(&["data.validation.path"])
        .doc("Share of rows kept for validation."),
    Key::path("data.validation.path").doc("File of rows."),
    Key::choice("data.validation.by", &["row"])
        .later_words(&["cluster", "time:<column>"])
        .default("row")
        .doc("What stays together."),
    Key::int("data.max_seq_len", 1, 1 << 20)
        .or(&["auto"])
        .unit("tokens")
        .default("auto")
        .doc("Longest row."),
];

const TRAIN: &[Key] = &[
    Key::float("train.epochs", 0.0, 1000.0)
        .above_min()
        .default("3")
        .excludes(&["train.max_steps"])
        .on_resume(Resume::Free)
        .doc("Passes over the data."),
    Key::int("train.max_steps", 1, i64::MAX).on_resume(Resume::Free).doc("Optimizer steps."),
    Key::int("train.batch_size", 1, 65536).default_by("method").doc("Rows in a step."),
    Key::float("train.learning_rate", 0.0, 1.0)
        .above_min()
        .default_by("method and adapter")
        .on_resume(Resume::WithNote)
        .doc("Largest learning rate."),
    Key::section("train.schedule").shorthand("type").doc("Course of the learning rate."),
    Key::choice("train.schedule.type", &["cosine", "linear", "constant"])
        .default("cosine")
        .doc("Shape."),
    Key::float("train.schedule.warmup_ratio", 0.0, 1.0).default("0.03").doc("Share of warm-up."),
    Key::list("train.optimizer.betas", &SHARE).items(2, 2).default("[0.9, 0.999]").doc("Decays."),
    Key::section("train.evaluate_every").shorthand("steps").doc("When to evaluate."),
    Key::int("train.evaluate_every.steps", 1, i64::MAX)
        .default("50")
        .excludes(&["train.evaluate_every.tokens"])
        .unit("steps")
        .on_resume(Resume::Free)
        .doc("Steps between."),
    Key::int("train.evaluate_every.tokens", 1, i64::MAX).doc("Tokens between."),
    Key::entries("log").shorthand("sink").doc("Readers of events."),
    Key::choice("log[].sink", &["tensorboard"]).doc("A known reader."),
    Key::list("log[].command", &Kind::Text).excludes(&["log[].sink"]).doc("A program."),
    Key::path("output").doc("Folder of the run."),
    Key::int("seed", 0, i64::MAX).default("1").doc("Seed of everything random."),
    Key::bool("deterministic").default("true").doc("Same seed, same run."),
    Key::text("hub_token").doc("Token of the hub."),
    Key::section("rollout").later("it comes with grpo").doc("Sampling."),
    Key::int("rollout.group_size", 1, 1024).doc("Completions of a prompt."),
    Key::bytes("memory").doc("Memory to use at most."),
];

/// Keys like those of the design.
pub(crate) fn schema() -> Schema {
    Schema::new(&[MODEL, DATA, TRAIN])
}

/// Reads a recipe at `/recipes/a.yaml`, from the folder `/here`, at home in `/home/ada`.
pub(crate) fn parse(text: &str, overrides: &[&str]) -> Result<Document, Error> {
    let variable = |name: &str| match name {
        "DATA" => Some("/big/disk".to_owned()),
        "RANK" => Some("8".to_owned()),
        "HF_TOKEN" => Some("hf_abc".to_owned()),
        _ => None,
    };
    let around = Surroundings {
        current_dir: Path::new("/here"),
        home: Some(Path::new("/home/ada")),
        variable: &variable,
    };
    let overrides: Vec<String> = overrides.iter().map(|&argument| argument.to_owned()).collect();
    schema().parse(text, Path::new("/recipes/a.yaml"), &overrides, &around)
}

/// Reads a recipe that is right, its first two lines given.
#[track_caller]
pub(crate) fn document(more: &str, overrides: &[&str]) -> Document {
    let text = format!("model: org/tiny\ndata: {{train: a.jsonl}}\n{more}");
    parse(&text, overrides).unwrap_or_else(|error| panic!("{error}"))
}
