//! A curve over several lines of text.

const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws values as columns, averaged down to at most `width`, over `height` lines. The scale
/// begins at 0 and ends at the largest value, which stands at its left end.
pub(super) fn plot(values: &[f64], width: usize, height: usize) -> Vec<String> {
    let columns = values.len().min(width);
    let mean = |column: usize| {
        let part = &values[column * values.len() / columns..(column + 1) * values.len() / columns];
        part.iter().sum::<f64>() / part.len() as f64
    };
    let means: Vec<f64> = (0..columns).map(mean).collect();
    let top = means.iter().copied().fold(0.0, f64::max);
    if top <= 0.0 || !top.is_finite() {
        return Vec::new();
    }
    let line = |line: usize| {
        let below = 8 * (height - 1 - line);
        let cell = |mean: &f64| {
            // What is not 0 is seen.
            let filled = ((mean / top * (8 * height) as f64).round() as usize).max(1);
            match filled.saturating_sub(below) {
                0 => ' ',
                level => LEVELS[level.min(8) - 1],
            }
        };
        let label = match line {
            0 => format!("{top:.2}"),
            line if line + 1 == height => format!("{:.2}", 0.0),
            _ => String::new(),
        };
        let cells: String = means.iter().map(cell).collect();
        format!("{label:>6} ┤{}", cells.trim_end())
    };
    (0..height).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_falling_loss_falls() {
        let lines = plot(&[2.0, 1.0, 0.5, 0.001], 80, 2);
        assert_eq!(lines, ["  2.00 ┤█", "  0.00 ┤██▄▁"]);
    }

    #[test]
    fn many_values_are_averaged() {
        assert_eq!(plot(&[3.0, 1.0, 1.0, 1.0], 2, 1), ["  2.00 ┤█▄"]);
        assert_eq!(plot(&[], 10, 3), Vec::<String>::new());
        assert_eq!(plot(&[f64::NAN], 10, 3), Vec::<String>::new());
    }
}
