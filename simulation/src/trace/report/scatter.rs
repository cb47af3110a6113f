//! What is free on each host at the end: stranded resources are points near an axis.

use std::fmt::Write;

use super::{Column, escaped};

const SIZE: f64 = 300.0;
/// Left, right, top, bottom.
const MARGIN: [f64; 4] = [44.0, 16.0, 8.0, 40.0];

/// Appends a panel for each policy.
pub fn scatter(out: &mut String, columns: &[Column<'_>]) {
    let mut drawn = columns.iter().filter_map(|column| Some((column, column.picture?))).peekable();
    if drawn.peek().is_none() {
        return;
    }
    out.push_str(
        "<section><h2>What is free at the end</h2><p class=\"soft\">free CPU (across) and free memory (up) of each host when the trace \
         ends, in percent of the largest host; the larger a circle, the more hosts; what lies on an axis is stranded: one resource is \
         left and the other gone</p></section><div class=\"panels\">",
    );
    let (width, height) = (SIZE - MARGIN[0] - MARGIN[1], SIZE - MARGIN[2] - MARGIN[3]);
    for (column, picture) in drawn {
        let hosts = picture.hosts.max(1) as f64;
        let stranded: u32 =
            picture.free.iter().filter(|(cpu, memory, _)| (*cpu == 0) != (*memory == 0)).map(|point| point.2).sum();
        let _ = write!(
            out,
            "<section><h3>{0}</h3><svg viewBox=\"0 0 {SIZE} {SIZE}\" role=\"img\" aria-label=\"Free CPU and memory of {1} hosts with \
             {0}; {stranded} have one of the two left and nothing of the other\">",
            escaped(&column.name),
            picture.hosts
        );
        for &(cpu, memory, count) in &picture.free {
            // The area tells the number; one host is just seen.
            let radius = 2.0 + 22.0 * (f64::from(count) / hosts).sqrt();
            let (x, y) = (f64::from(cpu.min(100)) / 100.0, f64::from(memory.min(100)) / 100.0);
            let _ = write!(
                out,
                "<circle class=\"dot\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius:.1}\"/>",
                MARGIN[0] + x * width,
                MARGIN[2] + (1.0 - y) * height
            );
        }
        // Above the circles: one that lies on an axis would hide its numbers.
        for percent in [0_u32, 25, 50, 75, 100] {
            let share = f64::from(percent) / 100.0;
            let (x, y) = (MARGIN[0] + share * width, MARGIN[2] + (1.0 - share) * height);
            let _ = write!(
                out,
                "<path class=\"axis\" d=\"M{0} {y:.1}h{width}M{x:.1} {1}v{height}\"/><text x=\"{2}\" y=\"{3:.1}\" \
                 text-anchor=\"end\">{percent}</text><text x=\"{x:.1}\" y=\"{4}\" text-anchor=\"middle\">{percent}</text>",
                MARGIN[0],
                MARGIN[2],
                MARGIN[0] - 6.0,
                y + 4.0,
                SIZE - MARGIN[3] + 16.0
            );
        }
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">% of CPU free</text><text x=\"12\" y=\"{:.1}\" text-anchor=\"middle\" \
             transform=\"rotate(-90 12 {2:.1})\">% of memory free</text>",
            MARGIN[0] + width / 2.0,
            SIZE - 6.0,
            MARGIN[2] + height / 2.0
        );
        out.push_str("</svg></section>");
    }
    out.push_str("</div>");
}
