//! The storage heartbeat: a counter of this host in a folder that its neighbours share, and what is read of theirs. It
//! tells a host that lost only its management network from one that is dead, and one that lost its storage from
//! one that is well.
//!
//! Files on storage that is away block for as long as it is: this has a thread of its own, and what blocks says nothing.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use uuid::Uuid;

use super::Sight;

/// Between two counts.
const ROUND: Duration = Duration::from_secs(5);
/// A counter that stood still for so long is of a host that does not run, or has lost the storage.
const STILL: Duration = Duration::from_secs(30);
/// A round that takes longer: this host has trouble with the storage itself.
const SLOW: Duration = Duration::from_secs(5);
/// What taking the counter away may take.
const END: Duration = Duration::from_secs(1);
/// Bytes of a counter's file: all are written at once.
const BYTES: usize = 64;

/// What is known of a neighbour's counter.
struct Counter {
    content: Vec<u8>,
    /// When it was seen to go on. One that never was says nothing: it may be left over from long ago.
    went_on: Option<Instant>,
}

/// What this host has read.
#[derive(Default)]
struct Reader {
    /// Since when its own counter was written without a flaw.
    well: Option<Instant>,
    counters: BTreeMap<Uuid, Counter>,
}

impl Reader {
    /// Takes in a round, and says what can be said. `wrote`: the own counter reached the storage, soon enough.
    fn look(&mut self, now: Instant, wrote: bool, read: Vec<(Uuid, Option<Vec<u8>>)>) -> Vec<Sight> {
        self.well = if wrote { self.well.or(Some(now)) } else { None };
        let well = self.well.is_some_and(|since| now.duration_since(since) >= STILL);
        let mut said = Vec::new();
        for (host, content) in read {
            let Some(content) = content else {
                // An agent that ends takes its counter away.
                self.counters.remove(&host);
                continue;
            };
            let known = self.counters.remove(&host);
            let went_on = match &known {
                Some(known) if known.content != content => Some(now),
                _ => known.and_then(|known| known.went_on),
            };
            self.counters.insert(host, Counter { content, went_on });
            let Some(age) = went_on.map(|at| now.duration_since(at)) else { continue };
            // That it went on is said once for each time: the leader knows for how long it believes that.
            if age.is_zero() || well && age >= STILL {
                said.push(Sight { host: host.to_string(), group: "storage".to_owned(), runs: age.is_zero() });
            }
        }
        said
    }
}

/// The heartbeat of this host.
pub struct Heartbeat {
    seen: watch::Receiver<Vec<Sight>>,
    stop: mpsc::Sender<()>,
    over: mpsc::Receiver<()>,
}

impl Heartbeat {
    /// What each round has seen, until the heartbeat ends.
    pub fn seen(&self) -> watch::Receiver<Vec<Sight>> {
        self.seen.clone()
    }

    /// Takes the counter away, if the storage lets it: nobody is to wait for it to go on.
    pub fn end(self) {
        drop(self.stop);
        let _ = self.over.recv_timeout(END);
    }
}

/// Counts and reads from now on, in `folder`.
pub fn start(folder: &Path, own: Uuid, neighbours: Vec<Uuid>) -> Heartbeat {
    let folder = folder.to_owned();
    let (tell, seen) = watch::channel(Vec::new());
    let ((stop, stopped), (ended, over)) = (mpsc::channel::<()>(), mpsc::channel());
    let work = move || {
        let path = folder.join(own.to_string());
        let mut reader = Reader::default();
        let mut well = true;
        for count in 0_u64.. {
            let began = Instant::now();
            let wrote = write(&path, own, count);
            match &wrote {
                Err(error) if well => {
                    let path = path.display();
                    tracing::warn!(%path, %error, "the storage heartbeat cannot be written: this host says nothing of others' storage");
                }
                Ok(()) if !well => tracing::info!("the storage heartbeat goes on"),
                _ => {}
            }
            well = wrote.is_ok();
            let read = neighbours.iter().map(|host| (*host, read(&folder.join(host.to_string())).ok())).collect();
            let wrote = well && began.elapsed() < SLOW;
            tell.send_replace(reader.look(Instant::now(), wrote, read));
            if stopped.recv_timeout(ROUND.saturating_sub(began.elapsed())) != Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
        let _ = std::fs::remove_file(&path);
        let _ = ended.send(());
    };
    if let Err(error) = std::thread::Builder::new().name("storage".to_owned()).spawn(work) {
        tracing::error!(%error, "no thread for the storage heartbeat");
    }
    Heartbeat { seen, stop, over }
}

/// What is there afterwards differs from what was there before, whichever boot and process wrote it.
fn write(path: &Path, own: Uuid, count: u64) -> io::Result<()> {
    let file = plain(File::options().create(true).write(true), path)?;
    let text = format!("{own} {} {count}", std::process::id());
    file.write_all_at(format!("{text:<width$}\n", width = BYTES - 1).as_bytes(), 0)?;
    file.sync_data()
}

/// Opens what must be a plain file: others write to the folder too, and a link, a pipe or a device under the name of a host
/// would have this one write where it should not, or wait for ever.
fn plain(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = options.custom_flags(flags.bits() as i32).open(path)?;
    let kind = file.metadata()?;
    if !kind.is_file() || kind.nlink() > 1 {
        return Err(io::Error::other("it is no plain file of its own"));
    }
    Ok(file)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::with_capacity(BYTES);
    plain(File::options().read(true), path)?.take(BYTES as u64).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: Uuid = Uuid::from_u128(7);

    /// What is said after each round of five seconds; a round is whether the own counter was written and what the other's is.
    fn said(rounds: &[(bool, Option<u8>)]) -> Vec<Option<bool>> {
        let (mut reader, mut now) = (Reader::default(), Instant::now());
        let rounds = rounds.iter().map(|(wrote, content)| {
            now += ROUND;
            let said = reader.look(now, *wrote, vec![(OTHER, content.map(|byte| vec![byte]))]);
            said.first().map(|sight| sight.runs)
        });
        rounds.collect()
    }

    #[test]
    fn a_counter_that_goes_on_runs_and_one_that_stands_still_does_not() {
        let (runs, still, nothing) = (Some(true), Some(false), None);
        let well = |content| (true, content);
        // It stands still from the third round on.
        let rounds = [Some(1), Some(2), Some(2), Some(2), Some(2), Some(2), Some(2), Some(2), Some(3)].map(well);
        assert_eq!(said(&rounds), [nothing, runs, nothing, nothing, nothing, nothing, nothing, still, runs]);
        // A file that is gone, one that never was, and one that never went on say nothing.
        let mut rounds = vec![well(Some(1)), well(Some(2))];
        rounds.extend([well(None); 9]);
        assert_eq!(said(&rounds)[2..], [nothing; 9]);
        assert_eq!(said(&[well(None); 12]), [nothing; 12]);
        assert_eq!(said(&[well(Some(1)); 12]), [nothing; 12]);
    }

    #[test]
    fn a_host_that_cannot_write_itself_says_of_nobody_that_it_stands_still() {
        let mut rounds = [(true, Some(1)); 20];
        rounds[0].1 = Some(0);
        (rounds[3].0, rounds[9].0) = (false, false);
        let said = said(&rounds);
        assert_eq!(said[4..16], [None; 12], "30 s after it could write again");
        assert_eq!(said[16..], [Some(false); 4]);
    }

    #[test]
    fn what_is_written_is_read_and_differs_each_time() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(OTHER.to_string());
        let mut seen = Vec::new();
        for count in [1, u64::MAX, 2] {
            write(&path, OTHER, count).expect("written");
            let content = read(&path).expect("read");
            assert!(!seen.contains(&content));
            seen.push(content);
        }
        assert!(read(&dir.path().join("none")).is_err());
        // What somebody else has put there is neither followed nor waited for.
        let (link, pipe) = (dir.path().join("link"), dir.path().join("pipe"));
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
        assert!(made.success());
        std::fs::hard_link(&path, dir.path().join("twin")).expect("a second name");
        for bad in ["link", "pipe", "twin"].map(|name| dir.path().join(name)) {
            assert!(write(&bad, OTHER, 1).is_err() && read(&bad).is_err(), "{}", bad.display());
        }
        assert!(write(&dir.path().join("no/folder"), OTHER, 1).is_err(), "the folder is the operator's to make");
    }
}
