//! Learning-rate schedules: a factor in 0..1 by optimizer step, as transformers defines them.

/// The shape of the learning rate after warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleKind {
    /// Stays.
    Constant,
    /// Falls in a straight line.
    Linear,
    /// Falls as half a cosine.
    Cosine,
}

/// Warm-up in a straight line, then a shape that falls to `min_ratio`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Shape after warm-up.
    pub kind: ScheduleKind,
    /// Steps of warm-up.
    pub warmup_steps: u64,
    /// Steps in all.
    pub total_steps: u64,
    /// Factor at the end.
    pub min_ratio: f64,
}

impl Schedule {
    /// The factor for the step with this number, counted from 0.
    pub fn factor(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return step as f64 / self.warmup_steps.max(1) as f64;
        }
        let span = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let progress = ((step - self.warmup_steps) as f64 / span as f64).min(1.0);
        let falling = match self.kind {
            ScheduleKind::Constant => return 1.0,
            ScheduleKind::Linear => 1.0 - progress,
            ScheduleKind::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        };
        self.min_ratio + (1.0 - self.min_ratio) * falling
    }
}
