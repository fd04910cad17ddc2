//! What the value head is taught.

/// `coefficient · ½ max((v − R)², (clip(v, v_old ± clip) − R)²)`, a mean over the tokens of the step: PPO as in Ziegler
/// et al. 2019 and TRL. The bound is on the change from the value that the rollout saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueLoss {
    /// Weight beside the policy's loss.
    pub coefficient: f64,
    /// How far a value may move from the one that the rollout saw; none where it is not bounded.
    pub clip: Option<f64>,
}

impl ValueLoss {
    /// Loss of one value without the coefficient, its slope by the value, and whether the bound decided.
    pub fn loss(&self, value: f64, old: f64, target: f64) -> (f64, f64, bool) {
        let free = value - target;
        let Some(clip) = self.clip else { return (0.5 * free * free, free, false) };
        let bounded = value.clamp(old - clip, old + clip);
        let clipped = bounded - target;
        match clipped * clipped > free * free {
            // Outside the bounds nothing depends on the value.
            true => (0.5 * clipped * clipped, 0.0, true),
            false => (0.5 * free * free, free, false),
        }
    }
}
