//! What of a dialogue is learned, and what is changed before the template sees it.

use text::Message;

/// Which of the turns that could be learned count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrainOn {
    /// Every one, alike.
    #[default]
    All,
    /// Only the last one; the turns before it are context.
    Last,
    /// Every one, its tokens weighted with the message's `weight`.
    Weighted,
}

/// What happens to the reasoning of assistant turns: `reasoning_content`, `reasoning` or `thinking` of a
/// message, or `<think>...</think>` in its content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reasoning {
    /// The turn to learn is rendered with its reasoning, and earlier turns as the template shows them when it
    /// serves, which for most reasoning models is without. A template that leaves out the reasoning even of the
    /// last turn (DeepSeek-R1) gets a row a turn in which it follows the prompt as the model must emit it.
    #[default]
    Keep,
    /// It is taken out of every assistant turn before anything is rendered.
    Strip,
}

/// What happens to system and developer messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum System {
    /// They stay as they are.
    #[default]
    Keep,
    /// They are taken out.
    Drop,
    /// This text stands in front in their place, also where there were none.
    Set(String),
}

/// How dialogues are supervised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupervisionOptions {
    /// Which turns count.
    pub train_on: TrainOn,
    /// The roles whose turns are learned. A turn of another role than `assistant` is learned with the marks that
    /// open it: no generation prompt would bring them.
    pub roles: Vec<String>,
    /// What happens to reasoning.
    pub reasoning: Reasoning,
    /// What happens to system messages.
    pub system: System,
    /// Splits conversations of more tokens than this between turns (`overlong: split`).
    pub split_beyond: Option<usize>,
}

impl Default for SupervisionOptions {
    fn default() -> Self {
        SupervisionOptions {
            train_on: TrainOn::default(),
            roles: vec!["assistant".into()],
            reasoning: Reasoning::default(),
            system: System::default(),
            split_beyond: None,
        }
    }
}

/// Fields of a message under which reasoning is found.
const FIELDS: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// The reasoning of a turn, from a field of its own or from its content.
pub(super) fn reasoning(message: &Message) -> Option<&str> {
    let field = FIELDS.iter().find_map(|name| message.extra.get(*name)?.as_str());
    let inline = || {
        let (reasoning, _) = message.content.rsplit_once("</think>")?;
        Some(reasoning.trim_start().strip_prefix("<think>").unwrap_or(reasoning))
    };
    field.or_else(inline).map(str::trim).filter(|text| !text.is_empty())
}

/// What a content says after its reasoning.
pub(super) fn answer(content: &str) -> &str {
    content.rsplit_once("</think>").map_or(content, |(_, answer)| answer)
}

/// Takes the reasoning out of a turn.
pub(super) fn strip_reasoning(message: &mut Message) {
    for name in FIELDS {
        message.extra.shift_remove(name);
    }
    if let Some((_, answer)) = message.content.rsplit_once("</think>") {
        message.content = answer.trim_start().to_owned();
    } else if message.content.trim_start().starts_with("<think>") {
        message.content.clear(); // Cut off within its reasoning: there is no answer.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(content: &str, field: Option<&str>, expected: Option<&str>, stripped: &str) {
        let mut message = Message::new("assistant", content);
        message.extra.extend(field.map(|text| ("reasoning_content".to_owned(), text.into())));
        assert_eq!(reasoning(&message), expected);
        strip_reasoning(&mut message);
        assert_eq!((message.content.as_str(), message.extra.len()), (stripped, 0));
    }

    #[test]
    fn reasoning_is_found_and_stripped() {
        check("4", None, None, "4");
        check("<think>\nadd\n</think>\n\n4", None, Some("add"), "4");
        check("add</think>4", None, Some("add"), "4"); // The prompt had opened it.
        check("4", Some("add"), Some("add"), "4");
        check("<think>\n\n</think>\n\n4", None, None, "4");
        check("<think>and so on", None, None, "");
        check("a <think> b", None, None, "a <think> b");
    }
}
