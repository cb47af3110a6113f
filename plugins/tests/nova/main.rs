//! Stock Nova's filters and weighers against the real Nova: the same seeded cases go to Nova's own classes
//! (`tests/nova/driver.py`) and to the steps, and both must give the same answers. What differs on
//! purpose is listed in `docs/differences.md` and named in [`tolerated`].
//!
//! `cargo xtask test nova` installs Nova and sets `PALLIUM_NOVA_PYTHON`, the Python that has it; without it
//! these tests print that they did not run. `PALLIUM_NOVA_SEED` and `PALLIUM_NOVA_CASES` choose other cases.

mod cases;
mod oracle;
mod ours;

use std::collections::BTreeMap;

use cases::{Case, Random};
use oracle::{Answer, Oracle, Value as Theirs};

/// Hosts whose answers may differ: where Nova raises, which fails the whole request, pallium drops the
/// host, or says in the step's documentation what it does instead.
fn tolerated(filter: &str, kept: bool) -> bool {
    match filter {
        // Nova reads `cpu_info` as a map and may find a text, or nothing; here such a host is not asked.
        // It may also meet a good value of an aggregate before the one that it cannot read, and it stumbles
        // over a host that never reported metrics even when none is named.
        "ImagePropertiesFilter" | "AggregateInstanceExtraSpecsFilter" | "MetricsFilter" => true,
        _ => !kept,
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// The oracle and the numbers of the cases; `None` where there is no Nova.
fn prepared(cases: u64) -> Option<(Oracle, std::ops::Range<u64>)> {
    let Some(oracle) = Oracle::start() else {
        println!("skipped: PALLIUM_NOVA_PYTHON names no Python with nova; cargo xtask test nova installs one");
        return None;
    };
    let (seed, count) = (setting("PALLIUM_NOVA_SEED", 1), setting("PALLIUM_NOVA_CASES", cases));
    Some((oracle, seed * 1_000_000..seed * 1_000_000 + count))
}

#[test]
fn every_step_answers_as_novas() {
    let Some((mut oracle, seeds)) = prepared(1500) else { return };
    let (mut wrong, mut seen) = (Vec::new(), BTreeMap::<String, [u64; 3]>::new());
    for seed in seeds {
        let case = Case::of_steps(&mut Random::of(seed));
        let answer = oracle.ask(&case);
        let mut ours = ours::Ours::of(&case);
        for (step, verdicts) in case.filters.iter().zip(&answer.filters) {
            let kept = ours.filter(&case, step);
            for (host, verdict) in case.hosts.iter().zip(verdicts) {
                let is_kept = kept.contains(&host.name);
                let at = match verdict.as_str() {
                    "keep" => 0,
                    "drop" => 1,
                    _ => 2,
                };
                seen.entry(step.name.clone()).or_default()[at] += 1;
                let good = match at {
                    0 => is_kept,
                    1 => !is_kept,
                    _ => tolerated(&step.name, is_kept),
                };
                if !good {
                    wrong.push(format!(
                        "seed {seed}: {} of {}: Nova says {verdict}, kept here: {is_kept}",
                        step.name, host.name
                    ));
                }
            }
        }
        if case.rebuild {
            continue;
        }
        for (step, theirs) in case.weighers.iter().zip(&answer.weighers) {
            let found = ours.weigh(&case, step);
            wrong.extend(weights_differ(&case, seed, step, theirs, &found));
            seen.entry(step.name.clone()).or_default()[0] += 1;
        }
    }
    for (step, [kept, dropped, raised]) in &seen {
        println!("{step}: {kept} kept, {dropped} dropped, {raised} raised");
        // Cases that never drop or never keep a host would prove nothing.
        let filter = step.contains("Filter") || step.contains("Isolation");
        let idle = filter && step != "AllHostsFilter" && (*kept == 0 || *dropped == 0);
        assert!(!idle, "{step}: the cases do not try it: {kept} kept, {dropped} dropped");
    }
    report(&wrong);
}

fn weights_differ(
    case: &Case,
    seed: u64,
    step: &cases::Step,
    theirs: &oracle::Weights,
    ours: &[(f64, f64)],
) -> Vec<String> {
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-6 * a.abs().max(1.0);
    let mut wrong = Vec::new();
    for (at, host) in case.hosts.iter().enumerate() {
        let (raw, score) = ours[at];
        if let Theirs::Number(number) = theirs.raw[at]
            && !close(number, raw)
        {
            wrong.push(format!("seed {seed}: {} of {}: Nova says {number}, here {raw}", step.name, host.name));
        }
        if let Some(scores) = &theirs.scores
            && !close(scores[at], score)
        {
            wrong.push(format!("seed {seed}: {} of {}: Nova adds {}, here {score}", step.name, host.name, scores[at]));
        }
    }
    wrong
}

/// The shipped pipeline `nova-default` against the whole of Nova's filters and weighers.
#[test]
fn the_default_pipeline_ranks_as_nova() {
    let Some((mut oracle, seeds)) = prepared(1000) else { return };
    let (mut wrong, mut hosts, count) = (Vec::new(), 0, seeds.end - seeds.start);
    for seed in seeds {
        let case = Case::of_ranking(&mut Random::of(seed));
        let Answer { ranking: Some(theirs), filters, .. } = oracle.ask(&case) else {
            panic!("seed {seed}: a weigher of Nova raised");
        };
        if filters.iter().flatten().any(|verdict| verdict.starts_with("raise")) {
            // Nova gives no ranking at all.
            continue;
        }
        let ours = ours::Ours::of(&case).rank(&case);
        hosts += theirs.len() as u64;
        wrong.extend(
            order_differs(&theirs, &ours).map(|what| format!("seed {seed}: {what}\n Nova {theirs:?}\n here {ours:?}")),
        );
    }
    assert!(hosts > count, "{count} cases rank {hosts} hosts: too few to prove anything");
    report(&wrong);
}

/// Weights equal, and the order too: ties in the caller's order. Where Nova's weights differ by less than
/// scores are rounded to, either order is right.
fn order_differs(theirs: &[(String, f64)], ours: &[(String, f64)]) -> Option<String> {
    if theirs.len() != ours.len() {
        return Some(format!("{} hosts in Nova, {} here", theirs.len(), ours.len()));
    }
    let weight = |name: &str| theirs.iter().find(|(host, _)| host == name).map(|(_, weight)| *weight);
    for ((their_host, their_weight), (host, score)) in theirs.iter().zip(ours) {
        let Some(weight) = weight(host) else { return Some(format!("{host} is dropped in Nova")) };
        if (weight - score).abs() > 1e-6 {
            return Some(format!("{host} weighs {weight} in Nova, {score} here"));
        }
        let noise = weight.to_bits() != their_weight.to_bits() && (weight - their_weight).abs() <= 1e-9;
        if host != their_host && !noise {
            return Some(format!("{host} is where Nova has {their_host}"));
        }
    }
    None
}

fn report(wrong: &[String]) {
    for line in wrong.iter().take(40) {
        println!("{line}");
    }
    assert!(wrong.is_empty(), "{} answers differ from Nova's", wrong.len());
}
