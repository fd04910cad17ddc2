//! Dialogues as Anthropic's hh-rlhf writes them, in one text.

use text::Message;

const HUMAN: &str = "\n\nHuman:";
const ASSISTANT: &str = "\n\nAssistant:";

/// The turns of a text that begins with one, or nothing.
pub(super) fn turns(text: &str) -> Option<Vec<Message>> {
    let mut rest = text;
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let (role, after) = match (rest.strip_prefix(HUMAN), rest.strip_prefix(ASSISTANT)) {
            (Some(after), _) => ("user", after),
            (None, Some(after)) => ("assistant", after),
            (None, None) => return None,
        };
        let next = [HUMAN, ASSISTANT].iter().filter_map(|mark| after.find(mark)).min();
        let (turn, remaining) = after.split_at(next.unwrap_or(after.len()));
        messages.push(Message::new(role, turn.trim()));
        rest = remaining;
    }
    (!messages.is_empty()).then_some(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&[(&str, &str)]>) {
        let found = turns(text);
        let shown = found.as_ref().map(|turns| {
            turns.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect::<Vec<_>>()
        });
        assert_eq!(shown.as_deref(), expected);
    }

    #[test]
    fn a_transcript_is_split_into_turns() {
        check(
            "\n\nHuman: a\n\nb\n\nAssistant: c\n\nHuman:\n\nAssistant: d ",
            Some(&[("user", "a\n\nb"), ("assistant", "c"), ("user", ""), ("assistant", "d")]),
        );
        check("", None);
        check("Human: a", None);
        check("say \n\nHuman: a", None);
    }
}
