//! Draws curves as SVG: speed on the left, memory on the right.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::scaling::Curve;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 400.0;
/// A panel's field, beside its labels and under the title.
const LEFT: f64 = 72.0;
const TOP: f64 = 72.0;
const FIELD: (f64, f64) = (380.0, 262.0);
const SPEED: &str = "#1f77b4";
const MEMORY: &str = "#d66027";

/// Draws a curve into an SVG file; the machine stands under the title.
pub(super) fn write(curve: &Curve, machine: &str, path: &Path) -> Result<(), String> {
    fs::write(path, svg(curve, machine)).map_err(|error| format!("{}: {error}", path.display()))
}

fn svg(curve: &Curve, machine: &str) -> String {
    let measured: Vec<(&str, (f64, Option<u64>))> = curve
        .points
        .iter()
        .filter_map(|point| Some((point.label.as_str(), point.measured?)))
        .collect();
    let labels: Vec<&str> = measured.iter().map(|&(label, _)| label).collect();
    let speeds = measured.iter().map(|&(_, (speed, _))| Some(speed));
    let megabytes = measured.iter().map(|&(_, (_, bytes))| Some(bytes? as f64 / 1e6));
    let panels = [
        Panel { what: "tokens/s", color: SPEED, values: speeds.collect() },
        Panel { what: "peak memory, MB", color: MEMORY, values: megabytes.collect() },
    ];
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let middle = WIDTH / 2.0;
    text(&mut svg, (middle, 28.0), "text-anchor=\"middle\" font-size=\"18\"", &curve.title);
    text(&mut svg, (middle, 48.0), "text-anchor=\"middle\" fill=\"#555\"", machine);
    for (at, panel) in panels.iter().enumerate() {
        panel.draw(&mut svg, at as f64 * middle + LEFT, curve.axis, &labels);
    }
    svg + "</svg>\n"
}

/// A line over places that stand equally far apart: what is varied doubles from one to the next.
struct Panel {
    what: &'static str,
    color: &'static str,
    /// In the order of the labels; none where nothing is known.
    values: Vec<Option<f64>>,
}

impl Panel {
    fn draw(&self, svg: &mut String, left: f64, axis: &str, labels: &[&str]) {
        let (width, height) = FIELD;
        let bottom = TOP + height;
        let (step, count) = ticks(self.values.iter().flatten().copied().fold(0.0, f64::max));
        let place = |at: usize| left + width * (at as f64 + 0.5) / labels.len() as f64;
        let level = |value: f64| bottom - height * value / (step * count as f64);
        for tick in 0..=count {
            let value = step * tick as f64;
            let y = level(value);
            line(svg, (left, y), (left + width, y), "#ddd");
            text(svg, (left - 8.0, y + 4.0), "text-anchor=\"end\"", &value.to_string());
        }
        line(svg, (left, TOP), (left, bottom), "#555");
        line(svg, (left, bottom), (left + width, bottom), "#555");
        for (at, label) in labels.iter().enumerate() {
            text(svg, (place(at), bottom + 18.0), "text-anchor=\"middle\"", label);
        }
        let middle = left + width / 2.0;
        text(svg, (middle, bottom + 42.0), "text-anchor=\"middle\" fill=\"#555\"", axis);
        text(svg, (left, TOP - 8.0), &format!("fill=\"{}\"", self.color), self.what);
        let known = self.values.iter().enumerate().filter_map(|(at, value)| Some((at, (*value)?)));
        let known: Vec<(f64, f64)> = known.map(|(at, value)| (place(at), level(value))).collect();
        let path: Vec<String> = known.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        put(
            svg,
            &format!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>",
                path.join(" "),
                self.color
            ),
        );
        for (x, y) in known {
            put(
                svg,
                &format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{}\"/>", self.color),
            );
        }
    }
}

/// A step of 1, 2 or 5 times a power of ten, and how many of them hold the value: five or fewer.
fn ticks(most: f64) -> (f64, usize) {
    if most <= 0.0 {
        return (1.0, 1);
    }
    let power = 10f64.powf((most / 5.0).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power);
    let step = steps.into_iter().find(|step| step * 5.0 >= most).unwrap_or(most);
    (step, (most / step).ceil().max(1.0) as usize)
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), color: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    put(
        svg,
        &format!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{color}\"/>"
        ),
    );
}

fn text(svg: &mut String, (x, y): (f64, f64), style: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    put(svg, &format!("<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{words}</text>"));
}

fn put(svg: &mut String, element: &str) {
    writeln!(svg, "{element}").expect("a string takes what is written");
}

#[cfg(test)]
mod tests {
    use super::super::scaling::tests::examples;
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(0.0), (1.0, 1));
        assert_eq!(ticks(430.0), (100.0, 5));
        assert_eq!(ticks(500.0), (100.0, 5));
        assert_eq!(ticks(501.0), (200.0, 3));
        assert_eq!(ticks(1200.0), (500.0, 3));
        assert_eq!(ticks(8.0), (2.0, 4));
    }

    #[test]
    fn every_curve_is_drawn_with_its_labels() {
        for curve in examples() {
            let svg = svg(&curve, "2 cores & more");
            assert!(svg.contains("2 cores &amp; more"));
            for point in &curve.points {
                assert!(svg.contains(&format!(">{}</text>", point.label)), "{}", point.label);
            }
            assert_eq!(svg.matches("<circle").count(), 2 * curve.points.len());
            assert!(!svg.contains("NaN"));
        }
    }

    #[test]
    fn what_could_not_be_measured_is_left_out() {
        let mut curve = examples().swap_remove(0);
        curve.points[0].measured = None;
        curve.points[1].measured = Some((5.0, None));
        let svg = svg(&curve, "");
        assert_eq!(svg.matches("<circle").count(), 2 * curve.points.len() - 3);
    }
}
