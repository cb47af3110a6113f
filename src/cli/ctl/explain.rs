//! `ctl explain`: why a decision came out as it did, for the person on call.

use api::proto::v1;
use uuid::Uuid;

use super::Client;
use crate::cli::output::{Format, emit, listing, number, text};
use crate::cli::{Failure, wording};

const EXAMPLES: &str = "\
Examples:
  pallium ctl explain 17
  pallium ctl explain 198d1710-5a6c-4990-8a9f-9ea722780747
  pallium ctl explain 17 --host node001-bb00 --host node002-bb00
  pallium ctl explain 17 --steps
  pallium ctl explain 17 --all -o json

An instance stands for its newest decision. The number of a decision is in the
header X-Pallium-Decision of the hook's answer and in `pallium ctl decisions`.";

/// Tell why a decision came out as it did
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Number of a decision, or uuid of an instance
    #[arg(value_name = "DECISION|INSTANCE", value_parser = target)]
    target: Target,
    /// Tell the story of this host too; may be given several times
    #[arg(long = "host", value_name = "NAME", conflicts_with = "all")]
    hosts: Vec<String>,
    /// Tell the story of every host
    #[arg(long)]
    all: bool,
    /// List every step: hosts in and out, and why it did not run
    #[arg(long)]
    steps: bool,
    /// Domain of the instance
    #[arg(long, default_value = "nova")]
    domain: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Decision(u64),
    Instance(Uuid),
}

fn target(given: &str) -> Result<Target, String> {
    if let Ok(number) = given.parse() {
        return Ok(Target::Decision(number));
    }
    let uuid = Uuid::try_parse(given);
    uuid.map(Target::Instance).map_err(|_| "the number of a decision or the uuid of an instance expected".to_owned())
}

pub async fn run(client: &Client, format: Format, args: &Args) -> Result<(), Failure> {
    let hosts = if args.all { vec!["*".to_owned()] } else { args.hosts.clone() };
    let mut request = v1::ExplainRequest { hosts, ..v1::ExplainRequest::default() };
    match args.target {
        Target::Decision(id) => request.decision = Some(id),
        Target::Instance(uuid) => {
            request.consumer = Some(uuid.to_string());
            request.domain = Some(args.domain.clone());
        }
    }
    let answer = client.scheduler().explain(request).await.map_err(|status| client.refusal(&status))?.into_inner();
    let asked = args.all || !args.hosts.is_empty();
    emit(format, &answer, || {
        let steps = answer.detail.as_ref().and_then(|detail| detail.decision.as_ref()).filter(|_| args.steps);
        let told = explanation(&answer, asked);
        steps.map_or_else(|| told.clone(), |decision| format!("{told}\n\n{}", steps_of(decision)))
    })
}

fn steps_of(decision: &v1::Decision) -> String {
    let columns = [text("STEP", 0), text("KIND", 2), number("IN", 0), number("OUT", 0), text("NOTE", 1)];
    let rows: Vec<Vec<String>> = decision
        .steps
        .iter()
        .map(|step| {
            let note = match (&step.skipped, step.lowest, step.highest) {
                (Some(why), _, _) => format!("not run: {why}"),
                (None, Some(low), Some(high)) => {
                    format!("x {}, activations {low:.3} to {high:.3}", step.multiplier.unwrap_or(1.0))
                }
                _ => String::new(),
            };
            let name = wording::step(&step.name).to_owned();
            vec![name, step.kind.clone(), step.hosts_in.to_string(), step.hosts_out.to_string(), note]
        })
        .collect();
    listing(&columns, &rows)
}

/// Hosts of the answer that are shown.
const FIRST: usize = 5;
/// Width of text.
const WIDTH: usize = 80;

/// An explanation in words. `asked`: the stories are of hosts that were asked for.
pub fn explanation(answer: &v1::ExplainResponse, asked: bool) -> String {
    let detail = answer.detail.as_ref();
    let decision = detail.and_then(|detail| detail.decision.as_ref());
    let Some(story) = Story::of(answer.record.as_ref(), decision) else {
        return "the server told nothing of this decision".to_owned();
    };
    let mut out = vec![wording::wrapped(&story.head, WIDTH, "  ")];
    if !story.sub.is_empty() {
        out.push(wording::wrapped(&story.sub, WIDTH, "  "));
    }
    out.push(String::new());
    let outcome = wording::outcome(story.fit, story.candidates, story.unknown, &story.drops);
    out.push(wording::wrapped(&outcome, WIDTH, "  "));
    out.push(wording::wrapped(&wording::claim(story.claim, &story.claimed), WIDTH, "  "));
    if story.fit > 0 {
        out.push(String::new());
        let shown = story.hosts.iter().take(FIRST).enumerate();
        out.extend(shown.map(|(at, host)| format!("{:>3}. {:<40} {:>10.4}", at + 1, host.host, host.score)));
        let more = story.fit.saturating_sub(story.hosts.len().min(FIRST) as u64);
        if more > 0 {
            out.push(format!("     and {} more", wording::grouped(more)));
        }
    }
    let stories = detail.map(|detail| detail.hosts.as_slice()).unwrap_or_default();
    if asked && !stories.is_empty() {
        out.push(String::new());
        out.extend(stories.iter().map(|story_of| wording::story(story_of, story.fit)));
    } else if let Some(first) = stories.first().filter(|first| !first.scores.is_empty()) {
        out.push(String::new());
        out.push(wording::story(first, story.fit));
    }
    if let Some(remedies) = &answer.remedies {
        out.push(String::new());
        out.push(wording::remedies(remedies));
    }
    if let Some(decision) = decision {
        out.extend(decision.notes.iter().map(|note| wording::wrapped(&format!("note: {note}"), WIDTH, "  ")));
    }
    if let Some(note) = &answer.note {
        out.push(wording::wrapped(&format!("note: {note}"), WIDTH, "  "));
    }
    out.join("\n")
}

/// The short record or the full decision: whichever there is.
struct Story<'a> {
    head: String,
    sub: String,
    fit: u64,
    candidates: u64,
    unknown: u64,
    drops: wording::Drops,
    claim: &'a str,
    claimed: Vec<String>,
    hosts: &'a [v1::RankedHost],
}

impl<'a> Story<'a> {
    fn of(record: Option<&'a v1::DecisionRecord>, decision: Option<&'a v1::Decision>) -> Option<Self> {
        let full = |decision: &'a v1::Decision| decision.hosts.as_slice();
        if let Some(record) = record {
            let mut sub = vec![format!("{} UTC", wording::utc(record.wall_ms))];
            sub.extend(record.project_id.as_ref().map(|project| format!("project {project}")));
            sub.extend(Some(&record.trace_id).filter(|id| !id.is_empty()).map(|id| format!("request {id}")));
            let flavor = record.flavor.as_ref().map(|flavor| format!(" ({flavor})")).unwrap_or_default();
            let consumers = record.consumers.join(", ");
            return Some(Self {
                head: format!(
                    "decision {}: {} of {consumers}{flavor}, pipeline {}",
                    record.id,
                    record.intent,
                    wording::pipeline(&record.pipeline, record.pipeline_version)
                ),
                sub: sub.join(", "),
                fit: record.hosts_out,
                candidates: record.candidates,
                unknown: record.unknown_hosts,
                drops: wording::drops_of_record(record),
                claim: &record.claim,
                claimed: record.claimed.clone(),
                hosts: decision.map_or(record.top.as_slice(), full),
            });
        }
        let decision = decision?;
        Some(Self {
            head: format!(
                "dry run: {}, pipeline {}",
                decision.intent,
                wording::pipeline(&decision.pipeline, decision.pipeline_version)
            ),
            sub: String::new(),
            fit: fit(decision),
            candidates: decision.candidates,
            unknown: decision.unknown_hosts.len() as u64,
            drops: wording::drops_of(&decision.steps),
            claim: &decision.claim,
            claimed: decision.placements.iter().map(|placement| placement.host.clone()).collect(),
            hosts: full(decision),
        })
    }
}

/// Hosts that passed every filter; the answer may hold fewer of them.
pub fn fit(decision: &v1::Decision) -> u64 {
    let last = decision.steps.iter().rfind(|step| step.kind == "filter");
    last.map_or(decision.candidates, |last| last.hosts_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_number_or_a_uuid() {
        assert_eq!(target("17"), Ok(Target::Decision(17)));
        assert!(matches!(target("198d1710-5a6c-4990-8a9f-9ea722780747"), Ok(Target::Instance(_))));
        assert!(target("node-1").is_err());
    }

    fn record() -> v1::DecisionRecord {
        v1::DecisionRecord {
            id: 17,
            wall_ms: 1_767_225_600_000,
            consumers: vec!["198d1710-5a6c-4990-8a9f-9ea722780747".into()],
            intent: "create".into(),
            pipeline: "kvm-general-purpose-load-balancing".into(),
            flavor: Some("g_c4_m16".into()),
            project_id: Some("4af8046d8f1bf1c78fe1526fa62c242b".into()),
            candidates: 120,
            drops: vec![v1::StepDrops {
                step: "filter_has_enough_capacity".into(),
                reasons: vec![
                    v1::DropReason { reason: "short of VCPU".into(), hosts: 2 },
                    v1::DropReason { reason: "short of MEMORY_MB".into(), hosts: 114 },
                ],
            }],
            hosts_out: 4,
            top: vec![v1::RankedHost { host: "node008-bb01".into(), score: 1.25 }],
            claimed: vec!["node008-bb01".into()],
            claim: "made".into(),
            ..v1::DecisionRecord::default()
        }
    }

    #[test]
    fn an_explanation_fits_a_terminal_and_says_what_matters() {
        let answer = v1::ExplainResponse {
            record: Some(record()),
            detail: Some(v1::DecisionDetail {
                decision: None,
                hosts: vec![v1::HostStory {
                    host: "node013-bb01".into(),
                    dropped_by: Some("filter_has_enough_capacity".into()),
                    reason: Some("short of VCPU: 4 asked, 2 free".into()),
                    ..v1::HostStory::default()
                }],
            }),
            note: None,
            remedies: None,
        };
        let told = explanation(&answer, true);
        for part in [
            "decision 17: create of 198d1710-5a6c-4990-8a9f-9ea722780747 (g_c4_m16)",
            "2026-01-01 00:00:00 UTC",
            "4 of 120 hosts fit; 116 dropped by has_enough_capacity",
            "claimed on node008-bb01",
            "and 3 more",
            "node013-bb01: dropped by has_enough_capacity: short of VCPU: 4 asked, 2 free",
        ] {
            assert!(told.contains(part), "'{part}' not in:\n{told}");
        }
        assert!(told.lines().all(|line| line.chars().count() <= 80), "{told}");
    }

    #[test]
    fn nothing_fits_is_said_plainly() {
        let mut record = record();
        record.hosts_out = 0;
        record.claim = "none".into();
        record.claimed.clear();
        record.top.clear();
        let answer =
            v1::ExplainResponse { record: Some(record), detail: None, note: Some("no detail".into()), remedies: None };
        let told = explanation(&answer, false);
        assert!(told.contains("0 of 120 hosts fit") && told.contains("nothing claimed"), "{told}");
        assert!(told.ends_with("note: no detail"), "{told}");
    }
}
