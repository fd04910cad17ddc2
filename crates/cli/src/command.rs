//! The subcommands, one file each.

mod bench;
mod chat;
mod check;
mod distill;
mod generate;
mod init;
mod merge;
mod pairs;
mod plan;
mod prepare;
mod push;
pub(crate) mod quickstart;
mod schema;
mod score;
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
    /// Teach a small model a task and measure what it learned: a few minutes on two cores
    ///
    /// The model is SmolLM2-135M-Instruct. The task turns support messages into JSON tickets. The command
    /// measures the base model with two prompts, trains an adapter, and measures again on messages that are
    /// not in the training data. It trains with the same code as `train`, and prints the recipe.
    #[command(verbatim_doc_comment, after_help = quickstart::EXAMPLES)]
    Quickstart(quickstart::Arguments),
    /// Write a commented recipe that fits your data
    ///
    /// The command reads the data, detects its format, and counts rows and tokens. It chooses values such as
    /// the learning rate and the number of epochs by the size of the data. The reason for each value stands
    /// beside it as a comment.
    #[command(verbatim_doc_comment, after_help = init::EXAMPLES)]
    Init(init::Arguments),
    /// Check the data of a recipe, and show what the model learns from them
    ///
    /// The report lists duplicates, leaks between training and test data, rows that are too long, odd contents,
    /// and rows as the model sees them: tokens with a loss are marked. An error stops `train` until it is
    /// mended, or accepted by name in `data.accept`.
    #[command(verbatim_doc_comment, after_help = check::EXAMPLES)]
    Check(check::Arguments),
    /// Tokenize and check the data of a recipe ahead of training
    ///
    /// Prepared data are kept in a cache. Every run with the same data, template, tokenizer and options under
    /// `data` reuses them.
    #[command(verbatim_doc_comment, after_help = prepare::EXAMPLES)]
    Prepare(prepare::Arguments),
    /// Estimate memory, steps and time without loading weights
    ///
    /// The estimate runs the code of training on a device that only counts. It says what fits into memory, and
    /// what to change where the run does not fit.
    #[command(verbatim_doc_comment, after_help = plan::EXAMPLES)]
    Plan(plan::Arguments),
    /// Write training rows with the answers of a teacher model
    ///
    /// A teacher answers the prompts of the recipe's training data under a long system prompt. The rows that are
    /// written hold prompts and answers without it, so the student learns to answer without it too. The
    /// teacher is a model on this machine or an OpenAI-compatible endpoint.
    #[command(verbatim_doc_comment, after_help = distill::EXAMPLES)]
    Distill(distill::Arguments),
    /// Make preference pairs: a person, a judge or a reward model chooses the better of two answers
    ///
    /// Each prompt of the recipe's training data gets several answers, from a model, an endpoint or columns of the
    /// rows. A person compares them in the terminal without seeing where they come from, a judge model compares
    /// them in both orders, or a reward model scores them. Every choice is saved at once. The output is read by `method: dpo`.
    #[command(verbatim_doc_comment, after_help = pairs::EXAMPLES)]
    Pairs(pairs::Arguments),
    /// Train from a recipe
    ///
    /// The run goes to a folder of its own under `runs/`, with the resolved recipe, events, checkpoints and the
    /// best adapter or model. Ctrl-C saves the run and stops it. A resumed run gives the same bits as one that
    /// was never interrupted.
    #[command(verbatim_doc_comment, after_help = train::EXAMPLES)]
    Train(train::Arguments),
    /// Answer prompts with a base model, an adapter or a run
    ///
    /// Prompts are rendered with the chat template and the system message of training. Several answers are
    /// computed at the same time; an answer does not depend on the other prompts.
    #[command(verbatim_doc_comment, after_help = generate::EXAMPLES)]
    Generate(generate::Arguments),
    /// Talk to a base model, an adapter or a run
    ///
    /// Each line that you type is a message. The model keeps the dialogue until you reset it.
    #[command(verbatim_doc_comment, after_help = chat::EXAMPLES)]
    Chat(chat::Arguments),
    /// Score the answers of a file with a reward model, or classify its texts
    ///
    /// Rows are rendered with the chat template of training. The score of an answer is read at its last token, and
    /// does not depend on the other rows. Pairs also tell how often the chosen answer has the higher score.
    #[command(verbatim_doc_comment, after_help = score::EXAMPLES)]
    Score(score::Arguments),
    /// Merge an adapter into its base model, and verify the result
    ///
    /// The merged model needs no adapter, and loads in other programs. Tunesmith runs it beside the base with the
    /// adapter, and refuses a merged model whose predictions differ.
    #[command(verbatim_doc_comment, after_help = merge::EXAMPLES)]
    Merge(merge::Arguments),
    /// Upload an adapter or a model to the model hub, private by default
    ///
    /// The command creates the repository if it is missing, uploads the files that changed, and makes one
    /// commit of them.
    #[command(verbatim_doc_comment, after_help = push::EXAMPLES)]
    Push(push::Arguments),
    /// Measure the speed of training and generation on this machine
    ///
    /// Each figure stands beside the best that the machine can do: the peak of its arithmetic for training and
    /// prompts, the bandwidth of its memory for generation.
    #[command(verbatim_doc_comment, after_help = bench::EXAMPLES)]
    Bench(bench::Arguments),
    /// Show a recipe with all its values, and where each comes from
    ///
    /// A value comes from the recipe, the command line, or a default. Nothing is downloaded or loaded.
    #[command(verbatim_doc_comment, after_help = show::EXAMPLES)]
    Show(show::Arguments),
    /// Print the JSON schema of recipes, for editors
    ///
    /// With the schema an editor completes keys, shows what they mean, and marks mistakes.
    #[command(verbatim_doc_comment, after_help = schema::EXAMPLES)]
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
            Command::Pairs(arguments) => pairs::run(arguments, context),
            Command::Train(arguments) => train::run(arguments, context),
            Command::Generate(arguments) => generate::run(arguments, context),
            Command::Chat(arguments) => chat::run(arguments, context),
            Command::Score(arguments) => score::run(arguments, context),
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
