//! What a recipe would take, before anything is loaded.

use compute::Backend;
use data::{Cursor, Order};
use keys::Value;
use serde::Serialize;

use super::course::Course as _;
use super::plan::{Memory, cures};
use super::setup::{Prepared, Purpose, decide};
use super::{Job, SyntheticRows};
use crate::Result;
use crate::checkpoint::State;

/// A recipe, planned.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Planned {
    /// How large the model is.
    pub parameters: ParameterCounts,
    /// What the run's own steps take, by kind.
    pub memory: Memory,
    /// All of it together.
    pub memory_bytes: usize,
    /// The same with full micro-batches of which every token is read: what has to fit.
    pub worst_bytes: usize,
    /// Bytes that the run may take.
    pub limit_bytes: usize,
    /// Whether the worst case fits.
    pub fits: bool,
    /// What to change where it does not, what helps most first.
    pub cures: Vec<String>,
    /// Optimizer steps.
    pub steps: u64,
    /// Tokens of all of them, as rendered.
    pub tokens: u64,
    /// How long it takes, where that is known.
    pub seconds: Option<f64>,
    /// What it costs, where that is known.
    pub cost: Option<f64>,
    /// Most tokens computed at a time.
    pub micro_batch_tokens: usize,
    /// `none` or `block`.
    pub activation_checkpointing: &'static str,
    /// Every key that was chosen for the recipe.
    pub resolved: Vec<Resolved>,
    /// What the figures leave out, and what the data showed.
    pub notes: Vec<String>,
}

/// Numbers of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ParameterCounts {
    /// Of the base, each once.
    pub total: usize,
    /// Of what is trained.
    pub trainable: usize,
}

/// A key that the recipe left open.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Resolved {
    /// Its path.
    pub key: String,
    /// What was chosen.
    pub value: serde_json::Value,
    /// Why.
    pub reason: String,
}

/// Plans a recipe for a device: reads headers, config and data, and no weight.
///
/// `stand_in` takes the place of the recipe's rows. The job's output is not looked at.
pub fn plan(
    job: Job<'_>,
    device: &dyn Backend,
    stand_in: Option<SyntheticRows>,
) -> Result<Planned> {
    let mut prepared = decide(job, device, Purpose::Plan(stand_in))?;
    let mut notes: Vec<String> = prepared
        .findings
        .iter()
        .map(|finding| format!("{} ({}): {}", finding.message, finding.count, finding.hint))
        .collect();
    if let Some(SyntheticRows { rows, tokens }) = stand_in {
        notes.push(format!(
            "{rows} synthetic rows of {tokens} tokens replace the data: steps, tokens and activations are theirs"
        ));
    }
    notes.extend(loading(&prepared));
    if let Some(rollout) = prepared.recipe.rollout {
        let answers = rollout.group_size * rollout.longest_answer();
        notes.push(format!(
            "tokens are those of the prompts; each is answered with up to {answers} more"
        ));
    }
    notes.push("time and cost are not estimated: they follow from a measured speed".into());
    let (total, trainable) = prepared.estimate.parameters();
    let steps = prepared.rows.total_steps(&State::default());
    let Prepared { plan, document, setup, .. } = &prepared;
    let resolved = document.chosen().map(|(key, value, reason): (&str, &Value, &str)| Resolved {
        key: key.into(),
        value: value.to_json(),
        reason: reason.into(),
    });
    Ok(Planned {
        parameters: ParameterCounts { total, trainable },
        memory: plan.memory,
        memory_bytes: plan.memory.total(),
        worst_bytes: plan.worst.total(),
        limit_bytes: plan.limits.host,
        fits: plan.fits(),
        cures: if plan.fits() { Vec::new() } else { cures(plan, setup) },
        steps,
        micro_batch_tokens: plan.micro_batch_tokens,
        activation_checkpointing: if plan.recompute { "block" } else { "none" },
        resolved: resolved.collect(),
        seconds: None,
        cost: None,
        notes,
        tokens: tokens(&mut prepared.rows.order, steps),
    })
}

/// Says so where loading takes more than the steps after it: values on the host, and a tensor on its way.
fn loading(prepared: &Prepared) -> Option<String> {
    let memory = &prepared.plan.memory;
    let config = prepared.setup.config(&prepared.base);
    let tensor = 4 * config.vocab_size * config.hidden_size;
    let values = if prepared.setup.policy().own().is_some() { memory.trained } else { 0 };
    let loading = memory.process + memory.weights + memory.trained + values + tensor;
    (loading > memory.total()).then(|| {
        format!("loading takes up to {} MB, more than the steps", loading.div_ceil(1 << 20))
    })
}

/// Tokens of so many steps.
fn tokens(order: &mut Order, steps: u64) -> u64 {
    let (mut cursor, mut tokens) = (Cursor::default(), 0);
    for _ in 0..steps {
        let Some(step) = order.step(cursor) else { break };
        cursor = step.next;
        tokens += step.tokens as u64;
    }
    tokens
}
