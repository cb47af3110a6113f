//! `ctl place`: asks for a host, from flags or from a file.

mod message;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api::proto::v1;
use operators::quantity::Quantity;
use scheduler::decision::NOT_TOGETHER;
use serde_json::Value;
use tonic::{Code, Status};
use uuid::Uuid;

use self::message::message;
use super::explain::explanation;
use super::{Client, Target, input};
use crate::cli::output::{Format, emit};
use crate::cli::{Failure, wording};

const EXAMPLES: &str = "\
Examples:
  pallium ctl place --vcpus 4 --memory 16Gi --zone az-a --dry-run
  pallium ctl place --vcpus 4 --memory 16Gi --disk 40 --count 3
  pallium ctl place --vcpus 4 --memory 16Gi --trait HW_CPU_X86_AVX512F \\
      --candidate node001-bb00 --candidate node002-bb00
  pallium ctl place --request hook-body.json --dry-run

--request takes a body of Nova's external-scheduler hook, or the JSON of a
PlaceRequest. Exit code 1 when nothing fits, or not all of several.";

/// Ask for a host, and claim it
#[derive(Debug, Default, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Read the request from a file, or - for stdin
    #[arg(long, value_name = "FILE", conflicts_with = "ask")]
    request: Option<PathBuf>,
    /// Decide and explain, claim and record nothing
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: tell the story of this host too; may be given several times
    #[arg(long = "host", value_name = "NAME", requires = "dry_run")]
    hosts: Vec<String>,
    /// Idempotency key, a UUID of version 7: a repeat gives the first answer
    #[arg(long, value_name = "UUID")]
    request_id: Option<String>,
    #[command(flatten)]
    ask: Ask,
}

/// A request by flags.
#[derive(Debug, Default, clap::Args)]
#[group(id = "ask", multiple = true, required = false)]
pub struct Ask {
    /// VCPUs of one instance
    #[arg(long, value_name = "N")]
    vcpus: Option<u64>,
    /// Memory of one instance: MiB, or a quantity such as 16Gi
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    memory: Option<u64>,
    /// Disk of one instance, GiB
    #[arg(long, value_name = "GIB")]
    disk: Option<u64>,
    /// Amount of another resource class; may be given several times
    #[arg(long = "resource", value_name = "CLASS=N", value_parser = resource)]
    resources: Vec<(String, u64)>,
    /// Availability zone
    #[arg(long)]
    zone: Option<String>,
    /// Trait that the host must have; may be given several times
    #[arg(long = "trait", value_name = "NAME")]
    traits: Vec<String>,
    /// Trait that the host must not have; may be given several times
    #[arg(long = "without-trait", value_name = "NAME")]
    without: Vec<String>,
    /// Flavor extra spec, as in capabilities:hypervisor_type=QEMU; may be given several times
    #[arg(long = "extra-spec", value_name = "KEY=VALUE", value_parser = pair)]
    extra_specs: Vec<(String, String)>,
    /// Flavor name, for the record
    #[arg(long)]
    flavor: Option<String>,
    /// Owner project
    #[arg(long, value_name = "ID")]
    project: Option<String>,
    /// Uuid of an instance to place; may be given several times; one is made up when absent
    #[arg(long = "instance", value_name = "UUID", conflicts_with = "count")]
    instances: Vec<String>,
    /// Number of instances to place, all or none
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// Host to choose from; may be given several times; every host when absent
    #[arg(long = "candidate", value_name = "HOST")]
    candidates: Vec<String>,
    /// Host never to use; may be given several times
    #[arg(long = "ignore", value_name = "HOST")]
    ignore: Vec<String>,
    /// create, resize, live_migration, evacuate, …; derived when absent
    #[arg(long)]
    intent: Option<String>,
    /// Pipeline by name; inferred when absent
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
    /// Domain
    #[arg(long)]
    domain: Option<String>,
}

fn memory(text: &str) -> Result<u64, String> {
    // A bare number is in Placement's unit.
    if let Ok(mib) = text.parse() {
        return Ok(mib);
    }
    Quantity::parse(text)?.ceil(20).ok_or_else(|| "too large".to_owned())
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE expected")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn resource(text: &str) -> Result<(String, u64), String> {
    let (class, amount) = text.split_once('=').ok_or("CLASS=N expected, as in VGPU=1")?;
    Ok((class.to_owned(), amount.parse().map_err(|_| format!("'{amount}' given, a whole number expected"))?))
}

pub async fn run(target: &Target, format: Format, args: &Args) -> Result<(), Failure> {
    let mut request = match &args.request {
        Some(path) => read(path)?,
        None => args.ask.request()?,
    };
    request.dry_run |= args.dry_run;
    request.request_id = args.request_id.clone().or(request.request_id);
    let client = Client::connect(target).await?;
    if request.dry_run {
        let ask =
            v1::ExplainRequest { request: Some(request), hosts: args.hosts.clone(), ..v1::ExplainRequest::default() };
        let answer = client.scheduler().explain(ask).await.map_err(|status| client.refusal(&status))?.into_inner();
        emit(format, &answer, || explanation(&answer, !args.hosts.is_empty()))?;
        let decision = answer.detail.and_then(|detail| detail.decision).unwrap_or_default();
        return fits(&decision);
    }
    // With a key it is asked again of the next leader when this one goes, and still claims once.
    let id = request.request_id.get_or_insert_with(|| Uuid::now_v7().to_string()).clone();
    let answer = client.scheduler().place(request).await.map_err(|status| again(&client, &status, &id))?.into_inner();
    let decision = answer.decision.clone().unwrap_or_default();
    emit(format, &answer, || placed(&decision))?;
    fits(&decision)
}

/// A refusal; one that leaves open what became of the claim names the id to ask again with.
fn again(client: &Client, status: &Status, id: &str) -> Failure {
    let refusal = client.refusal(status);
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Internal | Code::Cancelled => {
            Failure::new(format!("{refusal}; to claim only once, repeat it with --request-id {id}"))
        }
        _ => refusal,
    }
}

fn fits(decision: &v1::Decision) -> Result<(), Failure> {
    if let Some(note) = not_together(decision) {
        return Err(Failure::new(note));
    }
    if decision.placements.is_empty() && decision.hosts.is_empty() {
        return Err(Failure::new("no host fits"));
    }
    Ok(())
}

/// How many of several fit, when not all do.
fn not_together(decision: &v1::Decision) -> Option<&str> {
    decision.notes.iter().map(String::as_str).find(|note| note.ends_with(NOT_TOGETHER))
}

fn placed(decision: &v1::Decision) -> String {
    let mut out: Vec<String> =
        decision.placements.iter().map(|placed| format!("{} on {}", placed.consumer, placed.host)).collect();
    if decision.placements.is_empty() && !decision.hosts.is_empty() && not_together(decision).is_none() {
        let first: Vec<&str> = decision.hosts.iter().take(5).map(|host| host.host.as_str()).collect();
        out.push(format!("hosts in order: {}", first.join(", ")));
    }
    let drops = wording::drops_of(&decision.steps);
    let fit = super::explain::fit(decision);
    let unknown = decision.unknown_hosts.len() as u64;
    out.push(wording::wrapped(&wording::outcome(fit, decision.candidates, unknown, &drops), 80, "  "));
    if decision.id > 0 {
        out.push(format!("why: pallium ctl explain {}", decision.id));
    }
    out.join("\n")
}

impl Ask {
    /// The request.
    pub fn request(&self) -> Result<v1::PlaceRequest, Failure> {
        let mut resources: BTreeMap<String, u64> = self.resources.iter().cloned().collect();
        for (class, amount) in [("VCPU", self.vcpus), ("MEMORY_MB", self.memory), ("DISK_GB", self.disk)] {
            resources.extend(amount.map(|amount| (class.to_owned(), amount)));
        }
        if resources.is_empty() {
            let message = "nothing to place: give --vcpus and --memory (or --resource), or --request FILE";
            return Err(Failure::Usage(message.to_owned()));
        }
        let candidate = |host: &String| v1::Candidate { host: host.clone(), ..v1::Candidate::default() };
        Ok(v1::PlaceRequest {
            domain: self.domain.clone(),
            consumers: self.instances.clone(),
            count: self.count.unwrap_or(0),
            pipeline: self.pipeline.clone(),
            project_id: self.project.clone(),
            intent: self.intent.clone(),
            resources,
            flavor: self.flavor.clone(),
            extra_specs: self.extra_specs.iter().cloned().collect(),
            required_traits: self.traits.clone(),
            forbidden_traits: self.without.clone(),
            availability_zone: self.zone.clone(),
            candidates: self.candidates.iter().map(candidate).collect(),
            ignore_hosts: self.ignore.clone(),
            ..v1::PlaceRequest::default()
        })
    }
}

/// A request from a file.
pub fn read(path: &Path) -> Result<v1::PlaceRequest, Failure> {
    let (name, text) = input::read(path)?;
    parse(&text).map_err(|error| Failure::new(format!("{name}: {error}")))
}

fn parse(text: &str) -> Result<v1::PlaceRequest, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    if value.get("spec").is_some() {
        let request = api::nova::translate(text.as_bytes()).map_err(|error| format!("hook request: {error}"))?;
        return Ok(message(request));
    }
    serde_json::from_value(value).map_err(|error| {
        format!("neither a hook request (with 'spec' and 'hosts') nor a PlaceRequest (as of POST /v1/place): {error}")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn memory_is_mib_or_a_quantity() {
        assert_eq!(memory("16384"), Ok(16_384));
        assert_eq!(memory("16Gi"), Ok(16_384));
        assert_eq!(memory("1G"), Ok(954));
        assert!(memory("16GB").is_err());
    }

    #[test]
    fn flags_make_a_request() {
        let ask = Ask {
            vcpus: Some(4),
            memory: Some(1024),
            resources: vec![("VGPU".into(), 1)],
            candidates: vec!["h1".into()],
            ..Ask::default()
        };
        let request = ask.request().unwrap();
        assert_eq!(request.resources.len(), 3);
        assert_eq!(request.candidates[0].host, "h1");
        assert!(matches!(Ask::default().request(), Err(Failure::Usage(_))));
    }

    #[test]
    fn files_hold_hook_bodies_or_messages() {
        for (name, text) in simulation::fixtures::REQUESTS {
            let request = parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(request.consumers.len(), 1, "{name}");
            assert!(!request.candidates.is_empty(), "{name}");
        }
        assert_eq!(parse("{\"resources\": {\"VCPU\": 2}}").unwrap().resources["VCPU"], 2);
        for (text, want) in
            [("{", "no JSON"), ("{\"colour\": 1}", "unknown field `colour`"), ("{\"spec\": 1}", "hook request")]
        {
            let error = parse(text).unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }
}
