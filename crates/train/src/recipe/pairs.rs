//! The keys of `tunesmith pairs`, which training itself does not read.

use keys::{Key, Kind, Resume};

/// The keys of the section. None has a default of its own, so that recipes that make no pairs do
/// not show them.
pub const PAIRS_KEYS: &[Key] = &[
    Key::section("pairs").doc("Preference pairs that `tunesmith pairs` makes."),
    Key::section("pairs.candidates").shorthand("model").doc("Where the answers come from."),
    Key::path_or_name("pairs.candidates.model")
        .default_by("model")
        .on_resume(Resume::Free)
        .doc("Model that answers the prompts; with `pairs.candidates.endpoint` its name there."),
    Key::text("pairs.candidates.endpoint")
        .on_resume(Resume::Free)
        .doc("Address of an OpenAI-compatible endpoint that answers the prompts, ending in /v1."),
    Key::list("pairs.candidates.columns", &Kind::Text)
        .items(2, 64)
        .excludes(&["pairs.candidates.endpoint", "pairs.candidates.model"])
        .on_resume(Resume::Free)
        .doc("Columns of the rows that hold the answers, instead of a model that answers."),
    Key::int("pairs.candidates.samples", 2, 64)
        .excludes(&["pairs.candidates.columns"])
        .default_by("the command: 2")
        .on_resume(Resume::Free)
        .doc("Number of answers per prompt. Neighbours are compared: the first with the second, the second with the third, and so on."),
    Key::int("pairs.candidates.max_new_tokens", 1, 1 << 20)
        .default_by("the command: 512")
        .on_resume(Resume::Free)
        .unit("tokens")
        .doc("Maximum length of an answer. Longer answers are left out and listed."),
    Key::float("pairs.candidates.temperature", 0.0, 10.0)
        .above_min()
        .default_by("the command: 1")
        .on_resume(Resume::Free)
        .doc("Sampling temperature of the answers."),
    Key::float("pairs.candidates.top_p", 0.0, 1.0)
        .above_min()
        .default_by("the command: 1")
        .on_resume(Resume::Free)
        .doc("Nucleus sampling of the answers: draw only from the most likely tokens that together have this probability."),
    Key::int("pairs.candidates.concurrency", 1, 1024)
        .default_by("the command: 8")
        .on_resume(Resume::Free)
        .doc("Number of answers computed at once, or of requests to the endpoint at once."),
    Key::float("pairs.candidates.price", 0.0, 1e9)
        .on_resume(Resume::Free)
        .doc("Price of a million tokens at the endpoint of the answers, for the cost that is said before the command begins."),
    Key::choice("pairs.choose_by", &["person", "judge", "reward"])
        .default_by("the command: person")
        .on_resume(Resume::Free)
        .doc("Who chooses the better answer. person: in the terminal. judge: a model at an endpoint, asked in both orders. reward: a reward model that scores the answers; the best stands against the worst, with the difference as margin."),
    Key::path_or_name("pairs.reward")
        .on_resume(Resume::Free)
        .doc("Reward model that scores the answers: the adapter folder or run of `method: reward`."),
    Key::section("pairs.judge").doc("The judge."),
    Key::text("pairs.judge.endpoint")
        .on_resume(Resume::Free)
        .doc("Address of the judge's OpenAI-compatible endpoint, ending in /v1."),
    Key::text("pairs.judge.model").on_resume(Resume::Free).doc("Name of the judge at its endpoint."),
    Key::text("pairs.judge.rubric")
        .default_by("the command: correct, helpful, does what was asked")
        .on_resume(Resume::Free)
        .doc("What the judge looks for."),
    Key::path("pairs.judge.rubric_file")
        .excludes(&["pairs.judge.rubric"])
        .on_resume(Resume::Free)
        .doc("File that says what the judge looks for."),
    Key::int("pairs.judge.max_new_tokens", 1, 1 << 20)
        .default_by("the command: 512")
        .on_resume(Resume::Free)
        .unit("tokens")
        .doc("Maximum length of a verdict with its reasons."),
    Key::int("pairs.judge.concurrency", 1, 1024)
        .default_by("the command: 8")
        .on_resume(Resume::Free)
        .doc("Number of requests to the judge at once."),
    Key::float("pairs.judge.price", 0.0, 1e9)
        .on_resume(Resume::Free)
        .doc("Price of a million tokens at the judge's endpoint, for the cost that is said before the command begins."),
    Key::path("pairs.output")
        .on_resume(Resume::Free)
        .doc("JSON Lines file of preference pairs that `pairs` writes. Required by `pairs`."),
    Key::int("pairs.max_pairs", 1, 1 << 40)
        .on_resume(Resume::Free)
        .doc("Maximum number of pairs to compare, the first ones in the order of the rows."),
    Key::float("pairs.seconds_per_pair", 0.0, 1e5)
        .above_min()
        .default_by("choices so far, or 20")
        .on_resume(Resume::Free)
        .unit("seconds")
        .doc("Time that a person takes for a pair, for the cost that is said before the command begins."),
    Key::float("pairs.rate_per_hour", 0.0, 1e9)
        .on_resume(Resume::Free)
        .doc("Pay of a person per hour, for the cost that is said before the command begins."),
];
