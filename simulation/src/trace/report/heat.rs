//! How full each host was over time: hosts from top to bottom in the order of the list, time from left to right.

use std::fmt::Write;

use super::chart::step;
use super::{Column, escaped};
use crate::trace::picture::{LEVELS, Picture};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 230.0;
/// Left, right, top, bottom.
const MARGIN: [f64; 4] = [52.0, 12.0, 4.0, 26.0];

/// Appends a map for each policy.
pub fn heat(out: &mut String, columns: &[Column<'_>]) {
    let mut drawn = columns.iter().filter_map(|column| Some((column, column.picture?))).peekable();
    if drawn.peek().is_none() {
        return;
    }
    out.push_str(
        "<section><h2>Hosts over time</h2><p class=\"soft\">how full each host is (the largest of its shares of CPU, memory and GPUs \
         in use), by day; hosts from top to bottom in the order of the list, neighbours averaged where there are many; blank: no VM</p>\
         <ul class=\"key\">",
    );
    for level in 1..=LEVELS {
        let (low, high) = ((level - 1) * 100 / LEVELS, level * 100 / LEVELS);
        let _ = write!(out, "<li><i style=\"background:var(--heat);opacity:{}\"></i>{low}–{high} %</li>", shade(level));
    }
    out.push_str("</ul></section>");
    for (column, picture) in drawn {
        map(out, &column.name, picture);
    }
}

fn shade(level: u32) -> f64 {
    f64::from(level) / f64::from(LEVELS)
}

fn map(out: &mut String, name: &str, picture: &Picture) {
    let rows = picture.moments.first().map_or(0, |moment| moment.1.len());
    let (count, begin) = (picture.moments.len(), picture.moments.first().map_or(0, |moment| moment.0));
    let end = picture.moments.last().map_or(0, |moment| moment.0);
    if rows == 0 {
        return;
    }
    let (width, height) = (WIDTH - MARGIN[0] - MARGIN[1], HEIGHT - MARGIN[2] - MARGIN[3]);
    let empty = |digits: &str| digits.bytes().filter(|digit| *digit == b'0').count() * 100 / rows;
    let last = picture.moments.last().map_or("", |moment| moment.1.as_str());
    let _ = write!(
        out,
        "<section><h3>{0}</h3><div class=\"wide\"><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"How full {1} hosts \
         are over time with {0}; at the end {2} % of them are empty\"><g transform=\"translate({3} {4}) scale({5:.4} {6:.4}) \
         translate(0 .5)\" shape-rendering=\"crispEdges\">",
        escaped(name),
        picture.hosts,
        empty(last),
        MARGIN[0],
        MARGIN[2],
        width / count as f64,
        height / rows as f64,
    );
    let lines: Vec<&[u8]> = picture.moments.iter().map(|moment| moment.1.as_bytes()).collect();
    for level in 1..=LEVELS {
        let mut path = String::new();
        let is = |at: usize, row: usize| {
            lines[at].get(row).is_some_and(|digit| u32::from(*digit) == u32::from(b'0') + level)
        };
        for row in 0..rows {
            let mut at = 0;
            while at < count {
                let run = (at..count).take_while(|&at| is(at, row)).count();
                if run > 0 {
                    let _ = write!(path, "M{at} {row}h{run}");
                }
                at += run.max(1);
            }
        }
        if !path.is_empty() {
            let _ = write!(out, "<path class=\"heat\" opacity=\"{}\" d=\"{path}\"/>", shade(level));
        }
    }
    let _ = write!(
        out,
        "</g><rect class=\"axis\" x=\"{0}\" y=\"{1}\" width=\"{width}\" height=\"{height}\"/><text x=\"{2}\" y=\"{3}\" \
         text-anchor=\"end\">1</text><text x=\"{2}\" y=\"{4}\" text-anchor=\"end\">{5}</text>",
        MARGIN[0],
        MARGIN[2],
        MARGIN[0] - 6.0,
        MARGIN[2] + 11.0,
        HEIGHT - MARGIN[3],
        picture.hosts
    );
    let (left, right) = (begin as f64 / 86_400.0, end as f64 / 86_400.0);
    let by = step(right - left);
    let mut tick = (left / by).ceil() * by;
    while tick <= right + 1e-9 {
        let x = MARGIN[0] + (tick - left) / (right - left).max(1e-9) * width;
        let shown = (tick * 1000.0).round() / 1000.0;
        let _ = write!(out, "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{shown}</text>", HEIGHT - 8.0);
        tick += by;
    }
    out.push_str("</svg></div></section>");
}
