//! Which shape a file has, found by looking at its first rows.

use serde_json::{Map, Value};

use super::{Reader, Reading, SHAPES, Shape, Wanted, columns};
use crate::source::Row;
use crate::{Error, Place, Result};

/// Finds the shape of a file of conversations.
///
/// Rows without a shape are left to the conversion, which says what they lack.
pub fn detect(rows: &[Row]) -> Result<&'static Shape> {
    Reader::find(rows, &Reading::default(), Wanted::Conversations).map(|reader| reader.found())
}

/// A shape that was found.
pub(super) struct Found {
    pub(super) shape: &'static Shape,
    /// What the rows have.
    pub(super) signature: &'static str,
    /// The first row that has it.
    pub(super) place: Place,
    /// How many rows have it.
    pub(super) count: usize,
}

/// Why a file is not taken.
pub(super) struct Refusal {
    pub(super) place: String,
    pub(super) message: String,
    pub(super) hint: String,
}

pub(super) fn find(sample: &[Row], reading: &Reading, wanted: Wanted) -> Result<Found> {
    let mut found: Option<Found> = None;
    let (mut other, mut trouble) = (None, None);
    for row in sample {
        let prepared = columns::prepared(row.value.clone(), &row.troubles, reading);
        let value = &prepared.value;
        if trouble.is_none() {
            trouble =
                prepared.troubles.into_iter().next().map(|trouble| (row.place.clone(), trouble));
        }
        match (shape_of(value, wanted), &mut found) {
            (Some((shape, signature)), None) => {
                found = Some(Found { shape, signature, place: row.place.clone(), count: 1 });
            }
            (Some((_, signature)), Some(found)) => {
                found.count += usize::from(signature == found.signature);
            }
            (None, _) => other = other.or_else(|| shape_for_others(value)),
        }
    }
    found.ok_or_else(|| match other {
        Some((shape, signature)) => refusal(sample, shape, signature, wanted).into(),
        None => match trouble {
            // A column that a format reads cannot be read: that is why no format fits.
            Some((place, trouble)) if is_read(&trouble.column, wanted) => {
                Error::rows(std::iter::once(trouble.error(&trouble.column, &place)))
            }
            _ => no_shape(sample, wanted).into(),
        },
    })
}

fn is_read(column: &str, wanted: Wanted) -> bool {
    SHAPES.into_iter().any(|shape| shape.serves.contains(&wanted) && shape.reads(column))
}

pub(super) fn shape_of(
    value: &Map<String, Value>,
    wanted: Wanted,
) -> Option<(&'static Shape, &'static str)> {
    let serving = SHAPES.into_iter().filter(|shape| shape.serves.contains(&wanted));
    serving.into_iter().find_map(|shape| Some((shape, (shape.signature)(value)?)))
}

/// A shape that serves something else. The most particular ones stand last; a
/// prompt alone tells nothing.
fn shape_for_others(value: &Map<String, Value>) -> Option<(&'static Shape, &'static str)> {
    let particular = SHAPES.into_iter().rev().filter(|shape| shape.name != "prompt");
    particular.into_iter().find_map(|shape| Some((shape, (shape.signature)(value)?)))
}

fn refusal(sample: &[Row], shape: &Shape, signature: &str, wanted: Wanted) -> Refusal {
    let holds = shape.holds;
    Refusal {
        place: file(sample),
        message: format!("the rows are {holds} ({signature}), not {}", noun(wanted)),
        hint: format!("rows with {signature} are {holds}, {}", uses(shape)),
    }
}

/// For which methods a shape is.
fn uses(shape: &Shape) -> String {
    let methods: Vec<&str> =
        shape.serves.iter().flat_map(|wanted| methods(*wanted)).copied().collect();
    let named: Vec<String> = methods.iter().map(|method| format!("`{method}`")).collect();
    match named.split_last() {
        Some((last, [])) => format!("for `method: {}", last.trim_start_matches('`')),
        Some((last, rest)) => format!("for `method:` {} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

fn methods(wanted: Wanted) -> &'static [&'static str] {
    match wanted {
        Wanted::Conversations => &["sft"],
        Wanted::Texts => &["pretrain"],
        Wanted::Preferences => &["dpo", "orpo", "simpo", "cpo"],
        Wanted::Feedback => &["kto", "bco"],
        Wanted::Rewards => &["reward"],
        Wanted::Prompts => &["ppo", "grpo", "rloo", "reinforce_pp", "online_dpo", "distill"],
        Wanted::Labelled | Wanted::Unlabelled => &["classify"],
    }
}

fn noun(wanted: Wanted) -> &'static str {
    match wanted {
        Wanted::Conversations => "conversations as `sft` takes them",
        Wanted::Texts => "raw text as `pretrain` takes it",
        Wanted::Preferences => "preferences",
        Wanted::Feedback => "judged answers as `kto` and `bco` take them",
        Wanted::Rewards => "preferences, ranked answers or judged steps as `reward` takes them",
        Wanted::Prompts => "prompts",
        Wanted::Labelled | Wanted::Unlabelled => "texts with a `label` as `classify` takes them",
    }
}

fn no_shape(rows: &[Row], wanted: Wanted) -> Refusal {
    let names = column_names(rows);
    let fitting = || SHAPES.into_iter().filter(|shape| shape.serves.contains(&wanted));
    let known: Vec<String> =
        fitting().map(|shape| format!("`{}` ({})", shape.name, shape.layout)).collect();
    let mut hint = format!("known formats: {}", known.join("; "));
    // A shape's columns stand in the order of what they mean to it.
    let common = |shape: &Shape| -> usize {
        let found = shape.columns().enumerate().filter(|(_, name)| names.contains(name));
        found.map(|(index, _)| 100 / (1 + index)).sum()
    };
    // The first of equals, as where several fit.
    let nearest = fitting().rev().max_by_key(|shape| common(shape));
    if let Some(nearest) = nearest.filter(|shape| common(shape) > 0) {
        hint.push_str(&format!("; nearest is `{}`: name its columns with `columns`", nearest.name));
    }
    let message = format!("unknown format: the rows have {}", join(names.into_iter()));
    Refusal { place: file(rows), message, hint }
}

fn file(rows: &[Row]) -> String {
    rows.first().map(|row| row.place.file.display().to_string()).unwrap_or_default()
}

pub(super) fn unknown_format(name: &str, reading: &Reading) -> Error {
    let known: Vec<String> = SHAPES.iter().map(|shape| format!("`{}`", shape.name)).collect();
    format_error(
        reading,
        format!("unknown format `{name}`"),
        format!("one of {}; without it the format is found by looking", known.join(", ")),
    )
}

/// Says that the named shape gives something else.
pub(super) fn unfit_format(shape: &Shape, reading: &Reading, wanted: Wanted) -> Error {
    let fitting: Vec<String> = SHAPES
        .iter()
        .filter(|shape| shape.fits(wanted))
        .map(|shape| format!("`{}`", shape.name))
        .collect();
    format_error(
        reading,
        format!("`{}` is a format of {}, not of {}", shape.name, shape.holds, noun(wanted)),
        format!("one of {}; {} are {}", fitting.join(", "), shape.holds, uses(shape)),
    )
}

fn format_error(reading: &Reading, message: String, hint: String) -> Error {
    Error::Setting { key: format!("{}.format", reading.key), message, hint: Some(hint) }
}

/// The columns of all rows, in order of appearance.
pub(super) fn column_names(rows: &[Row]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for name in rows.iter().flat_map(|row| row.value.keys()) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names
}

/// Names in backticks, each once.
pub(super) fn join<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut quoted: Vec<String> = Vec::new();
    for name in names {
        let name = format!("`{name}`");
        if !quoted.contains(&name) {
            quoted.push(name);
        }
    }
    if quoted.is_empty() { "no columns".into() } else { quoted.join(", ") }
}
