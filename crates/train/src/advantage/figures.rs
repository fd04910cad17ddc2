//! Figures of a rollout, by TRL's names.

use super::moments::Moments;
use super::shaping::Shaping;
use crate::objective::KlEstimator;
use crate::rollout::Rollout;

/// Mean and deviation of the rewards as the functions gave them, the share of groups of several answers whose shaped
/// rewards are all the same, and how far the answers are from the reference.
pub(super) fn figures(rollout: &Rollout<'_>, shaping: &Shaping) -> Vec<(&'static str, f64)> {
    let sequences = 0..rollout.rewards.len();
    let rewards = Moments::of(sequences.clone().filter_map(|index| rollout.reward(index)));
    let shaped = |index| shaping.reward(rollout, index);
    // An answer alone has no other to differ from.
    let groups: Vec<_> = rollout.groups.iter().filter(|group| group.len() > 1).collect();
    let moments = groups.iter().map(|group| Moments::of((*group).clone().filter_map(shaped)));
    let flat = moments.filter(Moments::are_equal).count();
    let mut figures = Vec::new();
    if rewards.count > 0 {
        figures.push(("reward", rewards.mean));
        figures.push(("reward_std", rewards.std()));
    }
    if !groups.is_empty() {
        figures.push(("frac_reward_zero_std", flat as f64 / groups.len() as f64));
    }
    if let (Some(_), Some(reference)) = (shaping.kl, rollout.reference) {
        let mut by_token = Vec::new();
        let mut by_sequence = Vec::new();
        for sequence in sequences {
            let (own, other) = (&rollout.logprobs[sequence], &reference[sequence]);
            let drawn = rollout.drawn_targets(sequence);
            let estimate = |target: usize| {
                KlEstimator::K1.value(f64::from(own[target]) - f64::from(other[target]))
            };
            let estimates: Vec<f64> = drawn.map(estimate).collect();
            by_sequence.push(estimates.iter().sum());
            by_token.extend(estimates);
        }
        figures.push(("kl", Moments::of(by_token).mean));
        figures.push(("objective/kl", Moments::of(by_sequence).mean));
    }
    figures
}
