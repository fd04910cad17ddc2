//! `tunesmith pairs`: answers to prompts are compared two by two, and become preference data.

mod config;
mod cost;
mod finish;
mod journal;
mod judge;
mod pair;
mod person;
mod raters;
mod report;
mod reward;
mod work;

use std::time::Instant;

use clap::Args;
use keys::Document;
use train::claim::Claim;

use super::subject::Recipe;
use crate::asking::problem;
use crate::asking::prompts::{self, Prompt, Wishes};
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::signals::Signals;
use config::{Candidates, ChooseBy, PairsConfig, REWARD, is_person};
use cost::Cost;
use finish::{Scores, finish};
use journal::{Journal, Occupied};
use pair::{Candidate, Group, neighbours, usable};
use person::End;
use report::Done;
use work::Work;

/// What to type, for `--help`.
pub(super) const EXAMPLES: &str = "Examples:
  tunesmith pairs recipe.yaml pairs.output=pairs.jsonl --rater ana
  tunesmith pairs recipe.yaml 'pairs.candidates.columns=[a, b]' --resume --rater bob
  tunesmith pairs recipe.yaml pairs.choose_by=reward pairs.reward=runs/reward-001
  tunesmith pairs recipe.yaml pairs.choose_by=judge pairs.judge.model=big \\
      pairs.judge.endpoint=http://localhost:8000/v1

The prompts are those of the recipe's `data.train`. A person types one key and Enter for each pair: a or b for
the better answer, t for a tie, s to skip, u to take the last choice back, q to leave. The key for an endpoint
is read from `OPENAI_API_KEY`.";

/// What `pairs` is told.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    recipe: Recipe,

    /// Name of the person who chooses [default: the name of the user]
    #[arg(long, value_name = "NAME")]
    rater: Option<String>,

    /// Keep the answers and choices so far, and ask only for those that are missing
    #[arg(long)]
    resume: bool,

    /// Overwrite an existing output and its choices
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,

    /// Ask an endpoint without asking you first
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<u8> {
    let begun = Instant::now();
    let document = arguments.recipe.document(context)?;
    let config = PairsConfig::read(&document, context)?;
    let rater = rater(arguments, &config, context)?;
    let _claim = Claim::beside(&config.output)?;
    let prompts = read_prompts(&document, &config, context)?;
    let given = given(&prompts, &config)?;
    let occupied = occupied(arguments, &config, context)?;
    let mut journal = Journal::open(&config.journal(), &config.fingerprint(), occupied)?;
    let signals = Signals::install()?;
    let work = Work { arguments, config: &config, context, signals: &signals, rater };
    let (groups, mut cost) = match (&config.candidates, given) {
        (Candidates::Asked(asked), _) => {
            let answered = work.answers(asked, &prompts, &mut journal);
            match answered.map_err(|failure| with_resume(failure, &journal))? {
                Ok(answered) => answered,
                Err(code) => return Ok(code),
            }
        }
        (Candidates::Columns(_), given) => (given, Cost::default()),
    };
    let (groups, mut left_out) = usable(groups);
    work.say_left_out(&left_out);
    let (pairs, ended, scores) = match &config.choose_by {
        ChooseBy::Reward(model) => {
            let groups = paired(groups, config.max_pairs);
            work.require_pairs(groups.len(), &left_out)?;
            let scored = work.score(model, groups, &mut journal, &mut cost, &mut left_out);
            let (pairs, scores) = scored.map_err(|failure| with_resume(failure, &journal))?;
            (pairs, Some(End::Done), scores)
        }
        ChooseBy::Person | ChooseBy::Judge(_) => {
            let pairs = neighbours(&groups, config.max_pairs, &mut left_out);
            work.require_pairs(pairs.len(), &left_out)?;
            let ended = work.choose(&pairs, &mut journal, &mut cost);
            let ended = ended.map_err(|failure| with_resume(failure, &journal))?;
            (pairs, ended, Scores::new())
        }
    };
    let Some(end) = ended else { return Ok(0) };
    journal.begin()?;
    let tally = finish(&pairs, left_out, &scores, &journal, &config, &work.rater)?;
    let done = Done { work: &work, prompts: prompts.len(), pairs: pairs.len(), cost, begun };
    Ok(done.tell(&end, &tally, &journal))
}

/// Who chooses, where it is a person.
fn rater(arguments: &Arguments, config: &PairsConfig, context: &Context) -> Result<String> {
    let user = ["USER", "LOGNAME", "USERNAME"];
    let user = user.into_iter().find_map(|name| context.environment.variable(name));
    let name = arguments.rater.as_deref().or(user).unwrap_or_default().trim();
    match &config.choose_by {
        ChooseBy::Judge(judge) => Ok(judge.rater()),
        ChooseBy::Reward(model) => {
            let path = model.adapter.as_ref().unwrap_or(&model.path);
            Ok(format!("{REWARD}{}", context.environment.show(path)))
        }
        ChooseBy::Person if name.is_empty() => {
            let message = "nobody is named who chooses";
            Err(Failure::wrong("command", message).hint("say who you are: `--rater NAME`"))
        }
        ChooseBy::Person if !is_person(name) => {
            let message = format!("`--rater {name}`: names of judges and models begin like that");
            Err(Failure::wrong("command", message).hint("choose another name"))
        }
        ChooseBy::Person => Ok(name.to_owned()),
    }
}

/// The prompts, as many as `pairs.max_pairs` can need.
fn read_prompts(
    document: &Document,
    config: &PairsConfig,
    context: &Context,
) -> Result<Vec<Prompt>> {
    let wishes =
        Wishes { output: &config.output, output_key: "pairs.output", kept: config.columns() };
    let mut prompts = prompts::read(document, context, config.seed, &wishes)?;
    if prompts.is_empty() {
        let hint = "name rows with prompts as `data.train`";
        return Err(problem(document, "data.train", "there are no prompts", hint));
    }
    if let (Candidates::Asked(_), Some(most)) = (&config.candidates, config.max_pairs) {
        prompts.truncate(most.div_ceil(config.pairs_per_prompt()));
    }
    Ok(prompts)
}

/// The prompts with two answers or more, at most so many.
fn paired(groups: Vec<Group<'_>>, most: Option<usize>) -> Vec<Group<'_>> {
    let groups = groups.into_iter().filter(|group| group.candidates.len() > 1);
    groups.take(most.unwrap_or(usize::MAX)).collect()
}

/// The answers that stand in columns; nothing where they are asked for.
fn given<'a>(prompts: &'a [Prompt], config: &PairsConfig) -> Result<Vec<Group<'a>>> {
    let Candidates::Columns(columns) = &config.candidates else { return Ok(Vec::new()) };
    let group = |prompt: &'a Prompt| {
        let named = columns.iter().zip(&prompt.kept);
        let candidates =
            named.map(|(column, value)| Candidate::of_column(value, column, &prompt.place));
        Ok(Group { prompt, candidates: candidates.collect::<Result<_>>()? })
    };
    prompts.iter().map(group).collect()
}

/// Refuses an output that is there, unless told otherwise.
fn occupied(arguments: &Arguments, config: &PairsConfig, context: &Context) -> Result<Occupied> {
    let paths = [config.output.clone(), config.journal()];
    let there = paths.iter().find(|path| path.exists());
    match (arguments.resume, arguments.overwrite, there) {
        (true, ..) if config.output.exists() && !config.journal().exists() => {
            let journal = context.environment.show(&config.journal());
            let message = format!("{journal}: is missing, so there is nothing to resume");
            Err(Failure::wrong("refused", message)
                .at(&config.journal())
                .hint("name another `pairs.output`, or start over with `--overwrite`"))
        }
        (true, ..) => Ok(Occupied::Resume),
        (_, true, _) => Ok(Occupied::Overwrite),
        (.., Some(path)) => {
            let message = format!("{}: already exists", context.environment.show(path));
            Err(Failure::wrong("occupied", message)
                .at(path)
                .hint("`--resume` asks only for what is missing, `--overwrite` starts over"))
        }
        _ => Ok(Occupied::Refuse),
    }
}

/// Says that what was got is not lost.
fn with_resume(failure: Failure, journal: &Journal) -> Failure {
    if journal.is_empty() {
        return failure;
    }
    let more = "`--resume` keeps the answers and choices so far";
    let hint = failure.hint.as_ref().map_or(more.to_owned(), |hint| format!("{hint}; {more}"));
    failure.hint(hint)
}
