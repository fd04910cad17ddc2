//! The keys of `environment`.

use keys::{Key, Kind, Resume};

use crate::method::REWARDED;

/// The keys of the section. None has a default of its own, so that recipes without an environment do not show them.
pub const KEYS: &[Key] = &[
    Key::section("environment")
        .doc("Program that answers the policy's answers, so that an answer has several turns: see docs/environments.md."),
    Key::list("environment.command", &Kind::Text)
        .when("method", REWARDED)
        .items(1, 256)
        .on_resume(Resume::WithNote)
        .doc("Program that plays episodes over JSON Lines, with its arguments."),
    Key::path("environment.folder")
        .when("method", REWARDED)
        .default_by("the recipe: its folder")
        .on_resume(Resume::Free)
        .doc("Folder that the program runs in."),
    Key::int("environment.max_turns", 1, 10_000)
        .when("method", REWARDED)
        .default_by("the section: 8")
        .unit("turns")
        .doc("Most answers of an episode. One that is not done by then ends as it is, and counts as cut."),
    Key::int("environment.max_tokens", 1, 1 << 24)
        .when("method", REWARDED)
        .default_by("environment.max_turns × rollout.max_new_tokens")
        .unit("tokens")
        .doc("Most tokens of an episode behind its row's prompt, observations included. Memory is planned for it."),
    Key::float("environment.timeout", 0.0, 1e6)
        .when("method", REWARDED)
        .above_min()
        .default_by("the section: 60")
        .on_resume(Resume::Free)
        .unit("seconds")
        .doc("Time that the program may take until its next line, while it is asked."),
    Key::int("environment.retries", 0, 100)
        .when("method", REWARDED)
        .default_by("the section: 2")
        .on_resume(Resume::Free)
        .doc("How often an episode that the program fails at is tried again. A program that died or hung is started again."),
    Key::float("environment.weight", f64::NEG_INFINITY, f64::INFINITY)
        .when("method", REWARDED)
        .default_by("the section: 1")
        .doc("Weight of the sum of an episode's rewards beside `rewards`. 0 only records it."),
];
