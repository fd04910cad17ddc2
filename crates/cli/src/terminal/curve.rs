//! A curve in one line of text.

const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws values as bars, averaged down to at most `width` of them.
///
/// The lowest is the flattest bar; values that are no numbers are left out.
pub(crate) fn sparkline(values: &[f64], width: usize) -> String {
    let values: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    let bars = values.len().min(width);
    if bars == 0 {
        return String::new();
    }
    let mean = |bar: usize| {
        let part = &values[bar * values.len() / bars..(bar + 1) * values.len() / bars];
        part.iter().sum::<f64>() / part.len() as f64
    };
    let means: Vec<f64> = (0..bars).map(mean).collect();
    let low = means.iter().copied().fold(f64::INFINITY, f64::min);
    let high = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let level = |mean: &f64| {
        let share = if high > low { (mean - low) / (high - low) } else { 0.0 };
        LEVELS[(share * 7.0).round() as usize]
    };
    means.iter().map(level).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_falling_loss_falls() {
        assert_eq!(sparkline(&[7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0], 80), "█▇▆▅▄▃▂▁");
        assert_eq!(sparkline(&[4.0, 2.0, 1.0, 1.0], 2), "█▁");
        assert_eq!(sparkline(&[1.0, 1.0], 10), "▁▁");
        assert_eq!(sparkline(&[f64::NAN], 10), "");
        assert_eq!(sparkline(&[], 10), "");
    }
}
