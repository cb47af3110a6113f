//! `ctl backup`: the whole state of a running server as one file.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use api::proto::v1::BackupRequest;
use indicatif::{ProgressBar, ProgressStyle};
use raft::backup::{Summary, check};

use super::client::{Client, Target};
use crate::cli::output::{Format, complain, emit};
use crate::cli::{Failure, wording};

const EXAMPLES: &str = "\
Examples:
  pallium ctl backup pallium.backup
  pallium ctl backup --force /srv/backup/latest.backup

The file has everything that was committed before the call; the server goes on
meanwhile. It appears under its name when it is whole, checked and durable.
`pallium verify FILE` checks it again, `pallium ctl restore FILE` begins a new
cluster from it. Keep it as safe as the data folder.";

/// Write the state of the server into a file
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The file
    file: PathBuf,
    /// Replace a file that exists
    #[arg(long)]
    force: bool,
}

pub async fn run(target: &Target, format: Format, args: &Args) -> Result<(), Failure> {
    let file = &args.file;
    if !args.force && file.exists() {
        return Err(Failure::new(format!(
            "{}: it exists; give another name, or --force to replace it",
            file.display()
        )));
    }
    let mut unfinished = file.clone().into_os_string();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    let client = Client::connect(target).await?;
    let done = fetch(&client, &unfinished).await.and_then(|()| finish(&unfinished, file));
    let (summary, bytes) = done.inspect_err(|_| drop(fs::remove_file(&unfinished)))?;
    emit(format, &summary, || told(file, &summary, bytes))
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("{}: {error}; check the disk and the owner of the folder", path.display()))
}

async fn fetch(client: &Client, path: &Path) -> Result<(), Failure> {
    let mut pieces =
        client.cluster().backup(BackupRequest {}).await.map_err(|status| client.refusal(&status))?.into_inner();
    let mut out = File::create(path).map_err(|error| failed(path, &error))?;
    let progress = Progress::new();
    while let Some(piece) = pieces.message().await.map_err(|status| client.refusal(&status))? {
        out.write_all(&piece.data).map_err(|error| failed(path, &error))?;
        progress.tell(piece.done, piece.total);
    }
    progress.end();
    out.sync_all().map_err(|error| failed(path, &error))
}

/// Gives a whole file its name.
fn finish(unfinished: &Path, file: &Path) -> Result<(Summary, u64), Failure> {
    let summary =
        check(unfinished).map_err(|error| Failure::new(format!("the backup did not arrive whole: {error}")))?;
    let bytes = fs::metadata(unfinished).map_err(|error| failed(unfinished, &error))?.len();
    fs::rename(unfinished, file).map_err(|error| failed(file, &error))?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| failed(folder, &error))?;
    Ok((summary, bytes))
}

fn told(file: &Path, summary: &Summary, bytes: u64) -> String {
    format!(
        "{}: {} and {} up to index {}, {} MiB, checksum {}",
        file.display(),
        wording::count(summary.hosts, "host"),
        wording::count(summary.consumers, "consumer"),
        summary.index.unwrap_or(0),
        wording::grouped(bytes.div_ceil(1 << 20)),
        summary.checksum
    )
}

/// A bar on a terminal, a line for each tenth otherwise.
struct Progress {
    bar: Option<ProgressBar>,
    tenth: std::cell::Cell<u64>,
}

impl Progress {
    fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{wide_bar} {pos} of {len} hosts, instances and claims");
            ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, tenth: std::cell::Cell::new(0) }
    }

    fn tell(&self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            return;
        }
        let tenth = done * 10 / total.max(1);
        if tenth > self.tenth.replace(tenth) {
            let (done, total) = (wording::grouped(done), wording::grouped(total));
            complain(&format!("{done} of {total} hosts, instances and claims"));
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
