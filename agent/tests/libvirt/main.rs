//! The agent against the real libvirtd with real (if slow) guests. `cargo xtask test agent` installs what it takes
//! and runs it; without PALLIUM_LIBVIRTD each test passes unrun, for a machine need not have libvirt.

mod daemon;

use std::process::{Child, Command};
use std::time::Duration;

use agent::report::{Body, Directive, DomainState, Event, Goodbye, Hello, Instance, Instances, Lifecycle, Order};
use agent::{Agent, Session, Settings};
use rustix::process::{Pid, Signal, kill_process};
use uuid::Uuid;

use daemon::{Daemon, LIMIT, until, uuid_of};

const CLUSTER: Uuid = Uuid::from_u128(0xc1);

/// Whether this machine was made ready for it.
fn is_wanted() -> bool {
    let wanted = std::env::var_os("PALLIUM_LIBVIRTD").is_some();
    if !wanted {
        println!("not run: `cargo xtask test agent` installs libvirt and QEMU and runs it");
    }
    wanted
}

fn settings(daemon: &Daemon) -> Settings {
    let text = serde_json::json!({
        "host": Uuid::from_u128(0xa), "nova_host": "compute-001",
        "state": daemon.at("state"), "run": daemon.at("run/pallium"), "root": daemon.at("root"),
        "libvirt": {
            "sockets": [daemon.at("run/libvirt/libvirt-sock-ro")],
            "control": [daemon.at("run/libvirt/libvirt-sock")],
            "pids": daemon.at("run/libvirt/qemu"),
        },
        "hook": {"socket": daemon.at("run/pallium/agent.sock"), "folder": daemon.at("etc/hooks")},
    });
    serde_json::from_value(text).expect("settings")
}

/// An agent in a session whose Hello was answered: these guests may run.
struct Greeted {
    agent: Agent,
    session: Session,
    hello: Hello,
    told: u64,
}

impl Greeted {
    async fn start(daemon: &Daemon, permits: &[u32]) -> Self {
        let agent = Agent::start(settings(daemon)).expect("it starts");
        let mut session = agent.session().await;
        let Body::Hello(hello) = next(&mut session).await else { panic!("a session begins with a Hello") };
        let mut greeted = Self { agent, session, hello: *hello, told: 0 };
        let permits = permits.iter().copied().map(uuid_of).collect();
        greeted.tell(Order::Welcome { incarnation: 1, quarantined: false, holds_compute: false, permits }).await;
        greeted
    }

    /// Tells it something, and waits until that is done and kept.
    async fn tell(&mut self, order: Order) {
        self.told += 1;
        self.session.told(Directive { id: self.told, cluster: CLUSTER, order }).await;
        let told = self.told;
        let seen = async { while self.session.next().await.expect("it lives").ack_directive < told {} };
        tokio::time::timeout(LIMIT, seen).await.expect("acknowledged");
    }

    /// The first body that fits.
    async fn wait<T>(&mut self, what: &str, mut fits: impl FnMut(Body) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = fits(next(&mut self.session).await) {
                    return found;
                }
            }
        };
        tokio::time::timeout(LIMIT, found).await.unwrap_or_else(|_| panic!("{what}: not within {LIMIT:?}"))
    }

    async fn libvirt_is(&mut self, ok: bool) {
        self.wait(if ok { "libvirt answers" } else { "libvirt is gone" }, |body| {
            matches!(body, Body::Heartbeat(beat) if beat.libvirt_ok == ok).then_some(())
        })
        .await;
    }
}

async fn next(session: &mut Session) -> Body {
    tokio::time::timeout(LIMIT, session.next()).await.expect("in time").expect("it lives").body
}

fn lifecycle(number: u32, wanted: Lifecycle, how: i32) -> impl Fn(Body) -> Option<()> {
    move |body| match body {
        Body::DomainEvent(event) if event.instance == uuid_of(number) => {
            matches!(event.event, Event::Lifecycle { event, detail } if (event, detail) == (wanted, how)).then_some(())
        }
        _ => None,
    }
}

fn instances(body: Body) -> Option<Instances> {
    if let Body::Instances(instances) = body { Some(instances) } else { None }
}

fn pid(daemon: &Daemon, number: u32) -> Pid {
    let path = daemon.at(&format!("run/libvirt/qemu/instance-{number:08x}.pid"));
    let text = until("QEMU's process", || std::fs::read_to_string(&path).ok());
    text.trim().parse().ok().and_then(Pid::from_raw).expect("a process")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_is_killed_is_seen_and_reported() {
    if !is_wanted() {
        return;
    }
    let daemon = Daemon::start("");
    let mut agent = Greeted::start(&daemon, &[1, 2]).await;
    let hello = &agent.hello;
    assert!(hello.permit_check, "the hook was called and asked\n{}", daemon.log());
    assert!(hello.libvirt_version.is_some() && hello.hypervisor.as_deref() == Some("QEMU"), "{hello:?}");
    assert!(!hello.resumes_guests, "{hello:?}");

    daemon.must(&["create", &daemon.guest(1, "")]);
    agent.wait("it started", lifecycle(1, Lifecycle::Started, 0)).await;
    let runs = agent.wait("it is listed", |body| {
        instances(body)?.present.into_iter().find(|one| one.uuid == uuid_of(1) && one.state == DomainState::Running)
    });
    let runs = runs.await;
    assert_eq!(runs.pid, Some(pid(&daemon, 1).as_raw_nonzero().get() as u32), "{runs:?}");

    kill_process(pid(&daemon, 1), Signal::KILL).expect("a signal");
    // `VIR_DOMAIN_EVENT_STOPPED_FAILED`: the process is gone, and nobody asked for it.
    agent.wait("it failed", lifecycle(1, Lifecycle::Stopped, 5)).await;
    agent.wait("it is gone", |body| instances(body)?.gone.contains(&uuid_of(1)).then_some(())).await;

    // One that libvirt would start by itself changes what the Hello says.
    daemon.must(&["define", &daemon.guest(2, "")]);
    daemon.must(&["autostart", "instance-00000002"]);
    agent.tell(Order::ReportNow).await;
    let by = agent.wait("a new Hello", |body| match body {
        Body::Hello(hello) if hello.resumes_guests => Some(hello.resumes_by),
        _ => None,
    });
    assert_eq!(by.await, ["autostart of instance-00000002"]);

    let Greeted { agent, mut session, .. } = agent;
    let left = tokio::spawn(agent.leave(Goodbye::AgentRestart, 5));
    let mut last = None;
    while let Some(envelope) = session.next().await {
        last = Some(envelope.body);
    }
    left.await.expect("it left");
    assert_eq!(last, Some(Body::Goodbye { reason: Goodbye::AgentRestart, expected_down_s: 5 }));
}

/// A disk over the network whose every read fails for want of space.
struct BrokenDisk(Child);

impl BrokenDisk {
    fn start(daemon: &Daemon) -> Self {
        let image = daemon.at("disks/broken");
        // Not sparse: holes are told, not read.
        std::fs::write(&image, vec![0x5a; 1 << 20]).expect("a file");
        let file = serde_json::json!({"driver": "blkdebug", "image": {"driver": "file", "filename": image},
            "inject-error": [{"event": "read_aio", "errno": 28}]});
        let disk = format!("json:{}", serde_json::json!({"driver": "raw", "file": file}));
        let socket = daemon.at("run/nbd.sock");
        let mut nbd = Command::new("qemu-nbd");
        nbd.args(["--persistent", "--export-name", "broken", "--socket"]).arg(&socket).arg(disk);
        let started = Self(nbd.spawn().expect("qemu-nbd"));
        until("qemu-nbd listens", || socket.exists().then_some(()));
        started
    }
}

impl Drop for BrokenDisk {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_a_disk_is_seen_and_reported() {
    if !is_wanted() {
        return;
    }
    let daemon = Daemon::start("");
    let _disk = BrokenDisk::start(&daemon);
    let mut agent = Greeted::start(&daemon, &[3]).await;
    let disk = "<disk type='network' device='disk'>
        <driver name='qemu' type='raw' error_policy='stop' rerror_policy='stop'/>
        <source protocol='nbd' name='broken'><host transport='unix' socket='/run/nbd.sock'/></source>
        <target dev='vda' bus='virtio'/></disk>";
    daemon.must(&["create", &daemon.guest(3, disk)]);
    // Paused (3) for an I/O error (5), and an event that says which device; libvirt tells them in any order.
    let (mut error, mut paused) = (None, None);
    let both = agent.wait("an I/O error and a paused guest", |body| {
        match body {
            Body::DomainEvent(event) => {
                if let Event::IoError { device, action, .. } = event.event {
                    error = Some((event.instance, device, action));
                }
            }
            Body::Instances(instances) => {
                let stands = |one: &Instance| (one.state, one.state_reason) == (DomainState::Paused, 5);
                paused = instances.present.into_iter().find(stands).or(paused.take());
            }
            _ => {}
        }
        error.clone().zip(paused.clone())
    });
    let ((instance, device, action), paused) = both.await;
    assert_eq!((instance, action), (uuid_of(3), 1), "it is paused");
    assert_eq!(paused.disks.len(), 1, "{paused:?}");
    let disk = &paused.disks[0];
    assert_eq!((disk.backend.as_str(), disk.shared, &disk.alias), ("nbd:broken", true, &device), "{paused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_libvirtd_that_is_silent_or_gone_is_seen() {
    if !is_wanted() {
        return;
    }
    let mut daemon = Daemon::start("");
    let mut agent = Greeted::start(&daemon, &[4]).await;
    daemon.must(&["create", &daemon.guest(4, "")]);
    agent.wait("it started", lifecycle(4, Lifecycle::Started, 0)).await;
    agent.libvirt_is(true).await;

    daemon.signal(Signal::STOP);
    agent.libvirt_is(false).await;
    daemon.signal(Signal::CONT);
    agent.libvirt_is(true).await;

    daemon.kill();
    agent.libvirt_is(false).await;
    // A guest that was there when libvirtd went away is found again, and nobody is asked about it.
    let away = agent::host::boot_ns();
    daemon.restart();
    let whole = agent.wait("all there is", |body| instances(body).filter(|all| all.whole && all.asked_boot_ns > away));
    let whole = whole.await;
    let states: Vec<_> = whole.present.iter().map(|one| (one.uuid, one.state)).collect();
    assert_eq!(states, [(uuid_of(4), DomainState::Running)]);
}

/// A guest moves from one host to another, each with its agent: the target's hook hears of it before it asks, and lets it in
/// without a permit, for its source runs it. Not so in quarantine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_migration_is_let_in_but_for_quarantine() {
    if !is_wanted() {
        return;
    }
    let (from, to) = (Daemon::start(""), Daemon::start(""));
    let (mut source, mut target) = (Greeted::start(&from, &[10]).await, Greeted::start(&to, &[]).await);
    from.must(&["create", &from.guest(10, "")]);
    source.wait("it started", lifecycle(10, Lifecycle::Started, 0)).await;
    let way = format!("unix://{}", from.at("run/way.sock").display());
    let there = to.uri();
    let migrate = ["migrate", "--live", "instance-0000000a", &there, "--migrateuri", &way];

    target.tell(Order::Quarantine { on: true }).await;
    let refused = from.virsh(&migrate);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && why.contains("in quarantine"), "{why}\n{}", to.log());
    let state = from.virsh(&["domstate", "instance-0000000a"]);
    assert_eq!(String::from_utf8_lossy(&state.stdout).trim(), "running", "it goes on where it was");

    target.tell(Order::Quarantine { on: false }).await;
    from.must(&migrate);
    source.wait("it has left", lifecycle(10, Lifecycle::Stopped, 3)).await;
    source.wait("it is gone", |body| instances(body)?.gone.contains(&uuid_of(10)).then_some(())).await;
    target.wait("it has come", lifecycle(10, Lifecycle::Started, 1)).await;
    let runs = |body| instances(body)?.present.into_iter().find(|one| one.state == DomainState::Running);
    assert_eq!(target.wait("it runs", runs).await.uuid, uuid_of(10));
}

/// The daemon's refusal to create a guest.
fn refusal(daemon: &Daemon, number: u32) -> String {
    let done = daemon.virsh(&["create", &daemon.guest(number, "")]);
    assert!(!done.status.success(), "guest {number} was started\n{}", daemon.log());
    String::from_utf8_lossy(&done.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hook_lets_start_what_is_permitted_and_nothing_else() {
    if !is_wanted() {
        return;
    }
    let mut daemon = Daemon::start("");
    // Nobody answers.
    assert!(refusal(&daemon, 5).contains("cannot be asked"), "{}", daemon.log());
    // Nobody has answered the Hello.
    let agent = Agent::start(settings(&daemon)).expect("it starts");
    assert!(refusal(&daemon, 5).contains("no pallium server has answered"), "{}", daemon.log());
    drop(agent);

    let mut agent = greet_again(&daemon, &[5, 6]).await;
    assert_eq!(agent.hello.cluster, None);
    daemon.must(&["create", &daemon.guest(5, "")]);
    assert!(refusal(&daemon, 7).contains("not permitted on this host"), "{}", daemon.log());
    let withdraw =
        Order::Permits { incarnation: 1, whole: false, granted: vec![uuid_of(7)], withdrawn: vec![uuid_of(6)] };
    agent.tell(withdraw).await;
    refusal(&daemon, 6);
    daemon.must(&["create", &daemon.guest(7, "")]);
    agent.tell(Order::Quarantine { on: true }).await;
    daemon.must(&["destroy", "instance-00000007"]);
    assert!(refusal(&daemon, 7).contains("quarantine"), "{}", daemon.log());
    agent.tell(Order::Quarantine { on: false }).await;

    // A new start of the agent in the same boot knows what it was told; no server is needed.
    drop(agent);
    daemon.must(&["list"]);
    let agent = start_again(&daemon).await;
    daemon.must(&["create", &daemon.guest(7, "")]);
    refusal(&daemon, 6);

    // A restart of libvirtd kills no guest, although the agent is away: to find one again is no start.
    drop(agent);
    daemon.kill();
    daemon.restart();
    let listed = daemon.virsh(&["list", "--name"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("instance-00000005") && listed.contains("instance-00000007"), "{listed}\n{}", daemon.log());

    // After a reboot nothing counts that was told before, until a Hello was answered.
    daemon.must(&["destroy", "instance-00000007"]);
    daemon.boot(2);
    let agent = start_again(&daemon).await;
    assert!(refusal(&daemon, 7).contains("no pallium server has answered"), "{}", daemon.log());
    drop(agent);
    let agent = greet_again(&daemon, &[7]).await;
    assert_eq!((agent.hello.previous.is_some(), agent.hello.cluster), (true, Some(CLUSTER)));
    daemon.must(&["create", &daemon.guest(7, "")]);
}

/// Starts an agent where another one has just ended.
async fn start_again(daemon: &Daemon) -> Agent {
    loop {
        match Agent::start(settings(daemon)) {
            Ok(agent) => return agent,
            Err(agent::Failure::Socket { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(failure) => panic!("{failure}"),
        }
    }
}

async fn greet_again(daemon: &Daemon, permits: &[u32]) -> Greeted {
    drop(start_again(daemon).await);
    let began = std::time::Instant::now();
    loop {
        assert!(began.elapsed() < LIMIT, "the socket is free again");
        if std::os::unix::net::UnixStream::connect(daemon.at("run/pallium/agent.sock")).is_err() {
            return Greeted::start(daemon, permits).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_that_is_told_so_lets_start_when_nobody_answers() {
    if !is_wanted() {
        return;
    }
    let daemon = Daemon::start("--on-silence allow");
    daemon.must(&["create", &daemon.guest(8, "")]);
    let _agent = Agent::start(settings(&daemon)).expect("it starts");
    assert!(refusal(&daemon, 9).contains("no pallium server has answered"), "an answer counts\n{}", daemon.log());
}

/// What may not run here is stopped, over a connection that is made for it; what may is not, and what is not known to
/// libvirt is no fault.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_without_a_right_are_stopped() {
    if !is_wanted() {
        return;
    }
    let daemon = Daemon::start("");
    let mut agent = Greeted::start(&daemon, &[1, 2]).await;
    daemon.must(&["define", &daemon.guest(1, "")]);
    for start in [["start", "instance-00000001"], ["create", &daemon.guest(2, "")]] {
        daemon.must(&start);
    }
    let stop = |numbers: &[u32]| Order::StopGuests { instances: numbers.iter().copied().map(uuid_of).collect() };
    let result = |told| {
        move |body| match body {
            Body::DirectiveResult { directive, refused } if directive == told => Some(refused),
            _ => None,
        }
    };
    let tell = async |agent: &mut Greeted, order| {
        agent.told += 1;
        agent.session.told(Directive { id: agent.told, cluster: CLUSTER, order }).await;
        let told = agent.told;
        agent.wait("its result", result(told)).await
    };
    let refused = tell(&mut agent, stop(&[1, 3])).await.expect("it may run here");
    assert!(refused.contains("is permitted here"), "{refused}");
    let withdrawn = vec![uuid_of(1)];
    tell(&mut agent, Order::Permits { incarnation: 1, whole: false, granted: vec![], withdrawn }).await;
    let process = pid(&daemon, 1);
    assert_eq!(tell(&mut agent, stop(&[1, 3])).await, None, "{}", daemon.log());
    until("its process is gone", || rustix::process::test_kill_process(process).is_err().then_some(()));
    let off = agent.wait("it is listed as off", |body| {
        instances(body)?.present.into_iter().find(|one| one.uuid == uuid_of(1) && one.state == DomainState::ShutOff)
    });
    assert_eq!(off.await.state_reason, 2, "destroyed");
    rustix::process::test_kill_process(pid(&daemon, 2)).expect("the other one runs");
}
