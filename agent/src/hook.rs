//! The permit check: libvirt's qemu hook asks the agent over a unix socket before a guest starts.
//!
//! A line there, and one back, then the connection ends: `start UUID`, `incoming UUID`, `compute` or `check NUMBER`;
//! `allow`, or `deny WHY`. A start without a permit is answered `wait` first: Nova may be moving the instance here, and then
//! its permit follows in a few seconds. [`ask`] is the hook's side; it denies when it gets no answer, unless it was told otherwise.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use uuid::Uuid;

use crate::libvirt::uuid_of;
use crate::permits::{Denied, Gate};

/// Where the agent listens, unless told otherwise.
pub const SOCKET: &str = "/run/pallium/agent.sock";
/// Longest line, bytes.
const LINE: u64 = 512;
/// Questions at once; others wait for their turn.
const QUESTIONS: usize = 64;
/// What an answer may take.
const DEADLINE: Duration = Duration::from_secs(3);
/// How long a start waits for its permit to follow.
const FOLLOWS: Duration = Duration::from_secs(30);
/// Between two looks for it.
const LOOK: Duration = Duration::from_millis(100);
/// Longest description of a domain that a hook reads, bytes.
const DESCRIPTION: u64 = 4 << 20;
/// The operation by which the agent asks whether the hook reaches it. libvirt has none of that name.
pub const CHECK: &str = "pallium-check";

/// The hook and its socket.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hook {
    /// Where questions come in.
    pub socket: PathBuf,
    /// libvirt's folder of hooks.
    pub folder: PathBuf,
}

impl Default for Hook {
    fn default() -> Self {
        Self { socket: SOCKET.into(), folder: "/etc/libvirt/hooks".into() }
    }
}

/// What the hook does when the agent does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnSilence {
    /// The guest does not start.
    #[default]
    Deny,
    /// The guest starts unchecked.
    Allow,
}

/// Answers questions for as long as it is polled.
pub async fn serve(listener: UnixListener, gate: Arc<Mutex<Gate>>) {
    let free = Arc::new(Semaphore::new(QUESTIONS));
    while let Ok(turn) = Arc::clone(&free).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let gate = Arc::clone(&gate);
                tokio::spawn(async move {
                    let _ = timeout(DEADLINE + FOLLOWS, answer(stream, &gate)).await;
                    drop(turn);
                });
            }
            Err(error) => {
                tracing::error!(%error, "the permit check cannot take a question");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Listens at `socket`, which only its owner may ask at.
pub fn listen(socket: &Path) -> std::io::Result<UnixListener> {
    if let Some(folder) = socket.parent() {
        fs::create_dir_all(folder)?;
    }
    // A former agent may have left it; one that still runs must not lose it.
    if std::os::unix::net::UnixStream::connect(socket).is_ok() {
        return Err(std::io::ErrorKind::AddrInUse.into());
    }
    match fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn answer(mut stream: UnixStream, gate: &Mutex<Gate>) -> std::io::Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    timeout(DEADLINE, tokio::io::BufReader::new(read.take(LINE)).read_line(&mut line)).await??;
    let mut judged = judge(&line, gate);
    if let Err(Refused::Follows(instance)) = judged {
        write.write_all(b"wait\n").await?;
        let until = tokio::time::Instant::now() + FOLLOWS;
        while judged.is_err() && tokio::time::Instant::now() < until {
            tokio::time::sleep(LOOK).await;
            judged = locked(gate).may_start(instance, Instant::now()).map_err(Refused::Denied);
        }
        locked(gate).waited(instance);
    }
    let answer = match judged {
        Ok(()) => "allow\n".to_owned(),
        Err(why) => {
            let why = why.to_string();
            tracing::warn!(question = line.trim(), why, "denied");
            format!("deny {why}\n")
        }
    };
    write.write_all(answer.as_bytes()).await
}

/// Why a question is not answered with `allow`.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Denied(Denied),
    /// Its permit may follow.
    #[error("{}", Denied::NotPermitted(*.0))]
    Follows(Uuid),
    #[error("the question is none of `start UUID`, `incoming UUID`, `compute`, `check UUID`")]
    Strange,
}

fn locked(gate: &Mutex<Gate>) -> MutexGuard<'_, Gate> {
    gate.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A start that may wait is counted among those that do.
fn judge(line: &str, gate: &Mutex<Gate>) -> Result<(), Refused> {
    let mut gate = locked(gate);
    let mut words = line.split_whitespace();
    let uuid = |word: Option<&str>| word.and_then(|word| word.parse::<Uuid>().ok());
    match (words.next(), uuid(words.next())) {
        (Some("start"), Some(instance)) => gate.may_start(instance, Instant::now()).map_err(|denied| match denied {
            Denied::NotPermitted(_) if gate.wait(instance) => Refused::Follows(instance),
            denied => Refused::Denied(denied),
        }),
        (Some("incoming"), Some(instance)) => gate.arrives(instance, Instant::now()).map_err(Refused::Denied),
        (Some("compute"), None) => gate.may_compute().map_err(Refused::Denied),
        (Some("check"), Some(number)) => {
            gate.checked(number);
            Ok(())
        }
        _ => Err(Refused::Strange),
    }
}

/// The question that libvirt's call of a hook makes: its arguments are the domain's name, the operation and
/// the sub-operation, and it describes the domain on standard input. `None`: nothing is to be asked. A
/// guest that is only found again after a restart of libvirt (`reconnect`) is not asked about: a refusal
/// would kill it.
fn question(arguments: &[String], description: impl Read) -> Result<Option<String>, String> {
    let argument = |at: usize| arguments.get(at).map(String::as_str);
    match (argument(1), argument(2)) {
        (Some(operation @ ("prepare" | "start" | "migrate")), Some("begin")) => {
            let mut xml = String::new();
            let read = description.take(DESCRIPTION).read_to_string(&mut xml);
            read.map_err(|error| format!("cannot read the domain's description: {error}"))?;
            let uuid = uuid_of(&xml).ok_or("standard input describes no domain with a uuid")?;
            let asked = if operation == "migrate" { "incoming" } else { "start" };
            Ok(Some(format!("{asked} {uuid}\n")))
        }
        (Some(CHECK), _) => Ok(Some(format!("check {}\n", argument(0).unwrap_or_default()))),
        (Some("compute"), None) => Ok(Some("compute\n".to_owned())),
        (None, _) => Err("no operation: libvirt calls hooks with NAME OPERATION SUB-OPERATION EXTRA".to_owned()),
        _ => Ok(None),
    }
}

/// The hook's side: `Err` says why the guest must not start.
pub fn ask(socket: &Path, on_silence: OnSilence, arguments: &[String], description: impl Read) -> Result<(), String> {
    let Some(question) = question(arguments, description)? else { return Ok(()) };
    let (path, (told, answered)) = (socket.to_owned(), std::sync::mpsc::channel());
    // On a thread of its own: connecting to a stopped agent has no time limit.
    std::thread::spawn(move || exchange(&path, &question, |answer| told.send(answer).is_ok()));
    let mut answer = answered.recv_timeout(DEADLINE);
    if matches!(&answer, Ok(Ok(first)) if first == "wait\n") {
        answer = answered.recv_timeout(FOLLOWS + DEADLINE);
    }
    let answer = match answer {
        Ok(Ok(answer)) => answer,
        silence => {
            let why = match silence {
                Ok(Err(error)) => error.to_string(),
                _ => format!("no answer within {DEADLINE:?}"),
            };
            let at = socket.display();
            return match on_silence {
                OnSilence::Deny => {
                    Err(format!("the pallium agent at {at} cannot be asked ({why}): start it, or move the guest"))
                }
                OnSilence::Allow => Ok(()),
            };
        }
    };
    match answer.trim_end().split_once(' ') {
        None if answer.trim_end() == "allow" => Ok(()),
        Some(("deny", why)) => Err(why.to_owned()),
        _ => Err(format!("the pallium agent answered {answer:?}, not `allow` or `deny WHY`")),
    }
}

/// Asks, and tells each line of the answer as it comes: one, or `wait` and then one.
fn exchange(socket: &Path, question: &str, mut tell: impl FnMut(std::io::Result<String>) -> bool) {
    let begin = || {
        let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(FOLLOWS + DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        stream.write_all(question.as_bytes())?;
        Ok(BufReader::new(stream.take(2 * LINE)))
    };
    let mut lines = match begin() {
        Ok(lines) => lines,
        Err(error) => {
            tell(Err(error));
            return;
        }
    };
    loop {
        let mut line = String::new();
        let read = lines.read_line(&mut line);
        let whole = if line.ends_with('\n') { Ok(line) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) };
        let waits = matches!(&whole, Ok(line) if line == "wait\n");
        if !tell(read.and(whole)) || !waits {
            return;
        }
    }
}

/// Whether libvirt's hook reaches this agent: calls it as libvirt would, and sees the question come in.
/// Only hooks that name pallium are called; what others do with an operation they do not know is theirs.
pub async fn reaches(hook: &Hook, gate: &Mutex<Gate>) -> bool {
    for path in hooks(&hook.folder) {
        let number = Uuid::now_v7();
        let mut command = tokio::process::Command::new(&path);
        let null = std::process::Stdio::null;
        command.args([&number.to_string(), CHECK, "begin", "-"]).stdin(null()).stdout(null()).stderr(null());
        let ran = timeout(DEADLINE, command.kill_on_drop(true).status()).await;
        let asked = gate.lock().unwrap_or_else(PoisonError::into_inner).was_checked(number);
        if asked && matches!(&ran, Ok(Ok(status)) if status.success()) {
            return true;
        }
        tracing::warn!(hook = %path.display(), asked, ran = ?ran.ok(), "the libvirt hook does not reach this agent");
    }
    false
}

/// libvirt's qemu hooks that name pallium, in the order in which libvirt calls them.
fn hooks(folder: &Path) -> Vec<PathBuf> {
    let mut drop_ins: Vec<PathBuf> = fs::read_dir(folder.join("qemu.d"))
        .map(|entries| entries.flatten().map(|entry| entry.path()).take(64).collect())
        .unwrap_or_default();
    drop_ins.sort();
    let ours = |path: &PathBuf| {
        let mut start = Vec::new();
        let read = fs::File::open(path).and_then(|file| file.take(64 << 10).read_to_end(&mut start));
        let named = |bytes: &[u8]| bytes.windows(7).any(|window| window == b"pallium");
        let executable = path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0);
        read.is_ok() && executable && (named(&start) || named(path.as_os_str().as_encoded_bytes()))
    };
    std::iter::once(folder.join("qemu")).chain(drop_ins).filter(ours).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::{CHECK, judge, question};
    use crate::permits::{Gate, Kept};

    const XML: &str = "<domain><uuid>00000000-0000-0000-0000-000000000007</uuid></domain>";

    #[test]
    fn only_what_begins_is_asked_about() {
        let table = [
            (vec!["i-1", "prepare", "begin", "-"], XML, Ok(Some("start 00000000-0000-0000-0000-000000000007\n"))),
            (vec!["i-1", "start", "begin", "-"], XML, Ok(Some("start 00000000-0000-0000-0000-000000000007\n"))),
            (vec!["i-1", "reconnect", "begin", "-"], XML, Ok(None)),
            (vec!["i-1", "started", "begin", "-"], XML, Ok(None)),
            (vec!["i-1", "stopped", "end", "-"], XML, Ok(None)),
            (vec!["i-1", "migrate", "begin", "-"], XML, Ok(Some("incoming 00000000-0000-0000-0000-000000000007\n"))),
            (vec!["i-1", "release", "end", "-"], XML, Ok(None)),
            (vec!["7", CHECK, "begin", "-"], "", Ok(Some("check 7\n"))),
            (vec!["i-1", "prepare", "begin", "-"], "<domain/>", Err(())),
            (vec![], XML, Err(())),
        ];
        for (arguments, xml, expected) in table {
            let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
            let asked = question(&arguments, xml.as_bytes());
            assert_eq!(asked.as_ref().map(Option::as_deref).map_err(|_| ()), expected, "{arguments:?}");
        }
    }

    #[test]
    fn lines_that_make_no_sense_are_denied() {
        let permits = [uuid::Uuid::from_u128(7)].into();
        let kept = Kept {
            boot: uuid::Uuid::nil(),
            cluster: uuid::Uuid::nil(),
            incarnation: 1,
            quarantined: false,
            permits,
            holds_compute: false,
        };
        let mut gate = Gate::default();
        gate.welcome(kept).expect("welcome");
        let gate = Mutex::new(gate);
        let allowed = |line: &str| judge(line, &gate).is_ok();
        assert!(allowed("start 00000000-0000-0000-0000-000000000007\n") && allowed("compute\n"));
        for line in
            ["", "start", "start 7", "start 00000000-0000-0000-0000-000000000008", "compute now-ish", "\0\u{1f}"]
        {
            assert_eq!(allowed(line), line.starts_with("compute"), "{line:?}");
        }
    }
}
