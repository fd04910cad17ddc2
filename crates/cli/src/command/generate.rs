//! `tunesmith generate`: prompts in, answers out.

mod questions;

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use hub::Resolved;
use serde_json::{Value, json};
use session::{Answer, Finish, Flow, Prompt, Question, Session};

use crate::context::Context;
use crate::error::{Failure, Result};
use crate::sampling::Sampling;
use crate::served::Served;
use crate::terminal::escape::escaped;
use crate::terminal::table::one_line;
use questions::{Asked, Asking};

/// What to type, for `--help`.
pub(super) const EXAMPLES: &str = "Examples:
  tunesmith generate runs/tickets-001 --prompt 'My order has not arrived'
  tunesmith generate runs/tickets-001 --prompts tickets/test.jsonl > answers.jsonl
  echo 'Once upon a time' | tunesmith generate base.gguf --raw --temperature 0.8

Without `--prompt` and `--prompts` the prompt is read from standard input. Several answers go
to a pipe as JSON Lines.";

/// What `generate` is told.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// A Hugging Face folder, .gguf file, adapter folder, run folder or hub id
    #[arg(value_name = "MODEL")]
    model: String,

    /// Adapter folder or run folder to apply to the model
    #[arg(long, value_name = "DIR")]
    adapter: Option<String>,

    /// A prompt; repeat it for several
    #[arg(long, value_name = "TEXT")]
    prompt: Vec<String>,

    /// File of prompts in any format of `data.train`; answers in it are ignored
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    prompts: Option<PathBuf>,

    /// System message for prompts without one
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    system: Option<String>,

    /// Continue the text as it is, without a chat template
    #[arg(long)]
    raw: bool,

    /// Show the answer of the base model beside that of the adapter
    #[arg(long)]
    compare: bool,

    #[command(flatten)]
    sampling: Sampling,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<u8> {
    let asking = Asking { raw: arguments.raw, system: arguments.system.as_deref() };
    let typed = match &arguments.prompts {
        Some(_) => Vec::new(),
        None if arguments.prompt.is_empty() => vec![asking.of_stdin(context)?],
        None => arguments.prompt.iter().map(|prompt| asking.of_text(prompt)).collect(),
    };
    let model = over(context, &arguments.model, arguments.adapter.as_deref())?;
    let served = Served::of_model(context, &model)?;
    let questions = match &arguments.prompts {
        Some(file) => asking.of_file(file, &served, context)?,
        None => typed,
    };
    let mut session = served.session(context, &model)?;
    if arguments.compare && !session.has_adapter() {
        let message =
            format!("model `{}` has no adapter to compare its base with", arguments.model);
        return Err(Failure::wrong("no_adapter", message).hint("name one with `--adapter`"));
    }
    if arguments.compare {
        session.require_base()?;
    }
    let work = Work { arguments, context, questions };
    work.carry_out(&mut session)?;
    Ok(0)
}

/// The model, with an adapter named beside it in place of its own.
pub(super) fn over(context: &Context, model: &str, adapter: Option<&str>) -> Result<Resolved> {
    let found = context.models().resolve(model)?;
    let Some(adapter) = adapter else { return Ok(found) };
    let path = context.environment.path(adapter);
    let folders = [path.clone(), path.join("adapter")];
    let folder = folders.into_iter().find(|path| model::adapter::PeftMetadata::is_adapter(path));
    let folder = folder.ok_or_else(|| {
        Failure::wrong("model_not_found", format!("{}: is not an adapter folder", path.display()))
            .at(&path)
            .hint("an adapter folder holds adapter_config.json and adapter_model.safetensors")
    })?;
    Ok(Resolved { adapter: Some(folder), ..found })
}

/// Questions that wait for a model.
struct Work<'a> {
    arguments: &'a Arguments,
    context: &'a Context,
    questions: Vec<Asked>,
}

impl Work<'_> {
    fn carry_out(&self, session: &mut Session) -> Result<()> {
        let encode = |asked: &Asked| {
            session.encode(&asked.question).map_err(|error| asked.at_place(error.into()))
        };
        // All of them, before any time is spent on the first.
        let prompts: Vec<Vec<u32>> = self.questions.iter().map(encode).collect::<Result<_>>()?;
        let prompts = (0..).zip(prompts).map(|(key, tokens)| Prompt { tokens, key });
        let prompts: Vec<Prompt> = prompts.collect();
        let (sampling, compare) = (self.arguments.sampling.read(), self.arguments.compare);
        session.load(&prompts, &sampling)?;
        let terminal = &self.context.terminal;
        let base = match compare {
            true => Some(session.answer(&prompts, &sampling, false, &mut |_| Flow::Continue)?),
            false => None,
        };
        let streams = prompts.len() == 1 && !compare && !terminal.is_json();
        let begun = Instant::now();
        let answers = session.answer(&prompts, &sampling, true, &mut |token| {
            if streams {
                terminal.stream(token.text);
            }
            if terminal.written().is_ok() { Flow::Continue } else { Flow::Cancel }
        })?;
        let tokens: usize = answers.iter().map(|answer| answer.tokens).sum();
        let tokens_per_s = tokens as f64 / begun.elapsed().as_secs_f64().max(1e-9);
        if streams {
            terminal.stream("\n");
        } else {
            self.tell(&answers, base.as_deref(), tokens_per_s);
        }
        self.warn_of_length(&answers);
        let results: Vec<Value> = self.results(&answers, base.as_deref()).collect();
        terminal.result(json!({"results": results, "tokens_per_s": tokens_per_s}));
        Ok(())
    }

    fn results<'a>(
        &'a self,
        answers: &'a [Answer],
        base: Option<&'a [Answer]>,
    ) -> impl Iterator<Item = Value> + 'a {
        let pairs = self.questions.iter().zip(answers).enumerate();
        pairs.map(move |(index, (asked, answer))| {
            let mut result = result(asked, answer);
            if let Some(base) = base {
                result["base_answer"] = base[index].text.clone().into();
            }
            result
        })
    }

    /// Several answers: apart for a person, as JSON Lines for a pipe.
    fn tell(&self, answers: &[Answer], base: Option<&[Answer]>, tokens_per_s: f64) {
        let terminal = &self.context.terminal;
        if terminal.is_json() {
            return;
        }
        if !terminal.stdout_is_terminal && self.questions.len() > 1 {
            self.results(answers, base).for_each(|result| terminal.say(&result.to_string()));
            return;
        }
        let style = terminal.style;
        for (index, (asked, answer)) in self.questions.iter().zip(answers).enumerate() {
            let prompt = one_line(&asked.question.last(), 90);
            terminal.say(&style.bold(&format!("[{}] {prompt}", index + 1)));
            if let Some(base) = base {
                let text = escaped(&base[index].text);
                terminal.say(&format!("{}\n{text}", style.dim("base:")));
                terminal.say(&style.dim("adapter:"));
            }
            terminal.say(&format!("{}\n", escaped(&answer.text)));
        }
        terminal.note(&format!("{tokens_per_s:.0} tokens/s"));
    }

    fn warn_of_length(&self, answers: &[Answer]) {
        let cut = answers.iter().filter(|answer| answer.finish == Finish::Length).count();
        if cut > 0 {
            let what =
                if answers.len() == 1 { "the answer".into() } else { format!("{cut} answers") };
            self.context
                .terminal
                .note(&format!("{what} ended at `--max-new-tokens` or the model's length"));
        }
    }
}

fn result(asked: &Asked, answer: &Answer) -> Value {
    let prompt = match &asked.question {
        Question::Dialogue { messages, .. } if messages.len() > 1 => json!(messages),
        Question::Tokens(tokens) => json!(tokens),
        question => json!(question.last()),
    };
    let Answer { text, tokens, finish, prompt_tokens } = answer;
    let mut result = json!({
        "prompt": prompt, "answer": text, "tokens": tokens, "finish": finish.name(),
        "prompt_tokens": prompt_tokens,
    });
    if let Question::Dialogue { tools: Some(tools), .. } = &asked.question {
        result["tools"] = tools.clone();
    }
    if let Some(reference) = &asked.reference {
        result["reference"] = reference.clone();
    }
    if !asked.columns.is_empty() {
        result["columns"] = json!(asked.columns);
    }
    result
}
