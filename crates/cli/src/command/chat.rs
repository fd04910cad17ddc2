//! `tunesmith chat`: a dialogue, line by line.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use clap::Args;
use session::{Finish, Flow, Prompt, Question, Session};
use text::Message;

use super::generate::over;
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::sampling::Sampling;
use crate::served::Served;
use crate::signals::{Signals, StopSignal};
use crate::terminal::lines::read_lines;

/// What to type, for `--help`.
pub(super) const EXAMPLES: &str = "Examples:
  tunesmith chat runs/tickets-001
  tunesmith chat runs/tickets-001 --system 'Answer in French.' --temperature 0.7

While talking: /reset starts a new dialogue, /system TEXT sets the system message, /base turns the adapter
off and on, /quit leaves. Ctrl-C stops an answer.";

/// What `chat` is told.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// A Hugging Face folder, .gguf file, adapter folder, run folder or hub id
    #[arg(value_name = "MODEL")]
    model: String,

    /// Adapter folder or run folder to apply to the model
    #[arg(long, value_name = "DIR")]
    adapter: Option<String>,

    /// System message
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,

    #[command(flatten)]
    sampling: Sampling,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<u8> {
    if context.terminal.is_json() {
        return Err(Failure::wrong("command", "`chat` is for people and has no `--json`")
            .hint("`tunesmith generate --json` answers prompts"));
    }
    let model = over(context, &arguments.model, arguments.adapter.as_deref())?;
    let served = Served::of_model(context, &model)?;
    let mut session = served.session(context, &model)?;
    // With the shortest question: a longer dialogue is looked at when it is asked.
    let sampling = arguments.sampling.read();
    session.load(&[Prompt { tokens: vec![0], key: 0 }], &sampling)?;
    let signals = Signals::install()?;
    let dialogue = Dialogue::new(arguments.system.clone());
    let mut chat = Chat { context, session, sampling, signals, dialogue };
    chat.talk()
}

/// What has been said, and how to go on.
struct Dialogue {
    system: Option<String>,
    messages: Vec<Message>,
    with_adapter: bool,
}

/// What a line asks for.
#[derive(Debug, PartialEq)]
enum Line {
    Nothing,
    Question,
    Said(String),
    Quit,
}

impl Dialogue {
    fn new(system: Option<String>) -> Self {
        Dialogue { system, messages: Vec::new(), with_adapter: true }
    }

    /// Takes in a line: a command, or the next question.
    fn line(&mut self, line: &str, why_not: Option<&str>) -> Line {
        let line = line.trim();
        let Some(command) = line.strip_prefix('/') else {
            if line.is_empty() {
                return Line::Nothing;
            }
            self.messages.push(Message::new("user", line));
            return Line::Question;
        };
        let (name, rest) = command.split_once(' ').unwrap_or((command, ""));
        match name {
            "quit" | "exit" | "q" => Line::Quit,
            "reset" => {
                self.messages.clear();
                Line::Said("a new dialogue".into())
            }
            "system" => {
                let rest = rest.trim();
                self.system = Some(rest.to_owned()).filter(|text| !text.is_empty());
                self.messages.clear();
                let what = if self.system.is_some() { "set" } else { "taken away" };
                Line::Said(format!("system message {what}, a new dialogue"))
            }
            "base" => match why_not {
                Some(why_not) => Line::Said(why_not.to_owned()),
                None => {
                    self.with_adapter = !self.with_adapter;
                    Line::Said(format!("adapter {}", if self.with_adapter { "on" } else { "off" }))
                }
            },
            _ => Line::Said(format!(
                "no command `/{name}`; there are /reset, /system TEXT, /base and /quit"
            )),
        }
    }

    fn question(&self) -> Question {
        let system = self.system.iter().map(|system| Message::new("system", system.as_str()));
        Question::Dialogue {
            messages: system.chain(self.messages.iter().cloned()).collect(),
            tools: None,
            own_system: self.system.is_some(),
        }
    }
}

struct Chat<'a> {
    context: &'a Context,
    session: Session,
    sampling: session::Sampling,
    signals: Signals,
    dialogue: Dialogue,
}

impl Chat<'_> {
    fn talk(&mut self) -> Result<u8> {
        let terminal = &self.context.terminal;
        if self.context.environment.stdin_is_terminal {
            let adapter = if self.session.has_adapter() { " and adapter" } else { "" };
            let storage = self.session.storage();
            terminal.note(&format!(
                "base ({storage}){adapter} ready; /quit leaves, Ctrl-C stops an answer"
            ));
        }
        let lines = read_lines();
        loop {
            if self.context.environment.stdin_is_terminal {
                terminal.prompt("> ");
            }
            // Why the base cannot be asked without its adapter.
            let why_not = match (self.session.has_adapter(), self.session.require_base()) {
                (false, _) => Some("there is no adapter to turn off".to_owned()),
                (true, refused) => refused.err().map(|error| error.to_string()),
            };
            let line = match self.next_line(&lines) {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(0),
                Err(asked) => return Ok(asked.exit_code()),
            };
            match self.dialogue.line(&line, why_not.as_deref()) {
                Line::Nothing => {}
                Line::Said(text) => terminal.note(&text),
                Line::Quit => return Ok(0),
                Line::Question => self.answer()?,
            }
            if terminal.written().is_err() {
                // It is reported where every command ends.
                return Ok(0);
            }
        }
    }

    /// The next line; none at the end of the input. Two interrupts in a row leave.
    fn next_line(
        &self,
        lines: &Receiver<String>,
    ) -> std::result::Result<Option<String>, StopSignal> {
        let mut warned = false;
        loop {
            match lines.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => return Ok(Some(line)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
            match self.signals.asked() {
                Some(StopSignal::Interrupt) if warned => return Err(StopSignal::Interrupt),
                Some(StopSignal::Interrupt) => {
                    self.signals.take_interrupt();
                    self.context.terminal.note("\n(once more, or /quit, leaves)");
                    warned = true;
                }
                Some(asked @ (StopSignal::Terminate | StopSignal::HangUp)) => return Err(asked),
                _ => {}
            }
        }
    }

    fn answer(&mut self) -> Result<()> {
        let terminal = &self.context.terminal;
        let prompt = match self.session.encode(&self.dialogue.question()) {
            Ok(tokens) => Prompt { tokens, key: 0 },
            Err(error @ (session::Error::NoTemplate | session::Error::Template { .. })) => {
                return Err(error.into());
            }
            // A dialogue that has grown too long is no reason to leave.
            Err(error) => return self.take_back(error),
        };
        let signals = &self.signals;
        let mut on_token = |token: session::Token<'_>| {
            terminal.stream(token.text);
            match signals.asked() {
                Some(StopSignal::Interrupt | StopSignal::Terminate | StopSignal::HangUp) => {
                    Flow::Stop
                }
                _ if terminal.written().is_err() => Flow::Stop,
                _ => Flow::Continue,
            }
        };
        let with_adapter = self.dialogue.with_adapter;
        let answered = self.session.answer(&[prompt], &self.sampling, with_adapter, &mut on_token);
        let answers = match answered {
            Ok(answers) => answers,
            // Memory is too small for a dialogue of this length; a new one may fit.
            Err(error @ session::Error::Room { .. }) => return self.take_back(error),
            Err(error) => return Err(error.into()),
        };
        terminal.stream("\n");
        self.signals.take_interrupt();
        for answer in answers {
            match answer.finish {
                Finish::Length => terminal.note("(ended at `--max-new-tokens`)"),
                Finish::Interrupted => terminal.note("(stopped)"),
                Finish::Stop => {}
            }
            self.dialogue.messages.push(Message::new("assistant", answer.text));
        }
        Ok(())
    }

    /// Says why the last question has no answer, and goes on without it.
    fn take_back(&mut self, error: session::Error) -> Result<()> {
        self.dialogue.messages.pop();
        let failure = Failure::from(error).hint("/reset begins a new dialogue");
        self.context.terminal.fail(&failure);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_questions_or_commands() {
        let mut dialogue = Dialogue::new(Some("s".into()));
        assert_eq!(dialogue.line("  ", None), Line::Nothing);
        assert_eq!(dialogue.line("hi", None), Line::Question);
        let Question::Dialogue { messages, .. } = dialogue.question() else { panic!("a dialogue") };
        let roles: Vec<&str> = messages.iter().map(|message| message.role.as_str()).collect();
        assert_eq!(roles, ["system", "user"]);
        assert_eq!(dialogue.line("/base", None), Line::Said("adapter off".into()));
        assert_eq!(dialogue.line("/base", None), Line::Said("adapter on".into()));
        assert_eq!(
            dialogue.line("/base", Some("there is no adapter to turn off")),
            Line::Said("there is no adapter to turn off".into())
        );
        dialogue.line("/system be brief", None);
        assert_eq!((dialogue.system.as_deref(), dialogue.messages.len()), (Some("be brief"), 0));
        dialogue.line("/system", None);
        assert_eq!(dialogue.system, None);
        assert!(
            matches!(dialogue.line("/what", None), Line::Said(text) if text.contains("`/what`"))
        );
        assert_eq!(dialogue.line("/quit", None), Line::Quit);
    }
}
