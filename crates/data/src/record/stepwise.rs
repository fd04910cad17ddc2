//! TRL's stepwise supervision: an answer in steps, each right or wrong.

use serde_json::{Map, Value};

use super::field::{Fields, Result};
use super::{Record, Shape, Step, Stepwise, Wanted, cell, prompt};

pub(super) const SHAPE: Shape = Shape {
    name: "stepwise",
    layout: "`prompt`, `completions`: list of steps, `labels`: list of true or false",
    columns: &[&["completions", "labels"], prompt::COLUMNS],
    holds: "judged steps",
    serves: &[Wanted::Rewards],
    signature,
    read,
    asked: prompt::asked,
};

fn signature(row: &Map<String, Value>) -> Option<&'static str> {
    let is_list = |name: &str| row.get(name).is_some_and(Value::is_array);
    (is_list("completions") && is_list("labels")).then_some("`completions` and `labels`")
}

fn read(fields: &Fields<'_>) -> Result<Record> {
    let (steps, labels) = (fields.list("completions")?, fields.list("labels")?);
    if steps.len() != labels.len() {
        let message =
            format!("`labels` has {} entries, `completions` {}", labels.len(), steps.len());
        return Err(fields.error(message));
    }
    if steps.is_empty() {
        return Err(fields.error("`completions` has no steps"));
    }
    let judged = steps.iter().zip(labels).enumerate();
    let steps = judged.map(|(index, (text, label))| step(fields, index, text, label));
    Ok(Record::Stepwise(Stepwise {
        place: fields.place.clone(),
        steps: steps.collect::<Result<_>>()?,
        prompt: prompt::asked(fields)?.messages,
    }))
}

fn step(fields: &Fields<'_>, index: usize, text: &Value, label: &Value) -> Result<Step> {
    let text = text.as_str().filter(|text| !text.trim().is_empty());
    let text = text.ok_or_else(|| fields.error(format!("step {index} is empty or not text")))?;
    let number = cell::flag(label).map(f64::from).or(cell::number(label));
    let number = number.filter(|number| (0.0..=1.0).contains(number));
    let label = number.ok_or_else(|| {
        fields.error(format!("label {index} is {label}, neither true, false nor a share between"))
    })?;
    Ok(Step { text: text.into(), label: label as f32 })
}
