//! What holds for records of every shape.

use text::Message;

use super::{Answer, LabelledInput, Preference, Record, calls_tools, nulls};
use crate::finding::Kind;
use crate::{Findings, Level, Place, RowError};

type Result<T> = std::result::Result<T, RowError>;

const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// Adds the default system message and checks the turns.
pub(super) fn finish(
    mut record: Record,
    system: Option<&str>,
    findings: &mut Findings,
) -> Result<Record> {
    match &mut record {
        Record::Conversation(conversation) => {
            conversation.add_system(system);
            conversation.check(findings)?;
        }
        Record::Feedback(feedback) => {
            feedback.conversation.add_system(system);
            feedback.conversation.check(findings)?;
        }
        Record::Preference(pair) => {
            add_system(&mut pair.prompt, system);
            check_pair(pair, findings)?;
        }
        Record::Ranked(ranked) => {
            add_system(&mut ranked.prompt, system);
            check_prompt(&ranked.prompt, &ranked.place, findings)?;
            for (index, Answer { messages, .. }) in ranked.answers.iter().enumerate() {
                answer(&format!("answer {index}"), messages, &ranked.place)?;
            }
        }
        Record::Stepwise(stepwise) => {
            add_system(&mut stepwise.prompt, system);
            check_prompt(&stepwise.prompt, &stepwise.place, findings)?;
        }
        Record::Prompt(prompt) => {
            add_system(&mut prompt.messages, system);
            check_prompt(&prompt.messages, &prompt.place, findings)?;
            if prompt.reference.is_none() {
                findings.add(&WITHOUT_REFERENCE, &prompt.place);
            }
        }
        Record::Labelled(labelled) => {
            if let LabelledInput::Dialogue { messages, .. } = &mut labelled.input {
                add_system(messages, system);
                check_prompt(messages, &labelled.place, findings)?;
            }
        }
        Record::Text(_) | Record::Tokens(_) => {}
    }
    if nulls::in_tools(&record) {
        findings.add(&NULL_IN_TOOLS, record.place());
    }
    Ok(record)
}

fn check_pair(pair: &Preference, findings: &mut Findings) -> Result<()> {
    turns(&pair.prompt, &pair.place)?;
    answer("`chosen`", &pair.chosen, &pair.place)?;
    answer("`rejected`", &pair.rejected, &pair.place)?;
    let said = |turn: &Message| (turn.role.clone(), turn.content.trim().to_owned());
    let differs_in_calls = pair.chosen.iter().any(calls_tools) && pair.chosen != pair.rejected;
    if pair.chosen.iter().map(said).eq(pair.rejected.iter().map(said)) && !differs_in_calls {
        findings.add(&IDENTICAL_PAIR, &pair.place);
    }
    let whole: Vec<Message> = pair.prompt.iter().chain(&pair.chosen).cloned().collect();
    note_order(&whole, &pair.place, findings);
    Ok(())
}

fn check_prompt(messages: &[Message], place: &Place, findings: &mut Findings) -> Result<()> {
    turns(messages, place)?;
    note_order(messages, place, findings);
    match messages.iter().any(|message| message.role == "user" || message.role == "tool") {
        true => Ok(()),
        false => Err(RowError::new(place, "prompt has no user turn")),
    }
}

/// Checks the turns of an answer, which is named in messages.
fn answer(name: &str, messages: &[Message], place: &Place) -> Result<()> {
    turns(messages, place)
        .map_err(|error| RowError { message: format!("{name}: {}", error.message), ..error })?;
    match messages.last() {
        Some(last) if last.role == "assistant" => Ok(()),
        _ => Err(RowError::new(place, format!("{name} does not end with an assistant turn"))),
    }
}

/// Checks roles and that assistant turns say something.
pub(super) fn turns(messages: &[Message], place: &Place) -> Result<()> {
    for (index, message) in messages.iter().enumerate() {
        if !ROLES.contains(&message.role.as_str()) {
            let text = format!("message {index}: unknown role `{}`", message.role);
            let hint = format!("roles are {}", ROLES.join(", "));
            return Err(RowError::new(place, text).with_hint(hint));
        }
        let is_empty = message.content.trim().is_empty();
        if is_empty && message.role == "assistant" && !calls_tools(message) {
            let text = format!("message {index}: assistant turn is empty");
            return Err(RowError::new(place, text).with_hint("write the answer, or remove the row"));
        }
    }
    Ok(())
}

/// Puts the default system message in front where there is none. Returns whether it did.
pub(super) fn add_system(messages: &mut Vec<Message>, text: Option<&str>) -> bool {
    match text {
        Some(text) if !messages.first().is_some_and(is_system) => {
            messages.insert(0, Message::new("system", text));
            true
        }
        _ => false,
    }
}

fn is_system(message: &Message) -> bool {
    message.role == "system" || message.role == "developer"
}

/// Notes turns that are out of order.
pub(super) fn note_order(messages: &[Message], place: &Place, findings: &mut Findings) {
    let follows = |first: &str, second: &str| {
        messages.windows(2).any(|pair| pair[0].role == first && pair[1].role == second)
    };
    let is_misplaced =
        |index: usize| is_system(&messages[index]) && !messages[..index].iter().all(is_system);
    let lacks_call = |index: usize| {
        let before = messages[..index].iter().rev().find(|message| message.role != "tool");
        messages[index].role == "tool" && !before.is_some_and(calls_tools)
    };
    let has_no_question =
        messages.iter().find(|message| !is_system(message)).is_some_and(|m| m.role == "assistant");
    let is_empty = |message: &Message| message.role == "user" && message.content.trim().is_empty();
    for (is_so, kind) in [
        (follows("assistant", "assistant"), &ASSISTANT_TWICE),
        (follows("user", "user"), &USER_TWICE),
        (has_no_question, &USER_TURN_MISSING),
        ((0..messages.len()).any(is_misplaced), &SYSTEM_NOT_FIRST),
        ((0..messages.len()).any(lacks_call), &RESULT_WITHOUT_CALL),
        (messages.iter().any(is_empty), &EMPTY_USER_TURN),
    ] {
        if is_so {
            findings.add(kind, place);
        }
    }
}

const ASSISTANT_TWICE: Kind = Kind {
    id: "assistant-twice",
    level: Level::Warning,
    message: "two assistant turns follow each other",
    hint: "merge them, or check that no user turn was lost",
};
const USER_TWICE: Kind = Kind {
    id: "user-twice",
    level: Level::Warning,
    message: "two user turns follow each other",
    hint: "merge them, or check that no answer was lost",
};
const USER_TURN_MISSING: Kind = Kind {
    id: "user-turn-missing",
    level: Level::Warning,
    message: "the conversation begins with an assistant turn",
    hint: "check that the user turn before it was not lost",
};
const SYSTEM_NOT_FIRST: Kind = Kind {
    id: "system-not-first",
    level: Level::Warning,
    message: "a system turn stands after other turns",
    hint: "put it first: many templates drop or refuse it elsewhere",
};
const RESULT_WITHOUT_CALL: Kind = Kind {
    id: "result-without-call",
    level: Level::Warning,
    message: "a tool's result follows no assistant turn with `tool_calls`",
    hint: "check that the call was not lost or left inside the text",
};
const EMPTY_USER_TURN: Kind = Kind {
    id: "empty-user-turn",
    level: Level::Warning,
    message: "a user turn is empty",
    hint: "check that the prompt was not lost",
};
const WITHOUT_REFERENCE: Kind = Kind {
    id: "prompt-without-reference",
    level: Level::Note,
    message: "the prompt has no reference answer",
    hint: "rewards that compare with one cannot score it; `columns: {answer: ...}` names its column",
};
const NULL_IN_TOOLS: Kind = Kind {
    id: "null-in-tools",
    level: Level::Note,
    message: "tool calls or schemas of tools have fields that are null, which the model sees",
    hint: "leave such a field out, unless null is its value; in a Parquet or Arrow file null is not a value",
};
const IDENTICAL_PAIR: Kind = Kind {
    id: "identical-pair",
    level: Level::Warning,
    message: "`chosen` and `rejected` are the same",
    hint: "remove the pair: there is nothing to learn from it",
};
