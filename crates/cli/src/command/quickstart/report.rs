//! What came out: the table, two messages, the verdict, the result object.

use eval::compare::Comparison;
use eval::interval::Interval;
use serde_json::{Value, json};
use train::trainer::Summary;

use super::arms::{Exam, TUNED};
use super::demo::Example;
use crate::terminal::style::Style;
use crate::terminal::table::{one_line, table};

/// Metrics of the whole answer that stand before the fields.
const BEFORE: [&str; 3] = ["json_valid", "schema_valid", "fields_exact"];
/// The metric that stands after the fields.
const AFTER: &str = "ticket_exact";

/// Every metric of every arm and of the floor, in per cent with its interval.
pub(super) fn results(comparison: &Comparison) -> String {
    let names = comparison.arms.iter().map(|arm| arm.name.clone());
    let mut rows = vec![
        ["% (95 % interval)", "floor"]
            .map(str::to_owned)
            .into_iter()
            .chain(names)
            .collect::<Vec<_>>(),
    ];
    let fields =
        comparison.floor.iter().map(|(name, _)| name).filter(|name| name.starts_with("field."));
    for name in BEFORE.into_iter().chain(fields).chain([AFTER]) {
        let label = match name.strip_prefix("field.") {
            Some(field) => format!("  {field}"),
            None => name.to_owned(),
        };
        let all =
            [&comparison.floor].into_iter().chain(comparison.arms.iter().map(|arm| &arm.metrics));
        let cells = all.map(|metrics| metrics.get(name).map_or_else(String::new, share));
        rows.push([label].into_iter().chain(cells).collect());
    }
    let tokens = comparison.arms.iter().map(|arm| format!("{:.0}", arm.prompt_tokens));
    let label = ["prompt tokens".to_owned(), String::new()];
    rows.push(label.into_iter().chain(tokens).collect());
    table(&rows)
}

fn share(interval: Interval) -> String {
    let Interval { mean, low, high } = interval;
    format!("{:.1} ({:.1}-{:.1})", 100.0 * mean, 100.0 * low, 100.0 * high)
}

/// The first two messages with what everybody made of them.
pub(super) fn side_by_side(comparison: &Comparison, exam: &Exam, style: Style) -> Vec<String> {
    let mut lines = Vec::new();
    for (index, row) in exam.rows().iter().enumerate().take(2) {
        lines.push(String::new());
        lines.push(style.bold(&format!("message {} of {}", index + 1, comparison.rows)));
        lines.extend(row.message.lines().map(|line| format!("  {line}")));
        lines.push(answer_line("right", &row.answer(), None));
        for arm in &comparison.arms {
            let right = exam.fields_right(arm, index);
            let line = answer_line(&arm.name, &arm.answers[index], Some((right, row.ticket.len())));
            lines.push(if right == row.ticket.len() { style.green(&line) } else { line });
        }
    }
    lines
}

fn answer_line(name: &str, answer: &str, right: Option<(usize, usize)>) -> String {
    let score = right.map_or_else(String::new, |(right, all)| format!("{right}/{all}"));
    format!("  {name:<11}  {score:>3}  {}", one_line(answer, 240))
}

/// Whether the tuned model is better, and whether beyond doubt.
pub(super) fn verdict(comparison: &Comparison) -> String {
    let mean = |metric: &str| {
        let interval = comparison.arm(TUNED).and_then(|arm| arm.metrics.get(metric));
        100.0 * interval.map_or(0.0, |interval| interval.mean)
    };
    let what = format!(
        "tuned: {:.1} % valid JSON, {:.1} % of fields exact, {:.1} % of tickets wholly exact",
        mean("json_valid"),
        mean("fields_exact"),
        mean("ticket_exact")
    );
    if comparison.is_clear(TUNED, "fields_exact") {
        format!("{what}; in fields clear of both base arms and of the floor by its interval")
    } else {
        format!(
            "{what}; in fields NOT clear of all base arms and the floor: more steps or data are needed"
        )
    }
}

/// What the result object says beside the comparison.
pub(super) struct Figures<'a> {
    pub(super) summary: &'a Summary,
    pub(super) full_steps: u64,
    pub(super) weights: String,
    pub(super) seconds: f64,
    pub(super) peak_host_bytes: Option<usize>,
}

/// The result object of `--json`, without `schema`.
pub(super) fn to_json(comparison: &Comparison, figures: &Figures<'_>) -> Value {
    let Figures { summary, full_steps, weights, seconds, peak_host_bytes } = figures;
    let mut json = serde_json::to_value(comparison).expect("a comparison is JSON");
    json["train_tokens_per_s"] = json!(summary.tokens_per_s);
    json["seconds"] = json!(seconds);
    json["peak_host_bytes"] = json!(peak_host_bytes);
    json["adapter"] = json!(summary.adapter);
    json["run"] = json!(summary.run);
    json["weights"] = json!(weights);
    json["clear"] = json!(comparison.is_clear(TUNED, "fields_exact"));
    json["steps"] = json!(summary.steps);
    json["full_steps"] = json!(full_steps);
    json["best_step"] = json!(summary.best_step);
    json
}

/// Which weights answered as [`TUNED`].
pub(super) fn weights(format: &str, storage: &str, summary: &Summary) -> String {
    let base = match format {
        "gguf" => format!("{} GGUF", storage.to_uppercase()),
        _ => format!("{storage} folder"),
    };
    let chosen = match summary.validation_best {
        Some(_) => "the latest within the noise of the lowest validation loss",
        None => "the last",
    };
    format!("{base} + adapter of step {} ({chosen})", summary.best_step)
}

/// A prompt to try, which no arm was asked.
pub(super) fn to_try(shots: &[Example]) -> String {
    let message = shots.last().map_or("", |shot| &shot.message);
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use eval::compare::Arm;
    use eval::grader::Json;
    use eval::metric::Metrics;

    use super::super::demo;
    use super::*;

    fn arm(name: &str, answer: &str, rows: usize) -> Arm {
        let expected = vec![json!({"kind": "a", "open": true}); rows];
        let answers = vec![answer.to_owned(); rows];
        Arm::new(name, &vec![30; rows], answers, &expected, &Json::untyped(), 1)
    }

    fn comparison() -> Comparison {
        let right = r#"{"kind":"a","open":true}"#;
        let arms = vec![arm("base+schema", "Sorry.", 4), arm(TUNED, right, 4)];
        let floor: Metrics = arm("floor", r#"{"kind":"a","open":false}"#, 4).metrics;
        Comparison { arms, floor, rows: 4 }
    }

    fn summary() -> Summary {
        Summary {
            preference: None,
            classification: None,
            run: PathBuf::from("runs/q/run"),
            status: "finished",
            steps: 64,
            best_step: 48,
            tokens: 1000,
            tokens_supervised: 400,
            tokens_computed: 900,
            tokens_per_s: 512.5,
            rows_per_s: 4.0,
            seconds: 2.0,
            loss_first: Some(2.0),
            loss_last: Some(0.1),
            validation_best: Some(0.1),
            validation_by: Some("loss".into()),
            gives_scores: false,
            learns_from_rewards: false,
            validation_last: Some(0.2),
            findings: Vec::new(),
            adapter: PathBuf::from("runs/q/run/adapter"),
        }
    }

    #[test]
    fn the_table_is_lined_up() {
        let expected = "\
% (95 % interval)                floor    base+schema                tuned
json_valid         100.0 (100.0-100.0)  0.0 (0.0-0.0)  100.0 (100.0-100.0)
schema_valid       100.0 (100.0-100.0)  0.0 (0.0-0.0)  100.0 (100.0-100.0)
fields_exact          50.0 (50.0-50.0)  0.0 (0.0-0.0)  100.0 (100.0-100.0)
  kind             100.0 (100.0-100.0)  0.0 (0.0-0.0)  100.0 (100.0-100.0)
  open                   0.0 (0.0-0.0)  0.0 (0.0-0.0)  100.0 (100.0-100.0)
ticket_exact             0.0 (0.0-0.0)  0.0 (0.0-0.0)  100.0 (100.0-100.0)
prompt tokens                                      30                   30
";
        assert_eq!(results(&comparison()), expected);
    }

    #[test]
    fn the_verdict_says_whether_it_is_clear() {
        let clear = comparison();
        assert_eq!(
            verdict(&clear),
            "tuned: 100.0 % valid JSON, 100.0 % of fields exact, 100.0 % of tickets wholly exact; \
             in fields clear of both base arms and of the floor by its interval"
        );
        let mut close = comparison();
        close.arms[0] = arm("base+schema", &close.arms[1].answers[0], 4);
        assert!(verdict(&close).contains("NOT clear"));
    }

    #[test]
    fn messages_stand_with_their_answers() {
        let demo = demo::generate(1, 4, 2);
        let exam = Exam::new(&demo, 1);
        let expected: Vec<Value> =
            demo.test.iter().map(|row| Value::Object(row.ticket.clone())).collect();
        let answers = demo.test.iter().map(Example::answer).collect();
        let right = Arm::new(TUNED, &[30, 30], answers, &expected, &Json::untyped(), 1);
        let wrong = vec!["Sorry,\nno.".to_owned(); 2];
        let wrong = Arm::new("base+shots", &[90, 90], wrong, &expected, &Json::untyped(), 1);
        let floor = exam.floor(&demo.train);
        let comparison = Comparison { arms: vec![wrong, right], floor, rows: 2 };
        let lines = side_by_side(&comparison, &exam, Style::new(false));
        assert_eq!(lines[1], "message 1 of 2");
        let ticket = demo.test[0].answer();
        assert!(lines.contains(&format!("  right             {ticket}")), "{lines:#?}");
        assert!(lines.contains(&"  base+shots   0/8  Sorry, no.".to_owned()), "{lines:#?}");
        assert!(lines.contains(&format!("  tuned        8/8  {ticket}")), "{lines:#?}");
    }

    #[test]
    fn the_result_has_the_promised_keys() {
        let summary = summary();
        let figures = Figures {
            summary: &summary,
            full_steps: 64,
            weights: weights("gguf", "q4_1", &summary),
            seconds: 100.0,
            peak_host_bytes: Some(5),
        };
        let json = to_json(&comparison(), &figures);
        assert_eq!(json["arms"][1]["name"], "tuned");
        assert_eq!(json["arms"][1]["prompt_tokens"], 30.0);
        for metric in ["json_valid", "schema_valid", "fields_exact", "ticket_exact"] {
            for part in ["mean", "low", "high"] {
                assert!(json["arms"][0]["metrics"][metric][part].is_number(), "{metric} {part}");
                assert!(json["floor"][metric][part].is_number(), "{metric} {part}");
            }
        }
        assert_eq!((json["rows"].clone(), json["seconds"].clone()), (json!(4), json!(100.0)));
        assert_eq!(json["train_tokens_per_s"], 512.5);
        assert_eq!(json["peak_host_bytes"], 5);
        assert_eq!(json["adapter"], "runs/q/run/adapter");
        assert_eq!(
            json["weights"],
            "Q4_1 GGUF + adapter of step 48 (the latest within the noise of the lowest validation loss)"
        );
    }
}
