//! The recipe that the quickstart writes, prints and runs.

use super::SMOLLM2;

/// Rows of a step.
pub(super) const BATCH_SIZE: usize = 8;
/// Rows whose loss chooses the step, about: a row is kept back by its own hash.
pub(super) const VALIDATION_ROWS: usize = 64;
/// How often the validation loss is taken.
pub(super) const VALIDATIONS: u64 = 3;
/// Numbers on either side of an adapted layer.
pub(super) const RANK: usize = 16;
/// Twice the rank.
pub(super) const ALPHA: f32 = 32.0;

/// Steps of the whole course, for fast machines. The rate is known to hold for 110 steps; more steps than
/// these want a measurement first.
pub(super) const FULL_STEPS: u64 = 240;

/// Rows that so many steps train on, each once, and those for validation.
pub(super) fn rows(steps: u64) -> usize {
    steps as usize * BATCH_SIZE + VALIDATION_ROWS
}

/// The recipe for so many steps. It stands beside the folder `tickets`, and the run too.
pub(super) fn text(steps: u64, seed: u64) -> String {
    let fraction = VALIDATION_ROWS as f64 / rows(steps) as f64;
    let evaluate_every = steps.div_ceil(VALIDATIONS);
    let share = match steps {
        FULL_STEPS => "every row once".to_owned(),
        _ => format!("of {FULL_STEPS}: what fits into the time on this machine"),
    };
    format!(
        "\
# Support messages become JSON tickets. Written by `tunesmith quickstart`;
# `tunesmith train FILE output=NAME` runs it again.
model: {SMOLLM2}
method: sft                # learn the answers of the data
adapter: {{type: lora, rank: {RANK}, alpha: {ALPHA}}}   # the base stays as it is
data:
  train: [{{path: tickets/train.jsonl}}]
  validation: {{fraction: {fraction:.5}, by: row}}    # about {VALIDATION_ROWS} rows choose the step
train:
  max_steps: {steps}            # {share}
  batch_size: {BATCH_SIZE}            # rows a step
  learning_rate: 2.0e-3    # high: the model is small, and the run short
  schedule: {{type: cosine, warmup_ratio: 0.05}}
  evaluate_every: {evaluate_every}
  best: late               # the latest step that is not worse than the lowest loss beyond noise
output: run
seed: {seed}
"
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use keys::{Settings as _, Surroundings};

    use super::*;

    fn parse(text: &str) -> keys::Document {
        let around =
            Surroundings { current_dir: Path::new("/now"), home: None, variable: &|_| None };
        let parsed = train::recipe::schema().parse(text, Path::new("/q/a.yaml"), &[], &around);
        parsed.unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_recipe_is_one() {
        let mut document = parse(&text(FULL_STEPS, 7));
        assert_eq!(document.get_locator("model.id").name, SMOLLM2);
        assert_eq!(
            document.entries("data.train")[0].get_path("path"),
            Path::new("/q/tickets/train.jsonl")
        );
        assert_eq!(document.opt_path("output"), Some(Path::new("/q/run")));
        assert_eq!(document.get_i64("seed"), 7);
        train::recipe::fill_by_data(&mut document, rows(FULL_STEPS), Default::default());
        let recipe = train::recipe::Recipe::read(&document).unwrap();
        assert_eq!(document.get_usize("adapter.rank"), RANK);
        assert_eq!(document.get_f64("adapter.alpha"), f64::from(ALPHA));
        assert_eq!(recipe.extent, data::Extent::Steps(FULL_STEPS));
        assert!(recipe.keeps_late);
        assert_eq!(recipe.step_size, data::StepSize::Rows(BATCH_SIZE));
        assert_eq!(
            recipe.evaluate_every,
            train::recipe::Every::Steps(FULL_STEPS.div_ceil(VALIDATIONS))
        );
    }

    #[test]
    fn the_rows_that_validate_are_as_many_as_it_says() {
        for steps in [24, 80, 133, FULL_STEPS] {
            let document = parse(&text(steps, 7));
            let held_out = rows(steps) as f64 * document.get_f64("data.validation.fraction");
            assert_eq!(held_out.round() as usize, VALIDATION_ROWS, "{steps} steps");
        }
    }

    #[test]
    fn fewer_steps_say_why() {
        assert!(text(30, 1).contains("max_steps: 30            # of 240: what fits into the time"));
        assert!(text(FULL_STEPS, 1).contains("max_steps: 240            # every row once"));
    }
}
