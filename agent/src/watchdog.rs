//! The watchdog: what is known of the device, and the thread that feeds it while a lease holds.
//!
//! The device is fed by a write and needs no ioctl: its facts come from sysfs, and its timeout is the driver's
//! (`wdctl --settimeout` before the agent starts, or the module's parameter).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::host;
use crate::lease;
use crate::report::Watchdog;

/// How often it is fed.
const EVERY: Duration = Duration::from_secs(1);
/// A timeout below this leaves too few meals, milliseconds.
const SHORTEST_MS: u64 = 5_000;
/// The agent's own loop must have gone round within this, nanoseconds.
const IDLE_NS: u64 = 5_000_000_000;

/// What sysfs says of a device (`watchdog0`), and what the host is. What cannot be read is the worse.
pub fn facts(root: &Path, device: &str) -> Watchdog {
    let folder = root.join("sys/class/watchdog").join(device);
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).map(|text| text.trim().to_owned()).ok();
    let Some(identity) = read("identity") else { return Watchdog::default() };
    // softdog and its like have no device behind them.
    let hardware = folder.join("device").exists() && !identity.to_ascii_lowercase().contains("software");
    Watchdog {
        present: true,
        armed: false,
        hardware,
        nowayout: read("nowayout").is_some_and(|value| value == "1"),
        virtual_host: host::is_virtual(root),
        suspends: host::suspends(root),
        timeout_ms: read("timeout")
            .and_then(|value| value.parse::<u64>().ok())
            .map_or(0, |seconds| seconds.saturating_mul(1_000)),
    }
}

/// A device that runs from when it is opened.
pub trait Device: Send {
    /// Starts its time anew.
    fn feed(&mut self) -> io::Result<()>;
    /// Stops it. With `nowayout` it goes on.
    fn disarm(self: Box<Self>) -> io::Result<()>;
}

/// A character device of the kernel (`/dev/watchdog0`).
pub struct Kernel(File);

impl Kernel {
    /// Opens it, and with that starts it.
    pub fn open(path: &Path) -> io::Result<Box<dyn Device>> {
        Ok(Box::new(Self(OpenOptions::new().write(true).open(path)?)))
    }
}

impl Device for Kernel {
    fn feed(&mut self) -> io::Result<()> {
        // Any byte but `V` feeds.
        self.0.write_all(b"0")
    }

    fn disarm(mut self: Box<Self>) -> io::Result<()> {
        // The magic close of the kernel's watchdog API.
        self.0.write_all(b"V")
    }
}

/// What the feeding thread and the agent share.
#[derive(Debug, Default)]
pub struct Shared {
    /// The lease ends then.
    pub until_ns: AtomicU64,
    /// The agent's loop went round then.
    pub alive_ns: AtomicU64,
    /// The device runs, and only a lease keeps it quiet.
    armed: AtomicBool,
    /// It was fed the last time.
    fed: AtomicBool,
    /// It was opened in this boot, and not stopped since: it runs, whoever has it.
    opened: AtomicBool,
}

impl Shared {
    /// Of a device that a former agent of this boot may have opened.
    pub fn new(until_ns: u64, opened: bool) -> Self {
        Self { until_ns: until_ns.into(), opened: opened.into(), ..Self::default() }
    }

    /// It was opened in this boot, and not stopped since.
    pub fn opened(&self) -> bool {
        self.opened.load(Ordering::Acquire)
    }

    /// The device runs, and only a lease keeps it quiet.
    pub fn armed(&self) -> bool {
        self.armed.load(Ordering::Acquire)
    }

    /// It was fed the last time.
    pub fn fed(&self) -> bool {
        self.fed.load(Ordering::Acquire)
    }
}

/// Why a watchdog is not armed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// There is none.
    #[error("there is no watchdog device {0}: load its driver, or name another one in `watchdog`")]
    Absent(String),
    /// It fires too soon.
    #[error("the watchdog fires after {0} ms: set at least {SHORTEST_MS} ms (wdctl --settimeout)")]
    TooShort(u64),
}

/// Whether a device with these facts may be armed. That it also proves anything is the server's to say.
pub fn may_arm(device: &str, facts: &Watchdog) -> Result<(), Refused> {
    if !facts.present {
        Err(Refused::Absent(device.to_owned()))
    } else if facts.timeout_ms < SHORTEST_MS {
        Err(Refused::TooShort(facts.timeout_ms))
    } else {
        Ok(())
    }
}

/// How the device is opened.
pub type Open = Box<dyn FnMut() -> io::Result<Box<dyn Device>> + Send>;

/// What it does when, without a thread or a clock: tests drive it.
struct Feeder {
    open: Open,
    device: Option<Box<dyn Device>>,
    wanted: bool,
    nowayout: bool,
    shared: Arc<Shared>,
}

impl Feeder {
    fn wants(&mut self, on: bool) {
        self.wanted = on;
        self.rest();
        self.tell(false);
    }

    fn open(&mut self) {
        if self.device.is_some() {
            return;
        }
        match (self.open)() {
            Ok(device) => {
                self.device = Some(device);
                self.shared.opened.store(true, Ordering::Release);
            }
            Err(error) if self.wanted => {
                tracing::error!(%error, "the watchdog cannot be opened: the host is not protected by it");
            }
            Err(error) => tracing::error!(%error, "the watchdog runs and cannot be opened: it will reset this host"),
        }
    }

    /// When nobody relies on it: it is stopped where that is possible, a former agent's too.
    fn rest(&mut self) {
        if self.wanted || !self.shared.opened() {
            return;
        }
        self.open();
        if !self.nowayout
            && let Some(device) = self.device.take()
        {
            // The server knew before: from now on nothing is concluded from this device.
            match device.disarm() {
                Ok(()) => {
                    self.shared.opened.store(false, Ordering::Release);
                    tracing::info!("the watchdog is disarmed");
                }
                Err(error) => tracing::error!(%error, "the watchdog cannot be disarmed: it will reset this host"),
            }
        }
    }

    fn tell(&self, fed: bool) {
        self.shared.armed.store(self.wanted && self.shared.opened(), Ordering::Release);
        self.shared.fed.store(fed, Ordering::Release);
    }

    fn step(&mut self, now: u64) {
        let (until, alive) =
            (self.shared.until_ns.load(Ordering::Acquire), self.shared.alive_ns.load(Ordering::Acquire));
        let leased = lease::feeds(now, until, alive, IDLE_NS);
        // It is opened under a lease only: opened without one it would reset the host.
        if self.wanted && leased {
            self.open();
        }
        self.rest();
        // Disarmed with `nowayout` it cannot be stopped, and nobody relies on it: it is fed for good.
        let feeds = leased || !self.wanted;
        let fed = self.device.as_mut().filter(|_| feeds).is_some_and(|device| match device.feed() {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "the watchdog cannot be fed");
                false
            }
        });
        if self.device.is_some() && !fed && self.shared.fed() {
            tracing::error!("the watchdog is not fed any more: without a new lease this host is reset");
        }
        self.tell(fed);
    }
}

/// A thread that feeds. When it is dropped the device stays as it is: an agent that starts anew within the
/// timeout, with the lease that it kept, feeds on.
pub struct Thread {
    orders: Sender<bool>,
    /// What it and the agent share.
    pub shared: Arc<Shared>,
}

impl Thread {
    /// Starts it, armed or not.
    pub fn start(open: Open, nowayout: bool, armed: bool, shared: Arc<Shared>) -> io::Result<Self> {
        let (orders, ordered) = channel();
        let feeder = Feeder { open, device: None, wanted: armed, nowayout, shared: Arc::clone(&shared) };
        std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || feed(feeder, &ordered))?;
        Ok(Self { orders, shared })
    }

    /// Arms or disarms.
    pub fn arm(&self, on: bool) {
        // The thread lives as long as this does.
        let _ = self.orders.send(on);
    }
}

fn feed(mut feeder: Feeder, orders: &Receiver<bool>) {
    loop {
        feeder.step(host::boot_ns());
        match orders.recv_timeout(EVERY) {
            Ok(on) => feeder.wants(on),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Where the device of this name is.
pub fn path(device: &str) -> PathBuf {
    Path::new("/dev").join(device)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::Ordering;
    use std::sync::{Arc, Mutex};

    use super::{Device, Feeder, Shared, facts, may_arm};
    use crate::report::Watchdog;

    const S: u64 = 1_000_000_000;

    struct Fake(Arc<Mutex<Vec<&'static str>>>);

    impl Device for Fake {
        fn feed(&mut self) -> io::Result<()> {
            self.0.lock().expect("not poisoned").push("feed");
            Ok(())
        }

        fn disarm(self: Box<Self>) -> io::Result<()> {
            self.0.lock().expect("not poisoned").push("disarm");
            Ok(())
        }
    }

    fn feeder(nowayout: bool) -> (Feeder, Arc<Mutex<Vec<&'static str>>>) {
        let log = Arc::new(Mutex::new(Vec::new()));
        let opened = Arc::clone(&log);
        let open = Box::new(move || {
            opened.lock().expect("not poisoned").push("open");
            Ok(Box::new(Fake(Arc::clone(&opened))) as Box<dyn Device>)
        });
        let shared = Arc::new(Shared::new(20 * S, false));
        (Feeder { open, device: None, wanted: false, nowayout, shared }, log)
    }

    #[test]
    fn it_is_fed_under_a_lease_only() {
        let (mut feeder, log) = feeder(true);
        let seen =
            |feeder: &Feeder| (feeder.shared.armed(), feeder.shared.fed(), log.lock().expect("not poisoned").len());
        feeder.step(S);
        assert_eq!(seen(&feeder), (false, false, 0), "nobody wants it");
        feeder.wants(true);
        feeder.step(30 * S);
        assert_eq!(seen(&feeder), (false, false, 0), "not opened without a lease");
        feeder.step(2 * S);
        assert_eq!(seen(&feeder), (true, true, 2), "opened and fed");
        feeder.step(6 * S);
        assert_eq!(seen(&feeder), (true, false, 2), "the agent's loop stands still");
        feeder.shared.alive_ns.store(18 * S, Ordering::Release);
        feeder.step(18 * S);
        assert_eq!(seen(&feeder), (true, true, 3));
        feeder.step(19 * S);
        assert_eq!(seen(&feeder), (true, false, 3), "the lease is over");
        feeder.wants(false);
        feeder.step(90 * S);
        assert_eq!(seen(&feeder), (false, true, 4), "it cannot be stopped, so it is fed, and proves nothing");
    }

    #[test]
    fn it_is_disarmed_where_that_is_possible() {
        let (mut feeder, log) = feeder(false);
        feeder.wants(true);
        feeder.step(S);
        feeder.wants(false);
        feeder.step(2 * S);
        assert_eq!(*log.lock().expect("not poisoned"), ["open", "feed", "disarm"]);
    }

    /// A former agent of this boot left its device open: the next one has what it left, and whether it is armed.
    #[test]
    fn what_a_former_agent_left_running_resets_no_host_that_nobody_relies_on() {
        for (nowayout, left_armed, expected) in [
            (true, false, &["open", "feed", "feed"][..]),
            (true, true, &["open", "feed", "feed"]),
            (false, false, &["open", "disarm"]),
            (false, true, &["open", "disarm"]),
        ] {
            let (mut feeder, log) = feeder(nowayout);
            feeder.shared = Arc::new(Shared::new(20 * S, true));
            feeder.wants(left_armed);
            if left_armed {
                feeder.step(30 * S);
                let log = log.lock().expect("not poisoned");
                assert_eq!((feeder.shared.armed(), log.len()), (true, 0), "its lease is over: it fires");
                drop(log);
                feeder.wants(false);
            }
            feeder.step(31 * S);
            feeder.step(99 * S);
            assert_eq!(*log.lock().expect("not poisoned"), expected, "{nowayout}, {left_armed}");
            assert_eq!((feeder.shared.armed(), feeder.shared.opened()), (false, nowayout), "{nowayout}, {left_armed}");
        }
    }

    #[test]
    fn facts_come_from_sysfs() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("sys/class/watchdog/watchdog0");
        let put = |name: &str, text: &str| fs::write(folder.join(name), text).expect("a file");
        assert!(may_arm("watchdog0", &facts(root.path(), "watchdog0")).is_err(), "absent");
        fs::create_dir_all(&folder).expect("a folder");
        put("identity", "Software Watchdog\n");
        put("nowayout", "0\n");
        put("timeout", "60\n");
        let soft = Watchdog { present: true, timeout_ms: 60_000, ..Watchdog::default() };
        assert_eq!(facts(root.path(), "watchdog0"), soft);
        symlink("../../../devices", folder.join("device")).expect("a link");
        fs::create_dir_all(root.path().join("sys/class/devices")).expect("a folder");
        fs::create_dir_all(root.path().join("sys/devices")).expect("a folder");
        put("identity", "iTCO_wdt\n");
        put("nowayout", "1\n");
        put("timeout", "10\n");
        let hard = Watchdog { hardware: true, nowayout: true, timeout_ms: 10_000, ..soft };
        assert_eq!(facts(root.path(), "watchdog0"), hard);
        assert!(may_arm("watchdog0", &hard).is_ok());
        put("timeout", "2\n");
        assert!(may_arm("watchdog0", &facts(root.path(), "watchdog0")).is_err());
    }
}
