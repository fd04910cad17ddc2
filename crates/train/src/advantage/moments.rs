//! Means and deviations that do not depend on the order of numbers.

/// What is added to a standard deviation that rewards are divided by, as in TRL.
pub(super) const STD_OFFSET: f64 = 1e-4;

/// What is added to a variance in whitening, as in TRL and verl.
const VARIANCE_OFFSET: f64 = 1e-8;

/// Mean, and sum of squared distances from it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Moments {
    pub(super) count: usize,
    pub(super) mean: f64,
    squares: f64,
}

impl Moments {
    /// Of numbers in any order: to the bit the same for every one.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        if values.is_empty() {
            return Moments::default();
        }
        values.sort_by(f64::total_cmp);
        let count = values.len();
        // The mean of equal numbers is this number: their distances are 0, not a rounding error that is then scaled up.
        let mean = match values[0] == values[count - 1] {
            true => values[0],
            false => values.iter().sum::<f64>() / count as f64,
        };
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum();
        Moments { count, mean, squares }
    }

    /// Standard deviation with Bessel's correction; 0 of fewer than two numbers.
    pub(super) fn std(&self) -> f64 {
        self.variance().sqrt()
    }

    /// Its square.
    pub(super) fn variance(&self) -> f64 {
        match self.count {
            0 | 1 => 0.0,
            count => self.squares / (count - 1) as f64,
        }
    }

    /// Whether all numbers are the same, up to what TRL takes for 0.
    pub(super) fn are_equal(&self) -> bool {
        self.std() <= 1e-8
    }

    /// A number of mean 0 and variance 1 among these; `(x − mean) / √(variance + 1e-8)`.
    pub(super) fn whiten(&self, value: f64) -> f64 {
        (value - self.mean) / (self.variance() + VARIANCE_OFFSET).sqrt()
    }
}
