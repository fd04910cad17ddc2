//! What a run's events come to in words.

use std::collections::{BTreeMap, VecDeque};

use train::events::{Event, StepEvent};

use crate::terminal::style::{Style, bytes, count, duration};
use crate::terminal::table::one_line;

/// Steps that always get a line.
const FIRST_STEPS: u64 = 5;
/// Later steps get a line after this many seconds at the latest.
const LINE_SECONDS: f64 = 10.0;
/// Seconds between two answers of rollouts that are shown.
const ANSWER_SECONDS: f64 = 30.0;
/// The figure of a rollout, and of its validation, that stands for all.
const REWARD: &str = "reward";
/// Further ones, and what they are called in a line.
const OF_ROLLOUT: [(&str, &str); 3] =
    [("completions/mean_length", "length"), ("kl", "kl"), ("entropy", "entropy")];
/// Steps over which the speed is taken.
const SPEED_STEPS: usize = 20;

/// Turns events into lines and figures.
pub(super) struct Narrator {
    style: Style,
    /// Figures are shown elsewhere: steps get no lines.
    has_block: bool,
    steps: u64,
    resumed_from: u64,
    last: StepEvent,
    /// The loss of every step, or the reward of its rollout.
    curve: Vec<f64>,
    /// Tokens and seconds of the latest steps.
    speed: VecDeque<(usize, f64)>,
    /// Tokens and seconds of the latest rollout.
    sampling: Option<(usize, f64)>,
    /// When an answer of a rollout was shown.
    answer_time: Option<f64>,
    validation_first: Option<f64>,
    validation_best: Option<f64>,
    validation_last: Option<f64>,
    line_step: u64,
    line_time: f64,
    begun: f64,
    now: f64,
}

impl Narrator {
    pub(super) fn new(style: Style, has_block: bool) -> Self {
        Narrator {
            style,
            has_block,
            steps: 0,
            resumed_from: 0,
            last: StepEvent::default(),
            curve: Vec::new(),
            speed: VecDeque::new(),
            sampling: None,
            answer_time: None,
            validation_first: None,
            validation_best: None,
            validation_last: None,
            line_step: 0,
            line_time: 0.0,
            begun: 0.0,
            now: 0.0,
        }
    }

    /// The lines that an event is worth, `now` seconds after the start.
    pub(super) fn lines(&mut self, event: &Event, now: f64) -> Vec<String> {
        self.now = now;
        match event {
            Event::Started { .. } => self.started(event),
            Event::Finding { step, id, level, count, places, hint } => {
                self.finding(*step, id, level, *count, places, hint)
            }
            Event::ReferenceCached { sequences, computed, seconds } => vec![format!(
                "reference: log-probabilities of {} sequences, {} computed in {}",
                count(*sequences as u64),
                count(*computed as u64),
                duration(*seconds)
            )],
            Event::Step(step) => self.stepped(step),
            Event::Evaluated { step, validation_loss, best, metrics, reference_step } => {
                self.evaluated(*step, *validation_loss, metrics, *reference_step, *best)
            }
            Event::Rollout { tokens, seconds, .. } => {
                self.sampling = Some((*tokens, *seconds));
                Vec::new()
            }
            Event::Answered { .. } => self.answered(event),
            Event::Sampled { step, prompt, answer } => vec![
                format!("sample at step {step}: {}", self.style.dim(&one_line(prompt, 70))),
                format!("  {}", one_line(answer, 200)),
            ],
            Event::Saved { step, path } => {
                vec![self.style.dim(&format!("saved step {step} in {path}"))]
            }
            Event::Finished { .. } => Vec::new(),
        }
    }

    fn started(&mut self, event: &Event) -> Vec<String> {
        let Event::Started {
            run,
            method,
            steps,
            resumed_from,
            rows_train,
            rows_validation,
            tokens_train,
            tokens_supervised,
            parameters,
            parameters_trained,
            micro_batch_tokens,
            planned_bytes,
            memory,
        } = event
        else {
            return Vec::new();
        };
        self.steps = *steps;
        self.resumed_from = resumed_from.unwrap_or(0);
        self.last.step = self.resumed_from;
        self.begun = self.now;
        let number = |n: &usize| count(*n as u64);
        let from = match resumed_from {
            Some(step) => format!(", resumed after step {step}"),
            None => String::new(),
        };
        let bold = |text: String| self.style.bold(&text);
        vec![
            bold(format!("{run}: {method}, {steps} steps{from}")),
            format!(
                "data   {} rows to train on, {} for validation; {} tokens, {} of them supervised",
                number(rows_train),
                number(rows_validation),
                number(tokens_train),
                number(tokens_supervised)
            ),
            format!(
                "model  {} parameters, {} trained; up to {} tokens at a time",
                number(parameters),
                number(parameters_trained),
                number(micro_batch_tokens),
            ),
            format!("memory {} planned: {}", bytes(*planned_bytes as u64), largest_first(memory)),
        ]
    }

    fn finding(
        &self,
        step: Option<u64>,
        id: &str,
        level: &str,
        times: usize,
        places: &[String],
        hint: &str,
    ) -> Vec<String> {
        let at = step.map_or(String::new(), |step| format!(" at step {step}"));
        let level = match level {
            "note" => self.style.cyan(&format!("note{at}:")),
            "error" => self.style.red(&format!("error{at}:")),
            _ => self.style.yellow(&format!("warning{at}:")),
        };
        let more = if times > places.len() { ", ..." } else { "" };
        let found = match places {
            // Said of the run, not of rows.
            [] => format!("{level} {id}"),
            _ => format!("{level} {id}, {} x ({}{more})", count(times as u64), places.join(", ")),
        };
        vec![found, format!("  {hint}")]
    }

    fn stepped(&mut self, step: &StepEvent) -> Vec<String> {
        self.last = step.clone();
        // A loss over answers of one's own says nothing: their rewards do.
        self.curve.push(step.metrics.get(REWARD).copied().unwrap_or(step.loss));
        self.speed.push_back((step.tokens, step.seconds));
        if self.speed.len() > SPEED_STEPS {
            self.speed.pop_front();
        }
        let first = self.curve.len() as u64 <= FIRST_STEPS;
        let far = step.step - self.line_step >= (self.steps / 50).max(1);
        let late = self.now - self.line_time >= LINE_SECONDS;
        // Of the two spacings the wider one counts, so that quick steps do not flood a log.
        let due =
            first || step.step == self.steps || (far && self.now - self.line_time >= 1.0) || late;
        if self.has_block || !due {
            return Vec::new();
        }
        (self.line_step, self.line_time) = (step.step, self.now);
        let width = self.steps.to_string().len();
        let line = format!("step {:>width$}/{}  {}", step.step, self.steps, self.figures());
        vec![format!("{line}  {}", self.time_left()).trim_end().to_owned()]
    }

    /// An answer of a rollout, now and then.
    fn answered(&mut self, event: &Event) -> Vec<String> {
        let Event::Answered { step, prompt, answer, ended, reward, rewards, advantage } = event
        else {
            return Vec::new();
        };
        if self.answer_time.is_some_and(|shown| self.now - shown < ANSWER_SECONDS) {
            return Vec::new();
        }
        self.answer_time = Some(self.now);
        let reward = reward.map_or("none".to_owned(), |reward| format!("{reward:.3}"));
        let judged = match rewards.is_empty() {
            true => String::new(),
            false => format!(", reward {reward}, advantage {advantage:.3}"),
        };
        let cut = if *ended { "" } else { " (cut)" };
        let prompt = self.style.dim(&one_line(prompt, 70));
        vec![
            format!("answer after step {step}{judged}: {prompt}"),
            format!("  {}{cut}", one_line(answer, 200)),
        ]
    }

    fn evaluated(
        &mut self,
        step: u64,
        loss: Option<f64>,
        metrics: &BTreeMap<String, f64>,
        reference_step: Option<u64>,
        best: bool,
    ) -> Vec<String> {
        let reward = || metrics.get(REWARD).copied().unwrap_or_default();
        let (name, value) = loss.map_or_else(|| (REWARD, reward()), |loss| ("loss", loss));
        self.validation_first.get_or_insert(value);
        self.validation_last = Some(value);
        if best {
            self.validation_best = Some(value);
        }
        let mark = if best { self.style.green("  best so far") } else { String::new() };
        let figures = told_apart(metrics);
        let against = match reference_step {
            Some(step) => format!(", against the reference of step {step}"),
            None => String::new(),
        };
        vec![format!("validation {name} {value:.4}{figures} after step {step}{against}{mark}")]
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    pub(super) fn step(&self) -> u64 {
        self.last.step
    }

    pub(super) fn curve(&self) -> &[f64] {
        &self.curve
    }

    pub(super) fn into_curve(self) -> Vec<f64> {
        self.curve
    }

    /// The step, and how long the rest will take.
    pub(super) fn place(&self) -> String {
        format!("step {}/{}  {}", self.last.step, self.steps, self.time_left())
    }

    /// The latest step in figures.
    pub(super) fn figures(&self) -> String {
        if self.curve.is_empty() {
            return String::new();
        }
        let (tokens, seconds) = self
            .speed
            .iter()
            .fold((0, 0.0), |(t, s), &(tokens, seconds)| (t + tokens, s + seconds));
        let StepEvent { loss, learning_rate, grad_norm, epoch, .. } = self.last;
        let speed = count((tokens as f64 / f64::max(seconds, 1e-9)) as u64);
        // A warm-up begins at nothing.
        let rate = if learning_rate == 0.0 { "0".into() } else { format!("{learning_rate:.2e}") };
        if let Some(reward) = self.last.metrics.get(REWARD) {
            let (drawn, taken) = self.sampling.unwrap_or_default();
            let sampled = count((drawn as f64 / f64::max(taken, 1e-9)) as u64);
            let of_rollout = of_rollout(&self.last.metrics);
            return format!(
                "reward {reward:.3}{of_rollout}  rate {rate}  {sampled} sampled, {speed} trained tokens/s"
            );
        }
        format!(
            "loss {loss:.4}  rate {rate}  grad norm {grad_norm:.3}  {speed} tokens/s  \
             epoch {epoch:.2}"
        )
    }

    /// Validation losses: first, best, last.
    pub(super) fn validation(&self) -> String {
        match (self.validation_first, self.validation_last) {
            (Some(first), Some(last)) => {
                let best = self.validation_best.unwrap_or(last);
                format!("validation {first:.4} → {last:.4}, best {best:.4}")
            }
            _ => String::new(),
        }
    }

    /// How long the rest will take, if it goes on like this.
    pub(super) fn time_left(&self) -> String {
        let done = self.last.step - self.resumed_from;
        let left = self.steps.saturating_sub(self.last.step);
        if done == 0 || left == 0 {
            return String::new();
        }
        // The clock, not the steps' own seconds: evaluations and saving take their share.
        let each = (self.now - self.begun) / done as f64;
        format!("{} left", duration(each * left as f64))
    }
}

/// Bytes by kind, what there is none of left out.
fn largest_first(memory: &std::collections::BTreeMap<String, usize>) -> String {
    let mut kinds: Vec<(&String, usize)> =
        memory.iter().map(|(kind, bytes)| (kind, *bytes)).filter(|(_, bytes)| *bytes > 0).collect();
    kinds.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let kinds = kinds.iter().map(|(kind, size)| format!("{kind} {}", bytes(*size as u64)));
    kinds.collect::<Vec<_>>().join(", ")
}

/// How well answers or classes are told apart, where the method does that.
fn told_apart(metrics: &BTreeMap<String, f64>) -> String {
    let names = [
        ("rewards/accuracies", "accuracy"),
        ("accuracy", "accuracy"),
        ("rewards/margins", "margin"),
        ("macro_f1", "macro F1"),
    ];
    let figure = |(name, label): (&str, &str)| {
        metrics.get(name).map(|value| format!("  {label} {value:.3}"))
    };
    names.into_iter().filter_map(figure).collect()
}

/// Figures of a rollout beside its reward.
fn of_rollout(metrics: &BTreeMap<String, f64>) -> String {
    let figure = |(name, shown): (&str, &str)| {
        metrics.get(name).map(|value| format!("  {shown} {value:.3}"))
    };
    OF_ROLLOUT.into_iter().filter_map(figure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(steps: u64) -> Event {
        Event::Started {
            run: "runs/a-001".into(),
            method: "sft".into(),
            steps,
            resumed_from: None,
            rows_train: 900,
            rows_validation: 100,
            tokens_train: 45_000,
            tokens_supervised: 12_000,
            parameters: 134_515_008,
            parameters_trained: 4_884_480,
            micro_batch_tokens: 2048,
            planned_bytes: 1_020_000_000,
            memory: [("weights", 300_000_000), ("activations", 720_000_000), ("saving", 0)]
                .map(|(kind, bytes)| (kind.to_owned(), bytes))
                .into(),
        }
    }

    fn step(step: u64) -> Event {
        Event::Step(StepEvent {
            step,
            loss: 2.0 / step as f64,
            learning_rate: 2e-4,
            grad_norm: 0.5,
            tokens: 500,
            seconds: 0.5,
            epoch: 0.25,
            ..StepEvent::default()
        })
    }

    #[test]
    fn a_run_begins_with_what_it_works_on() {
        let mut narrator = Narrator::new(Style::new(false), false);
        let expected = [
            "runs/a-001: sft, 200 steps",
            "data   900 rows to train on, 100 for validation; 45,000 tokens, 12,000 of them supervised",
            "model  134,515,008 parameters, 4,884,480 trained; up to 2,048 tokens at a time",
            "memory 1.02 GB planned: activations 720 MB, weights 300 MB",
        ];
        assert_eq!(narrator.lines(&started(200), 0.0), expected);
    }

    #[test]
    fn the_first_steps_have_lines_and_then_some() {
        let mut narrator = Narrator::new(Style::new(false), false);
        narrator.lines(&started(1000), 0.0);
        let mut shown = Vec::new();
        for number in 1..=1000 {
            let lines = narrator.lines(&step(number), number as f64 * 0.1);
            shown.extend(lines.iter().map(|_| number));
        }
        assert_eq!(shown[..7], [1, 2, 3, 4, 5, 25, 45]);
        assert_eq!((shown.len(), shown.last()), (55, Some(&1000)));
    }

    #[test]
    fn a_line_says_where_the_run_is() {
        let mut narrator = Narrator::new(Style::new(false), false);
        narrator.lines(&started(200), 0.0);
        let line = narrator.lines(&step(1), 0.6).pop().unwrap();
        let expected = "step   1/200  loss 2.0000  rate 2.00e-4  grad norm 0.500  1,000 tokens/s  \
                        epoch 0.25  1 min 59 s left";
        assert_eq!(line, expected);
    }

    #[test]
    fn findings_and_validation_are_told_with_a_block_too() {
        let mut narrator = Narrator::new(Style::new(false), true);
        narrator.lines(&started(10), 0.0);
        assert!(narrator.lines(&step(1), 1.0).is_empty());
        let finding = Event::Finding {
            step: None,
            id: "empty-answer".into(),
            level: "warning".into(),
            count: 7,
            places: vec!["a.jsonl:3".into()],
            hint: "look at them".into(),
        };
        let lines = narrator.lines(&finding, 1.0);
        assert_eq!(lines, ["warning: empty-answer, 7 x (a.jsonl:3, ...)", "  look at them"]);
        let of_the_run = Event::Finding {
            step: Some(40),
            id: "quantised-twice".into(),
            level: "warning".into(),
            count: 1,
            places: Vec::new(),
            hint: "leave it out".into(),
        };
        let lines = narrator.lines(&of_the_run, 1.0);
        assert_eq!(lines, ["warning at step 40: quantised-twice", "  leave it out"]);
        for (loss, best, expected) in [
            (1.5, true, "validation loss 1.5000 after step 1  best so far"),
            (1.75, false, "validation loss 1.7500 after step 1"),
        ] {
            let event = Event::Evaluated {
                step: 1,
                validation_loss: Some(loss),
                metrics: [].into(),
                reference_step: None,
                best,
            };
            assert_eq!(narrator.lines(&event, 1.0), [expected]);
        }
        assert_eq!(narrator.validation(), "validation 1.5000 → 1.7500, best 1.5000");
    }
}
