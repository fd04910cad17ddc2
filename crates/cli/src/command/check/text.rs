//! The report for a terminal.

use data::report::{Pairs, Report, Sample, SampleToken};
use data::{Finding, Level};

use super::sample::{Run, runs, visible, visible_line};
use super::{Checked, LEVELS};
use crate::terminal::style::{Style, count, duration};
use crate::terminal::table::table;

/// A longer run of tokens is shown by its two ends.
const RUN_SHOWN: usize = 240;
/// Of such a run, tokens of its beginning and of its end.
const RUN_ENDS: (usize, usize) = (160, 40);
/// Columns of the longest bar.
const BAR: usize = 40;

/// The report in lines.
pub(super) fn lines(checked: &Checked<'_>, style: Style) -> Vec<String> {
    let report = checked.report;
    let mut lines = Vec::new();
    lines.extend(files(report));
    lines.push(String::new());
    lines.extend(figures(report));
    lines.extend(histogram(report, style));
    lines.extend(cuts(report));
    for sample in &report.samples {
        lines.push(String::new());
        lines.extend(shown(sample, style));
    }
    if !report.samples.is_empty() {
        lines.push(style.dim(&legend(style)));
    }
    for finding in LEVELS.iter().flat_map(|&level| checked.findings(level)) {
        lines.push(String::new());
        lines.extend(found(checked, finding, style));
    }
    lines.push(String::new());
    let verdict = checked.verdict();
    lines.push(if checked.passes() { style.green(&verdict) } else { style.red(&verdict) });
    lines
}

/// Lines of a table whose first row is the head.
fn columns(rows: &[Vec<String>]) -> Vec<String> {
    table(rows).lines().map(str::to_owned).collect()
}

fn number(number: usize) -> String {
    count(number as u64)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn files(report: &Report) -> Vec<String> {
    let mut rows = vec![["file", "for", "rows", "format", "since"].map(str::to_owned).to_vec()];
    for file in &report.files {
        rows.push(vec![
            visible_line(&file.path.display().to_string()),
            file.purpose.to_owned(),
            number(file.rows),
            file.format.clone(),
            visible_line(&file.why),
        ]);
    }
    columns(&rows)
}

fn figures(report: &Report) -> Vec<String> {
    let Report { lengths, packing, .. } = report;
    let steps = report.steps_per_epoch.map(|steps| format!(", {} steps", number(steps)));
    let mut lines = vec![format!("rows       {}", rows(report))];
    if let Some(split) = &report.split {
        let of = match split.parts {
            parts if parts == split.rows => String::new(),
            parts => format!(" out of {} parts", number(parts)),
        };
        lines.push(format!("split      by {}: {} rows{of}", split.by, number(split.rows)));
    }
    lines.push(format!(
        "epoch      {} sequences{}",
        number(report.sequences),
        steps.unwrap_or_default()
    ));
    lines.push(format!(
        "tokens     {} an epoch, {} trained ({})",
        number(report.tokens),
        number(report.tokens_supervised),
        percent(share(report.tokens_supervised, report.tokens))
    ));
    lines.push(format!(
        "lengths    {} tokens (median), {} at the 95th percentile, {} at most",
        number(lengths.median),
        number(lengths.p95),
        number(lengths.longest)
    ));
    lines.extend(report.pairs.as_ref().map(|pairs| format!("pairs      {}", sides(pairs))));
    lines.push(format!(
        "packing    {} micro-batches of {} tokens, {} full; shared prefixes save {}",
        number(packing.micro_batches),
        number(packing.micro_batch_tokens),
        percent(packing.fill),
        percent(packing.shared)
    ));
    if !report.size_guide.is_empty() {
        lines.push(format!("size       {}", report.size_guide));
    }
    lines.push(format!("checked in {}", duration(report.seconds)));
    lines
}

/// What tells chosen from rejected answers beside what they say.
pub(super) fn sides(pairs: &Pairs) -> String {
    let ratio = pairs.length_ratio.map_or(String::new(), |ratio| {
        format!("; chosen answers have {ratio:.2} times the characters of rejected ones")
    });
    format!(
        "{}: the chosen answer is longer in {}, shorter in {}{ratio}; {} identical",
        number(pairs.count),
        percent(share(pairs.chosen_longer, pairs.count)),
        percent(share(pairs.rejected_longer, pairs.count)),
        number(pairs.identical)
    )
}

/// Where the rows went: every one of them is in one of the numbers.
fn rows(report: &Report) -> String {
    let mut parts = vec![format!("{} trained", number(report.rows_trained))];
    if report.rows_validation > 0 {
        parts.push(format!("{} for validation", number(report.rows_validation)));
    }
    let left_out = report.rows_left_out.iter();
    parts.extend(left_out.map(|(why, rows)| format!("{} left out: {why}", number(*rows))));
    format!("{} read: {}", number(report.rows_in), parts.join(", "))
}

fn histogram(report: &Report, style: Style) -> Vec<String> {
    let bins = &report.lengths.bins;
    let most = bins.iter().map(|bin| bin.count).max().unwrap_or(0);
    if most == 0 {
        return Vec::new();
    }
    let mut rows = vec![["tokens", "sequences"].map(str::to_owned).to_vec()];
    rows.extend(bins.iter().map(|bin| {
        vec![format!("{} to {}", number(bin.from), number(bin.to - 1)), number(bin.count)]
    }));
    let bar = |filled: usize| {
        // A bin that holds something shows something.
        let width = (filled * BAR).div_ceil(most);
        style.cyan(&"█".repeat(width))
    };
    let bars = std::iter::once(String::new()).chain(bins.iter().map(|bin| bar(bin.count)));
    let lines = columns(&rows).into_iter().zip(bars);
    let lines = lines.map(|(line, bar)| format!("{line}  {bar}").trim_end().to_owned());
    std::iter::once(String::new()).chain(lines).collect()
}

fn cuts(report: &Report) -> Vec<String> {
    let cuts = &report.lengths.cuts;
    if cuts.is_empty() {
        return Vec::new();
    }
    let head = ["max_seq_len", "longer sequences", "tokens beyond it"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(
        cuts.iter()
            .map(|cut| vec![number(cut.max_seq_len), number(cut.sequences), number(cut.tokens)]),
    );
    std::iter::once(String::new()).chain(columns(&rows)).collect()
}

/// A sample under its head, indented.
fn shown(sample: &Sample, style: Style) -> Vec<String> {
    let trained = sample.tokens.iter().filter(|token| token.weight != 0.0).count();
    let (role, place) = (&sample.role, visible_line(&sample.place));
    let head = format!("{role} {place}: {} tokens, {trained} trained", sample.tokens.len());
    let body: String = runs(&sample.tokens).map(|run| of_run(&run, style)).collect();
    let body = body.lines().map(|line| format!("  {line}"));
    std::iter::once(style.bold(&head)).chain(body).collect()
}

fn of_run(run: &Run<'_>, style: Style) -> String {
    let text = match run.tokens.len() {
        RUN_SHOWN.. => {
            let (head, rest) = run.tokens.split_at(RUN_ENDS.0);
            let (middle, tail) = rest.split_at(rest.len() - RUN_ENDS.1);
            format!("{} [… {} tokens …] {}", joined(head), middle.len(), joined(tail))
        }
        _ => joined(run.tokens),
    };
    let weight = run.odd_weight().map(|weight| format!("×{weight}")).unwrap_or_default();
    if !run.is_trained() {
        return if run.special { by_line(&text, |line| style.dim(line)) } else { text };
    }
    match style.is_colored() {
        true => by_line(&(text + &weight), |line| style.cyan(line)),
        false => format!("⟦{text}⟧{weight}"),
    }
}

fn joined(tokens: &[SampleToken]) -> String {
    // Joined first: what stands in one token and what in two looks the same.
    visible(&tokens.iter().map(|token| token.text.as_str()).collect::<String>())
}

/// Paints every line on its own, so that no colour runs into the indent.
fn by_line(text: &str, paint: impl Fn(&str) -> String) -> String {
    let painted = |line: &str| if line.is_empty() { String::new() } else { paint(line) };
    text.split('\n').map(painted).collect::<Vec<_>>().join("\n")
}

fn legend(style: Style) -> String {
    match style.is_colored() {
        true => format!("{} is trained; tokens of control are dim", style.cyan("this colour")),
        false => "⟦this⟧ is trained, ×0.5 with that weight".to_owned(),
    }
}

fn found(checked: &Checked<'_>, finding: &Finding, style: Style) -> Vec<String> {
    let accepted = checked.is_accepted(finding);
    let level = match finding.level {
        Level::Error if accepted => style.yellow("error, accepted:"),
        Level::Error => style.red("error:"),
        Level::Warning => style.yellow("warning:"),
        Level::Note => style.cyan("note:"),
    };
    let (message, times) = (visible_line(&finding.message), number(finding.count));
    let mut lines = vec![format!("{level} {message}, {times} x  [{}]", finding.id)];
    let mut places: Vec<String> =
        finding.places.iter().map(|place| visible_line(&place.to_string())).collect();
    if places.len() < finding.count && !places.is_empty() {
        places.push("…".to_owned());
    }
    if !places.is_empty() {
        lines.push(format!("  at    {}", places.join(", ")));
    }
    if !finding.hint.is_empty() {
        lines.push(format!("  cure  {}", visible_line(&finding.hint)));
    }
    if finding.level == Level::Error && !accepted {
        lines.push(format!("  or accept it: {}", style.bold(&checked.accept_line(finding))));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    const EXPECTED: &str = "\
file        for     rows  format  since
rows.jsonl  train  1,000  alpaca  every row has `instruction` and `output`

rows       1,000 read: 880 trained, 100 for validation, 18 left out: overlong, 2 left out: cannot be read
split      by cluster: 100 rows out of 87 parts
epoch      980 sequences, 55 steps
tokens     64,000 an epoch, 16,000 trained (25.0 %)
lengths    60 tokens (median), 200 at the 95th percentile, 223 at most
pairs      1,000: the chosen answer is longer in 62.0 %, shorter in 30.1 %; chosen answers have 1.12 times the characters of rejected ones; 3 identical
packing    64 micro-batches of 1,024 tokens, 95.5 % full; shared prefixes save 12.0 %
size       1,000 rows: enough for a domain
checked in under 1 s

    tokens  sequences
   0 to 31        120  ████████████████
  32 to 63        310  ████████████████████████████████████████
  64 to 95        260  ██████████████████████████████████
 96 to 127        140  ███████████████████
128 to 159         60  ████████
160 to 191          0
192 to 223         90  ████████████

max_seq_len  longer sequences  tokens beyond it
        128               150             7,100

row rows.jsonl:1: 11 tokens, 4 trained
  <|user|>↵
  2 < 3?<|assistant|>↵
  ⟦Yes,↵
  it is.<|end|>⟧↵

chosen rows.jsonl:2: 3 tokens, 1 trained
  <|user|>a⇥b⟦half⟧×0.5
⟦this⟧ is trained, ×0.5 with that weight

error: the end of the turn is never trained, 6 x  [no-end-of-turn]
  at    rows.jsonl:4, rows.jsonl:9, …
  cure  end the template's turn with the model's end-of-turn token
  or accept it: data.accept: [no-end-of-turn]

error: the text begins with two `<s>`, 3 x  [double-bos]
  at    rows.jsonl:12, …
  cure  take `<s>` out of the rows & the template
  or accept it: data.accept: [double-bos]

warning: rows that are nearly the same, 9 x  [near-duplicates]
  at    rows.jsonl:1, rows.jsonl:2, rows.jsonl:3, …
  cure  look at them: copies weigh more than they should

note: columns that are not trained on: `id`, 3 x  [unused-columns]
  at    rows.jsonl:1, …
  cure  if one of them is meant, name it with `columns`

2 errors, 1 warning: `train` refuses these data";

    #[test]
    fn a_report_without_colours() {
        let report = example::report();
        let checked = Checked { recipe: "r.yaml", report: &report, accepted: &[] };
        assert_eq!(lines(&checked, Style::new(false)).join("\n"), EXPECTED);
    }

    #[test]
    fn what_is_trained_is_coloured_where_there_are_colours() {
        let sample = &example::report().samples[0];
        let lines = shown(sample, Style::new(true));
        assert_eq!(lines[3], "  \x1b[36mYes,↵\x1b[0m");
        assert_eq!(lines[4], "  \x1b[36mit is.<|end|>\x1b[0m↵");
        assert_eq!(lines[1], "  \x1b[2m<|user|>\x1b[0m↵");
    }

    #[test]
    fn a_long_run_shows_its_ends() {
        let token = |id: u32| SampleToken { id, text: format!("{id} "), ..SampleToken::default() };
        let tokens: Vec<SampleToken> = (0..1000).map(token).collect();
        let text = of_run(&runs(&tokens).next().unwrap(), Style::new(false));
        assert!(text.contains("159  [… 800 tokens …] 960 961 "), "{text}");
        assert!(text.ends_with("999 "));
    }

    #[test]
    fn an_accepted_error_is_told_and_asks_for_nothing() {
        let report = example::report();
        let accepted = ["double-bos".to_owned()];
        let checked = Checked { recipe: "r.yaml", report: &report, accepted: &accepted };
        let lines = found(&checked, &report.findings[1], Style::new(false));
        assert!(lines[0].starts_with("error, accepted: the text begins"), "{}", lines[0]);
        assert_eq!(lines.len(), 3);
    }
}
