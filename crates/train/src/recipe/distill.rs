//! The keys of `tunesmith distill` and `method: distill`: a teacher, and what it sees.

use keys::{Key, Resume};

/// The keys of the section. None has a default of its own, so that recipes that distill nothing
/// do not show them.
pub const DISTILL_KEYS: &[Key] = &[
    Key::section("distill").doc("Teacher: of `tunesmith distill`, which has it answer, and of `method: distill`, which has it judge the student's own answers."),
    Key::path_or_name("distill.teacher")
        .default_by("model")
        .on_resume(Resume::Free)
        .doc("Teacher: a model. For `method: distill` an adapter over the same base, or a model with the same tokenizer; by default the model as the run begins. For the command also the address of an OpenAI-compatible endpoint, ending in /v1."),
    Key::text("distill.model")
        .on_resume(Resume::Free)
        .doc("Name of the teacher at the endpoint."),
    Key::text("distill.system")
        .on_resume(Resume::Free)
        .doc("System prompt of the teacher. It replaces the rows' own system messages."),
    Key::path("distill.system_file")
        .excludes(&["distill.system"])
        .on_resume(Resume::Free)
        .doc("File with the system prompt of the teacher."),
    Key::text("distill.demonstration")
        .when("method", &["distill"])
        .doc("Column whose text the teacher sees behind its system prompt: a worked solution, say. `reference` is the row's answer. Only for `method: distill`."),
    Key::path("distill.examples")
        .on_resume(Resume::Free)
        .doc("File of rows that the teacher sees as examples before each prompt."),
    Key::text("distill.keep_system")
        .on_resume(Resume::Free)
        .doc("System message of the written rows. By default they have none."),
    Key::int("distill.samples", 1, 1000)
        .default_by("the command: 1")
        .on_resume(Resume::Free)
        .doc("Number of teacher answers per prompt."),
    Key::int("distill.max_new_tokens", 1, 1 << 20)
        .default_by("the command: 1024")
        .on_resume(Resume::Free)
        .unit("tokens")
        .doc("Maximum length of a teacher answer. Longer answers are rejected."),
    Key::float("distill.temperature", 0.0, 10.0)
        .default_by("0 for one sample, 1 for several")
        .on_resume(Resume::Free)
        .doc("Sampling temperature of the teacher. 0 always takes the most likely token."),
    Key::float("distill.top_p", 0.0, 1.0)
        .above_min()
        .default_by("the command: 1")
        .on_resume(Resume::Free)
        .doc("Nucleus sampling of the teacher: draw only from the most likely tokens that together have this probability."),
    Key::path("distill.output")
        .on_resume(Resume::Free)
        .doc("JSON Lines file that `distill` writes. Required by `distill`."),
    Key::int("distill.concurrency", 1, 1024)
        .default_by("the command: 8")
        .on_resume(Resume::Free)
        .doc("Number of requests to the endpoint at once, or of prompts answered by the model at once."),
];
