//! `simulate --recording`: what a server decided is decided again, from the state that it began from, and compared.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use scheduler::Settings;
use scheduler::recording::{Event, Replay};

use super::Failure;
use crate::cli::ctl::decisions::export::{LINES, STATE};
use crate::cli::output::print;
use crate::cli::wording;

/// Most bytes of a line: a batch, in hex, or a request with all of its hosts.
const LONGEST: u64 = 64 << 20;

pub fn run(folder: &Path) -> Result<(), Failure> {
    let state = folder.join(STATE);
    let (_, core) = raft::backup::load(&state).map_err(|error| Failure::new(error.to_string()))?;
    let path = folder.join(LINES);
    let failed = |line: u64, why: String| Failure::new(format!("{}: line {line}: {why}", path.display()));
    let file = File::open(&path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    let mut reader = BufReader::new(file);
    let mut core = Some(core);
    let mut replay: Option<Replay> = None;
    for line in 1.. {
        let mut text = Vec::new();
        let read = std::io::Read::take(&mut reader, LONGEST).read_until(b'\n', &mut text);
        if read.map_err(|error| failed(line, error.to_string()))? == 0 {
            break;
        }
        if text.last() != Some(&b'\n') {
            return Err(failed(line, "it has no end: a whole file expected, this one may be cut off".to_owned()));
        }
        let event: Event = serde_json::from_slice(&text).map_err(|error| failed(line, error.to_string()))?;
        match (&mut replay, core.take()) {
            (None, Some(core)) => {
                let engine = plugins::engine(Settings::default());
                replay = Some(Replay::begin(core, engine, &event).map_err(|why| failed(line, why))?);
            }
            (Some(replay), _) => replay.play(event).map_err(|why| failed(line, why))?,
            (None, None) => {}
        }
    }
    let Some(replay) = replay else {
        return Err(Failure::new(format!("{}: empty, a recording expected", path.display())));
    };
    let made = wording::count(replay.compared, "decision");
    if replay.differing == 0 {
        print(&format!("{made} came out as recorded, byte for byte"));
        return Ok(());
    }
    for difference in &replay.differences {
        let (recorded, replayed) = (&difference.recorded, &difference.replayed);
        print(&format!("decision {}\n  recorded {recorded}\n  now      {replayed}", difference.number));
    }
    Err(Failure::new(format!("{} of {made} came out otherwise", replay.differing)))
}
