//! `tunesmith merge`: an adapter and its base become one model.

mod card;
mod compare;
mod origin;
mod place;
mod rows;

use std::path::{Path, PathBuf};

use clap::Args;
use model::adapter::LoadedAdapter;
use model::divergence::Divergence;
use model::merge::{Merge, MergedType, Written, copy_companions};
use serde_json::json;
use session::Serving;
use train::run::RunFolder;

use super::quote;
use crate::context::Context;
use crate::environment::peak_memory;
use crate::error::{Failure, Result};
use crate::terminal::progress::transfer;
use crate::terminal::style::bytes;
use compare::Comparison;
use origin::Origin;
use place::Place;

/// What to type, for `--help`.
pub(super) const EXAMPLES: &str = "Examples:
  tunesmith merge runs/tickets-001
  tunesmith merge runs/tickets-001 --base meta-llama/Llama-3.1-8B --output merged
  tunesmith merge me/tickets --dtype f32 --max-shard-size 2GB

The default output is RUN/merged, or ADAPTER-merged beside an adapter folder. `--base` names the 16-bit
original of a base that was quantised while training.";

/// The merged model must agree with base and adapter on this share of the likeliest tokens,
const TOP1_LEAST: f64 = 0.97;
/// and be no further from them than this mean divergence, in nats.
const KL_MOST: f64 = 0.01;

/// What `merge` is told.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// A run, an adapter folder or the hub id of an adapter
    #[arg(value_name = "RUN")]
    model: String,

    /// Model to merge into: the 16-bit original where the base was quantised [default: the recorded base]
    #[arg(long, value_name = "MODEL")]
    base: Option<String>,

    /// Output folder
    #[arg(long, value_name = "DIR")]
    output: Option<String>,

    /// Type of the weights: auto (that of the base, bf16 from GGUF), bf16, f16 or f32
    #[arg(long, value_name = "TYPE", default_value = "auto")]
    #[arg(hide_possible_values = true, value_parser = ["auto", "bf16", "f16", "f32"])]
    dtype: String,

    /// Maximum size of a file of weights
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = size)]
    max_shard_size: u64,

    /// Skip the comparison with base and adapter
    #[arg(long)]
    no_compare: bool,

    /// Overwrite a merged model in the output folder
    #[arg(long)]
    overwrite: bool,
}

/// A number of bytes such as `5GB`; as on the hub, a kilobyte has a thousand bytes.
fn size(text: &str) -> std::result::Result<u64, String> {
    let units = [
        ("KIB", 1 << 10),
        ("MIB", 1 << 20),
        ("GIB", 1 << 30),
        ("KB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("B", 1),
        ("", 1),
    ];
    let upper = text.trim().to_uppercase();
    let parts = units.iter().find_map(|(unit, factor)| Some((upper.strip_suffix(unit)?, factor)));
    let number = parts.and_then(|(number, &factor)| {
        let number: f64 = number.trim().parse().ok().filter(|n: &f64| n.is_finite())?;
        Some((number * factor as f64) as u64)
    });
    number.filter(|&bytes| bytes > 0).ok_or_else(|| "a size such as 5GB is needed".to_owned())
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<u8> {
    let origin = Origin::find(context, &arguments.model, arguments.base.as_deref())?;
    let output = match &arguments.output {
        Some(output) => context.environment.path(output),
        None => default_output(context, &origin.adapter),
    };
    let place = Place::new(&output, arguments.overwrite, &origin)?;
    let adapter = LoadedAdapter::read(&origin.adapter, &origin.base.config)?;
    let dtype = type_of(&arguments.dtype);
    if !arguments.no_compare {
        compare::require_room(context, &origin, &adapter, dtype.name(&origin.base)?)?;
    }
    let merge = Merge::new(&origin.base, adapter, dtype)?;
    for note in &origin.notes {
        context.terminal.note(note);
    }
    place.begin()?;
    let written = write(context, arguments, &origin, &merge, &place);
    // On a full disk what was written of it would only take room.
    let written = written.inspect_err(|_| place.give_up())?;
    let dtype = merge.dtype();
    // Its matrices are not needed while models are compared.
    drop(merge);
    let merging_peak = peak_memory();
    let comparison = match arguments.no_compare {
        true => None,
        false => Some(Comparison::new(context, &origin, place.partial(), dtype)?),
    };
    let record = record(&origin, dtype, &written, comparison.as_ref());
    place.describe(&card::card(&origin, dtype, comparison.as_ref()), &record)?;
    if let Some(comparison) = &comparison {
        refuse_difference(context, comparison, &place)?;
    }
    place.finish()?;
    tell(context, &place, dtype, &written, comparison.as_ref());
    context.terminal.result(json!({
        "merged": context.environment.show(&output), "base": origin.base_name, "dtype": dtype,
        "tensors": written.tensors, "bytes": written.bytes, "peak_host_bytes": merging_peak,
        "comparison": comparison.as_ref().map(Comparison::to_json), "notes": origin.notes,
    }));
    Ok(0)
}

fn type_of(name: &str) -> MergedType {
    match name {
        "bf16" => MergedType::Bf16,
        "f16" => MergedType::F16,
        "f32" => MergedType::F32,
        _ => MergedType::Auto,
    }
}

/// Within the run, or beside the adapter folder; in the current folder for one of the hub.
fn default_output(context: &Context, adapter: &Path) -> PathBuf {
    let parent = adapter.parent().unwrap_or(adapter);
    if RunFolder::is_run(parent) {
        return parent.join("merged");
    }
    let in_cache = context.environment.hub().cache.is_some_and(|cache| adapter.starts_with(cache));
    if in_cache {
        return context.environment.current_dir.join("merged");
    }
    let name = adapter.file_name().unwrap_or_default().to_string_lossy();
    parent.join(format!("{name}-merged"))
}

fn write(
    context: &Context,
    arguments: &Arguments,
    origin: &Origin,
    merge: &Merge<'_>,
    place: &Place,
) -> Result<Written> {
    let total = merge.bytes();
    let bar = transfer::bar(&context.terminal, "writing merged weights", total);
    let mut on_progress = |position| bar.set_position(position);
    let (dir, threads) = (place.partial(), context.threads());
    let written = merge.write(dir, arguments.max_shard_size, threads, &mut on_progress)?;
    bar.finish_and_clear();
    copy_companions(&origin.base, &origin.adapter, dir, origin.date(context))?;
    Ok(written)
}

/// What `tunesmith.json` keeps of the merge.
fn record(
    origin: &Origin,
    dtype: &str,
    written: &Written,
    comparison: Option<&Comparison>,
) -> Serving {
    let merged = json!({
        "base": origin::shown(&origin.base_name), "base_hash": origin.base_hash,
        "base_storage": origin.storage, "adapter_hash": origin.adapter_hash,
        "dtype": dtype, "tensors": written.tensors, "bytes": written.bytes,
        "notes": origin.notes, "comparison": comparison.map(Comparison::to_json),
    });
    let Serving { date, template_kwargs, .. } = origin.own.clone();
    Serving { date, template_kwargs, merged: Some(merged), ..Serving::default() }
}

/// A merged model that does not say what base and adapter say is no success.
fn refuse_difference(context: &Context, comparison: &Comparison, place: &Place) -> Result<()> {
    let Divergence { kl_mean, top1, .. } = comparison.merged_vs_adapter;
    if kl_mean <= KL_MOST && top1 >= TOP1_LEAST {
        return Ok(());
    }
    let partial = context.environment.show(place.partial());
    let message = format!(
        "the merged model differs from base and adapter: KL {kl_mean:.4} nats (at most {KL_MOST}), \
         the same likeliest token at {:.1} % (at least {:.0} %)",
        100.0 * top1,
        100.0 * TOP1_LEAST
    );
    Err(Failure::new("merge_differs", message)
        .hint(format!("it stays as {partial}; `--dtype f32` keeps more digits")))
}

fn tell(
    context: &Context,
    place: &Place,
    dtype: &str,
    written: &Written,
    comparison: Option<&Comparison>,
) {
    let (terminal, style) = (&context.terminal, context.terminal.style);
    if let Some(comparison) = comparison {
        terminal.say(&format!("compared at {}", comparison.what()));
        for (name, divergence) in comparison.named() {
            terminal.say(&format!("  {name:<24} {}", compare::words(&divergence)));
        }
    }
    let output = context.environment.show(place.output());
    let files = written.files.len();
    let s = if files == 1 { "" } else { "s" };
    terminal.say(&style.bold(&format!(
        "merged: {output}, {} in {} tensors as {dtype}, {files} file{s}",
        bytes(written.bytes),
        written.tensors
    )));
    let (output, program) = (quote(&output), quote(context.environment.program()));
    terminal.say(&style.bold("next"));
    terminal.say(&format!("  {program} chat {output}"));
    terminal.say(&format!("  {program} push {output} OWNER/NAME"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_on_the_hub() {
        let rows = [
            ("5GB", Some(5_000_000_000)),
            ("1.5 MiB", Some(1_572_864)),
            ("200kb", Some(200_000)),
            ("7", Some(7)),
            ("7B", Some(7)),
            ("0GB", None),
            ("GB", None),
            ("-1GB", None),
            ("5TB", None),
        ];
        for (text, expected) in rows {
            assert_eq!(size(text).ok(), expected, "{text}");
        }
    }
}
