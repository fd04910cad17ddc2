//! Pairs of a better and a worse answer to the same prompt.

use data::{Sequence, Unit};

use super::collect::{Answered, rewards, unit};
use super::{Answer, Collected, Group, Rollouts};
use crate::Result;
use crate::rollout::Rollout;
use crate::trainer::course::Stand;

impl Rollouts {
    /// The best and the worst answer to each prompt. Answers of equal rewards make no pair.
    pub(super) fn pairs(
        &mut self,
        at: &mut Stand<'_>,
        groups: Vec<Answered>,
        policy: String,
        missing_end: f64,
    ) -> Result<Collected> {
        let mask = self.config.mask_truncated;
        let answers: Vec<&Answer> = groups.iter().flat_map(|group| &group.answers).collect();
        let given: Vec<Vec<Option<f64>>> = answers.iter().map(|answer| rewards(answer)).collect();
        let rollout = Rollout::of_rewards(&given, &self.weights);
        let mut marks = vec![0.0; answers.len()];
        let (mut pairs, mut first) = (Vec::new(), 0);
        for group in &groups {
            let score = |number: &usize| {
                let answer = &group.answers[*number];
                let reward = rollout.reward(first + number)?;
                let reward = if answer.ended { reward } else { reward - missing_end };
                (answer.ended || !mask).then_some((reward, *number))
            };
            let scores: Vec<(f64, usize)> =
                (0..group.answers.len()).collect::<Vec<_>>().iter().filter_map(score).collect();
            if let Some((chosen, rejected)) = extremes(&scores) {
                (marks[first + chosen], marks[first + rejected]) = (1.0, -1.0);
                pairs.push(pair(group, chosen, rejected));
            }
            first += group.answers.len();
        }
        let known: Vec<f64> = (0..answers.len()).filter_map(|i| rollout.reward(i)).collect();
        let mut metrics = self.metrics(&answers, &rollout);
        if !known.is_empty() {
            metrics.push(("reward".into(), known.iter().sum::<f64>() / known.len() as f64));
        }
        let tied = (groups.len() - pairs.len()) as f64 / groups.len().max(1) as f64;
        metrics.push(("frac_reward_zero_std".into(), tied));
        self.show(at, &groups, &rollout, &marks)?;
        let number = at.state.rollout.number;
        let groups = pairs.into_iter().map(Group::of).collect();
        Ok(Collected { number, policy, groups, next: at.state.cursor, metrics })
    }
}

/// The numbers of the first of the best and the first of the worst; none where all are equal.
fn extremes(scores: &[(f64, usize)]) -> Option<(usize, usize)> {
    let best =
        scores.iter().copied().reduce(|best, own| if own.0 > best.0 { own } else { best })?;
    let worst =
        scores.iter().copied().reduce(|worst, own| if own.0 < worst.0 { own } else { worst })?;
    (best.0 > worst.0).then_some((best.1, worst.1))
}

/// The chosen sequence, then the rejected one.
fn pair(group: &Answered, chosen: usize, rejected: usize) -> Unit {
    let all = unit(group, false);
    let sequence = |(role, number): (u8, usize)| Sequence { role, ..all.sequences[number].clone() };
    let sequences = [(0, chosen), (1, rejected)].map(sequence).into();
    Unit { sequences, ..all }
}

#[cfg(test)]
mod tests {
    use super::extremes;

    #[test]
    fn the_first_of_the_best_and_of_the_worst_make_a_pair() {
        assert_eq!(extremes(&[(0.5, 0), (1.0, 1), (0.0, 2), (1.0, 3), (0.0, 4)]), Some((1, 2)));
        assert_eq!(extremes(&[(0.5, 0), (0.5, 1)]), None);
        assert_eq!(extremes(&[(0.5, 3)]), None);
        assert_eq!(extremes(&[]), None);
    }
}
