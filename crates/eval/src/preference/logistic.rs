//! Logistic regression over differences of sparse features.

use super::calibration::sigmoid;

/// The features of one row that are not 0, by place.
pub(super) type Row = Vec<(u32, f64)>;

/// Newton steps end where the gradient's norm has fallen by this factor.
const TOLERANCE: f64 = 1e-10;

/// The weights that minimise `Σ softplus(−w·x) + l2/2 · |w|²` over rows.
///
/// Every row says "this side is better", so there are no labels and no intercept. The method
/// is Newton's with conjugate gradients for its steps (Nocedal and Wright 2006, algorithm
/// 7.1): the objective is convex, and the Hessian, up to 20,000 squared, is never written
/// down. One thread, f64, additions in the order of the rows.
pub(super) fn fit(rows: &[Row], features: usize, l2: f64) -> Vec<f64> {
    let mut weights = vec![0.0; features];
    let mut state = State::at(rows, &weights, l2);
    let enough = TOLERANCE * norm(&state.gradient);
    // A bound against rounding only: a dozen steps are usual.
    for _ in 0..100 {
        if norm(&state.gradient) <= enough {
            break;
        }
        let step = newton_step(rows, &state, l2);
        let slope = inner(&state.gradient, &step);
        let moved = (0..40).find_map(|halving| {
            let length = 0.5_f64.powi(halving);
            let weights: Vec<f64> =
                weights.iter().zip(&step).map(|(w, s)| w + length * s).collect();
            let next = State::at(rows, &weights, l2);
            (next.loss < state.loss + 1e-4 * length * slope).then_some((weights, next))
        });
        // No shorter step lowers the loss: this is as exact as f64 gets.
        let Some((next_weights, next)) = moved else { break };
        (weights, state) = (next_weights, next);
    }
    weights
}

/// `row · weights`.
pub(super) fn dot(row: &Row, weights: &[f64]) -> f64 {
    row.iter().map(|&(place, value)| value * weights[place as usize]).sum()
}

/// The objective at some weights.
struct State {
    loss: f64,
    gradient: Vec<f64>,
    /// `σ(m) · σ(−m)` of every row.
    curvature: Vec<f64>,
}

impl State {
    fn at(rows: &[Row], weights: &[f64], l2: f64) -> Self {
        let mut gradient: Vec<f64> = weights.iter().map(|weight| l2 * weight).collect();
        let mut loss = l2 / 2.0 * inner(weights, weights);
        let mut curvature = Vec::with_capacity(rows.len());
        for row in rows {
            let margin = dot(row, weights);
            loss += (-margin).max(0.0) + (-margin.abs()).exp().ln_1p();
            let wrong = sigmoid(-margin);
            add(&mut gradient, -wrong, row);
            curvature.push(wrong * (1.0 - wrong));
        }
        Self { loss, gradient, curvature }
    }
}

/// Solves `H · step = −gradient` well enough for fast convergence.
fn newton_step(rows: &[Row], state: &State, l2: f64) -> Vec<f64> {
    let mut step = vec![0.0; state.gradient.len()];
    let mut residual: Vec<f64> = state.gradient.iter().map(|g| -g).collect();
    let mut direction = residual.clone();
    let mut square = inner(&residual, &residual);
    let start = square.sqrt();
    let enough = start * start.sqrt().min(0.1);
    for _ in 0..500 {
        if square.sqrt() <= enough {
            break;
        }
        let curved = hessian_times(rows, state, l2, &direction);
        // The penalty keeps the Hessian positive.
        let length = square / inner(&direction, &curved);
        for (index, &direction) in direction.iter().enumerate() {
            step[index] += length * direction;
            residual[index] -= length * curved[index];
        }
        let before = std::mem::replace(&mut square, inner(&residual, &residual));
        for (direction, residual) in direction.iter_mut().zip(&residual) {
            *direction = residual + square / before * *direction;
        }
    }
    step
}

fn hessian_times(rows: &[Row], state: &State, l2: f64, vector: &[f64]) -> Vec<f64> {
    let mut product: Vec<f64> = vector.iter().map(|value| l2 * value).collect();
    for (row, curvature) in rows.iter().zip(&state.curvature) {
        add(&mut product, curvature * dot(row, vector), row);
    }
    product
}

/// `vector += scale · row`.
fn add(vector: &mut [f64], scale: f64, row: &Row) {
    for &(place, value) in row {
        vector[place as usize] += scale * value;
    }
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn norm(vector: &[f64]) -> f64 {
    inner(vector, vector).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows with four made-up features, some alike and some contradicting.
    fn rows() -> Vec<Row> {
        let value = |row: u64, place: u64| (compute::random::key(&[row, place]) % 7) as f64 - 2.5;
        (0..30).map(|row| (0..4).map(|place| (place as u32, value(row, place))).collect()).collect()
    }

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let rows = rows();
        let weights = [0.3, -0.2, 0.5, 0.1];
        let state = State::at(&rows, &weights, 0.7);
        for place in 0..4 {
            let loss = |shift: f64| {
                let mut weights = weights;
                weights[place] += shift;
                State::at(&rows, &weights, 0.7).loss
            };
            let slope = (loss(1e-5) - loss(-1e-5)) / 2e-5;
            assert!((slope - state.gradient[place]).abs() < 1e-8, "{slope}");
        }
    }

    #[test]
    fn the_gradient_is_0_at_the_end() {
        let rows = rows();
        let weights = fit(&rows, 4, 0.7);
        assert!(norm(&State::at(&rows, &weights, 0.7).gradient) < 1e-8);
    }

    #[test]
    fn one_feature_has_a_known_end() {
        // Ten rows of 1: 10 σ(−w) = w.
        let weight = fit(&vec![vec![(0, 1.0)]; 10], 1, 1.0)[0];
        assert!((10.0 * sigmoid(-weight) - weight).abs() < 1e-10, "{weight}");
    }

    #[test]
    fn rows_without_features_end_at_0() {
        assert_eq!(fit(&[vec![], vec![]], 2, 1.0), [0.0, 0.0]);
    }

    #[test]
    fn separable_rows_end() {
        let rows = vec![vec![(0, 1e4)]; 5];
        assert!(fit(&rows, 1, 1e-3)[0].is_finite());
    }
}
