//! Numbers that carry their derivatives, so that a loss is written as the formula of its paper.
//!
//! A loss of a few sums (the log-probabilities of a chosen and of a rejected answer) is computed on these; its
//! derivatives come with it and cannot disagree. Everything is f64.

use std::array;
use std::ops::{Add, Mul, Neg, Sub};

use super::{sigmoid, softplus};

/// A value with its derivatives by `N` variables.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dual<const N: usize> {
    /// The value.
    pub value: f64,
    /// Its derivatives.
    pub slopes: [f64; N],
}

impl<const N: usize> Dual<N> {
    /// The variable of that index.
    pub fn variable(index: usize, value: f64) -> Self {
        Dual { value, slopes: array::from_fn(|i| f64::from(u8::from(i == index))) }
    }

    /// A number that depends on no variable.
    pub fn constant(value: f64) -> Self {
        Dual { value, slopes: [0.0; N] }
    }

    /// A function of this one, by its value and its slope there. A slope of infinity where nothing depends on the
    /// variable stays without effect.
    fn map(self, value: f64, slope: f64) -> Self {
        let chain = |own: f64| if own == 0.0 { 0.0 } else { own * slope };
        Dual { value, slopes: self.slopes.map(chain) }
    }

    /// eˣ.
    pub fn exp(self) -> Self {
        let value = self.value.exp();
        self.map(value, value)
    }

    /// ln x.
    pub fn ln(self) -> Self {
        self.map(self.value.ln(), 1.0 / self.value)
    }

    /// x².
    pub fn square(self) -> Self {
        self.map(self.value * self.value, 2.0 * self.value)
    }

    /// 1 / (1 + e⁻ˣ).
    pub fn sigmoid(self) -> Self {
        let value = sigmoid(self.value);
        self.map(value, value * sigmoid(-self.value))
    }

    /// ln(1 / (1 + e⁻ˣ)), without overflow.
    pub fn log_sigmoid(self) -> Self {
        self.map(-softplus(-self.value), sigmoid(-self.value))
    }

    /// ln(1 - eˣ) of a negative x, exact near 0 and far from it; see Mächler 2012, eq. 7.
    pub fn log_one_minus_exp(self) -> Self {
        let x = self.value;
        let value = match x > -std::f64::consts::LN_2 {
            true => (-x.exp_m1()).ln(),
            false => (-x.exp()).ln_1p(),
        };
        // d/dx is -eˣ / (1 - eˣ).
        self.map(value, 1.0 / -(-x).exp_m1())
    }

    /// The larger of this and a number; flat where they are equal.
    pub fn at_least(self, floor: f64) -> Self {
        if self.value > floor { self } else { Self::constant(floor) }
    }

    /// The smaller of this and a number; flat where they are equal.
    pub fn at_most(self, ceiling: f64) -> Self {
        if self.value < ceiling { self } else { Self::constant(ceiling) }
    }
}

impl<const N: usize> Add for Dual<N> {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let slopes = array::from_fn(|i| self.slopes[i] + other.slopes[i]);
        Dual { value: self.value + other.value, slopes }
    }
}

impl<const N: usize> Sub for Dual<N> {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl<const N: usize> Neg for Dual<N> {
    type Output = Self;

    fn neg(self) -> Self {
        Dual { value: -self.value, slopes: self.slopes.map(|slope| -slope) }
    }
}

impl<const N: usize> Mul for Dual<N> {
    type Output = Self;

    #[expect(clippy::suspicious_arithmetic_impl, reason = "the product rule adds")]
    fn mul(self, other: Self) -> Self {
        let slopes =
            array::from_fn(|i| self.slopes[i] * other.value + self.value * other.slopes[i]);
        Dual { value: self.value * other.value, slopes }
    }
}

impl<const N: usize> Add<f64> for Dual<N> {
    type Output = Self;

    fn add(self, number: f64) -> Self {
        Dual { value: self.value + number, ..self }
    }
}

impl<const N: usize> Sub<f64> for Dual<N> {
    type Output = Self;

    fn sub(self, number: f64) -> Self {
        self + -number
    }
}

impl<const N: usize> Mul<f64> for Dual<N> {
    type Output = Self;

    fn mul(self, number: f64) -> Self {
        Dual { value: self.value * number, slopes: self.slopes.map(|slope| slope * number) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Function = fn(Dual<2>, Dual<2>) -> Dual<2>;

    /// Compares slopes with central differences.
    #[track_caller]
    fn check(name: &str, function: Function) {
        for (x, y) in [(0.3, -1.2), (-0.01, 0.7), (-4.0, 2.5), (-30.0, 0.4)] {
            let value = |x: f64, y: f64| function(Dual::constant(x), Dual::constant(y)).value;
            let Dual { slopes, .. } = function(Dual::variable(0, x), Dual::variable(1, y));
            let h = 1e-6;
            let differences = [
                (value(x + h, y) - value(x - h, y)) / (2.0 * h),
                (value(x, y + h) - value(x, y - h)) / (2.0 * h),
            ];
            for (slope, difference) in slopes.into_iter().zip(differences) {
                let bound = 1e-8 * (1.0 + slope.abs());
                assert!(
                    (slope - difference).abs() < bound,
                    "{name} at {x}, {y}: {slope}, {difference}"
                );
            }
        }
    }

    #[test]
    fn slopes_are_those_of_the_function() {
        check("sums", |x, y| x * 3.0 - y + 2.0 - 0.5 + -x);
        check("product", |x, y| x * y * x);
        check("exp", |x, y| (x * 0.1).exp() * y);
        check("ln", |x, y| (x.square() + 1.0).ln() + y);
        check("sigmoid", |x, y| (x - y).sigmoid());
        check("log_sigmoid", |x, y| (x * y).log_sigmoid());
        check("log_one_minus_exp", |x, y| (-x.square() - 0.001).log_one_minus_exp() + y);
        check("bounds", |x, y| x.at_least(-2.0) + y.at_most(0.5) * x);
    }

    #[test]
    fn the_far_ends_are_finite() {
        for x in [-1e4, -750.0, 0.0, 750.0, 1e4] {
            let x: Dual<1> = Dual::variable(0, x);
            for result in [x.sigmoid(), x.log_sigmoid()] {
                assert!(result.value.is_finite() && result.slopes[0].is_finite(), "{x:?}");
            }
        }
        for x in [-1e4, -750.0, -1e-300, -1e-17] {
            let result = Dual::<1>::variable(0, x).log_one_minus_exp();
            assert!(result.value.is_finite(), "{x}: {result:?}");
        }
    }
}
