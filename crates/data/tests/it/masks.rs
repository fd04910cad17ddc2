//! Rows, ids and masks against goldens that transformers and TRL made.

use std::collections::BTreeMap;
use std::io::Read as _;

use data::{Conversation, Findings, Sequence, Supervisor};
use serde::Deserialize;
use serde_json::{Map, Value};
use text::{ChatTemplate, Date, Message, Tokenizer};

use crate::shared::file;
use crate::support::{place, source};

#[derive(Deserialize)]
struct Golden {
    date: Date,
    kwargs: Map<String, Value>,
    cases: BTreeMap<String, Case>,
    templates: Vec<Template>,
}

#[derive(Deserialize)]
struct Case {
    messages: Vec<Message>,
    tools: Option<Value>,
}

#[derive(Deserialize)]
struct Template {
    name: String,
    /// The template itself, where it is not one of `shared`.
    source: Option<String>,
    /// The template of `shared` that renders alike; the one of the same name where neither is said.
    shared: Option<String>,
    /// The list of tools that the template cannot do without.
    tools: Option<Value>,
    special: Vec<String>,
    bos: String,
    eos: String,
    end: String,
    rows: BTreeMap<String, Expected>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Expected {
    Rows(Vec<Row>),
    Raises(String),
    Nothing(()),
}

#[derive(Deserialize)]
struct Row {
    text: String,
    ids: Vec<u32>,
    /// Which tokens are learned: from and to.
    learned: Vec<(usize, usize)>,
}

fn qwen3() -> Option<Tokenizer> {
    let packed = std::fs::read(file("tokenizers/qwen3-tokenizer.json.gz")?).unwrap();
    let mut json = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut json).unwrap();
    Some(Tokenizer::from_bytes(&json).unwrap())
}

impl Golden {
    fn supervisor(&self, template: &Template, tokenizer: &Tokenizer) -> Option<Supervisor> {
        let source = match &template.source {
            Some(source) => source.clone(),
            None => {
                let name = template.shared.as_ref().unwrap_or(&template.name);
                std::fs::read_to_string(file(&format!("chat-templates/{name}.jinja"))?).unwrap()
            }
        };
        let names = [("bos_token", template.bos.as_str()), ("eos_token", &template.eos)];
        let compiled = ChatTemplate::new(&source, &names.into_iter().collect(), self.date).unwrap();
        let stops = [&template.eos, &template.end].map(|token| tokenizer.id(token).unwrap());
        Some(Supervisor::new(tokenizer, &compiled, &stops, self.kwargs.clone()).unwrap())
    }

    fn conversation(&self, template: &Template, case: &str) -> Conversation {
        let Case { messages, tools } = &self.cases[case];
        Conversation {
            place: place(1),
            messages: messages.clone(),
            supervised: messages.iter().map(|message| message.role == "assistant").collect(),
            tools: tools.clone().or_else(|| template.tools.clone()),
            weights: vec![1.0; messages.len()],
        }
    }

    /// Calls `compare` with the rows of every case that has any.
    fn each(&self, mut compare: impl FnMut(&Template, &str, &Tokenizer, &[Row], &[Sequence])) {
        let Some(qwen3) = qwen3() else { return };
        let mut compared = 0;
        for template in &self.templates {
            let (tokenizer, _) = qwen3.with_tokens(&template.special, true).unwrap();
            let Some(supervisor) = self.supervisor(template, &tokenizer) else { return };
            for (case, rows) in &template.rows {
                let conversation = self.conversation(template, case);
                let result = supervisor.supervise(0, &conversation, &mut Findings::default());
                match rows {
                    Expected::Nothing(()) => {}
                    Expected::Raises(word) => {
                        assert_eq!(word, "raises");
                        assert!(result.is_err(), "{}, {case}", template.name);
                    }
                    Expected::Rows(rows) => {
                        let name = &template.name;
                        let sequences = result.unwrap_or_else(|e| panic!("{name}, {case}: {e}"));
                        compare(template, case, &tokenizer, rows, &sequences);
                        compared += 1;
                    }
                }
            }
        }
        assert!(compared > self.templates.len());
    }
}

/// Runs of tokens that are learned: from and to.
fn learned(sequence: &Sequence) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (at, _) in sequence.weights.iter().enumerate().filter(|(_, weight)| **weight != 0.0) {
        match runs.last_mut() {
            Some((_, end)) if *end == at => *end += 1,
            _ => runs.push((at, at + 1)),
        }
    }
    runs
}

#[test]
fn masks_are_those_of_transformers_by_offsets() {
    let golden: Golden = serde_json::from_str(include_str!("../golden/masks/shared.json")).unwrap();
    golden.each(|template, case, tokenizer, rows, sequences| {
        let at = format!("{}, {case}", template.name);
        assert_eq!(sequences.len(), rows.len(), "{at}");
        for (sequence, row) in sequences.iter().zip(rows) {
            assert_eq!(tokenizer.decode(&sequence.tokens, false).unwrap(), row.text, "{at}");
            assert_eq!(sequence.tokens, row.ids, "{at}");
            assert_eq!(learned(sequence), row.learned, "{at}");
        }
    });
}

/// What TRL learns before and after what we learn of each answer, where it learns more.
///
/// Its marks go around all that the template writes for the turn; ours end with the end-of-turn token, at which
/// the model stops, and begin where the prompt of serving ends.
fn more_in_trl(name: &str, case: &str, last: bool) -> (&'static str, &'static str) {
    match (name, case, last) {
        ("phi3" | "phi3_5", _, true) => ("", "\n<|endoftext|>"),
        // The marks of this one go around the generation prompt, too.
        ("deepseekv3", "tools_as_text", true) => ("<｜tool▁outputs▁end｜>", ""),
        ("deepseekv3", ..) => ("<｜Assistant｜>", ""),
        // The marks begin before the line end that closes the opening of the turn.
        ("qwen2_5", ..) => ("\n", "\n"),
        // The prompt opens the reasoning; serving never lets the model write the tag.
        ("deepseek_r1_distill", "reasoning", _) => ("<｜Assistant｜><think>\n", ""),
        ("deepseek_r1_distill", ..) => ("<｜Assistant｜>", ""),
        _ => ("", "\n"),
    }
}

#[test]
fn masks_are_those_of_trl() {
    let golden: Golden = serde_json::from_str(include_str!("../golden/masks/trl.json")).unwrap();
    golden.each(|template, case, tokenizer, rows, sequences| {
        let at = format!("{}, {case}", template.name);
        let trl = &rows[0];
        let decode = |ids: &[u32]| tokenizer.decode(ids, false).unwrap();
        let ours: Vec<&[u32]> = (sequences.iter())
            .flat_map(|s| learned(s).into_iter().map(|(from, to)| &s.tokens[from..to]))
            .collect();
        assert_eq!(ours.len(), trl.learned.len(), "{at}");
        if (template.name.as_str(), case) == ("deepseekv3", "reasoning") {
            // The template drops the reasoning of the turn that is learned, and with it TRL; we do not.
            assert_eq!(
                decode(&trl.ids[trl.learned[0].0..trl.learned[0].1]),
                "<｜Assistant｜>\n\n4<｜end▁of▁sentence｜>"
            );
            let whole = "add them\n</think>\n\n4<｜end▁of▁sentence｜>";
            assert_eq!(decode(ours[0]), whole);
            return;
        }
        for (index, (ours, &(from, to))) in ours.iter().zip(&trl.learned).enumerate() {
            let theirs = &trl.ids[from..to];
            let more = more_in_trl(&template.name, case, index + 1 == trl.learned.len());
            let start = (0..theirs.len()).find(|&start| theirs[start..].starts_with(ours));
            let start =
                start.unwrap_or_else(|| panic!("{at}: {:?}, {:?}", decode(ours), decode(theirs)));
            let around = (decode(&theirs[..start]), decode(&theirs[start + ours.len()..]));
            assert_eq!((around.0.as_str(), around.1.as_str()), more, "{at}");
        }
        let last = sequences.last().unwrap();
        if template.name.starts_with("deepseek") && case != "reasoning" {
            // Serving opens the reasoning also where the row has none.
            let opened = trl.text.replace("<｜Assistant｜>6", "<｜Assistant｜><think>\n6");
            assert_eq!(decode(&last.tokens), opened, "{at}");
        } else {
            assert_eq!((decode(&last.tokens), &last.tokens), (trl.text.clone(), &trl.ids), "{at}");
        }
    });
}

#[test]
fn a_template_sees_the_date_of_the_run() {
    let golden: Golden = serde_json::from_str(include_str!("../golden/masks/shared.json")).unwrap();
    let is_llama = |template: &&Template| template.name == "meta-llama-Llama-3.2-3B-Instruct";
    let template = golden.templates.iter().find(is_llama).unwrap();
    let Some(qwen3) = qwen3() else { return };
    let (tokenizer, _) = qwen3.with_tokens(&template.special, true).unwrap();
    let Some(supervisor) = golden.supervisor(template, &tokenizer) else { return };
    let conversation = golden.conversation(template, "dialogue");
    let rows = supervisor.supervise(0, &conversation, &mut Findings::default()).unwrap();
    let text = tokenizer.decode(&rows[0].tokens, false).unwrap();
    assert!(text.contains("Today Date: 01 Mar 2026"), "{text}");
}

/// Findings that say that the model would learn something else than the row.
const PROVEN: [&str; 4] =
    ["answer-not-learned", "call-not-learned", "learned-twice", "reasoning-after-closed"];

#[test]
fn the_proof_gives_no_false_alarm_on_real_rows() {
    let golden: Golden = serde_json::from_str(include_str!("../golden/masks/shared.json")).unwrap();
    let Some(qwen3) = qwen3() else { return };
    let mut dialogues = Vec::new();
    for name in [
        "llamafactory-demo/alpaca_en_demo.json",
        "llamafactory-demo/glaive_toolcall_en_demo.json",
        "llamafactory-demo/reason_tool_use_demo_50.jsonl",
        "rasbt-instruct/instruction-data.json",
        "gsm8k/test.jsonl",
    ] {
        let Some(path) = file(name) else { return };
        let source = data::Source { limit: Some(30), ..source(&path) };
        let (_, read) = data::prepare::load_source(&source, &mut Findings::default()).unwrap();
        dialogues.extend(read);
    }
    let mut proven = 0;
    for template in &golden.templates {
        let (tokenizer, _) = qwen3.with_tokens(&template.special, true).unwrap();
        let Some(supervisor) = golden.supervisor(template, &tokenizer) else { return };
        for dialogue in &dialogues {
            let mut dialogue = dialogue.clone();
            dialogue.tools = dialogue.tools.or_else(|| template.tools.clone());
            let mut findings = Findings::default();
            // Some templates take no system message, no calls, or one at most.
            let Ok(rows) = supervisor.supervise(0, &dialogue, &mut findings) else { continue };
            proven += rows.len();
            let alarm = PROVEN.iter().find_map(|id| findings.get(id));
            // This template ends the turn after each call but the first, so a third is never emitted.
            let is_right = template.name.starts_with("deepseek-ai-DeepSeek-R1-Distill");
            let alarm = alarm.filter(|finding| !(is_right && finding.id == "call-not-learned"));
            assert_eq!(alarm, None, "{}, {}", template.name, dialogue.place);
        }
    }
    assert!(proven > 1000, "{proven}");
}
