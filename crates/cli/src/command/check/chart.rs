//! The histogram of lengths as a drawing.

use std::fmt::Write as _;

use data::report::{Bin, Lengths};

use crate::terminal::style::count;

/// Units of the drawing; a browser scales it.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 240.0;
/// Room for numbers above the bars and below them.
const TOP: f64 = 36.0;
const BOTTOM: f64 = 28.0;
/// Labels that stand side by side without touching.
const LABELS: usize = 12;

/// The bars of `lengths`, with the median and the 95th percentile marked; none without bins.
pub(super) fn histogram(lengths: &Lengths) -> Option<String> {
    let most = lengths.bins.iter().map(|bin| bin.count).max().filter(|&most| most > 0)?;
    let name = format!(
        "Lengths of sequences: half have at most {} tokens, 95 of 100 at most {}, the longest {}.",
        count(lengths.median as u64),
        count(lengths.p95 as u64),
        count(lengths.longest as u64)
    );
    let mut svg =
        format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{name}\">\n");
    let width = WIDTH / lengths.bins.len() as f64;
    let floor = HEIGHT - BOTTOM;
    let labelled = lengths.bins.len().div_ceil(LABELS);
    for (index, bin) in lengths.bins.iter().enumerate() {
        let left = width * index as f64;
        let height = (floor - TOP) * bin.count as f64 / most as f64;
        let top = floor - height;
        let title = format!(
            "{} to {} tokens: {} sequences",
            count(bin.from as u64),
            count(bin.to.saturating_sub(1) as u64),
            count(bin.count as u64)
        );
        _ = writeln!(
            svg,
            "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{height:.1}\">\
             <title>{title}</title></rect>",
            left + 1.0,
            (width - 2.0).max(0.5)
        );
        if index % labelled == 0 {
            let from = count(bin.from as u64);
            _ = writeln!(svg, "<text x=\"{left:.1}\" y=\"{:.1}\">{from}</text>", floor + 18.0);
        }
    }
    _ = writeln!(svg, "<line x1=\"0\" y1=\"{floor}\" x2=\"{WIDTH}\" y2=\"{floor}\"/>");
    for (index, (tokens, what)) in
        [(lengths.median, "median"), (lengths.p95, "95 %")].into_iter().enumerate()
    {
        // Each on a line of its own: they may be close.
        let text = 12.0 + 15.0 * index as f64;
        mark(&mut svg, &lengths.bins, tokens, what, text);
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// A line at a length, with its name beside it.
fn mark(svg: &mut String, bins: &[Bin], tokens: usize, what: &str, text: f64) {
    let Some(x) = position(bins, tokens) else { return };
    let floor = HEIGHT - BOTTOM;
    // Towards the middle, so that the words do not leave the drawing.
    let (anchor, shift) = if x > WIDTH / 2.0 { ("end", -4.0) } else { ("start", 4.0) };
    let number = count(tokens as u64);
    _ = writeln!(
        svg,
        "<line class=\"mark\" x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{floor}\"/>\
         <text class=\"mark\" x=\"{:.1}\" y=\"{text:.1}\" text-anchor=\"{anchor}\">{what} {number}\
         </text>",
        text - 10.0,
        x + shift
    );
}

/// Where a length stands from left to right; bins are equally wide, whatever they span.
fn position(bins: &[Bin], tokens: usize) -> Option<f64> {
    let index = bins.iter().position(|bin| (bin.from..bin.to).contains(&tokens))?;
    let bin = &bins[index];
    let within = (tokens - bin.from) as f64 / (bin.to - bin.from) as f64;
    Some(WIDTH * (index as f64 + within) / bins.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn the_highest_bar_fills_the_drawing() {
        let svg = histogram(&example::report().lengths).unwrap();
        let bars: Vec<&str> = svg.lines().filter(|line| line.starts_with("<rect")).collect();
        assert_eq!(bars.len(), 7);
        // 240 high, of which 36 and 28 are for numbers; 310 is the most, 140 stands beside it.
        assert!(bars[1].contains("y=\"36.0\"") && bars[1].contains("height=\"176.0\""));
        assert!(bars[3].contains(&format!("height=\"{:.1}\"", 176.0 * 140.0 / 310.0)));
        assert!(bars[1].contains("<title>32 to 63 tokens: 310 sequences</title>"));
        assert_eq!(histogram(&Lengths::default()), None);
    }

    #[test]
    fn lengths_stand_within_their_bins() {
        let bin = |from, to| Bin { from, to, count: 1 };
        let bins = [bin(0, 100), bin(100, 1000)];
        for (tokens, expected) in [
            (0, Some(0.0)),
            (50, Some(225.0)),
            (100, Some(450.0)),
            (550, Some(675.0)),
            (1000, None),
        ] {
            assert_eq!(position(&bins, tokens), expected, "{tokens}");
        }
    }
}
