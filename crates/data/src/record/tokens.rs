//! Rows that were tokenised elsewhere.

use serde_json::{Map, Value};

use super::field::{Fields, Result};
use super::{Record, Shape, Tokens, Wanted, prompt};

pub(super) const SHAPE: Shape = Shape {
    name: "tokens",
    layout: "`input_ids`, optionally `labels`, `attention_mask`",
    columns: &[&["input_ids", "labels", "attention_mask", "completion_mask", "assistant_masks"]],
    holds: "token ids",
    serves: &[Wanted::Conversations, Wanted::Texts],
    signature: |row: &Map<String, Value>| row.contains_key("input_ids").then_some("`input_ids`"),
    read,
    asked: prompt::asked,
};

/// The label of a token that is not learned, as Hugging Face has it.
const IGNORED: i64 = -100;

fn read(fields: &Fields<'_>) -> Result<Record> {
    let ids = integers(fields, "input_ids")?;
    let mut tokens = Vec::with_capacity(ids.len());
    for id in &ids {
        let error = || fields.error(format!("`input_ids` has {id}, which is not a token id"));
        tokens.push(u32::try_from(*id).map_err(|_| error())?);
    }
    let mut weights = weights(fields, &ids)?;
    let kept = attended(fields, ids.len())?;
    let tokens = tokens[kept.clone()].to_vec();
    weights = weights[kept].to_vec();
    // The first token follows nothing, so nothing can predict it.
    if let Some(first) = weights.first_mut() {
        *first = 0.0;
    }
    if weights.iter().all(|&weight| weight == 0.0) {
        return Err(fields.error("row has no token to learn"));
    }
    Ok(Record::Tokens(Tokens { place: fields.place.clone(), tokens, weights }))
}

/// Which ids are learned: by labels, by a mask, or all of them.
fn weights(fields: &Fields<'_>, ids: &[i64]) -> Result<Vec<f32>> {
    match fields.first_of(&["labels", "completion_mask", "assistant_masks"]) {
        None => Ok(vec![1.0; ids.len()]),
        Some("labels") => {
            let labels = as_long(fields, "labels", ids.len())?;
            let differs = |(id, label): (&i64, &i64)| *label != IGNORED && label != id;
            if let Some(at) = ids.iter().zip(&labels).position(differs) {
                let message = format!(
                    "label {at} is {}, neither the token's id {} nor {IGNORED}",
                    labels[at], ids[at]
                );
                let hint = "labels are not shifted: each stands at its own token";
                return Err(fields.error(message).with_hint(hint));
            }
            Ok(labels.iter().map(|&label| f32::from(label != IGNORED)).collect())
        }
        Some(mask) => {
            let mask = as_long(fields, mask, ids.len())?;
            Ok(mask.iter().map(|&counts| f32::from(counts != 0)).collect())
        }
    }
}

/// The tokens between padding on either side.
fn attended(fields: &Fields<'_>, len: usize) -> Result<std::ops::Range<usize>> {
    if fields.get("attention_mask").is_none() {
        return Ok(0..len);
    }
    let mask = as_long(fields, "attention_mask", len)?;
    let start = mask.iter().position(|&seen| seen != 0).unwrap_or(0);
    let end = mask.iter().rposition(|&seen| seen != 0).map_or(0, |last| last + 1);
    if mask[start.min(end)..end].contains(&0) {
        return Err(fields.error("`attention_mask` has zeros between ones"));
    }
    Ok(start.min(end)..end)
}

fn as_long(fields: &Fields<'_>, name: &str, len: usize) -> Result<Vec<i64>> {
    let numbers = integers(fields, name)?;
    if numbers.len() == len {
        return Ok(numbers);
    }
    let called = fields.called(name);
    Err(fields.error(format!("`{called}` has {} entries, `input_ids` {len}", numbers.len())))
}

fn integers(fields: &Fields<'_>, name: &str) -> Result<Vec<i64>> {
    // pandas makes floats of whole numbers where a column has gaps.
    let whole =
        |value: &Value| value.as_f64().filter(|number| number.fract() == 0.0).map(|n| n as i64);
    let number = |value: &Value| {
        value.as_i64().or_else(|| value.as_bool().map(i64::from)).or_else(|| whole(value))
    };
    let list = fields.list(name)?;
    let numbers: Option<Vec<i64>> = list.iter().map(number).collect();
    numbers.ok_or_else(|| {
        fields.error(format!("`{}` holds other things than integers", fields.called(name)))
    })
}
