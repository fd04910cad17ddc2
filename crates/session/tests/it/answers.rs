use std::path::Path;

use model::{Base, Decoder};
use session::{
    Answer, Error, Finish, Flow, Manner, Opened, Prompt, Question, Sampling, Session, Speaker,
};
use text::{Date, Message};

use crate::failing::{Failing, cpu};
use crate::tiny;

fn model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    tiny::write(folder.path());
    folder
}

fn opened(folder: &Path) -> Opened {
    Opened::read(folder, None, Date::new(2026, 3, 1).unwrap()).unwrap()
}

fn session(folder: &Path, free: fn() -> usize) -> Session {
    Session::new(opened(folder), Manner::default(), Box::new(cpu()), free).unwrap()
}

fn question(text: &str) -> Question {
    Question::of_messages(vec![Message::new("user", text)])
}

fn prompts(session: &Session, texts: &[(u64, &str)]) -> Vec<Prompt> {
    let prompt = |&(key, text): &(u64, &str)| {
        let tokens = session.encode(&question(text)).unwrap();
        Prompt { tokens, key }
    };
    texts.iter().map(prompt).collect()
}

fn answer(session: &mut Session, texts: &[(u64, &str)], sampling: &Sampling) -> Vec<Answer> {
    let prompts = prompts(session, texts);
    session.answer(&prompts, sampling, true, &mut |_| Flow::Continue).unwrap()
}

fn drawn() -> Sampling {
    Sampling { temperature: 1.0, max_new_tokens: 12, ..Sampling::default() }
}

#[test]
fn draws_depend_on_the_key_and_not_on_the_order() {
    let folder = model();
    let mut session = session(folder.path(), || usize::MAX);
    let all = answer(&mut session, &[(7, "a"), (8, "a"), (9, "b")], &drawn());
    assert_ne!(all[0].text, all[1].text);
    for (asked, expected) in [((9, "b"), &all[2]), ((7, "a"), &all[0]), ((8, "a"), &all[1])] {
        assert_eq!(&answer(&mut session, &[asked], &drawn())[0], expected);
    }
}

#[test]
fn an_answer_comes_in_pieces_and_ends_where_it_should() {
    let folder = model();
    let mut session = session(folder.path(), || usize::MAX);
    let asked = prompts(&session, &[(1, "a")]);
    let mut heard = String::new();
    let mut lasts = Vec::new();
    let mut on_token = |token: session::Token<'_>| {
        heard += token.text;
        lasts.push(token.is_last);
        Flow::Continue
    };
    let whole = session.answer(&asked, &drawn(), true, &mut on_token).unwrap().remove(0);
    assert_eq!((&heard, whole.tokens), (&whole.text, lasts.len()));
    assert_eq!(lasts.iter().filter(|&&is_last| is_last).count(), 1);
    assert_eq!((whole.finish, whole.prompt_tokens), (Finish::Length, asked[0].tokens.len()));

    let third: String = whole.text.chars().skip(2).take(1).collect();
    let stop = Sampling { stop: vec![third.clone()], ..drawn() };
    let stopped = answer(&mut session, &[(1, "a")], &stop).remove(0);
    assert_eq!(stopped.finish, Finish::Stop);
    assert_eq!(stopped.text, whole.text.split(&third).next().unwrap());

    let complete = Sampling { is_complete: Some(|text| text.chars().count() == 3), ..drawn() };
    let complete = answer(&mut session, &[(1, "a")], &complete).remove(0);
    assert_eq!((complete.text.chars().count(), complete.finish), (3, Finish::Stop));
    assert!(whole.text.starts_with(&complete.text));

    let interrupted = session.answer(&asked, &drawn(), true, &mut |_| Flow::Stop).unwrap();
    assert_eq!((interrupted[0].tokens, interrupted[0].finish), (1, Finish::Interrupted));

    // Those that had not begun are not begun.
    let two = prompts(&session, &[(1, "a"), (2, "b")]);
    let one_at_a_time = Sampling { batch: 1, ..drawn() };
    let cancelled = session.answer(&two, &one_at_a_time, true, &mut |_| Flow::Cancel).unwrap();
    let ends = |answer: &Answer| (answer.tokens, answer.finish);
    let ends: Vec<_> = cancelled.iter().map(ends).collect();
    assert_eq!(ends, [(1, Finish::Interrupted), (0, Finish::Interrupted)]);
}

#[test]
fn a_dialogue_is_shown_with_the_variables_of_training() {
    let folder = model();
    let template = "{{ tone }}|{% for m in messages %}{{ m.content }}{% endfor %}";
    std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    let own = r#"{"schema": 1, "template_kwargs": {"tone": "calm"}}"#;
    std::fs::write(folder.path().join("tunesmith.json"), own).unwrap();
    let session = session(folder.path(), || usize::MAX);
    let tokens = session.encode(&question("a")).unwrap();
    assert_eq!(session.metadata().tokenizer.decode(&tokens, false).unwrap(), "calm|a");
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let folder = model();
    let mut session = session(folder.path(), || 1000);
    assert!(matches!(session.encode(&Question::Tokens(vec![])), Err(Error::Empty)));
    let strange = session.encode(&Question::Tokens(vec![128]));
    assert!(matches!(strange, Err(Error::Vocabulary { token: 128, vocab_size: 128 })));
    let long = session.encode(&Question::Tokens(vec![5; 100_000]));
    assert!(matches!(long, Err(Error::TooLong { tokens: 100_000, .. })));
    let prompts = [Prompt { tokens: vec![5], key: 0 }];
    let refused = session.answer(&prompts, &Sampling::default(), true, &mut |_| Flow::Continue);
    assert!(matches!(refused, Err(Error::Room { active: 1, limit: 1000, fits: 0, .. })));
}

/// Whatever fails in the middle of a step, the next one finds the stack as it was.
#[test]
fn an_error_in_mid_generation_releases_the_stack() {
    let folder = model();
    let Opened { metadata, .. } = opened(folder.path());
    let mut backend = Failing::new(usize::MAX);
    let base = Base::open(folder.path()).unwrap();
    let decoder = Decoder::load(&base, &mut backend).unwrap();
    let speaker = Speaker { decoder: &decoder, adapter: None, metadata: &metadata };
    let prompts = [Prompt { tokens: vec![5, 6, 7], key: 0 }];
    let mut answer = |left: usize, max_new_tokens: usize| {
        backend.left = left;
        let sampling = Sampling { max_new_tokens, ..Sampling::default() };
        speaker.answer(&mut backend, &prompts, &sampling, &mut |_| Flow::Continue)
    };
    let short = answer(usize::MAX, 4).unwrap();
    for left in [1, 7, 20, 60] {
        assert!(answer(left, 4).is_err(), "{left}");
    }
    assert_eq!(answer(usize::MAX, 4).unwrap(), short);
    // A longer one makes room anew, which takes an empty stack.
    assert_eq!(answer(usize::MAX, 60).unwrap().len(), 1);
}

/// The tiny model under an adapter of the model crate's goldens.
fn with_adapter(folder: &Path, adapter: &str) -> Session {
    let adapter =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/adapters").join(adapter);
    let opened = Opened::read(folder, Some(&adapter), Date::new(2026, 3, 1).unwrap()).unwrap();
    Session::new(opened, Manner::default(), Box::new(cpu()), || usize::MAX).unwrap()
}

#[test]
fn the_base_answers_as_if_no_adapter_had_been_loaded() {
    let folder = model();
    // Tokens 3, 7 and 90 have rows of their own under the adapter: the end of a turn, `"` and `u`.
    let asked = [(1, "\"u\"u"), (2, "u\"")];
    let expected = answer(&mut session(folder.path(), || usize::MAX), &asked, &drawn());
    let mut tuned = with_adapter(folder.path(), "tokens");
    let first = answer(&mut tuned, &asked, &drawn());
    assert_ne!(first, expected);
    let prompts = prompts(&tuned, &asked);
    for _ in 0..2 {
        let base = tuned.answer(&prompts, &drawn(), false, &mut |_| Flow::Continue).unwrap();
        assert_eq!(base, expected);
        assert_eq!(answer(&mut tuned, &asked, &drawn()), first, "the adapter is back");
    }
}

#[test]
fn a_base_whose_tensors_are_replaced_does_not_answer_by_itself() {
    let folder = model();
    let mut session = with_adapter(folder.path(), "modules_to_save");
    let asked = prompts(&session, &[(1, "a")]);
    let refused = session.answer(&asked, &drawn(), false, &mut |_| Flow::Continue);
    assert!(matches!(refused, Err(Error::BaseReplaced)), "{refused:?}");
    assert!(session.answer(&asked, &drawn(), true, &mut |_| Flow::Continue).is_ok());
}
