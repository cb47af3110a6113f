//! `ctl recover`: a new cluster from the folder of one survivor, when the majority is lost for good.

use std::io::BufRead;
use std::path::PathBuf;

use raft::restore::{Survivor, recover, survivor};

use super::restore::told;
use crate::cli::Failure;
use crate::cli::output::{Format, complain, emit};
use crate::cli::serve::config::peers::peer_addr;

const EXAMPLES: &str = "\
Example:
  pallium ctl recover --data-dir data --i-lost-the-majority

Only when more than half of the voters are lost for good and no backup is newer.
What they had committed and this one had not received is lost; what this one
had received and nobody committed counts from now on. The old folder stays as
DIR.before-recovery.";

/// Begin a new cluster from one survivor, when the majority is lost
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Folder of the survivor, which is stopped
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Says that the majority of the voters will never come back
    #[arg(long, required = true)]
    i_lost_the_majority: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Address of the survivor for the nodes that join it
    #[arg(long, value_name = "HOST:PORT", value_parser = peer_addr)]
    peer_addr: Option<String>,
}

pub fn run(format: Format, args: &Args) -> Result<(), Failure> {
    let found = survivor(&args.data_dir).map_err(|error| Failure::new(error.to_string()))?;
    complain(&warning(args, &found));
    if !args.yes {
        complain(&format!("Type the id of the cluster to go on ({}):", found.cluster));
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map_err(|error| Failure::new(format!("stdin: {error}")))?;
        if line.trim() != found.cluster.to_string() {
            return Err(Failure::new("that is not the id of the cluster: nothing was changed"));
        }
    }
    let begun = recover(&args.data_dir, args.peer_addr.as_deref().unwrap_or_default())
        .map_err(|error| Failure::new(error.to_string()))?;
    emit(format, &begun, || {
        let kept = begun.kept.as_ref().map(|kept| kept.display().to_string()).unwrap_or_default();
        let dir = args.data_dir.display();
        format!(
            "{}\nthe old folder is {kept}\nstart it: pallium serve --data-dir {dir} --node-id {}",
            told(&begun),
            begun.node
        )
    })
}

fn warning(args: &Args, found: &Survivor) -> String {
    let index = |index: Option<u64>| index.map_or("none".to_owned(), |index| index.to_string());
    format!(
        "THIS MAY LOSE DECISIONS.\n\
         {} is the folder of node {} of cluster {}. Its last log entry is {}, committed for sure up to {}.\n\
         - Whatever the lost voters committed behind entry {} is lost: claims that callers were told of, too.\n\
         - Entries behind {} count from now on, although nobody may have committed them.\n\
         - The result is another cluster. A voter of the old one that comes back must not be started again:\n  \
         empty its folder and let it join with a new node id.",
        args.data_dir.display(),
        found.node,
        found.cluster,
        index(found.last),
        index(found.committed),
        index(found.last),
        index(found.committed),
    )
}
