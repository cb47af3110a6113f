//! Numbers, times and decisions in words.

mod remedies;

use std::fmt::Write;

use api::proto::v1;

pub use remedies::remedies;

/// `1 host`, `2 hosts`.
pub fn count(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// MiB in the unit that reads best: `512 MiB`, `16 GiB`, `1.5 TiB`.
pub fn memory(mib: u64) -> String {
    match mib {
        0..1024 => format!("{mib} MiB"),
        1024..1_048_576 => format!("{} GiB", tenths(mib, 1024)),
        _ => format!("{} TiB", tenths(mib, 1_048_576)),
    }
}

fn tenths(amount: u64, unit: u64) -> String {
    let tenths = (amount * 10 + unit / 2) / unit;
    if tenths.is_multiple_of(10) { (tenths / 10).to_string() } else { format!("{}.{}", tenths / 10, tenths % 10) }
}

/// Bytes with a unit that keeps it short: `1.5 GiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 10.0);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// Amounts of resource classes: `4 VCPU, 16 GiB, 64 GB disk`.
pub fn amounts<'a>(amounts: impl IntoIterator<Item = (&'a String, &'a u64)>) -> String {
    amounts_with(memory, amounts)
}

/// The same without rounding: `1,500 MiB`.
pub fn amounts_exact<'a>(amounts: impl IntoIterator<Item = (&'a String, &'a u64)>) -> String {
    let exact = |mib: u64| match mib % 1024 {
        0 => format!("{} GiB", grouped(mib / 1024)),
        _ => format!("{} MiB", grouped(mib)),
    };
    amounts_with(exact, amounts)
}

fn amounts_with<'a>(
    memory: impl Fn(u64) -> String,
    amounts: impl IntoIterator<Item = (&'a String, &'a u64)>,
) -> String {
    let mut known = ["", "", ""].map(str::to_owned);
    let mut others = Vec::new();
    for (class, amount) in amounts {
        match class.as_str() {
            "VCPU" => known[0] = format!("{amount} VCPU"),
            "MEMORY_MB" => known[1] = memory(*amount),
            "DISK_GB" => known[2] = format!("{amount} GiB disk"),
            _ => others.push(format!("{amount} {class}")),
        }
    }
    known.into_iter().filter(|text| !text.is_empty()).chain(others).collect::<Vec<_>>().join(", ")
}

/// A pipeline with the version that ran, unless it is the shipped one.
pub fn pipeline(name: &str, version: u32) -> String {
    if version == 0 { name.to_owned() } else { format!("{name} version {version}") }
}

/// Milliseconds since 1970 as `2026-01-31 23:59:59` (UTC).
pub fn utc(millis: u64) -> String {
    let seconds = millis / 1000;
    let (days, of_day) = ((seconds / 86400) as i64, seconds % 86400);
    // Days to a date: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// A duration in its largest unit: `75 s`, `10 min`, `3 h`, `2 d`.
pub fn duration(millis: u64) -> String {
    let seconds = millis.div_ceil(1000);
    match seconds {
        0..100 => format!("{seconds} s"),
        100..6000 => format!("{} min", (seconds + 30) / 60),
        6000..172_800 => format!("{} h", (seconds + 1800) / 3600),
        _ => format!("{} d", (seconds + 43_200) / 86400),
    }
}

/// A step name without its prefix.
pub fn step(name: &str) -> &str {
    name.strip_prefix("filter_").unwrap_or(name)
}

/// Words of one line broken into lines of at most `width`, later ones indented.
pub fn wrapped(text: &str, width: usize, indent: &str) -> String {
    let mut out = String::new();
    let mut used = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            out.push('\n');
            out.push_str(indent);
            used = indent.chars().count();
        } else if used > 0 {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += length;
    }
    out
}

/// Text after a label; later lines stand below the text. The width is that of the whole.
pub fn wrapped_after(label: &str, text: &str, width: usize) -> String {
    let indent = " ".repeat(label.chars().count());
    let wrapped = wrapped(text, width - indent.len(), "");
    format!("{label}{}", wrapped.replace('\n', &format!("\n{indent}"))).trim_end().to_owned()
}

/// What filters dropped: step, then reason and number of hosts.
pub type Drops = Vec<(String, Vec<(String, u64)>)>;

/// The drops of a full decision.
pub fn drops_of(steps: &[v1::StepReport]) -> Drops {
    let dropping = steps.iter().filter(|step| step.kind == "filter" && !step.reasons.is_empty());
    dropping.map(|step| (step.name.clone(), reasons(&step.reasons))).collect()
}

/// The drops of a short record.
pub fn drops_of_record(record: &v1::DecisionRecord) -> Drops {
    record.drops.iter().map(|drop| (drop.step.clone(), reasons(&drop.reasons))).collect()
}

fn reasons(reasons: &[v1::DropReason]) -> Vec<(String, u64)> {
    let mut all: Vec<(String, u64)> = reasons.iter().map(|reason| (reason.reason.clone(), reason.hosts)).collect();
    all.sort_by_key(|&(_, hosts)| std::cmp::Reverse(hosts));
    all
}

/// How many hosts fit and what dropped the others, most first:
/// `4 of 120 hosts fit; 90 dropped by has_enough_capacity (short of MEMORY_MB: 88, …), …`.
pub fn outcome(fit: u64, candidates: u64, unknown: u64, drops: &Drops) -> String {
    let mut out = format!("{} of {} fit", grouped(fit), count(candidates + unknown, "host"));
    let mut parts: Vec<(u64, String)> = drops
        .iter()
        .map(|(name, reasons)| {
            let total = reasons.iter().map(|(_, hosts)| hosts).sum();
            let why = match reasons.as_slice() {
                [(why, _)] => why.clone(),
                several => {
                    let each = several.iter().map(|(why, hosts)| format!("{why}: {}", grouped(*hosts)));
                    each.collect::<Vec<_>>().join(", ")
                }
            };
            (total, format!("{} dropped by {} ({why})", grouped(total), step(name)))
        })
        .collect();
    parts.sort_by_key(|&(total, _)| std::cmp::Reverse(total));
    if unknown > 0 {
        let verb = if unknown == 1 { "is" } else { "are" };
        parts.push((unknown, format!("{} {verb} not known here", grouped(unknown))));
    }
    if !parts.is_empty() {
        out.push_str("; ");
        out.push_str(&parts.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("; "));
    }
    out
}

/// What happened to the claim, in words.
pub fn claim(claim: &str, hosts: &[String]) -> String {
    let at = hosts.join(", ");
    match (claim, at.is_empty()) {
        ("made", false) => format!("claimed on {at}"),
        ("kept", false) => format!("claim of the former call kept on {at}"),
        ("replaced", false) => format!("former claim released, claimed on {at}"),
        _ => "nothing claimed".to_owned(),
    }
}

/// The story of one host in a decision.
pub fn story(story: &v1::HostStory, fit: u64) -> String {
    let name = &story.host;
    if let Some(filter) = &story.dropped_by {
        let why = story.reason.as_deref().unwrap_or("no reason was kept");
        if filter == "unknown_host" {
            return wrapped(&format!("{name}: not known here: {why}"), 80, "  ");
        }
        return wrapped(&format!("{name}: dropped by {}: {why}", step(filter)), 80, "  ");
    }
    let Some(rank) = story.rank else {
        let why = story.reason.as_deref().unwrap_or("it was not a candidate, or is below the hosts that were kept");
        return wrapped(&format!("{name}: not in the answer: {why}"), 80, "  ");
    };
    let mut out = format!("{name}: rank {rank} of {fit}");
    if let Some(score) = story.score {
        let _ = write!(out, ", score {score:.4}");
    }
    if let Some(reason) = &story.reason {
        let _ = write!(out, "\n  {reason}");
    }
    let width = story.scores.iter().map(|score| score.step.len()).max().unwrap_or(0).max(34);
    if let Some(base) = story.base {
        let _ = write!(out, "\n  {:<width$} {base:>+9.4}", "caller's weight");
    }
    for score in &story.scores {
        let _ = write!(out, "\n  {:<width$} {:>+9.4}  (activation {:.4})", score.step, score.contribution, score.raw);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_read_well() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(999), "999");
        assert_eq!((count(1, "host"), count(2000, "host")), ("1 host".to_owned(), "2,000 hosts".to_owned()));
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(1_709_210_096_789), "2024-02-29 12:34:56");
        assert_eq!(utc(1_767_225_599_000), "2025-12-31 23:59:59");
        assert_eq!(
            [memory(512), memory(16_384), memory(1_572_864), memory(24_064)],
            ["512 MiB", "16 GiB", "1.5 TiB", "23.5 GiB"]
        );
        assert_eq!([duration(1), duration(600_000), duration(7_200_000)], ["1 s", "10 min", "2 h"]);
    }

    #[test]
    fn an_outcome_says_what_dropped_whom() {
        let drops: Drops = vec![
            ("filter_correct_az".into(), vec![("in another availability zone".into(), 26)]),
            ("filter_has_enough_capacity".into(), vec![("short of MEMORY_MB".into(), 88), ("short of VCPU".into(), 2)]),
        ];
        assert_eq!(
            outcome(4, 120, 0, &drops),
            "4 of 120 hosts fit; 90 dropped by has_enough_capacity (short of MEMORY_MB: 88, short of VCPU: 2); \
             26 dropped by correct_az (in another availability zone)"
        );
        assert_eq!(outcome(1, 1, 0, &vec![]), "1 of 1 host fit");
        assert_eq!(outcome(3, 3, 1, &vec![]), "3 of 4 hosts fit; 1 is not known here");
    }

    #[test]
    fn a_story_says_why_not_or_how() {
        let dropped = v1::HostStory {
            host: "h1".into(),
            dropped_by: Some("filter_has_enough_capacity".into()),
            reason: Some("short of VCPU: 4 asked, 2 free".into()),
            ..v1::HostStory::default()
        };
        assert_eq!(story(&dropped, 3), "h1: dropped by has_enough_capacity: short of VCPU: 4 asked, 2 free");
        let ranked = v1::HostStory {
            host: "h2".into(),
            rank: Some(2),
            score: Some(1.25),
            base: Some(0.75),
            scores: vec![v1::StepScore { step: "kvm_binpack".into(), raw: 0.5, contribution: -0.4621 }],
            ..v1::HostStory::default()
        };
        let told = story(&ranked, 3);
        assert!(told.starts_with("h2: rank 2 of 3, score 1.2500\n"), "{told}");
        assert!(told.contains("kvm_binpack") && told.contains("-0.4621"), "{told}");
        assert!(told.lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn long_lines_are_wrapped() {
        assert_eq!(wrapped("aa bb cc dd", 5, " "), "aa bb\n cc\n dd");
        assert_eq!(wrapped("one", 2, " "), "one");
        assert_eq!(wrapped_after("x: ", "aa bb cc", 8), "x: aa bb\n   cc");
    }
}
