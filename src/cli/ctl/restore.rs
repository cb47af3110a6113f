//! `ctl restore`: a new cluster from a backup, in an empty folder, without a server.

use std::path::PathBuf;

use raft::restore::{Begun, restore};

use crate::cli::output::{Format, emit};
use crate::cli::serve::config::peers::peer_addr;
use crate::cli::{Failure, wording};

const EXAMPLES: &str = "\
Examples:
  pallium ctl restore pallium.backup --data-dir data
  pallium ctl restore pallium.backup --data-dir data --node-id 4 \\
    --peer-addr 10.0.0.4:8081

It makes a new cluster of one voter: a new cluster id, a new store id, the next
epoch. Nothing that the old cluster recorded authorises an act any more. Stop
every node of the old cluster for good; the others join the new one with empty
folders and new node ids.";

/// Begin a new cluster from a backup
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A file that `ctl backup` wrote
    file: PathBuf,
    /// Folder of the new node: empty or absent
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Number of the new node
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    node_id: u64,
    /// Its address for the nodes that join it
    #[arg(long, value_name = "HOST:PORT", value_parser = peer_addr)]
    peer_addr: Option<String>,
}

pub fn run(format: Format, args: &Args) -> Result<(), Failure> {
    let addr = args.peer_addr.as_deref().unwrap_or_default();
    let begun =
        restore(&args.file, &args.data_dir, args.node_id, addr).map_err(|error| Failure::new(error.to_string()))?;
    emit(format, &begun, || {
        let dir = args.data_dir.display();
        format!("{}\nstart it: pallium serve --data-dir {dir} --node-id {}", told(&begun), begun.node)
    })
}

/// The new cluster in words.
pub fn told(begun: &Begun) -> String {
    format!(
        "cluster {} in epoch {}, from {}: {} and {}, up to index {}; node {} is its only voter",
        begun.cluster,
        begun.epoch,
        begun.from.map_or("no cluster".to_owned(), |from| format!("cluster {from}")),
        wording::count(begun.hosts, "host"),
        wording::count(begun.consumers, "consumer"),
        begun.index,
        begun.node
    )
}
