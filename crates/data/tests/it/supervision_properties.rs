//! What holds of every conversation.

use data::{Findings, Sequence, SupervisionOptions, Supervisor};
use proptest::prelude::*;
use text::{ChatTemplate, Date, Message, RenderOptions, Tokenizer};

use crate::support::{CHATML, conversation, small_tokenizer, supervisor};

fn content() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("<|im_end|>".to_owned()),
        Just("<|im_start|>assistant\n".to_owned()),
        Just("<s>".to_owned()),
        Just("<think>\n".to_owned()),
        Just("</think>".to_owned()),
        Just("\n\n".to_owned()),
        Just(" ".to_owned()),
        "[a-z]{1,4}",
        "\\PC{0,3}",
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

fn dialogue() -> impl Strategy<Value = Vec<(String, String)>> {
    let role = prop_oneof![Just("user"), Just("assistant"), Just("system"), Just("tool")];
    let turn = (role.prop_map(str::to_owned), content());
    (prop::collection::vec(turn, 0..6), content()).prop_map(|(mut turns, last)| {
        turns.push(("assistant".into(), format!("x{last}")));
        turns
    })
}

/// The rendering of the dialogue up to a message.
fn render(template: &str, tokenizer: &Tokenizer, messages: &[Message], prompt: bool) -> String {
    let template = ChatTemplate::new(template, tokenizer.special(), Date::new(2026, 3, 1).unwrap());
    let options = RenderOptions { add_generation_prompt: prompt, ..RenderOptions::default() };
    template.unwrap().render(messages, &options).unwrap()
}

fn rows(supervisor: &Supervisor, turns: &[(String, String)]) -> Option<Vec<Sequence>> {
    let turns: Vec<(&str, &str)> = turns.iter().map(|(r, c)| (r.as_str(), c.as_str())).collect();
    supervisor.supervise(0, &conversation(&turns), &mut Findings::default()).ok()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    /// Rows of a nested template decode to the rendering, and their mask begins where the prompt ends.
    #[test]
    fn rows_are_the_rendering(turns in dialogue()) {
        let tokenizer = small_tokenizer();
        let supervisor = supervisor(CHATML);
        let messages: Vec<Message> =
            turns.iter().map(|(role, content)| Message::new(role.as_str(), content.as_str())).collect();
        if let Some(rows) = rows(&supervisor, &turns) {
            prop_assert_eq!(rows.len(), 1);
            let row = &rows[0];
            prop_assert_eq!(row.tokens.len(), row.weights.len());
            let whole = render(CHATML, &tokenizer, &messages, false);
            prop_assert_eq!(tokenizer.decode(&row.tokens, false).unwrap(), whole);
            let first = turns.iter().position(|(role, _)| role == "assistant").unwrap();
            let prompt = render(CHATML, &tokenizer, &messages[..first], true);
            let learned = row.weights.iter().position(|&weight| weight != 0.0).unwrap();
            prop_assert_eq!(tokenizer.decode(&row.tokens[..learned], false).unwrap(), prompt);
        }
    }

    /// Rows of a template that rewrites earlier turns begin with what serving feeds.
    #[test]
    fn rows_of_their_own_begin_with_the_prompt(turns in dialogue()) {
        let template = CHATML.replace(
            "{{ m.content }}",
            "{% if loop.last %}{{ m.content }}{% else %}{{ m.content.split('</think>')[-1] }}{% endif %}",
        );
        let tokenizer = small_tokenizer();
        let supervisor = supervisor(&template);
        let messages: Vec<Message> =
            turns.iter().map(|(role, content)| Message::new(role.as_str(), content.as_str())).collect();
        if let Some(rows) = rows(&supervisor, &turns) {
            let last = rows.last().unwrap();
            let prompt = render(&template, &tokenizer, &messages[..messages.len() - 1], true);
            let text = tokenizer.decode(&last.tokens, false).unwrap();
            prop_assert!(text.starts_with(&prompt), "{:?} {:?}", text, prompt);
            prop_assert_eq!(last.weights[0], 0.0);
        }
    }

    /// Parts of a split conversation fit, and learn no more than the whole.
    #[test]
    fn parts_fit(turns in dialogue(), max in 8usize..120) {
        let options = SupervisionOptions { split_beyond: Some(max), ..SupervisionOptions::default() };
        let (whole, split) = (supervisor(CHATML), supervisor(CHATML).with(options));
        if let (Some(whole), Some(parts)) = (rows(&whole, &turns), rows(&split, &turns)) {
            prop_assert!(parts.iter().all(|part| part.len() <= max));
            let learned = |rows: &[Sequence]| rows.iter().map(Sequence::supervised).sum::<usize>();
            prop_assert!(learned(&parts) <= learned(&whole));
        }
    }
}
