//! The data of a recipe, audited: no weight is read and nothing is written but prepared rows.

use data::check::{View, report};
use data::report::Report;
use data::{Prepared, StepSize};
use keys::Settings as _;
use text::Metadata;

use super::Job;
use super::course::packing;
use super::open::{remarks, with_tokens_and_template};
use super::plan;
use super::rows::{beyond_the_model, rows};
use crate::Result;
use crate::method;
use crate::recipe::{check, fill_by_data};

/// What an audit found.
pub struct Audit {
    /// The figures.
    pub report: Report,
    /// The rows.
    pub prepared: Prepared,
}

/// Prepares and audits the data of a recipe, for any method. `samples` rows are shown.
///
/// Findings of error level are in the report; what makes rows unusable is an error, as in a run.
pub fn audit(job: Job<'_>, samples: usize) -> Result<Audit> {
    let begun = std::time::Instant::now();
    let Job { mut document, base, start, date, threads, data: mut at, .. } = job;
    at.list_errors = true;
    check(&document)?;
    let metadata: Metadata = base.metadata_with(start.as_deref(), date)?;
    let (metadata, added) = with_tokens_and_template(&document, metadata, date)?;
    let mut config = base.config.clone();
    if !added.is_empty() {
        config.vocab_size = config.vocab_size.max(metadata.tokenizer.vocab_size());
    }
    let mut prepared = rows(&document, &metadata, threads, &at)?;
    for sequences in [&prepared.train, &prepared.validation] {
        prepared.findings.merge(beyond_the_model(&config, sequences)?.into_iter().collect());
    }
    prepared.findings.merge(remarks(&base).into_iter().collect());
    prepared.findings.sort();
    if !prepared.train.is_empty() {
        (method::of(&document).fill)(&mut document, &prepared.train)?;
    }
    fill_by_data(&mut document, prepared.train.units(), (&base.config).into());
    let step_size = match document.opt_usize("train.tokens_per_step") {
        Some(tokens) => StepSize::Tokens(tokens),
        None => StepSize::Rows(document.get_usize("train.batch_size")),
    };
    // As a run takes it, unless memory is short or rows share long beginnings.
    let budget = document.opt_usize("micro_batch_tokens").unwrap_or(plan::USUAL_TOKENS);
    let method = method::of(&document);
    let budget = budget.max(prepared.train.longest().map_or(0, |(_, tokens)| tokens));
    let view = View {
        tokenizer: &metadata.tokenizer,
        step_size,
        packing: {
            let objective = (method.objective)(&document);
            packing(&base.config, &*objective, budget, document.get_bool("share_prefixes"))
        },
        seed: document.get_i64("seed") as u64,
        samples,
    };
    let mut report = report(&prepared, &view)?;
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(Audit { report, prepared })
}
