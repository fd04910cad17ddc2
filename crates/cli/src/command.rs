//! The subcommands, one file each.

mod bench;
mod chat;
mod check;
mod distill;
mod generate;
mod init;
mod merge;
mod plan;
mod prepare;
mod push;
pub(crate) mod quickstart;
mod schema;
mod show;
mod subject;
mod train;

use clap::Subcommand;

use crate::context::Context;
use crate::error::Result;

pub(crate) use train::{KEYS_HEAD, read_recipe};

/// What is to be done.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Teach a small model a task, and prove that it learned: minutes on two cores
    #[command(after_help = quickstart::EXAMPLES)]
    Quickstart(quickstart::Arguments),
    /// Look at data and write a commented recipe fit for them
    #[command(after_help = init::EXAMPLES)]
    Init(init::Arguments),
    /// Look for what is wrong in the data of a recipe, and show what is learned of them
    #[command(after_help = check::EXAMPLES)]
    Check(check::Arguments),
    /// Prepare the data of a recipe, for every run that takes them
    #[command(after_help = prepare::EXAMPLES)]
    Prepare(prepare::Arguments),
    /// Say what a recipe would take, before anything is loaded
    #[command(after_help = plan::EXAMPLES)]
    Plan(plan::Arguments),
    /// Write training targets by asking a teacher, without its long prompt
    #[command(after_help = distill::EXAMPLES)]
    Distill(distill::Arguments),
    /// Train as a recipe says
    #[command(after_help = train::EXAMPLES)]
    Train(train::Arguments),
    /// Answer prompts with a base model, an adapter or a run
    #[command(after_help = generate::EXAMPLES)]
    Generate(generate::Arguments),
    /// Talk to a base model, an adapter or a run
    #[command(after_help = chat::EXAMPLES)]
    Chat(chat::Arguments),
    /// Make one model of a base and an adapter, and compare it with what was trained
    #[command(after_help = merge::EXAMPLES)]
    Merge(merge::Arguments),
    /// Put an adapter or a model on the model hub, private unless told otherwise
    #[command(after_help = push::EXAMPLES)]
    Push(push::Arguments),
    /// Measure how fast this machine trains and answers, beside what it could at best
    #[command(after_help = bench::EXAMPLES)]
    Bench(bench::Arguments),
    /// Show a recipe with every value that a run would take, and why
    #[command(after_help = show::EXAMPLES)]
    Show(show::Arguments),
    /// Print the JSON schema of recipes, for editors
    #[command(after_help = schema::EXAMPLES)]
    Schema,
}

impl Command {
    /// Does it. Returns the exit code.
    pub(crate) fn run(&self, context: &Context) -> Result<u8> {
        match self {
            Command::Quickstart(arguments) => quickstart::run(arguments, context),
            Command::Init(arguments) => init::run(arguments, context),
            Command::Check(arguments) => check::run(arguments, context),
            Command::Prepare(arguments) => prepare::run(arguments, context),
            Command::Plan(arguments) => plan::run(arguments, context),
            Command::Distill(arguments) => distill::run(arguments, context),
            Command::Train(arguments) => train::run(arguments, context),
            Command::Generate(arguments) => generate::run(arguments, context),
            Command::Chat(arguments) => chat::run(arguments, context),
            Command::Merge(arguments) => merge::run(arguments, context),
            Command::Push(arguments) => push::run(arguments, context),
            Command::Bench(arguments) => bench::run(arguments, context),
            Command::Show(arguments) => show::run(arguments, context),
            Command::Schema => schema::run(context),
        }
    }
}

/// An argument as a shell takes it.
pub(crate) fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=@:,+~".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_what_needs_it_is_quoted() {
        for (text, expected) in
            [("runs/a-001", "runs/a-001"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("", "''")]
        {
            assert_eq!(super::quote(text), expected);
        }
    }
}
