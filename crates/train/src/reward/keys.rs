//! The keys of `rewards`.

use keys::{Key, Kind, Resume};

use crate::method::REWARDED;

/// Any finite number.
const NUMBER: Kind =
    Kind::Float { min: f64::NEG_INFINITY, max: f64::INFINITY, open_min: false, open_max: false };
const WHOLE: Kind = Kind::Int { min: -1_000_000, max: 1_000_000 };

/// The keys of the section, and `rollout.on_reward_error`.
///
/// What belongs to one kind of reward has no default of its own, so that other kinds do not show it.
pub const KEYS: &[Key] = &[
    Key::entries("rewards")
        .shorthand("grader")
        .when("method", REWARDED)
        .doc("Reward functions. Their weighted sum is the reward of an answer."),
    Key::text("rewards[].grader")
        .when("method", REWARDED)
        .excludes(&["rewards[].model", "rewards[].command", "rewards[].http"])
        .doc("Grader that compares the answer with the row's reference answer: see docs/graders.md. Its primary metric is the reward."),
    Key::map("rewards[].options")
        .when("method", REWARDED)
        .excludes(&["rewards[].model", "rewards[].command", "rewards[].http"])
        .doc("Options of the grader: see docs/graders.md."),
    Key::path_or_name("rewards[].model")
        .when("method", REWARDED)
        .excludes(&["rewards[].command", "rewards[].http"])
        .doc("Reward model over the same base: the adapter folder or run of `method: reward`."),
    Key::list("rewards[].command", &Kind::Text)
        .when("method", REWARDED)
        .items(1, 256)
        .on_resume(Resume::WithNote)
        .excludes(&["rewards[].http"])
        .doc("Program that reads answers and writes rewards as JSON Lines, with its arguments: see docs/rewards.md."),
    Key::path("rewards[].folder")
        .when("method", REWARDED)
        .on_resume(Resume::Free)
        .excludes(&["rewards[].grader", "rewards[].model", "rewards[].http", "rewards[].judge"])
        .default(".")
        .doc("Folder that the program runs in. By default that of the recipe."),
    Key::text("rewards[].http")
        .when("method", REWARDED)
        .on_resume(Resume::WithNote)
        .doc("Address that answers are posted to and that gives their rewards: see docs/rewards.md. The variable `REWARD_API_KEY` holds its key, if it wants one."),
    Key::section("rewards[].judge")
        .doc("Model behind an OpenAI-compatible endpoint that scores answers by a rubric."),
    Key::text("rewards[].judge.endpoint")
        .when("method", REWARDED)
        .on_resume(Resume::WithNote)
        .doc("Address of the endpoint of the judge that gives rewards, ending in /v1. The variable `OPENAI_API_KEY` holds its key."),
    Key::text("rewards[].judge.model")
        .when("method", REWARDED)
        .doc("Name of the judge that gives rewards, at its endpoint."),
    Key::text("rewards[].judge.rubric")
        .when("method", REWARDED)
        .default_by("the kind: correct, helpful, does what was asked")
        .doc("What the judge that gives rewards looks for."),
    Key::path("rewards[].judge.rubric_file")
        .when("method", REWARDED)
        .excludes(&["rewards[].judge.rubric"])
        .doc("File that says what the judge that gives rewards looks for."),
    Key::list("rewards[].judge.scale", &WHOLE)
        .when("method", REWARDED)
        .items(2, 2)
        .default_by("the kind: [0, 10]")
        .doc("Lowest and highest score that the judge may give. The reward is where the score lies between them, from 0 to 1."),
    Key::int("rewards[].judge.max_new_tokens", 1, 1 << 20)
        .when("method", REWARDED)
        .default_by("the kind: 512")
        .unit("tokens")
        .doc("Maximum length of what the judge says about an answer."),
    Key::text("rewards[].name")
        .when("method", REWARDED)
        .default_by("the grader, program, model or kind")
        .doc("Name of the reward in metrics and messages, different from the others'."),
    Key::float("rewards[].weight", f64::NEG_INFINITY, f64::INFINITY)
        .when("method", REWARDED)
        .default("1")
        .doc("Weight of the reward in the sum. 0 only records it; a negative weight makes it a penalty."),
    Key::list("rewards[].range", &NUMBER)
        .when("method", REWARDED)
        .items(2, 2)
        .doc("Lowest and highest value that the reward may have. A value beyond it is an error."),
    Key::float("rewards[].timeout", 0.0, 1e6)
        .when("method", REWARDED)
        .above_min()
        .default_by("the kind: 60 for a program or address, 600 for a judge")
        .on_resume(Resume::Free)
        .unit("seconds")
        .doc("Time that a program may take until its next answer, or a request until it is answered."),
    Key::int("rewards[].retries", 0, 100)
        .when("method", REWARDED)
        .default_by("the kind: 2 for a program, 5 for an address or judge")
        .on_resume(Resume::Free)
        .doc("How often a reward that failed is asked for again. A program that died or hung is started again."),
    Key::int("rewards[].concurrency", 1, 1024)
        .when("method", REWARDED)
        .default_by("the kind: 1 program, 4 requests to an address, 8 to a judge")
        .on_resume(Resume::Free)
        .doc("Number of programs or requests at once."),
    Key::int("rewards[].batch", 1, 1 << 16)
        .when("method", REWARDED)
        .default_by("the kind: 64")
        .on_resume(Resume::Free)
        .doc("Maximum number of answers that a program is given, or a request holds, at once."),
    Key::choice("rollout.on_reward_error", &["stop", "skip"])
        .when("method", REWARDED)
        .default("stop")
        .on_resume(Resume::Free)
        .doc("What to do with an answer whose reward failed: stop ends the run; skip leaves the answer without that reward and counts it."),
];
