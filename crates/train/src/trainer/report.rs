//! `report.md`: the run in a page.

use super::Summary;
use super::start::Run;
use crate::Result;
use crate::run::write_atomic;

/// `report.md`: the run in a page.
pub(super) fn write_report(run: &Run, summary: &Summary) -> Result<()> {
    let number = |value: Option<f64>| value.map_or("none".to_owned(), |v| format!("{v:.4}"));
    let mut text = format!(
        "# {}\n\n| | |\n|---|---|\n| status | {} |\n| steps | {} |\n| rows, tokens, supervised | {}, {}, {} |\n\
         | loss first, last | {}, {} |\n| validation best (step), last | {} ({}), {} |\n| tokens/s | {:.0} |\n| seconds | {:.1} |\n",
        run.folder.path().file_name().unwrap_or_default().to_string_lossy(),
        summary.status,
        summary.steps,
        run.state.rows,
        summary.tokens,
        summary.tokens_supervised,
        number(summary.loss_first),
        number(summary.loss_last),
        number(summary.validation_best),
        summary.best_step,
        number(summary.validation_last),
        summary.tokens_per_s,
        summary.seconds,
    );
    let of_the_run = &run.state.history.found;
    if !run.findings.is_empty() || !of_the_run.is_empty() {
        text.push_str("\n## Findings\n\n");
    }
    for finding in &run.findings {
        text.push_str(&format!(
            "* `{}` ({} rows): {}; {}\n",
            finding.id, finding.count, finding.message, finding.hint
        ));
    }
    for found in of_the_run {
        let cure = found.kind().map_or("", |kind| kind.hint);
        text.push_str(&format!(
            "* `{}` (step {}): {}; {cure}\n",
            found.id, found.step, found.message
        ));
    }
    if let Some(report) = &summary.preference {
        text.push_str(&format!("\n## More than trivial rules?\n\n```text\n{report}\n```\n"));
    }
    if let Some(report) = &summary.classification {
        text.push_str(&format!("\n## Classes\n\n```text\n{report}```\n"));
    }
    write_atomic(&run.folder.path().join("report.md"), text.as_bytes())
}
