//! Elementary functions in f32 that compilers turn into vector code: no
//! branches, no tables, no calls. NaN in gives NaN out.

/// `2^n` for n in [-126, 127], n given as the low bits of a float shifted by [`ROUND`].
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) << 23) as u32)
}

/// Adding and taking it away rounds a small float to the nearest integer, which
/// then stands in the low bits of the sum.
const ROUND: f32 = 12_582_912.0;

/// `e^x` to 2 units in the last place; 0 below -104, infinity above 89.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts: the first has few bits, so its product with n is exact.
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let even = 1.0 / 720.0 + r * (1.0 / 5040.0);
    let p = 1.0 / 120.0 + r * even;
    let p = 1.0 / 24.0 + r * p;
    let p = 1.0 / 6.0 + r * p;
    let p = 0.5 + r * p;
    let p = 1.0 + (r + r * r * p);
    // Two factors, so that subnormal results and infinity come out right.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let n = n.clamp(-160, 160);
    let half = n >> 1;
    p * power_of_two(half) * power_of_two(n - half)
}

/// The hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    // Near 0 the quotient below loses digits; there the series to x^11 is exact enough.
    let x2 = x * x;
    let series = -17.0 / 315.0 + x2 * (62.0 / 2835.0 + x2 * (-1382.0 / 155_925.0));
    let series = x + x * x2 * (-1.0 / 3.0 + x2 * (2.0 / 15.0 + x2 * series));
    let e = exp(-2.0 * x.abs());
    let quotient = (1.0 - e) / (1.0 + e);
    let large = if x < 0.0 { -quotient } else { quotient };
    if x2 < 0.09 { series } else { large }
}

/// The natural logarithm of a normal number over 0.
#[inline(always)]
pub(crate) fn ln(x: f32) -> f32 {
    // x = m 2^n with m from 1/sqrt(2) to sqrt(2).
    let bits = x.to_bits();
    let m = f32::from_bits(bits & 0x007f_ffff | 0x3f80_0000);
    let is_large = m > std::f32::consts::SQRT_2;
    let m = if is_large { 0.5 * m } else { m };
    let n = (bits >> 23) as i32 - 127 + i32::from(is_large);
    // ln m = 2 artanh s: on |s| <= 0.172 the term after s^9 is below 1e-9.
    let s = (m - 1.0) / (m + 1.0);
    let s2 = s * s;
    let series = 1.0 / 3.0 + s2 * (1.0 / 5.0 + s2 * (1.0 / 7.0 + s2 * (1.0 / 9.0)));
    let of_m = 2.0 * s + 2.0 * s * s2 * series;
    // ln 2 in two parts, as in `exp`. NaN stays.
    let n = n as f32;
    n * 0.693_359_4 + (of_m - n * 2.121_944_4e-4) + 0.0 * x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ours: fn(f32) -> f32, exact: fn(f64) -> f64, range: (f32, f32), tolerance: f64) {
        let steps = 200_000;
        for step in 0..=steps {
            let x = range.0 + (range.1 - range.0) * (step as f32 / steps as f32);
            let expected = exact(f64::from(x));
            let error = (f64::from(ours(x)) - expected).abs();
            let allowed = tolerance * expected.abs() + 1.5e-45;
            assert!(error <= allowed, "f({x}) = {}, not {expected}", ours(x));
        }
    }

    #[test]
    fn functions_are_close_to_f64() {
        check(exp, f64::exp, (-87.0, 88.7), 1.6e-7);
        check(tanh, f64::tanh, (-12.0, 12.0), 3e-7);
        check(tanh, f64::tanh, (-0.4, 0.4), 3e-7);
        for (low, high) in [(1e-30, 1e-20), (1e-3, 0.5), (0.5, 2.0), (2.0, 100.0), (1e20, 1e38)] {
            check(ln, f64::ln, (low, high), 2e-7);
        }
    }

    #[test]
    fn edges() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(100.0), f32::INFINITY);
        assert!((exp(-100.0) - 3.78e-44).abs() < 3e-45);
        assert_eq!(ln(1.0), 0.0);
        assert_eq!(tanh(50.0), 1.0);
        assert_eq!(tanh(-50.0), -1.0);
        for f in [exp, tanh, ln] {
            assert!(f(f32::NAN).is_nan());
        }
    }
}
