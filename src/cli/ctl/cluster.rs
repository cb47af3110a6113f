//! `ctl cluster`: the members of the cluster, and changes of them.

use std::collections::BTreeSet;
use std::time::Duration;

use api::proto::v1;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};

use super::Client;
use crate::cli::output::{Format, complain, emit, listing, number, print, text};
use crate::cli::{Failure, wording};

const EXAMPLES: &str = "\
Examples:
  pallium ctl cluster status
  pallium ctl cluster add 4 10.0.0.4:8081
  pallium ctl cluster promote 4
  pallium ctl cluster replace 2 4 10.0.0.4:8081
  pallium ctl cluster transfer-leader 3
  pallium ctl cluster remove 2

Start the node with 'pallium serve --node-id 4 --join ...' before you add it.
Every one of these may be given to any node, and given twice. A node id is never
used again for another data folder.";

/// Look at the cluster and change its members
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Roles, terms, lag, disks, snapshots, and whether all have the same state
    #[command(after_help = "Example: pallium ctl cluster status -o json")]
    Status,
    /// Add a node as a learner: it gets the state and the log, and has no vote
    #[command(after_help = "Example: pallium ctl cluster add 4 10.0.0.4:8081")]
    Add {
        /// Its node id, never used before in this cluster
        node: u64,
        /// Address of its peer port, as the other nodes reach it
        addr: String,
        /// Do not wait until it is close to the leader
        #[arg(long)]
        no_wait: bool,
    },
    /// Give a learner a vote
    #[command(after_help = "Example: pallium ctl cluster promote 4")]
    Promote {
        /// Its node id
        node: u64,
    },
    /// Remove a node
    #[command(after_help = "Example: pallium ctl cluster remove 2")]
    Remove {
        /// Its node id
        node: u64,
    },
    /// Let another voter lead
    #[command(after_help = "Example: pallium ctl cluster transfer-leader 3")]
    TransferLeader {
        /// Its node id
        node: u64,
    },
    /// Add a node, give it a vote when it is close, and remove another one
    #[command(after_help = "Example: pallium ctl cluster replace 2 4 10.0.0.4:8081")]
    Replace {
        /// The node that goes
        old: u64,
        /// The node that comes
        new: u64,
        /// Address of its peer port
        addr: String,
    },
}

/// Entries by which a node may be behind when it is called close.
const CLOSE: u64 = 1000;

pub async fn run(client: &Client, format: Format, args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Status => {
            let status = status(client).await?;
            emit(format, &status, || table(&status))
        }
        Command::Add { node, addr, no_wait } => {
            let votes = voters(&status(client).await?).contains(node);
            add(client, *node, addr).await?;
            if !no_wait {
                wait_until_close(client, *node).await?;
            }
            print(&if votes {
                format!("node {node} is a voter")
            } else {
                format!("node {node} is a learner; give it a vote with: pallium ctl cluster promote {node}")
            });
            Ok(())
        }
        Command::Promote { node } => {
            let mut voters = voters(&status(client).await?);
            promote(client, *node).await?;
            voters.insert(*node);
            warn_of_even(&voters);
            Ok(())
        }
        Command::Remove { node } => {
            let mut voters = voters(&status(client).await?);
            remove(client, *node).await?;
            voters.remove(node);
            warn_of_even(&voters);
            Ok(())
        }
        Command::TransferLeader { node } => {
            let request = v1::TransferLeaderRequest { node: *node };
            let changed = client.cluster().transfer(request).await;
            told(client, changed, &format!("node {node} leads"), &format!("node {node} led already"))
        }
        Command::Replace { old, new, addr } => {
            let status = status(client).await?;
            let members: Vec<u64> = status.members.iter().map(|member| member.node).collect();
            if old == new {
                return Err(Failure::Usage(format!(
                    "node {old} cannot replace itself: give the new one another number"
                )));
            }
            // Gone already is well when this is the repeat of a replacement that was made.
            if !members.contains(old) && !voters(&status).contains(new) {
                let members: Vec<String> = members.iter().map(u64::to_string).collect();
                return Err(Failure::new(format!(
                    "node {old} is no member: nothing was changed; the members are {}",
                    members.join(", ")
                )));
            }
            add(client, *new, addr).await?;
            wait_until_close(client, *new).await?;
            promote(client, *new).await?;
            remove(client, *old).await
        }
    }
}

fn voters(status: &v1::ClusterStatusResponse) -> BTreeSet<u64> {
    status.members.iter().filter(|member| member.role != "learner").map(|member| member.node).collect()
}

fn warn_of_even(voters: &BTreeSet<u64>) {
    let count = voters.len();
    if count > 0 && count.is_multiple_of(2) {
        complain(&format!(
            "warning: {count} voters now: an even number survives no more failures than {}; add or remove one",
            count - 1
        ));
    }
}

type Changed = Result<tonic::Response<v1::ChangeMemberResponse>, tonic::Status>;

fn told(client: &Client, changed: Changed, done: &str, already: &str) -> Result<(), Failure> {
    let changed = changed.map_err(|status| client.refusal(&status))?.into_inner().changed;
    print(if changed { done } else { already });
    Ok(())
}

async fn add(client: &Client, node: u64, addr: &str) -> Result<(), Failure> {
    let request = v1::AddMemberRequest { node, addr: addr.to_owned() };
    let changed = client.cluster().add(request).await;
    told(
        client,
        changed,
        &format!("node {node} is a member at {addr} now"),
        &format!("node {node} is a member already"),
    )
}

async fn promote(client: &Client, node: u64) -> Result<(), Failure> {
    let changed = client.cluster().promote(v1::PromoteMemberRequest { node }).await;
    told(client, changed, &format!("node {node} has a vote"), &format!("node {node} had a vote already"))
}

async fn remove(client: &Client, node: u64) -> Result<(), Failure> {
    let changed = client.cluster().remove(v1::RemoveMemberRequest { node }).await;
    told(client, changed, &format!("node {node} was removed"), &format!("node {node} is no member"))
}

async fn status(client: &Client) -> Result<v1::ClusterStatusResponse, Failure> {
    let status = client.cluster().status(v1::ClusterStatusRequest {}).await;
    Ok(status.map_err(|status| client.refusal(&status))?.into_inner())
}

/// Waits until a node has the state and nearly the whole log, and shows how far it is.
async fn wait_until_close(client: &Client, node: u64) -> Result<(), Failure> {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    let mut silent = 0;
    loop {
        let status = status(client).await?;
        let member = status.members.iter().find(|member| member.node == node);
        let member = member.ok_or_else(|| Failure::new(format!("node {node} is no member any more")))?;
        match (&member.unreachable, member.lag, member.applied_index) {
            (None, Some(lag), Some(_)) if lag <= CLOSE => {
                bar.finish_and_clear();
                return Ok(());
            }
            (Some(why), ..) => {
                silent += 1;
                if silent == 50 {
                    return Err(Failure::new(format!("node {node} was added and does not answer: {why}")));
                }
                bar.set_message(format!("node {node} does not answer: {why}"));
            }
            (None, lag, _) => {
                silent = 0;
                bar.set_message(match (member.snapshot_sent_bytes, member.snapshot_bytes, lag) {
                    (Some(sent), Some(all), _) => {
                        format!("snapshot to node {node}: {} of {}", wording::bytes(sent), wording::bytes(all))
                    }
                    (.., Some(lag)) => format!("node {node} is {lag} entries behind"),
                    _ => format!("waiting for a leader to say how far node {node} is"),
                });
            }
        }
        bar.tick();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Who keeps the cluster from the next feature level, when a member supports it.
fn held_back(status: &v1::ClusterStatusResponse) -> Option<String> {
    let newest = status.members.iter().filter_map(|member| member.newest_feature_level).max()?;
    if newest <= status.feature_level {
        return None;
    }
    let waits = status.members.iter().filter(|member| member.newest_feature_level.is_none_or(|level| level < newest));
    let waits: Vec<String> = waits.map(|member| member.node.to_string()).collect();
    Some(match waits.as_slice() {
        [] => format!("every member supports feature level {newest}: the leader is about to raise the cluster to it"),
        waits => format!("feature level {newest} waits for the next version on node {}", waits.join(", ")),
    })
}

fn table(status: &v1::ClusterStatusResponse) -> String {
    if status.members.is_empty() {
        return format!(
            "node {} is a member of no cluster yet: if it bootstraps one, it waits until all of its peers answer; if \
             not, add it on a node that is a member: pallium ctl cluster add {} ADDR",
            status.node, status.node
        );
    }
    let columns = [
        number("NODE", 0),
        text("ROLE", 0),
        text("STATE", 0),
        number("TERM", 3),
        number("APPLIED", 1),
        number("LAG", 0),
        number("SNAPSHOT", 4),
        text("CHECKSUM", 5),
        number("DISK", 2),
        number("FREE", 2),
        text("ADDRESS", 1),
        text("VERSION", 6),
        text("FEATURES", 6),
    ];
    let dash = || "-".to_owned();
    let figure = |value: Option<u64>| value.map_or_else(dash, |value| value.to_string());
    let rows: Vec<Vec<String>> = status
        .members
        .iter()
        .map(|member| {
            let state = match (&member.unreachable, &member.stopped, member.snapshot_bytes) {
                (Some(_), ..) => "no answer".to_owned(),
                (_, Some(_), _) => "stopped".to_owned(),
                (_, _, Some(all)) if all > 0 => {
                    format!("snapshot {} %", member.snapshot_sent_bytes.unwrap_or(0) * 100 / all)
                }
                _ => "answers".to_owned(),
            };
            vec![
                member.node.to_string(),
                member.role.clone(),
                state,
                figure(member.term),
                figure(member.applied_index),
                figure(member.lag),
                figure(member.snapshot_index),
                member.checksum.clone().unwrap_or_else(dash),
                member.disk_used_bytes.map_or_else(dash, wording::bytes),
                member.disk_free_bytes.map_or_else(dash, wording::bytes),
                member.addr.clone(),
                member.build.clone().unwrap_or_else(dash),
                match (member.oldest_feature_level, member.newest_feature_level) {
                    (Some(oldest), Some(newest)) if oldest < newest => format!("{oldest}-{newest}"),
                    (_, newest) => newest.map_or_else(dash, |newest| newest.to_string()),
                },
            ]
        })
        .collect();
    let mut lines = vec![listing(&columns, &rows)];
    let leader = status.leader.map_or("no leader is known".to_owned(), |leader| format!("node {leader} leads"));
    let (cluster, level, term, node) = (&status.cluster, status.feature_level, status.term, status.node);
    lines.push(format!("cluster {cluster}: {leader}, term {term}, feature level {level}, asked of node {node}"));
    lines.extend(held_back(status));
    lines.push(match status.checksums_equal {
        Some(true) => "the states that can be compared now are the same".to_owned(),
        Some(false) => "THE STATES DIFFER: keep every data folder, and report it; see docs/operations.md".to_owned(),
        None => "no two states could be compared at this moment".to_owned(),
    });
    for member in &status.members {
        for why in [&member.unreachable, &member.stopped].into_iter().flatten() {
            lines.push(format!("node {}: {why}", member.node));
        }
    }
    if status.checksums_equal == Some(false) {
        complain("pallium: the states of members differ");
    }
    lines.join("\n")
}
