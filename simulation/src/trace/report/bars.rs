//! Stacked bars, one for each policy.

use std::fmt::Write;

use super::chart::COLOURS;
use super::{escaped, grouped};

const WIDTH: f64 = 860.0;
/// Room for names on the left and for sums on the right.
const NAMES: f64 = 230.0;
const SUMS: f64 = 70.0;
/// Height of a bar with the space below it.
const ROW: f64 = 26.0;

/// Appends a chart: a bar for each row, made of a number for each part.
pub fn bars(out: &mut String, title: &str, what: &str, parts: &[&str], rows: &[(&str, Vec<f64>)]) {
    let sum = |row: &[f64]| row.iter().sum::<f64>();
    let most = rows.iter().map(|row| sum(&row.1)).fold(0.0, f64::max);
    if most <= 0.0 {
        return;
    }
    let used = |part: usize| rows.iter().any(|row| row.1[part] > 0.0);
    let _ = write!(out, "<section><h2>{title}</h2><p class=\"soft\">{what}</p><ul class=\"key\">");
    for (at, part) in parts.iter().enumerate().filter(|(at, _)| used(*at)) {
        let _ = write!(out, "<li><i style=\"background:{}\"></i>{part}</li>", COLOURS[at % COLOURS.len()]);
    }
    let height = ROW * rows.len() as f64;
    let _ =
        write!(out, "</ul><div class=\"wide\"><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}");
    for (name, row) in rows {
        let _ = write!(out, "; {}:", escaped(name));
        let told = parts.iter().zip(row).filter(|(_, number)| **number > 0.0);
        let told: Vec<String> = told.map(|(part, number)| format!(" {part} {number}")).collect();
        out.push_str(if told.is_empty() { " none" } else { "" });
        out.push_str(&told.join(","));
    }
    out.push_str("\">");
    for (place, (name, row)) in rows.iter().enumerate() {
        let top = ROW * place as f64;
        let _ = write!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            NAMES - 8.0,
            top + 16.0,
            escaped(name)
        );
        let mut left = NAMES;
        for (at, number) in row.iter().enumerate().filter(|(_, number)| **number > 0.0) {
            let width = number / most * (WIDTH - NAMES - SUMS);
            let colour = COLOURS[at % COLOURS.len()];
            let _ = write!(
                out,
                "<rect x=\"{left:.1}\" y=\"{}\" width=\"{width:.1}\" height=\"18\" style=\"fill:{colour}\"/>",
                top + 3.0
            );
            left += width;
        }
        let _ = write!(out, "<text x=\"{:.1}\" y=\"{}\">{}</text>", left + 6.0, top + 16.0, grouped(sum(row)));
    }
    out.push_str("</svg></div></section>");
}
