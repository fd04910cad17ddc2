//! The merged model against base and adapter, and against the model as it was trained.

use std::path::Path;

use compute::{Backend, DType, Precision, Quantization};
use model::adapter::LoadedAdapter;
use model::divergence::{Divergence, Recording};
use model::generate::{Counted, Prompt};
use model::{Base, Decoder};
use serde_json::{Value, json};

use super::origin::Origin;
use super::rows::Rows;
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::memory::{Needed, free_memory};
use crate::terminal::style::count;

/// Tokens of the sequence that room is made for.
const ROOM_TOKENS: usize = 512;

/// Refuses a comparison that would not fit into memory, before anything is written: base and adapter are loaded
/// for it, while a merge alone takes little.
pub(super) fn require_room(
    context: &Context,
    origin: &Origin,
    adapter: &LoadedAdapter,
    dtype: &str,
) -> Result<()> {
    let backend = context.device(Arithmetic::of(dtype).precision)?;
    let counted = Counted::new(&origin.base, Some(adapter), None, &*backend)?;
    let tokens = ROOM_TOKENS.min(counted.config().max_position_embeddings);
    let prompt = Prompt { tokens: vec![0; tokens], ..Prompt::default() };
    let demand = counted.demand(&[prompt], 1)?;
    let what = "comparing the merged model with base and adapter".to_owned();
    Needed { what, kinds: &demand.kinds() }
        .require(free_memory(), || "`--no-compare` merges without comparing".into())
}

/// How the numbers of a merged model are compared: in operands that hold them, up to their rounding.
#[derive(Clone, Copy)]
struct Arithmetic {
    precision: Precision,
    /// Relative error of a logit that rounding the weights explains.
    rounding: f32,
}

/// Relative error of a logit where operands have the 8 significant bits of bf16.
const BF16_ROUNDING: f32 = 1.0 / 128.0;

impl Arithmetic {
    /// For weights written as `bf16`, `f16` or `f32`.
    fn of(dtype: &str) -> Self {
        match dtype {
            // What is left is the order of sums over thousands of products.
            "f32" => Arithmetic { precision: Precision::F32, rounding: 1.0 / 32_768.0 },
            "f16" => Arithmetic { precision: Precision::F32, rounding: 1.0 / 1024.0 },
            _ => Arithmetic { precision: Precision::Bf16, rounding: BF16_ROUNDING },
        }
    }

    /// The rounding on a device, whose operands `--precision` may have chosen.
    fn rounding_on(self, backend: &dyn Backend) -> f32 {
        match backend.operand() {
            DType::F32 => self.rounding,
            _ => self.rounding.max(BF16_ROUNDING),
        }
    }
}

/// How far the merged model is from those that it comes from.
pub(super) struct Comparison {
    /// From the base that was merged into, with the adapter over it.
    pub(super) merged_vs_adapter: Divergence,
    /// From the weights that the adapter was trained over; none where they are not at hand.
    pub(super) merged_vs_trained: Option<Divergence>,
    /// What the tokens are of.
    pub(super) rows: &'static str,
}

impl Comparison {
    /// Runs the models one after the other: memory never holds two. `dtype` is the type of the merged weights.
    pub(super) fn new(
        context: &Context,
        origin: &Origin,
        merged: &Path,
        dtype: &str,
    ) -> Result<Self> {
        let rows = Rows::choose(context, origin)?;
        context.terminal.note("comparing");
        let kept = merged.join(".logits");
        let arithmetic = Arithmetic::of(dtype);
        let compared = Self::over(context, origin, merged, &kept, &rows, arithmetic);
        match (compared, std::fs::remove_file(&kept)) {
            (Ok(_), Err(error)) => Err(Failure::io(&kept, &error)),
            (compared, _) => compared,
        }
    }

    fn over(
        context: &Context,
        origin: &Origin,
        merged: &Path,
        kept: &Path,
        rows: &Rows,
        arithmetic: Arithmetic,
    ) -> Result<Self> {
        let precision = arithmetic.precision;
        let mut backend = context.device(precision)?;
        let rounding = arithmetic.rounding_on(&*backend);
        let decoder = Decoder::load(&Base::open(merged)?, &mut *backend)?;
        let recording = Recording::new(kept, &decoder, &mut *backend, None, &rows.tokens)?;
        drop((decoder, backend));
        let against = |base: &Base, quantization: Option<Quantization>| -> Result<Divergence> {
            let mut backend = context.device(precision)?;
            let adapter = LoadedAdapter::read(&origin.adapter, &base.config)?;
            let (decoder, adapter) = adapter.load(base, &mut *backend, quantization, None)?;
            let rows = &rows.tokens;
            Ok(recording.divergence(&decoder, &mut *backend, Some(&adapter), rows, rounding)?)
        };
        let merged_vs_adapter = against(&origin.base, None)?;
        let merged_vs_trained = match &origin.trained {
            None => None,
            Some(trained) if trained.is_base && trained.quantization.is_none() => {
                Some(merged_vs_adapter)
            }
            Some(trained) => Some(against(&Base::open(&trained.path)?, trained.quantization)?),
        };
        Ok(Comparison { merged_vs_adapter, merged_vs_trained, rows: rows.what })
    }

    /// Where they were compared.
    pub(super) fn what(&self) -> String {
        format!("{} tokens of {}", count(self.merged_vs_adapter.reads as u64), self.rows)
    }

    /// Every divergence with its name.
    pub(super) fn named(&self) -> Vec<(&'static str, Divergence)> {
        let trained = self.merged_vs_trained.map(|trained| ("the model as trained", trained));
        [("base and adapter", self.merged_vs_adapter)].into_iter().chain(trained).collect()
    }

    pub(super) fn to_json(&self) -> Value {
        let json = |divergence: &Divergence| {
            let Divergence { kl_mean, kl_max, top1, decided, reads } = divergence;
            json!({"kl_mean": kl_mean, "kl_max": kl_max, "top1": top1, "decided": decided,
                   "reads": reads})
        };
        json!({
            "rows": self.rows, "merged_vs_adapter": json(&self.merged_vs_adapter),
            "merged_vs_trained": self.merged_vs_trained.as_ref().map(json),
        })
    }
}

/// A divergence in words.
pub(super) fn words(divergence: &Divergence) -> String {
    let Divergence { kl_mean, kl_max, top1, decided, reads } = divergence;
    let top1 = 100.0 * top1;
    let of = match reads - decided {
        0 => String::new(),
        close => format!(", {} too close to call", count(close as u64)),
    };
    format!("KL {kl_mean:.5} nats (at most {kl_max:.4}), same likeliest token {top1:.1} %{of}")
}
