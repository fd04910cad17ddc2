//! What losses over answers that were judged one by one have in common.

use std::collections::BTreeMap;

use text::Target;

use super::{ACCURACY, Answer, Dual, Fold, MARGIN, Metric, MicroOutputs, Outcome, Share};
use crate::step::StepPlan;

/// An answer as a loss sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct JudgedAnswer {
    /// Its sums.
    pub answer: Answer,
    /// Whether it is wanted: its sequence has role 0.
    pub is_desirable: bool,
    /// Log-probability of the token that ends it.
    pub end: f64,
    /// Half the mean squared log-ratio of policy and reference over its tokens, in nats.
    pub drift: f64,
}

impl JudgedAnswer {
    /// The log-ratio of policy and reference as the variable of its loss.
    pub fn log_ratio(&self) -> Dual<1> {
        Dual::variable(0, self.answer.log_ratio())
    }
}

/// The answers of a micro-batch, in the order of its sequences.
pub fn judged_answers(micro: &MicroOutputs<'_>, plan: &StepPlan) -> Vec<JudgedAnswer> {
    let mut answers = vec![Answer::default(); plan.sequences.len()];
    let mut ends = vec![0.0; plan.sequences.len()];
    let mut squares = vec![0.0; plan.sequences.len()];
    for (index, target) in micro.batch.targets.iter().enumerate() {
        let policy = f64::from(micro.policy.logprob[index]);
        let reference = micro.extra.first().map_or(0.0, |extra| f64::from(extra.logprob[index]));
        let answer = &mut answers[target.sequence as usize];
        answer.add(target.weight.into(), policy, reference);
        answer.tokens += f64::from(target.weight);
        // Targets stand in the order of their tokens.
        ends[target.sequence as usize] = policy;
        squares[target.sequence as usize] += (policy - reference).powi(2);
    }
    let answer = |&sequence: &usize| JudgedAnswer {
        answer: answers[sequence],
        is_desirable: plan.sequences[sequence].role == 0,
        end: ends[sequence],
        drift: 0.5 * squares[sequence] / answers[sequence].tokens.max(1.0),
    };
    micro.sequences.iter().map(answer).collect()
}

/// Loss, derivatives and figures of all answers in some micro-batches. `judge` gets the answers of all of them at once
/// and gives the loss of each, with its derivative by [`JudgedAnswer::log_ratio`]; the step's loss is the mean over its
/// answers. Rewards are `beta` times the log-ratio.
pub fn evaluate_judged(
    micros: &[MicroOutputs<'_>],
    plan: &StepPlan,
    beta: f64,
    judge: impl FnOnce(&[JudgedAnswer]) -> Vec<Dual<1>>,
) -> Vec<Outcome> {
    let seen: Vec<_> = micros.iter().map(|micro| judged_answers(micro, plan)).collect();
    let mut losses = judge(&seen.concat()).into_iter();
    let outcome = |(micro, answers): (&MicroOutputs<'_>, &Vec<JudgedAnswer>)| {
        let own: Vec<Dual<1>> = losses.by_ref().take(answers.len()).collect();
        outcome(micro, plan, beta, answers, &own)
    };
    micros.iter().zip(&seen).map(outcome).collect()
}

fn outcome(
    micro: &MicroOutputs<'_>,
    plan: &StepPlan,
    beta: f64,
    answers: &[JudgedAnswer],
    losses: &[Dual<1>],
) -> Outcome {
    let count = plan.totals.sequences as f64;
    let mean = |name, desirable: bool, value: &dyn Fn(&JudgedAnswer) -> f64| {
        let of_kind = micro.sequences.iter().zip(answers);
        let of_kind = of_kind.filter(|(_, answer)| answer.is_desirable == desirable);
        let share = |(&sequence, answer)| Share { sequence, value: value(answer) };
        Metric { name, fold: Fold::Mean, shares: of_kind.map(share).collect() }
    };
    let reward = |answer: &JudgedAnswer| beta * answer.answer.log_ratio();
    let logprob = |answer: &JudgedAnswer| answer.answer.policy;
    let tokens = |answer: &JudgedAnswer| answer.answer.tokens;
    let drift = |answer: &JudgedAnswer| answer.drift;
    let mut metrics = vec![
        mean("rewards/chosen", true, &reward),
        mean("rewards/rejected", false, &reward),
        mean("logps/chosen", true, &logprob),
        mean("logps/rejected", false, &logprob),
        mean("logps/chosen_end", true, &|answer| answer.end),
        mean("lengths/chosen", true, &tokens),
        mean("lengths/rejected", false, &tokens),
        mean("drift", true, &drift),
    ];

    // Of rows with a wanted and an unwanted answer.
    let reward_of: BTreeMap<usize, f64> = micro
        .sequences
        .iter()
        .zip(answers)
        .map(|(&index, answer)| (index, reward(answer)))
        .collect();
    let pairs = plan.units_of(micro.sequences).into_iter().filter(|unit| unit.len() == 2);
    let margins = pairs.map(|unit| Share {
        sequence: unit.start,
        value: reward_of[&unit.start] - reward_of[&(unit.start + 1)],
    });
    let margins: Vec<Share> = margins.collect();
    let is_right =
        |share: &Share| Share { value: f64::from(u8::from(share.value > 0.0)), ..*share };
    let accuracies = margins.iter().map(is_right).collect();
    metrics.push(Metric { name: ACCURACY, fold: Fold::Mean, shares: accuracies });
    metrics.push(Metric { name: MARGIN, fold: Fold::Mean, shares: margins });

    let mut slopes = vec![0.0; plan.sequences.len()];
    for (&sequence, loss) in micro.sequences.iter().zip(losses) {
        slopes[sequence] = loss.slopes[0] / count;
    }
    let share =
        |(&sequence, loss): (&usize, &Dual<1>)| Share { sequence, value: loss.value / count };
    let loss = micro.sequences.iter().zip(losses).map(share).collect();
    let mut outcome = Outcome { loss, metrics, ..Outcome::default() };
    let gradient =
        |target: &Target| (slopes[target.sequence as usize] * f64::from(target.weight)) as f32;
    outcome.gradients.logprob = Some(micro.batch.targets.iter().map(gradient).collect());
    outcome
}
