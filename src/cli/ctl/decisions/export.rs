//! `ctl decisions export`: what is decided from now on, with the requests and the state that it begins from.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::proto::v1;
use serde::Serialize;

use super::super::Client;
use crate::cli::output::{Format, emit};
use crate::cli::{Failure, wording};

const EXAMPLES: &str = "\
Examples:
  pallium ctl decisions export --count 500 recording
  pallium ctl decisions export --for 10m --count 100000 recording
  pallium simulate --recording recording

Asked of the node that leads. The folder gets state.backup, the state of the
moment at which the recording began, and decisions.jsonl. `pallium simulate
--recording` decides the same again, offline, and compares.";

/// Record decisions with their requests, and the state that they began from
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Folder to make
    folder: PathBuf,
    /// End after so many decisions
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    count: u64,
    /// End after this time, however many there were: 90s, 30m, 2h
    #[arg(long = "for", value_name = "TIME", value_parser = super::super::ha::span)]
    span: Option<u64>,
}

/// The state that a recording began from.
pub const STATE: &str = "state.backup";
/// Its lines.
pub const LINES: &str = "decisions.jsonl";

/// What was recorded.
#[derive(Default, Serialize)]
struct Recorded {
    decisions: u64,
    lines: u64,
}

pub async fn run(client: &Client, format: Format, args: &Args) -> Result<(), Failure> {
    let folder = &args.folder;
    if folder.exists() {
        return Err(Failure::new(format!("{}: it exists; a new folder expected", folder.display())));
    }
    // A folder of this name is a whole recording.
    let mut unfinished = folder.clone().into_os_string();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    fs::create_dir_all(&unfinished).map_err(|error| failed(&unfinished, &error))?;
    let done = fetch(client, &unfinished, args).await;
    let done = done.and_then(|done| {
        fs::rename(&unfinished, folder).map_err(|error| failed(folder, &error))?;
        Ok(done)
    });
    let recorded = done.inspect_err(|_| drop(fs::remove_dir_all(&unfinished)))?;
    emit(format, &recorded, || format!("{}: {}", folder.display(), wording::count(recorded.decisions, "decision")))
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}; a writable folder expected", path.display()))
}

async fn fetch(client: &Client, folder: &Path, args: &Args) -> Result<Recorded, Failure> {
    let asked = v1::RecordRequest { decisions: args.count };
    let chunks = client.scheduler().record(asked).await.map_err(|status| client.refusal(&status))?;
    let mut chunks = chunks.into_inner();
    let (state, lines) = (folder.join(STATE), folder.join(LINES));
    let create = |path: &Path| File::create(path).map(BufWriter::new).map_err(|error| failed(path, &error));
    let (mut to_state, mut to_lines) = (create(&state)?, create(&lines)?);
    let end = tokio::time::sleep(Duration::from_millis(args.span.unwrap_or(u64::from(u32::MAX))));
    tokio::pin!(end);
    let mut recorded = Recorded::default();
    loop {
        let chunk = tokio::select! {
            chunk = chunks.message() => chunk.map_err(|status| client.refusal(&status))?,
            () = &mut end => None,
        };
        let Some(chunk) = chunk else { break };
        to_state.write_all(&chunk.backup).map_err(|error| failed(&state, &error))?;
        if !chunk.line.is_empty() {
            recorded.lines += 1;
            recorded.decisions += u64::from(chunk.line.starts_with("{\"answer\""));
            writeln!(to_lines, "{}", chunk.line).map_err(|error| failed(&lines, &error))?;
        }
    }
    for (mut out, path) in [(to_state, &state), (to_lines, &lines)] {
        out.flush().and_then(|()| out.get_ref().sync_all()).map_err(|error| failed(path, &error))?;
    }
    raft::backup::check(&state)
        .map_err(|error| Failure::new(format!("the state did not arrive whole: {error}; record for longer")))?;
    Ok(recorded)
}
