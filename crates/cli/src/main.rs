//! The binary `tunesmith`: the only room that prints, reads the environment and exits.

mod asking;
mod command;
mod context;
mod environment;
mod error;
mod memory;
mod rewards;
mod sampling;
mod served;
#[cfg(test)]
#[path = "../../hub/src/test_server.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod server;
mod signals;
mod terminal;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, FromArgMatches as _, Parser};

use command::Command;
use context::{Context, Global};
use environment::Environment;
use error::{Failure, WRONG};
use terminal::Terminal;

/// Fine-tunes language models, and proves that they got better.
#[derive(Parser)]
#[command(name = "tunesmith", version)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let environment = match Environment::read() {
        Ok(environment) => environment,
        Err(error) => {
            let failure = Failure::new("io", format!("the current folder is gone: {error}"));
            Terminal::new(&Environment::default(), false).fail(&failure);
            return ExitCode::FAILURE;
        }
    };
    signals::ignore_limits();
    let given: Vec<OsString> = std::env::args_os().collect();
    let arguments = match parse(&given) {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error, &environment, given.contains(&"--json".into())),
    };
    let Arguments { global, command } = arguments;
    let terminal = Terminal::new(&environment, global.json);
    let context = Context::new(environment, terminal, global);
    let ended = command.run(&context);
    let code = match (&ended, &context.terminal.written()) {
        // What was not done goes before what could not be said.
        (Err(failure), _) | (Ok(0), Err(failure)) => {
            context.terminal.fail(failure);
            failure.exit
        }
        (Ok(code), Err(failure)) => {
            context.terminal.fail(failure);
            *code
        }
        (Ok(code), Ok(())) => *code,
    };
    ExitCode::from(code)
}

fn parse(given: &[OsString]) -> Result<Arguments, clap::Error> {
    // The keys are declared where they are read, so the help of `train` is put together here.
    let help = format!("{}\n\n{}", command::KEYS_HEAD, train::recipe::schema().help());
    let command = Arguments::command().mut_subcommand("train", |train| train.after_long_help(help));
    Arguments::from_arg_matches(&command.try_get_matches_from(given)?)
}

/// Help and version are answers; anything else was a wrong command.
fn refuse(error: &clap::Error, environment: &Environment, json: bool) -> ExitCode {
    let terminal = Terminal::new(environment, json);
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let text = error.render();
        // The colours go where a person sees them.
        match terminal.stdout_is_terminal && environment.wants_color() {
            true => terminal.stream(&text.ansi().to_string()),
            false => terminal.stream(&text.to_string()),
        }
        let Err(failure) = terminal.written() else { return ExitCode::SUCCESS };
        terminal.fail(&failure);
        return ExitCode::from(failure.exit);
    }
    let _ = error.print();
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    let failure = Failure::wrong("command", first).hint("`tunesmith --help` lists what there is");
    terminal.event(&failure.to_json());
    ExitCode::from(WRONG)
}
