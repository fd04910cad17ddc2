//! How many steps fit into the time that there is.

/// The fewest steps worth making, however slow the machine is.
const STEPS_MIN: u64 = 24;

/// Share of the time left that is planned for; the rest is for what cannot be foreseen.
const MARGIN: f64 = 0.9;

/// Seconds for what is neither a step nor an answer: data, loading, hashing, saving.
const OVERHEAD: f64 = 5.0;

/// A pass without gradient takes in about so many times the tokens that training does.
pub(super) const FORWARD_TO_TRAIN: f64 = 2.2;

/// A token with so many others before it costs twice what one with none does.
const DOUBLE_AT: f64 = 300.0;

/// What the machine does in a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pace {
    /// Tokens trained on: forward and backward.
    pub(super) train: f64,
    /// Tokens of prompts taken in.
    pub(super) prefill: f64,
    /// Tokens generated, many answers at a time, with little before them.
    pub(super) decode: f64,
}

/// The tokens of an arm.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ArmWork {
    /// Computed for the prompts, their common beginning once.
    pub(super) prompt_tokens: f64,
    /// Generated.
    pub(super) new_tokens: f64,
    /// Tokens that stand before a generated one, on average.
    pub(super) context: f64,
}

/// The tokens of training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TrainWork {
    /// Steps of the whole course.
    pub(super) steps: u64,
    /// Computed in a step.
    pub(super) step_tokens: f64,
    /// Computed each time the validation loss is taken.
    pub(super) validation_tokens: f64,
    /// How often it is taken.
    pub(super) validations: f64,
}

/// What is going to be done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plan {
    /// Optimizer steps.
    pub(super) steps: u64,
    /// Optimizer steps of the whole course.
    pub(super) full_steps: u64,
    /// Seconds that training takes.
    pub(super) train_seconds: f64,
    /// Seconds that the arms take which are still to be run.
    pub(super) arm_seconds: f64,
    /// Even the fewest steps take more time than there is.
    pub(super) is_late: bool,
}

impl Pace {
    /// Seconds that an arm takes.
    pub(super) fn arm_seconds(&self, arm: &ArmWork) -> f64 {
        let attending = 1.0 + arm.context / DOUBLE_AT;
        arm.prompt_tokens / self.prefill + attending * arm.new_tokens / self.decode
    }

    /// The pace at answering, as arms have shown it that took so many seconds together.
    pub(super) fn shown_by(self, arms: &[ArmWork], seconds: f64) -> Self {
        let planned: f64 = arms.iter().map(|arm| self.arm_seconds(arm)).sum();
        let factor = planned / seconds.max(1e-3);
        Pace { prefill: self.prefill * factor, decode: self.decode * factor, ..self }
    }
}

impl Plan {
    /// As many steps of the course as fit beside the arms into the seconds left.
    pub(super) fn new(pace: &Pace, train: &TrainWork, arms: &[ArmWork], seconds_left: f64) -> Self {
        let arm_seconds: f64 = arms.iter().map(|arm| pace.arm_seconds(arm)).sum();
        let validation_seconds =
            train.validations * train.validation_tokens / (FORWARD_TO_TRAIN * pace.train);
        let step_seconds = train.step_tokens / pace.train;
        let seconds = MARGIN * seconds_left - OVERHEAD - arm_seconds - validation_seconds;
        let fitting = (seconds / step_seconds).max(0.0) as u64;
        let steps = fitting.clamp(STEPS_MIN.min(train.steps), train.steps);
        let train_seconds = steps as f64 * step_seconds + validation_seconds;
        Plan {
            steps,
            full_steps: train.steps,
            train_seconds,
            arm_seconds,
            is_late: fitting < steps,
        }
    }

    /// Seconds that all of it takes from now on.
    pub(super) fn seconds(&self) -> f64 {
        self.train_seconds + self.arm_seconds + OVERHEAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAIN: TrainWork =
        TrainWork { steps: 100, step_tokens: 1000.0, validation_tokens: 550.0, validations: 4.0 };
    const ARM: ArmWork =
        ArmWork { prompt_tokens: 20_000.0, new_tokens: 5_000.0, context: DOUBLE_AT };

    fn pace(factor: f64) -> Pace {
        Pace { train: 1000.0 * factor, prefill: 2000.0 * factor, decode: 500.0 * factor }
    }

    #[track_caller]
    fn check(factor: f64, seconds_left: f64, steps: u64) -> Plan {
        let plan = Plan::new(&pace(factor), &TRAIN, &[ARM, ARM], seconds_left);
        assert_eq!(plan.steps, steps);
        plan
    }

    #[test]
    fn a_fast_machine_makes_all_steps() {
        let plan = check(1.0, 360.0, 100);
        // 2 x (10 + 20) for the arms, 100 + 1 for training.
        assert_eq!((plan.arm_seconds, plan.train_seconds), (60.0, 101.0));
        assert_eq!(plan.seconds(), 166.0);
    }

    #[test]
    fn a_slow_machine_makes_as_many_as_fit() {
        // 324 - 5 - 60 / 0.25 - 1 / 0.25 seconds are 75; a step takes 4.
        let plan = check(0.25, 360.0, 24);
        assert_eq!(plan.full_steps, 100);
        // 324 - 5 - 60 / 0.4 - 1 / 0.4 seconds are 166.5; a step takes 2.5.
        let plan = check(0.4, 360.0, 66);
        assert!(plan.seconds() <= 0.9 * 360.0);
    }

    #[test]
    fn some_steps_are_always_made() {
        assert!(check(0.01, 360.0, 24).is_late);
        assert!(check(1.0, -5.0, 24).is_late);
        assert!(!check(1.0, 360.0, 100).is_late);
        let short = TrainWork { steps: 3, ..TRAIN };
        assert_eq!(Plan::new(&pace(0.01), &short, &[], 1.0).steps, 3);
    }

    #[test]
    fn what_an_arm_took_is_believed() {
        let learned = pace(1.0).shown_by(&[ARM, ARM], 120.0);
        assert!((learned.arm_seconds(&ARM) - 60.0).abs() < 1e-9);
        assert_eq!(learned.train, pace(1.0).train);
    }
}
