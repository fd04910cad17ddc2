//! Draws curves as SVG: speed on the left, memory on the right.

use std::fs;
use std::path::Path;

use plotters::coord::ranged1d::SegmentValue;
use plotters::prelude::*;

use super::scaling::Curve;

const SIZE: (u32, u32) = (960, 400);
const SPEED: RGBColor = RGBColor(31, 119, 180);
const MEMORY: RGBColor = RGBColor(214, 96, 39);
const FONT: &str = "sans-serif";

/// Draws a curve into an SVG file; the machine stands under the title.
pub(super) fn write(curve: &Curve, machine: &str, path: &Path) -> Result<(), String> {
    let svg = svg(curve, machine).map_err(|error| error.to_string());
    let written = svg.and_then(|svg| fs::write(path, svg).map_err(|error| error.to_string()));
    written.map_err(|error| format!("{}: {error}", path.display()))
}

fn svg(curve: &Curve, machine: &str) -> Result<String, Box<dyn std::error::Error>> {
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
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let area = area.titled(&curve.title, (FONT, 18))?;
        let area = area.titled(machine, (FONT, 12))?;
        for (panel, area) in panels.iter().zip(area.split_evenly((1, 2))) {
            panel.draw(&area, curve.axis, &labels)?;
        }
        area.present()?;
    }
    Ok(svg)
}

/// A line over places that stand equally far apart: what is varied doubles from one to the next.
struct Panel {
    what: &'static str,
    color: RGBColor,
    /// In the order of the labels; none where nothing is known.
    values: Vec<Option<f64>>,
}

impl Panel {
    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, plotters::coord::Shift>,
        axis: &str,
        labels: &[&str],
    ) -> Result<(), Box<dyn std::error::Error>>
    where
        B::ErrorType: 'static,
    {
        let most = self.values.iter().flatten().copied().fold(0.0, f64::max);
        let places = (0..labels.len().saturating_sub(1)).into_segmented();
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .caption(self.what, (FONT, 13).into_font().color(&self.color))
            .x_label_area_size(44)
            .y_label_area_size(60)
            .build_cartesian_2d(places, 0.0..if most > 0.0 { most * 1.1 } else { 1.0 })?;
        let label = |place: &SegmentValue<usize>| match place {
            SegmentValue::CenterOf(at) => labels.get(*at).copied().unwrap_or_default().to_owned(),
            _ => String::new(),
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .x_labels(labels.len())
            .x_label_formatter(&label)
            .y_labels(6)
            .y_label_formatter(&|value: &f64| value.to_string())
            .x_desc(axis)
            .label_style((FONT, 12))
            .draw()?;
        let known = self.values.iter().enumerate();
        let known = known.filter_map(|(at, value)| Some((SegmentValue::CenterOf(at), (*value)?)));
        chart.draw_series(LineSeries::new(known.clone(), self.color.stroke_width(2)))?;
        chart.draw_series(known.map(|place| Circle::new(place, 3, self.color.filled())))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::scaling::tests::examples;
    use super::*;

    #[test]
    fn every_curve_is_drawn_with_its_labels() {
        for curve in examples() {
            let svg = svg(&curve, "2 cores & more").unwrap();
            let texts: Vec<&str> = svg.lines().map(str::trim).collect();
            assert!(texts.contains(&"2 cores &amp; more"));
            for point in &curve.points {
                let count = texts.iter().filter(|text| **text == point.label).count();
                assert!(count >= 2, "{}: {svg}", point.label);
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
        let svg = svg(&curve, "").unwrap();
        assert_eq!(svg.matches("<circle").count(), 2 * curve.points.len() - 3);
    }
}
