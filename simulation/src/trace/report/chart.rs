//! A chart of lines as SVG: what a study needs and no more, so that the report stays one small file.

use std::fmt::Write;

use super::{escaped, grouped};

/// Colours that can be told apart by people who see few colours too (Okabe and Ito); on white two are darker, see style.css.
pub const COLOURS: [&str; 6] = ["var(--c0)", "var(--c1)", "var(--c2)", "var(--c3)", "var(--c4)", "var(--c5)"];
/// Dashes tell lines apart on grey paper, and let one be seen below another.
const DASHES: [&str; 7] = ["none", "9 4", "3 4", "14 4 3 4", "6 7", "1 4", "20 5"];
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 260.0;
/// Left, right, top, bottom.
const MARGIN: [f64; 4] = [52.0, 12.0, 10.0, 26.0];
/// Points of a line that are drawn.
const MOST_POINTS: usize = 600;

/// A line with its name.
pub struct Line {
    name: String,
    /// A bound and no policy.
    bound: bool,
    /// x and y.
    pub points: Vec<(f64, f64)>,
}

/// A chart.
pub struct Chart {
    /// Heading.
    pub title: &'static str,
    /// What is drawn.
    pub what: &'static str,
    /// Unit behind numbers.
    pub unit: &'static str,
    /// Lines.
    pub lines: Vec<Line>,
}

impl Line {
    /// A line; of many points every so many is drawn.
    pub fn new(name: &str, points: Vec<(f64, f64)>) -> Self {
        let step = points.len().div_ceil(MOST_POINTS).max(1);
        let last = points.len().saturating_sub(1);
        let points = points.into_iter().enumerate().filter(|(at, _)| at % step == 0 || *at == last);
        Self { name: name.to_owned(), bound: false, points: points.map(|(_, point)| point).collect() }
    }

    /// A line that others are held against.
    pub fn bound(name: &str, points: Vec<(f64, f64)>) -> Self {
        Self { bound: true, ..Self::new(name, points) }
    }

    /// How the line at this place is drawn.
    fn stroke(&self, at: usize) -> String {
        if self.bound {
            return "class=\"bound\"".to_owned();
        }
        let (colour, dash) = (COLOURS[at % COLOURS.len()], DASHES[at % DASHES.len()]);
        format!("class=\"curve\" style=\"stroke:{colour};stroke-dasharray:{dash}\"")
    }
}

/// A round step of about a fifth of the range.
pub fn step(range: f64) -> f64 {
    let raw = (range / 5.0).max(1e-9);
    let power = 10_f64.powf(raw.log10().floor());
    let round = [1.0, 2.0, 5.0, 10.0].into_iter().find(|round| round * power >= raw - 1e-12);
    round.unwrap_or(10.0) * power
}

impl Chart {
    /// True when there is nothing to see.
    pub fn is_flat(&self) -> bool {
        let mut values = self.lines.iter().flat_map(|line| &line.points).map(|point| point.1);
        values.all(|value| value.abs() < 1e-12)
    }

    /// Appends it.
    pub fn draw(&self, out: &mut String) {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let (left, right) =
            points().fold((f64::MAX, f64::MIN), |(low, high), point| (low.min(point.0), high.max(point.0)));
        let top = points().fold(0.0_f64, |high, point| high.max(point.1));
        let (dx, dy) = (step(right - left), step(top));
        let top = (top / dy).ceil().max(1.0) * dy;
        let x = |value: f64| MARGIN[0] + (value - left) / (right - left).max(1e-9) * (WIDTH - MARGIN[0] - MARGIN[1]);
        let y = |value: f64| HEIGHT - MARGIN[3] - value / top * (HEIGHT - MARGIN[2] - MARGIN[3]);
        let _ = write!(
            out,
            "<section><h2>{}</h2><p class=\"soft\">{}; in bold where each line ends</p><ul class=\"key\">",
            self.title, self.what
        );
        for (at, line) in self.lines.iter().enumerate() {
            let last = line.points.last().map_or(0.0, |point| point.1);
            let last = if self.unit.is_empty() { grouped(last.round()) } else { format!("{last:.1}") };
            let _ = write!(
                out,
                "<li><svg viewBox=\"0 0 36 8\" aria-hidden=\"true\"><path {} d=\"M1 4h34\"/></svg>{} <b>{}{}</b></li>",
                line.stroke(at),
                escaped(&line.name),
                last,
                self.unit
            );
        }
        let _ = write!(
            out,
            "</ul><div class=\"wide\"><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}: {}",
            self.title, self.what
        );
        for line in &self.lines {
            if let Some(last) = line.points.last() {
                let _ = write!(out, "; {} ends at {:.1}{}", escaped(&line.name), last.1, self.unit);
            }
        }
        out.push_str("\">");
        for at in 0..=(top / dy).round() as u32 {
            let value = f64::from(at) * dy;
            let _ = write!(
                out,
                "<path class=\"axis\" d=\"M{} {:.1}H{}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}{}</text>",
                MARGIN[0],
                y(value),
                WIDTH - MARGIN[1],
                MARGIN[0] - 6.0,
                y(value) + 4.0,
                if value < 1000.0 { ((value * 1000.0).round() / 1000.0).to_string() } else { grouped(value) },
                self.unit
            );
        }
        let mut tick = (left / dx).ceil() * dx;
        while tick <= right + 1e-9 {
            let shown = (tick * 1000.0).round() / 1000.0;
            let _ =
                write!(out, "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{shown}</text>", x(tick), HEIGHT - 8.0);
            tick += dx;
        }
        for (at, line) in self.lines.iter().enumerate() {
            let _ = write!(out, "<path {} d=\"", line.stroke(at));
            for (place, point) in line.points.iter().enumerate() {
                let _ = write!(out, "{}{:.1} {:.1}", if place == 0 { "M" } else { "L" }, x(point.0), y(point.1));
            }
            // A single point is a dot.
            out.push_str(if line.points.len() == 1 { "h0\"/>" } else { "\"/>" });
        }
        out.push_str("</svg></div></section>");
    }
}
