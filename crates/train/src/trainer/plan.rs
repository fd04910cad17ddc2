//! How a run fits into memory, and what would help where it does not.
//!
//! Size of micro-batches and recomputation of layers follow from the memory and are written into the recipe. Micro-batches
//! have 1,024 tokens where these fit, and more only where rows share long beginnings, which each micro-batch computes.

use compute::{MemoryLimits, OptimizerKind};
use keys::Document;
use model::generate::Room;
use serde::Serialize;

use super::course::Rows;
use super::memory_estimate::MemoryEstimate;
use crate::models::TrainingSetup;
use crate::recipe::Recipe;
use crate::{Error, Result};

/// Micro-batches that are tried, largest first, where the recipe leaves the size open.
///
/// Beyond the first of them matrix products get no faster, and memory only grows.
const CANDIDATES: [usize; 6] = [USUAL_TOKENS, 768, 512, 384, 256, 128];

/// Tokens of a micro-batch where memory is not short.
pub(super) const USUAL_TOKENS: usize = 1024;

/// Larger ones, which pay where many rows share a long beginning: every micro-batch computes it anew.
const LARGER: [usize; 3] = [2048, 4096, 8192];

/// A micro-batch size, and what the run takes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Most tokens computed at a time.
    pub(super) micro_batch_tokens: usize,
    /// Whether layers are computed twice.
    pub(super) recompute: bool,
    /// What the run's own steps take.
    pub(super) memory: Memory,
    /// The same where micro-batches are full and every token is read: what is reserved, and what has to fit.
    pub(super) worst: Memory,
    /// Bytes that the run may take.
    pub(super) limits: MemoryLimits,
}

impl Plan {
    /// Whether the worst case fits.
    pub(super) fn fits(&self) -> bool {
        self.worst.exceeded(&self.limits).is_none()
    }
}

/// Bytes by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Frozen weights, operand copies of trained ones, and looked-up rows of an embedding left in its file.
    pub weights: usize,
    /// f32 values of what is trained.
    pub trained: usize,
    /// f32 gradients.
    pub gradients: usize,
    /// What the optimizer keeps, and what its step needs.
    pub optimizer: usize,
    /// A step's activations: the height of the stack.
    pub activations: usize,
    /// What kernels work in.
    pub workspace: usize,
    /// What is on its way to disk while a checkpoint, the adapter or the model is written.
    pub saving: usize,
    /// The program, the rows and the tokenizer.
    pub process: usize,
}

impl Memory {
    /// Every kind by name, in this order.
    pub fn kinds(&self) -> [(&'static str, usize); 8] {
        [
            ("weights", self.weights),
            ("trained", self.trained),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
            ("activations", self.activations),
            ("workspace", self.workspace),
            ("saving", self.saving),
            ("process", self.process),
        ]
    }

    /// All together.
    pub fn total(&self) -> usize {
        self.kinds().iter().map(|(_, bytes)| bytes).sum()
    }

    /// The limit that it exceeds; none where it fits. What is saved and the process itself lie on the host.
    pub(super) fn exceeded(&self, limits: &MemoryLimits) -> Option<usize> {
        let host = self.saving + self.process;
        limits.exceeded(host, self.total() - host)
    }
}

/// What the recipe says about memory, and what the data needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct MemoryRequest {
    /// None: choose.
    pub(super) micro_batch_tokens: Option<usize>,
    /// None: choose.
    pub(super) recompute: Option<bool>,
    /// Tokens of the longest row.
    pub(super) longest: usize,
    /// What answers are sampled in; none where rows are learned from as they are.
    pub(super) room: Option<Room>,
    /// Most sequences of a step.
    pub(super) sequences: usize,
    /// Most tokens of a step.
    pub(super) of_step: usize,
    /// Bytes that the run may take.
    pub(super) limits: MemoryLimits,
    /// Bytes of the program itself with its rows.
    pub(super) process: usize,
}

impl MemoryRequest {
    /// What the recipe says; the rest is open.
    pub(super) fn of(recipe: &Recipe) -> Self {
        MemoryRequest {
            micro_batch_tokens: recipe.micro_batch_tokens,
            recompute: recipe.recompute,
            longest: 1,
            room: None,
            sequences: 1,
            of_step: 1,
            limits: MemoryLimits { host: usize::MAX, device: None },
            process: 0,
        }
    }
}

/// Writes what was chosen into the recipe, where that left it open.
pub(super) fn write_choices(document: &mut Document, request: &MemoryRequest, plan: &Plan) {
    if request.micro_batch_tokens.is_none() {
        document.choose("micro_batch_tokens", plan.micro_batch_tokens, "fits in memory");
    }
    if request.recompute.is_none() {
        let word = if plan.recompute { "block" } else { "none" };
        document.choose("activation_checkpointing", word, "fits in memory");
    }
}

/// The sizes above `usual`, largest first, of which each saves a tenth of what a smaller one computes.
fn larger_that_pay(estimate: &MemoryEstimate, rows: &mut Rows, usual: usize) -> Result<Vec<usize>> {
    let mut pay = Vec::new();
    let mut fewest = estimate.computed(rows, usual)?;
    for tokens in LARGER.into_iter().filter(|&tokens| tokens > usual) {
        let computed = estimate.computed(rows, tokens)?;
        if 10 * computed <= 9 * fewest {
            pay.insert(0, tokens);
            fewest = computed;
        }
    }
    Ok(pay)
}

/// Chooses the largest micro-batch that fits, activations kept before recomputed; the smallest there is
/// where none does.
pub(super) fn choose(
    estimate: &MemoryEstimate,
    rows: &mut Rows,
    request: &MemoryRequest,
) -> Result<Plan> {
    let sizes: Vec<usize> = match request.micro_batch_tokens {
        Some(tokens) => vec![tokens.max(request.longest)],
        None => {
            let mut sizes = larger_that_pay(estimate, rows, CANDIDATES[0].max(request.longest))?;
            sizes.extend(CANDIDATES.iter().map(|&tokens| tokens.max(request.longest)));
            sizes
        }
    };
    let modes: &[bool] = match request.recompute {
        Some(true) => &[true],
        Some(false) => &[false],
        None => &[false, true],
    };
    let weights = estimate.resident.weights + estimate.looked_up(rows)?;
    let resident = Memory { weights, process: request.process, ..estimate.resident };
    let limits = request.limits;
    // Sampling and training take turns on the stack.
    let sampling = request.room.map(|room| estimate.sampling(&room)).transpose()?;
    let sampling = sampling.unwrap_or_default();
    let mut smallest: Option<Plan> = None;
    for &recompute in modes {
        for &tokens in &sizes {
            let (sequences, of_step) = (request.sequences, request.of_step);
            let worst = estimate.worst(tokens, sequences, of_step, recompute)?;
            let worst = worst.or(sampling).over(resident);
            let plan = Plan { micro_batch_tokens: tokens, recompute, memory: worst, worst, limits };
            if smallest.is_none_or(|other| plan.fits() || worst.total() < other.worst.total()) {
                smallest = Some(plan);
            }
            if plan.fits() {
                break;
            }
        }
        if smallest.is_some_and(|plan| plan.fits()) {
            break;
        }
    }
    let mut plan = smallest.expect("at least one size is tried");
    let own = estimate.own(rows, plan.micro_batch_tokens, plan.recompute)?.or(sampling);
    plan.memory = own.over(resident);
    // Reserved is what is needed, whatever the worst case forgot.
    plan.worst.activations = plan.worst.activations.max(own.stack);
    Ok(plan)
}

/// Refuses a plan that does not fit.
pub(super) fn require_fit(
    plan: &Plan,
    request: &MemoryRequest,
    setup: &TrainingSetup,
) -> Result<()> {
    if plan.fits() {
        return Ok(());
    }
    let cures = cures(plan, setup).join("; ");
    let hint = format!("what helps most, in this order: {cures}");
    let what = format!("the run does not fit: over rows of {} tokens it", request.longest);
    Err(Error::refused(too_large(&what, &plan.worst, &plan.limits), hint))
}

/// What takes more than there is, by kind.
pub(super) fn too_large(what: &str, memory: &Memory, limits: &MemoryLimits) -> String {
    let kinds: Vec<String> = memory
        .kinds()
        .iter()
        .filter(|(_, bytes)| *bytes > 0)
        .map(|(name, bytes)| format!("{name} {} MB", bytes.div_ceil(1 << 20)))
        .collect();
    format!(
        "{what} takes {} MB ({}), of {} MB",
        memory.total().div_ceil(1 << 20),
        kinds.join(", "),
        memory.exceeded(limits).unwrap_or(limits.host) >> 20
    )
}

/// What to change where it does not fit, the largest share first.
pub(super) fn cures(plan: &Plan, setup: &TrainingSetup) -> Vec<String> {
    let memory = &plan.worst;
    let smaller = match plan.recompute {
        true => "a lower `data.max_seq_len` or `micro_batch_tokens`",
        false => {
            "a lower `data.max_seq_len` or `micro_batch_tokens`, or `activation_checkpointing: block`"
        }
    };
    let mut cures: Vec<(usize, &str)> = vec![(memory.activations, smaller)];
    let trained = memory.trained + memory.gradients;
    if setup.policy().own().is_none() {
        cures.push((trained, "an adapter in place of the whole model: `adapter: {type: lora}`"));
    } else {
        cures.push((trained, "a lower `adapter.rank`"));
        let smaller = match setup.quantization {
            None => "`quantization: nf4`",
            Some(_) => "a smaller model",
        };
        cures.push((memory.weights, smaller));
    }
    if setup.optimizers.matrices == OptimizerKind::AdamW {
        cures.push((memory.optimizer, "`train.optimizer.type: adamw8bit`"));
    }
    cures.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    cures.into_iter().map(|(_, text)| text.to_owned()).collect()
}
