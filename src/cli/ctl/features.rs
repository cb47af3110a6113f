//! `ctl features`: what sources of metrics say of hosts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use api::proto::v1;
use clap::Subcommand;
use serde::Serialize;

use super::{Client, Target, hosts, input};
use crate::cli::output::{Format, complain, emit, listing, number, text};
use crate::cli::{Failure, wording};

const EXAMPLES: &str = "\
Examples:
  pallium ctl features
  pallium ctl features list --host 'nova-compute-*' --feature 'host-util*'
  pallium ctl features apply features.yaml
  pallium ctl features delete node001 load 'vmware-project-noisiness.*'

Features are numbers that sources of metrics say of hosts. Weighers and rules
read them; one stays until it is replaced or deleted.";

const FILE: &str = "\
Example:
  pallium ctl features apply features.yaml

FILE is YAML or JSON, as the body of POST /v1/features:
  hosts:
    - name: node001
      values: {load: 0.7, vmware-project-noisiness.4f1c: 40}
      forget: [\"vmware-project-noisiness.*\"]   # before the values are taken
      observed_at: 1764130000000               # ms since 1970; absent: now
Hosts must be known already. A feature that is not named stays as it is.";

/// List, set and delete features of hosts
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List features with their age (as without a command)
    #[command(after_help = "Example: pallium ctl features list --host node001 -o json")]
    List(List),
    /// Set and forget features of the hosts in a file
    #[command(after_help = FILE)]
    Apply {
        /// File, or - for stdin
        file: PathBuf,
    },
    /// Delete features of hosts
    #[command(after_help = "Example: pallium ctl features delete 'node*' load 'noise.*'")]
    Delete {
        /// Host; a * at the end matches any rest
        host: String,
        /// Features; a * at the end matches any rest
        #[arg(required = true)]
        features: Vec<String>,
        /// Domain of the hosts
        #[arg(long, default_value = "nova")]
        domain: String,
    },
}

#[derive(Debug, Default, clap::Args)]
struct List {
    /// Only this host; a * at the end matches any rest
    #[arg(long, visible_alias = "name", value_name = "NAME")]
    host: Option<String>,
    /// Only this feature; a * at the end matches any rest
    #[arg(long, value_name = "NAME")]
    feature: Option<String>,
    /// Only this domain: nova, cinder, manila, machines or pods
    #[arg(long)]
    domain: Option<String>,
}

/// Hosts in one page, and names in one message: each host may have a thousand features.
const PAGE: u32 = 200;
const CHUNK: usize = 50_000;

pub async fn run(target: &Target, format: Format, args: Args) -> Result<(), Failure> {
    match args.command.unwrap_or(Command::List(List::default())) {
        Command::List(list) => {
            let found = find(&Client::connect(target).await?, &list).await?;
            emit(format, &found, || table(&found.features))
        }
        Command::Apply { file } => {
            let (name, text) = input::read(&file)?;
            let request: v1::ApplyFeaturesRequest = serde_norway::from_str(&text).map_err(|error| {
                Failure::new(format!("{name}: {error}; 'hosts' with 'name' and 'values' of each expected"))
            })?;
            if request.hosts.is_empty() {
                return Err(Failure::new(format!("{name}: no host in it, at least one expected under 'hosts'")));
            }
            apply(&Client::connect(target).await?, format, request.hosts).await
        }
        Command::Delete { host, features, domain } => {
            let client = Client::connect(target).await?;
            let list = List { host: Some(host.clone()), feature: None, domain: Some(domain) };
            let known = find(&client, &list).await?.features;
            let mut hosts = BTreeMap::new();
            for known in known.into_iter().filter(|known| features.iter().any(|name| matches(name, &known.feature))) {
                let key = (known.domain, known.host, known.hypervisor_hostname);
                hosts.entry(key).or_insert_with(Vec::new).push(known.feature);
            }
            if hosts.is_empty() {
                return Err(Failure::new(format!("no host '{host}' has a feature {}", features.join(" or "))));
            }
            let forget = |((domain, name, hypervisor_hostname), forget)| v1::HostFeatures {
                domain: Some(domain),
                name,
                hypervisor_hostname,
                forget,
                ..v1::HostFeatures::default()
            };
            apply(&client, format, hosts.into_iter().map(forget).collect()).await
        }
    }
}

/// A feature of a host.
#[derive(Debug, Serialize)]
struct Found {
    domain: String,
    host: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hypervisor_hostname: Option<String>,
    feature: String,
    value: f64,
    observed_at: u64,
}

/// What is listed.
#[derive(Debug, Serialize)]
struct Listed {
    features: Vec<Found>,
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |begin| name.starts_with(begin))
}

async fn find(client: &Client, list: &List) -> Result<Listed, Failure> {
    let request = v1::ListHostsRequest {
        domain: list.domain.clone(),
        name: list.host.clone(),
        page_size: PAGE,
        ..v1::ListHostsRequest::default()
    };
    let mut features = Vec::new();
    for host in hosts::all(client, request, usize::MAX, |host| !host.features.is_empty()).await? {
        let wanted = |name: &String| list.feature.as_ref().is_none_or(|pattern| matches(pattern, name));
        features.extend(host.features.iter().filter(|(name, _)| wanted(name)).map(|(name, value)| Found {
            domain: host.domain.clone(),
            host: host.name.clone(),
            hypervisor_hostname: host.hypervisor_hostname.clone(),
            feature: name.clone(),
            value: *value,
            observed_at: host.features_observed_at.get(name).copied().unwrap_or(0),
        }));
    }
    Ok(Listed { features })
}

fn table(features: &[Found]) -> String {
    if features.is_empty() {
        return "no features".to_owned();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let columns = [text("HOST", 0), text("DOMAIN", 2), text("FEATURE", 0), number("VALUE", 0), number("AGE", 1)];
    let rows: Vec<Vec<String>> = features
        .iter()
        .map(|known| {
            let age = wording::duration(now.saturating_sub(known.observed_at));
            vec![known.host.clone(), known.domain.clone(), known.feature.clone(), known.value.to_string(), age]
        })
        .collect();
    format!("{}\n{}", listing(&columns, &rows), wording::count(features.len() as u64, "feature"))
}

fn chunks(hosts: Vec<v1::HostFeatures>) -> Vec<Vec<v1::HostFeatures>> {
    let (mut out, mut names) = (vec![Vec::new()], 0);
    for host in hosts {
        names += 1 + host.values.len() + host.forget.len();
        if names > CHUNK {
            names = 0;
            out.push(Vec::new());
        }
        out.last_mut().expect("it begins with one").push(host);
    }
    out
}

async fn apply(client: &Client, format: Format, hosts: Vec<v1::HostFeatures>) -> Result<(), Failure> {
    let mut total = v1::ApplyHostsResponse::default();
    for hosts in chunks(hosts) {
        let request = v1::ApplyFeaturesRequest { hosts };
        let done = client.inventory().apply_features(request).await.map_err(|status| client.refusal(&status))?;
        let done = done.into_inner();
        total.changed += done.changed;
        total.unchanged += done.unchanged;
        total.stale += done.stale;
        total.refused += done.refused;
        total.results.extend(done.results);
    }
    for refused in total.results.iter().filter(|result| result.result == "refused") {
        let why = refused.message.as_deref().unwrap_or("no reason was given");
        complain(&format!("refused: {}: {why}", refused.name));
    }
    emit(format, &total, || {
        let (changed, unchanged) = (wording::count(total.changed, "host"), total.unchanged);
        let late = if total.stale > 0 { format!(", {} older than what is known", total.stale) } else { String::new() };
        format!("{changed} changed, {unchanged} unchanged{late}")
    })?;
    if total.refused > 0 {
        return Err(Failure::new(format!("{} refused", wording::count(total.refused, "host"))));
    }
    Ok(())
}
