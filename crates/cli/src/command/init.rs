//! `tunesmith init`: looks at data and writes a recipe fit for them.

mod draft;
mod look;
mod method;
mod objective;

use std::path::{Path, PathBuf};

use clap::Args;
use data::Level;
use serde_json::json;
use train::claim::Claim;
use train::run::write_atomic;

use super::quickstart::SMOLLM2;
use super::quote;
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::terminal::style::count;
use crate::terminal::table::{one_line, table};
use draft::Draft;
use look::Look;

/// What to type, for `--help`.
pub(super) const EXAMPLES: &str = "Examples:
  tunesmith init sft --data yours.jsonl
  tunesmith init sft --data a.jsonl --data b.json --model ./base --output mine.yaml
  tunesmith init dpo --data pairs.jsonl";

/// What `init` is told.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Training method
    #[arg(value_name = "METHOD", value_parser = names())]
    method: String,

    /// File or folder of training data; repeat it for several
    #[arg(long, value_name = "FILE", required = true)]
    data: Vec<PathBuf>,

    /// Model to start from
    #[arg(long, value_name = "MODEL", default_value = SMOLLM2)]
    model: String,

    /// The recipe to write
    #[arg(long, value_name = "FILE", default_value = "recipe.yaml")]
    output: PathBuf,

    /// Overwrite an existing recipe
    #[arg(long)]
    force: bool,
}

/// The words of all methods.
fn names() -> clap::builder::PossibleValuesParser {
    train::method::METHODS.map(|method| method.name).into()
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<u8> {
    let output = &arguments.output;
    let _claim = Claim::beside(output)?;
    if output.exists() && !arguments.force {
        let message = format!("{}: already exists", output.display());
        return Err(Failure::wrong("occupied", message)
            .at(output)
            .hint("`--output FILE` takes another name, `--force` writes over it"));
    }
    let method =
        train::method::named(&arguments.method).expect("the command line takes known methods");
    let look = Look::at(method, arguments, context)?;
    let recipe = draft(arguments, context, &look)?;
    write_atomic(output, recipe.text.as_bytes())?;
    tell(arguments, context, &look, &recipe);
    Ok(0)
}

fn draft(arguments: &Arguments, context: &Context, look: &Look) -> Result<draft::Written> {
    let environment = &context.environment;
    let output = environment.current_dir.join(&arguments.output);
    let folder = output.parent().unwrap_or(&environment.current_dir);
    let relative = |path: &Path| {
        let path = environment.current_dir.join(path);
        path.strip_prefix(folder).unwrap_or(&path).display().to_string()
    };
    let local = environment.path(&arguments.model);
    let model = match local.exists() {
        // With a sign of a path, so that it never means the hub.
        true if local.strip_prefix(folder).is_ok() => format!("./{}", relative(&local)),
        true => local.display().to_string(),
        false => arguments.model.clone(),
    };
    let files = arguments.data.iter().map(|file| relative(file)).collect();
    Draft { model, files, path: &output, look }.write(context)
}

fn tell(arguments: &Arguments, context: &Context, look: &Look, recipe: &draft::Written) {
    let (terminal, style) = (&context.terminal, context.terminal.style);
    let mut rows = vec![["file", "format", "rows"].map(str::to_owned).to_vec()];
    for file in &look.files {
        let name = file.path.display().to_string();
        rows.push(vec![name, file.format.to_owned(), count(file.rows as u64)]);
    }
    terminal.say(table(&rows).trim_end());
    terminal.say(&format!("learns  {}", look.learned()));
    terminal.say(&format!("tokens  {}", look.lengths.tell()));
    if let Some(system) = &look.system {
        terminal.say(&format!("system  {}", one_line(system, 90)));
    }
    for finding in look.findings.iter() {
        let level = match finding.level {
            Level::Note => style.cyan("note:"),
            Level::Warning => style.yellow("warning:"),
            Level::Error => style.red("error:"),
        };
        let places: Vec<String> = finding.places.iter().map(ToString::to_string).collect();
        let (times, places) = (count(finding.count as u64), places.join(", "));
        terminal.say(&format!("{level} {}, {times} x ({places})", finding.message));
        terminal.say(&format!("  {}", finding.hint));
    }
    recipe.warnings.iter().for_each(|line| terminal.warn(line));
    let name = arguments.output.display().to_string();
    terminal.say(&format!("{} {name}: {}", style.green("wrote"), recipe.plan));
    terminal.say(&style.bold("next"));
    let program = quote(context.environment.program());
    terminal.say(&format!("  {program} check {}", quote(&name)));
    terminal.say(&format!("  {program} train {}", quote(&name)));
    terminal.result(json!({
        "recipe": name, "method": look.method.name, "rows": look.rows, "tokens": look.lengths.to_json(),
        "files": look.files, "findings": look.findings.iter().collect::<Vec<_>>(),
        "warnings": recipe.warnings,
    }));
}
