//! `ctl ha policy`: how bold failover is with which hosts.

use std::path::{Path, PathBuf};

use api::proto::ha;
use clap::Subcommand;
use operators::document::{Documents, path_steps};
use scheduler::ha::policy::FailoverPolicy;
use scheduler::ha::policy::document;
use serde_json::Value;

use super::show::mode_of;
use super::{Client, Target, Why, input};
use crate::cli::output::{Format, complain, emit, listing, number, print, text};
use crate::cli::{Failure, wording};

const EXAMPLES: &str = "\
Examples:
  pallium ctl ha policy show                    # all that are in force
  pallium ctl ha policy show --host compute-17  # what a host is under
  pallium ctl ha policy show az-a > az-a.yaml   # to edit it
  pallium ctl ha policy lint az-a.yaml          # without a server
  pallium ctl ha policy diff az-a.yaml          # what it would change
  pallium ctl ha policy apply az-a.yaml --reason 'az-a acts from today on'
  pallium ctl ha policy delete az-a --reason 'trial is over'

FILE has one or more documents:
  apiVersion: pallium.dev/v1alpha1
  kind: FailoverPolicy
  metadata: {name: az-a}
  spec:
    selector: {domain: 'az:az-a'}     # or hosts, aggregates, traits,
                                      # matchLabels, matchExpressions
    mode: dry-run                     # off, dry-run or enforce
    isolationResponse: fence_after 90s  # or hold
    fencing: {autoPowerOn: true, leaseMode: 'off'}
    errorInstances: skip              # or evacuate
    restartInPlace: true
    rates: {evacuationsFromHost: 16, evacuationsToHost: 4}
    drain: {maxUnavailable: 2, keepSpare: true, forceComplete: false}

Of several policies for a host the most specific wins, key by key. One host
alone: 'selector: {hosts: [compute-17]}'. docs/failover.md has the keys.";

/// See, check and set how bold failover is with which hosts
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Policies in force; the document of one; or what a host is under
    #[command(after_help = "Examples:
  pallium ctl ha policy show
  pallium ctl ha policy show az-a
  pallium ctl ha policy show --host compute-17")]
    Show {
        /// Name
        name: Option<String>,
        /// What this host is under, key by key; Nova's name of it, or its id
        #[arg(long, conflicts_with = "name")]
        host: Option<String>,
    },
    /// Take in the policies of a file, or new revisions of them
    #[command(after_help = "Example: pallium ctl ha policy apply az-a.yaml --reason 'a trial'

If anything is wrong with one of them none is applied.")]
    Apply {
        /// YAML or JSON, any number of documents; - is stdin
        file: PathBuf,
        #[command(flatten)]
        why: Why,
    },
    /// Show what a file would change, and for which hosts; changes nothing
    #[command(after_help = "Example: pallium ctl ha policy diff az-a.yaml")]
    Diff {
        /// YAML or JSON, any number of documents; - is stdin
        file: PathBuf,
    },
    /// Check the policies of a file without a server
    #[command(after_help = "Example: pallium ctl ha policy lint az-a.yaml")]
    Lint {
        /// YAML or JSON, any number of documents; - is stdin
        file: PathBuf,
    },
    /// Take a policy away: its hosts are under less specific ones then
    #[command(after_help = "Example: pallium ctl ha policy delete az-a --reason 'trial is over'")]
    Delete {
        /// Name
        name: String,
        #[command(flatten)]
        why: Why,
    },
}

pub async fn run(target: &Target, format: Format, args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Lint { file } => lint(format, &read(&file)?),
        Command::Show { name, host } => show(&Client::connect(target).await?, format, name, host).await,
        Command::Diff { file } => {
            let policies = read(&file)?;
            let client = Client::connect(target).await?;
            told(format, &checked(&client, &policies).await?, "would change")
        }
        Command::Apply { file, why } => {
            let policies = read(&file)?;
            let client = Client::connect(target).await?;
            // All of them are looked at before one is applied.
            checked(&client, &policies).await?;
            let mut changes = Vec::new();
            for policy in &policies {
                let asked = ha::FailoverPolicyRequest {
                    document: Some(document::write(policy).to_string()),
                    actor: why.actor.clone(),
                    reason: why.reason.clone(),
                };
                let done = client.failover().apply_policy(asked).await;
                changes.push(done.map_err(|status| client.refusal(&status))?.into_inner());
            }
            told(format, &changes, "is changed")
        }
        Command::Delete { name, why: Why { reason, actor } } => {
            let client = Client::connect(target).await?;
            let asked = ha::DeleteFailoverPolicyRequest { name, actor, reason };
            let done = client.failover().delete_policy(asked).await.map_err(|status| client.refusal(&status))?;
            told(format, &[done.into_inner()], "is changed")
        }
    }
}

/// The policies of a file, or everything that is wrong with them: line, path, given, expected.
fn read(file: &Path) -> Result<Vec<FailoverPolicy>, Failure> {
    let (named, text) = input::read(file)?;
    let documents = Documents::parse(&text).map_err(|error| {
        let line = error.line.map(|line| format!("line {line}: ")).unwrap_or_default();
        Failure::new(format!("{named}: {line}no YAML or JSON: {}", error.message))
    })?;
    let mut policies: Vec<FailoverPolicy> = Vec::new();
    let mut faults = Vec::new();
    let mut fault = |tree, path: &str, message: &str| {
        let line = documents.line(tree, &path_steps(path)).map(|line| format!("line {line}: ")).unwrap_or_default();
        faults.push(format!("{named}: {line}{path}: {message}"));
    };
    for (at, tree) in documents.trees.iter().enumerate() {
        match document::read(tree) {
            Err(wrong) => wrong.iter().for_each(|wrong| fault(at, &wrong.path, &wrong.message)),
            Ok(policy) if policies.iter().any(|other| other.name == policy.name) => {
                fault(at, "metadata.name", &format!("'{}' given, which is in the file twice", policy.name));
            }
            Ok(policy) => policies.push(policy),
        }
    }
    if !faults.is_empty() {
        return Err(Failure::new(faults.join("\n")));
    }
    if policies.is_empty() {
        return Err(Failure::new(format!(
            "{named}: no policy in it, at least one FailoverPolicy expected (see --help)"
        )));
    }
    Ok(policies)
}

fn lint(format: Format, policies: &[FailoverPolicy]) -> Result<(), Failure> {
    let documents: Vec<_> = policies.iter().map(document::write).collect();
    emit(format, &documents, || {
        let lines = policies.iter().map(|policy| format!("{}: nothing to say against it", policy.name));
        lines.collect::<Vec<_>>().join("\n")
    })
}

async fn checked(client: &Client, policies: &[FailoverPolicy]) -> Result<Vec<ha::FailoverPolicyChange>, Failure> {
    let mut changes = Vec::new();
    for policy in policies {
        let document = Some(document::write(policy).to_string());
        let asked = ha::FailoverPolicyRequest { document, ..ha::FailoverPolicyRequest::default() };
        let checked = client.failover().check_policy(asked).await;
        changes.push(checked.map_err(|status| client.refusal(&status))?.into_inner());
    }
    Ok(changes)
}

fn told(format: Format, changes: &[ha::FailoverPolicyChange], does: &str) -> Result<(), Failure> {
    for change in changes {
        for note in &change.notes {
            complain(&format!("note: {}: {note}", change.name));
        }
    }
    emit(format, &changes, || {
        let mut lines = Vec::new();
        for change in changes {
            if !change.changed {
                lines.push(format!("{}: it is so already, revision {}", change.name, change.revision));
                continue;
            }
            lines.extend(change.diff.lines().map(str::to_owned));
            let revision = if change.revision == 0 { String::new() } else { format!(", revision {}", change.revision) };
            let (hosts, affected) = (change.hosts, change.affected);
            lines.push(format!("{}{revision}: it selects {hosts} hosts; for {affected} something {does}", change.name));
            lines.extend(change.effects.iter().map(|effect| format!("  {effect}")));
            let more = affected.saturating_sub(change.effects.len() as u64);
            lines.extend((more > 0).then(|| format!("  and {more} more")));
        }
        lines.join("\n")
    })
}

async fn show(client: &Client, format: Format, name: Option<String>, host: Option<String>) -> Result<(), Failure> {
    let asked = ha::FailoverPoliciesRequest { name: name.clone(), host: host.clone() };
    let answer = client.failover().policies(asked).await.map_err(|status| client.refusal(&status))?.into_inner();
    if host.is_some() {
        return emit(format, &answer.rules, || rules(&answer.rules));
    }
    let Some(policy) = name.and_then(|_| answer.policies.first()) else {
        return emit(format, &answer.policies, || policies(&answer.policies));
    };
    let bad = |error: String| Failure::new(format!("the answer cannot be read: {error}"));
    let document: Value =
        serde_json::from_str(policy.document.as_deref().unwrap_or("null")).map_err(|error| bad(error.to_string()))?;
    if format == Format::Table {
        // As apply takes it.
        let ha::FailoverPolicy { revision, actor, reason, wall_ms, .. } = policy;
        print(&format!("# revision {revision}, {} by {actor}: {}", wording::utc(*wall_ms), reason.escape_debug()));
        return emit(Format::Yaml, &document, String::new);
    }
    emit(format, &document, String::new)
}

fn policies(policies: &[ha::FailoverPolicy]) -> String {
    if policies.is_empty() {
        return "no policy: every host is under the defaults (pallium ctl ha policy apply FILE)".to_owned();
    }
    let columns = [
        text("NAME", 0),
        text("SELECTS", 1),
        number("HOSTS", 0),
        text("MODE", 0),
        number("REVISION", 3),
        text("BY", 2),
        text("WHY", 4),
    ];
    let row = |policy: &ha::FailoverPolicy| {
        vec![
            policy.name.clone(),
            policy.selector.clone(),
            policy.hosts.to_string(),
            policy.mode.as_deref().map_or_else(|| "-".to_owned(), mode_of),
            policy.revision.to_string(),
            policy.actor.clone(),
            policy.reason.clone(),
        ]
    };
    listing(&columns, &policies.iter().map(row).collect::<Vec<_>>())
}

fn rules(rules: &[ha::FailoverRule]) -> String {
    let row = |rule: &ha::FailoverRule| {
        vec![rule.key.clone(), rule.value.clone(), rule.policy.clone().unwrap_or_else(|| "default".to_owned())]
    };
    listing(&[text("KEY", 0), text("VALUE", 0), text("FROM", 0)], &rules.iter().map(row).collect::<Vec<_>>())
}
