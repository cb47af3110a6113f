//! The hands on Nova: a model of it with its rules and dangers (`tests/model/nova.rs`).

#[path = "../model/ledger.rs"]
mod ledger;
#[path = "../model/nova.rs"]
mod nova;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use ledger::{Book, Shared, barrier};
use nova::{Fault, Model, PASSWORD};
use operators::hands::{Config, Hands, Known};
use scheduler::ha::coordinator::{Answer, Call, Told};
use scheduler::ha::host::HostId;
use scheduler::ha::order::{Clear, NovaRead};
use scheduler::ha::planner::OnCrash;
use scheduler::ha::recovery::{Recorded, VmState};
use scheduler::ha::reentry::ComputeRead;
use scheduler::request::{Group, GroupPolicy};
use tempfile::TempDir;
use uuid::Uuid;

const SOURCE: HostId = HostId(Uuid::from_u128(1));
const TARGET: HostId = HostId(Uuid::from_u128(2));
const FAR: HostId = HostId(Uuid::from_u128(3));
const ACTIVE: Recorded = Recorded { vm: VmState::Active, running: true, task: false };

/// A cloud of three hosts in two cells, and the hands in front of it.
struct Bench {
    model: Model,
    book: Shared,
    hands: Hands<Shared>,
    folder: TempDir,
    config: Config,
}

impl Bench {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Book)) -> Self {
        let model = Model::start().await;
        let mut book = Book { source: Some(SOURCE), ..Book::default() };
        for (id, name, cell) in [(SOURCE, "src", "a"), (TARGET, "dst", "a"), (FAR, "far", "b")] {
            let service = model.cloud().add_host(name, cell);
            let known = Known {
                nova_host: name.to_owned(),
                nova_service: (id == SOURCE).then_some(service),
                cell: cell.to_owned(),
                ..Known::default()
            };
            book.hosts.insert(id, known);
        }
        change(&mut book);
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("nova"), format!("{PASSWORD}\n")).expect("a file");
        let config = serde_json::from_value(serde_json::json!({"nova": {
            "auth_url": format!("{}/identity", model.url),
            "user": nova::USER,
            "password_file": folder.path().join("nova"),
            "project": "service",
            "region": "one",
        }}));
        let config: Config = config.expect("a configuration");
        let book = Shared(Arc::new(book));
        let hands = Hands::open(&config, book.clone()).expect("hands");
        Self { model, book, hands, folder, config }
    }

    /// The source has an instance, and is dead and marked so.
    async fn dead() -> (Self, Uuid) {
        let bench = Self::new().await;
        let instance = bench.model.cloud().add_server("src");
        bench.model.cloud().die("src");
        bench.model.cloud().host("src").forced_down = true;
        (bench, instance)
    }

    async fn act(&self, call: Call) -> Option<Told> {
        self.hands.act(call, &self.book).await
    }

    async fn evacuate(&self, instance: Uuid, intent: u128) -> Answer {
        let call = Call::Evacuate { instance, target: TARGET, barrier: barrier(intent, 2_000) };
        match self.act(call).await {
            Some(Told::Evacuated { instance: same, op, answer }) if same == instance && op.as_u128() == intent => {
                answer
            }
            other => panic!("{other:?}"),
        }
    }

    async fn read(&self, instance: Uuid) -> Option<(Option<NovaRead>, bool)> {
        match self.act(Call::ReadServer(instance)).await {
            Some(Told::Server { instance: same, read, sentinel }) if same == instance => {
                Some((read.map(|(read, _)| read), sentinel))
            }
            None => None,
            other => panic!("{other:?}"),
        }
    }

    fn asked(&self, what: &str) -> usize {
        self.model.cloud().asked.iter().filter(|asked| asked.contains(what)).count()
    }
}

#[tokio::test]
async fn a_dead_host_is_marked_and_its_instance_comes_up_once() {
    let bench = Bench::new().await;
    let instance = bench.model.cloud().add_server("src");
    bench.model.cloud().die("src");
    // Nova believes in the service for a minute after its last report.
    bench.model.cloud().host("src").reports = true;
    assert_eq!(bench.evacuate(instance, 1).await, Answer::SourceUp);

    let told = |forced_down, disabled| Some(Told::Service { host: SOURCE, forced_down, disabled });
    *bench.book.0.only.lock().expect("no panic") = Some(Uuid::nil());
    assert_eq!(bench.act(Call::ForceDown { host: SOURCE, barrier: barrier(1, 5_000) }).await, None);
    assert_eq!(bench.act(Call::Disable { host: SOURCE, barrier: barrier(1, 5_000) }).await, None);
    assert_eq!(bench.asked("PUT"), 0, "not sent without its barrier");
    *bench.book.0.only.lock().expect("no panic") = None;
    assert_eq!(bench.act(Call::ForceDown { host: SOURCE, barrier: barrier(1, 5_000) }).await, told(true, false));
    assert_eq!(bench.act(Call::Disable { host: SOURCE, barrier: barrier(1, 5_000) }).await, told(true, true));
    assert_eq!(bench.act(Call::Disable { host: SOURCE, barrier: barrier(1, 5_000) }).await, told(true, true));
    assert_eq!((bench.asked("PUT"), bench.model.cloud().rpcs), (2, 0), "what is marked is not marked again");

    let listed = bench.act(Call::ListServers(SOURCE)).await;
    assert_eq!(listed, Some(Told::Servers(SOURCE, vec![(instance, ACTIVE).into()])));
    let (before, sentinel) = bench.read(instance).await.expect("an answer");
    let before = before.expect("the instance");
    assert!(sentinel && before.sentinel && before.host == SOURCE && before.now == ACTIVE && !before.moving);
    assert_eq!(bench.evacuate(instance, 2).await, Answer::Taken);
    let during = bench.read(instance).await.expect("an answer").0.expect("the instance");
    assert!(during.moving && during.migrations.len() == 1 && during.now.task, "{during:?}");
    bench.model.cloud().rebuild();
    let after = bench.read(instance).await.expect("an answer").0.expect("the instance");
    assert!(after.host == TARGET && !after.moving, "{after:?}");
    assert_eq!(bench.model.cloud().runs_on(instance), ["dst"]);
    // The source comes back with the guest: Nova destroys it there.
    bench.model.cloud().come_back("src", &[instance]);
    assert_eq!(bench.model.cloud().runs_on(instance), ["dst"]);
    assert_eq!(bench.asked("POST /identity"), 1, "one token serves all calls");
}

/// A host comes back: nothing is taken back while an evacuation is not cleaned up, nor without the barrier,
/// nor what somebody else has marked since.
#[tokio::test]
async fn marks_are_taken_back_when_nova_has_cleaned_up() {
    let (bench, instance) = Bench::dead().await;
    bench.act(Call::Disable { host: SOURCE, barrier: barrier(1, 5_000) }).await;
    let compute = async || match bench.act(Call::ReadCompute(SOURCE)).await {
        Some(Told::Compute(SOURCE, read)) => read,
        other => panic!("{other:?}"),
    };
    let read = |fresh, open: &[Uuid], done: &[Uuid]| ComputeRead {
        fresh,
        open: open.to_vec(),
        done: done.to_vec(),
        sentinel: true,
    };
    assert_eq!(bench.evacuate(instance, 1).await, Answer::Taken);
    assert_eq!(compute().await, read(false, &[instance], &[]));
    bench.model.cloud().rebuild();
    assert_eq!(compute().await, read(false, &[], &[instance]));
    let unforce = Call::Unforce { host: SOURCE, barrier: barrier(2, 2_000) };
    assert_eq!(bench.act(unforce).await, None, "Nova refuses: the guest is not cleaned up");
    assert!(bench.model.cloud().host("src").forced_down);
    bench.model.cloud().come_back("src", &[instance]);
    assert_eq!(compute().await, read(true, &[], &[]));
    let told = |forced_down, disabled| Some(Told::Service { host: SOURCE, forced_down, disabled });
    *bench.book.0.only.lock().expect("no panic") = Some(Uuid::nil());
    assert_eq!(bench.act(unforce).await, None, "the barrier does not hold");
    assert!(bench.model.cloud().host("src").forced_down);
    *bench.book.0.only.lock().expect("no panic") = None;
    assert_eq!(bench.act(unforce).await, told(false, true));
    let enable = Call::Enable { host: SOURCE, barrier: barrier(3, 2_000) };
    let reason = bench.model.cloud().host("src").disabled_reason.replace("Jo looks at its disks".to_owned());
    assert_eq!(bench.act(enable).await, told(false, false), "our mark is gone");
    assert!(bench.model.cloud().host("src").disabled, "and theirs stays");
    bench.model.cloud().host("src").disabled_reason = reason;
    assert_eq!(bench.act(enable).await, told(false, false));
    assert!(!bench.model.cloud().host("src").disabled);
}

/// Disabled first, Nova calls the dead host. In one request with `forced_down` it does not, even when the
/// first mark was lost.
#[tokio::test]
async fn disabling_never_makes_nova_call_the_dead_host() {
    let bench = Bench::new().await;
    bench.act(Call::Disable { host: SOURCE, barrier: barrier(1, 5_000) }).await;
    let cloud = bench.model.cloud();
    let host = &cloud.hosts["src"];
    assert!(host.forced_down && host.disabled && cloud.rpcs == 0, "{host:?}");
}

/// What Nova does not guard against, and what therefore nobody may send twice.
#[tokio::test]
async fn the_model_has_novas_danger_a_second_evacuation_runs_the_instance_twice() {
    let (bench, instance) = Bench::dead().await;
    assert_eq!(bench.evacuate(instance, 1).await, Answer::Taken);
    let other = Call::Evacuate { instance, target: FAR, barrier: barrier(2, 2_000) };
    let Some(Told::Evacuated { answer, .. }) = bench.act(other).await else { panic!("no answer") };
    assert_eq!(answer, Answer::Taken);
    bench.model.cloud().rebuild();
    assert_eq!(bench.model.cloud().runs_on(instance), ["dst", "far"]);
}

/// What an answer to an evacuation means, and how often it was sent.
#[tokio::test]
async fn answers_mean_what_surely_was_not_taken() {
    type Change = fn(&mut nova::Cloud, Uuid);
    const ACTION: &str = "/action";
    let cases: [(&str, Change, Answer, bool); 14] = [
        ("taken", |_, _| {}, Answer::Taken, true),
        ("it reports, and is forced down", |c, _| c.come_back("src", &[]), Answer::Taken, true),
        (
            "up",
            |c, _| {
                c.host("src").reports = true;
                c.host("src").forced_down = false;
            },
            Answer::SourceUp,
            false,
        ),
        ("no such target", |c, _| drop(c.hosts.remove("dst")), Answer::Refused { forever: false }, false),
        ("on the target", |c, i| c.server(i).host = "dst".into(), Answer::Refused { forever: false }, false),
        ("no right", |c, _| c.admin = false, Answer::Refused { forever: true }, false),
        ("deleted", |c, i| drop(c.servers.remove(&i)), Answer::Unknown, false),
        ("paused", |c, i| c.server(i).vm_state = "paused", Answer::Unknown, false),
        (
            "a task, where Nova still looks at it",
            |c, i| {
                c.checks_task = true;
                c.server(i).task_state = Some("rebuilding");
            },
            Answer::Unknown,
            false,
        ),
        (
            "a conflict in a legal state",
            |c, _| c.faults.push((ACTION, Fault::Refuse(409))),
            Answer::Refused { forever: true },
            false,
        ),
        ("503", |c, _| c.faults.push((ACTION, Fault::Refuse(503))), Answer::Unknown, false),
        ("504 of a proxy, and it is done", |c, _| c.faults.push((ACTION, Fault::Answer(504))), Answer::Unknown, true),
        ("no answer, and it is done", |c, _| c.faults.push((ACTION, Fault::LoseAnswer)), Answer::Unknown, true),
        ("cell down", |c, _| c.down.extend(["a"]), Answer::Unknown, false),
    ];
    for (name, change, answer, taken) in cases {
        let (bench, instance) = Bench::dead().await;
        change(&mut bench.model.cloud(), instance);
        assert_eq!(bench.evacuate(instance, 7).await, answer, "{name}");
        assert_eq!(!bench.model.cloud().migrations.is_empty(), taken, "{name}");
        assert_eq!(bench.asked("POST /compute"), 1, "{name}: sent once");
    }
}

#[tokio::test]
async fn without_its_barrier_nothing_is_sent() {
    let (bench, instance) = Bench::dead().await;
    *bench.book.0.only.lock().expect("a lock") = Some(Uuid::from_u128(5));
    assert_eq!(bench.evacuate(instance, 4).await, Answer::NotSent);
    assert_eq!((bench.asked("POST /compute"), bench.book.0.checks.load(Ordering::SeqCst)), (0, 1));
    assert_eq!(bench.evacuate(instance, 5).await, Answer::Taken);
    // Keystone or Nova is away before anything was written.
    bench.model.cloud().expire();
    bench.model.cloud().faults.push(("/identity", Fault::Refuse(503)));
    assert_eq!(bench.evacuate(instance, 5).await, Answer::Unknown, "the old token: 401, which says nothing");
    assert_eq!(bench.evacuate(instance, 5).await, Answer::NotSent);
}

#[tokio::test]
async fn a_cell_that_does_not_answer_is_not_an_absence() {
    let (bench, instance) = Bench::dead().await;
    assert_eq!(bench.evacuate(instance, 1).await, Answer::Taken);
    // Another cell has rows all the while.
    let far = bench.model.cloud().add_server("far");
    bench.model.cloud().add_migration(far, "live-migration", "completed", "far", "far");
    bench.model.cloud().down.insert("a");
    assert_eq!(bench.read(instance).await, Some((None, false)), "the instance is not gone");
    assert_eq!(bench.act(Call::ListServers(SOURCE)).await, None, "an empty list is no list");
    assert_eq!(bench.act(Call::ForceDown { host: SOURCE, barrier: barrier(1, 5_000) }).await, None);
    let gone = Uuid::from_u128(0xdead);
    assert_eq!(bench.read(gone).await, Some((None, false)), "404, and its cell said nothing");
    bench.model.cloud().down.clear();
    assert_eq!(bench.read(gone).await, Some((None, true)));
    let (read, sentinel) = bench.read(instance).await.expect("an answer");
    assert!(sentinel && read.is_some_and(|read| read.migrations.len() == 1));

    // The cell goes away between the instance and its migrations: the list is empty, and says so.
    bench.model.cloud().faults.push(("instance_uuid", Fault::Refuse(500)));
    assert_eq!(bench.read(instance).await, None);
}

/// Hole 5 in one round: the instance was read whole, and then its cell is left out of the list.
#[tokio::test]
async fn a_list_is_whole_only_beside_a_row_of_the_same_cell() {
    let (bench, instance) = Bench::dead().await;
    let far = bench.model.cloud().add_server("far");
    bench.model.cloud().add_migration(far, "evacuation", "done", "far", "far");
    bench.read(instance).await.expect("an answer");
    let services = bench.asked("/os-services");
    assert_eq!(services, 1, "the newest migration is of another cell: the service is asked");
    bench.model.cloud().add_migration(instance, "live-migration", "completed", "dst", "src");
    let (read, sentinel) = bench.read(instance).await.expect("an answer");
    assert!(sentinel && read.is_some_and(|read| read.migrations.len() == 1));
    assert_eq!(bench.asked("/os-services"), services, "a migration of the cell is sign enough");
}

#[tokio::test]
async fn lists_are_read_to_their_end() {
    let (bench, first) = Bench::dead().await;
    bench.model.cloud().page = 2;
    let mut all = vec![first];
    for _ in 0..4 {
        let id = bench.model.cloud().add_server("src");
        all.push(id);
        bench.model.cloud().add_migration(first, "resize", "confirmed", "dst", "src");
        bench.model.cloud().add_server("dst");
    }
    let Some(Told::Servers(_, listed)) = bench.act(Call::ListServers(SOURCE)).await else { panic!("no list") };
    assert_eq!(listed.iter().map(|known| known.instance).collect::<Vec<_>>(), all);
    let read = bench.read(first).await.expect("an answer").0.expect("the instance");
    assert_eq!(read.migrations.len(), 4);
    bench.model.cloud().faults.push(("marker", Fault::Refuse(503)));
    assert_eq!(bench.act(Call::ListServers(SOURCE)).await, None, "a page is missing");
}

/// Server groups of all projects, page by page, in the words of either microversion; what Nova does not tell keeps no
/// plan waiting.
#[tokio::test]
async fn server_groups_are_read_with_their_rules() {
    let groups = async |bench: &Bench| match bench.act(Call::ListGroups).await {
        Some(Told::Groups(groups)) => Some(groups),
        None => None,
        other => panic!("{other:?}"),
    };
    let id = Uuid::from_u128;
    for newest in [60, 104] {
        let (bench, instance) = Bench::dead().await;
        {
            let mut cloud = bench.model.cloud();
            (cloud.page, cloud.newest) = (2, newest);
            let group = |n, policy, most, members| nova::Group { uuid: id(n), policy, most, members };
            cloud.groups = vec![
                group(1, "anti-affinity", Some(3), vec![instance, id(8)]),
                group(2, "affinity", None, vec![id(9)]),
                group(3, "soft-affinity", None, vec![]),
                group(4, "a policy of tomorrow", None, vec![id(10)]),
                group(5, "soft-anti-affinity", None, vec![id(11)]),
            ];
        }
        // Before 2.64 there was no rule.
        let most = if newest < 64 { 1 } else { 3 };
        let expected = [
            (1, GroupPolicy::AntiAffinity, most, vec![instance, id(8)]),
            (2, GroupPolicy::Affinity, 1, vec![id(9)]),
            (5, GroupPolicy::SoftAntiAffinity, 1, vec![id(11)]),
        ];
        let expected = expected.map(|(n, policy, max_per_host, members)| Group {
            uuid: Some(id(n)),
            policy: Some(policy),
            members,
            hosts: Vec::new(),
            max_per_host,
        });
        assert_eq!(groups(&bench).await.as_deref(), Some(expected.as_slice()), "2.{newest}");
        bench.model.cloud().faults.push(("offset=2", Fault::Refuse(503)));
        assert_eq!(groups(&bench).await, None, "a page is missing");
        bench.model.cloud().faults.clear();
        bench.model.cloud().admin = false;
        assert_eq!(groups(&bench).await, Some(Vec::new()), "forbidden");
    }
}

/// How an instance stands, by Nova's words.
#[tokio::test]
async fn instances_and_migrations_are_read_as_nova_means_them() {
    let (bench, instance) = Bench::dead().await;
    let cases = [
        (("active", None, 1, true), ACTIVE),
        (("stopped", None, 4, true), Recorded { vm: VmState::Stopped, running: false, task: false }),
        (("error", Some("rebuilding"), 0, true), Recorded { vm: VmState::Error, running: false, task: true }),
        // A build that failed: nothing was ever there.
        (("error", None, 0, false), Recorded { vm: VmState::Other, running: false, task: false }),
        (("resized", None, 1, true), Recorded { vm: VmState::Other, running: true, task: false }),
    ];
    for ((vm_state, task_state, power_state, launched), expected) in cases {
        let host = "src".to_owned();
        let server = nova::Server { host, vm_state, task_state, power_state, launched, metadata: BTreeMap::new() };
        bench.model.cloud().servers.insert(instance, server);
        assert_eq!(bench.read(instance).await.expect("an answer").0.expect("the instance").now, expected);
    }
    let statuses = [
        ("done", Some(true)),
        ("completed", Some(true)),
        ("confirmed", Some(true)),
        ("error", Some(false)),
        ("failed", Some(false)),
        ("cancelled", Some(false)),
        ("reverted", Some(false)),
        ("accepted", None),
        ("pre-migrating", None),
        ("finished", None),
        ("a word of tomorrow", None),
    ];
    for (status, over) in statuses {
        bench.model.cloud().migrations.clear();
        let id = bench.model.cloud().add_migration(instance, "evacuation", status, "src", "dst");
        let Some(Told::Server { read: Some((read, migrations)), .. }) = bench.act(Call::ReadServer(instance)).await
        else {
            panic!("no answer")
        };
        assert_eq!((migrations[0].id, migrations[0].over, read.moving), (id, over, over.is_none()), "{status}");
    }
}

/// Hole 8: the guest may run where a live migration was bringing it.
#[tokio::test]
async fn a_live_migration_that_broke_off_names_its_destination() {
    for absent in [None, Some(77)] {
        let bench = Bench::with(|book| book.absent = absent).await;
        let instance = bench.model.cloud().add_server("src");
        bench.model.cloud().die("src");
        bench.model.cloud().add_migration(instance, "live-migration", "error", "src", "dst");
        let read = bench.read(instance).await.expect("an answer").0.expect("the instance");
        assert_eq!(read.destination, Some((TARGET, absent.map(|at| Clear::Absent { at }))));
        assert!(!read.moving);
        bench.model.cloud().add_migration(instance, "live-migration", "failed", "src", "a host of before");
        let read = bench.read(instance).await.expect("an answer").0.expect("the instance");
        assert!(read.moving && read.destination.is_none(), "a person must look: {read:?}");
        bench.model.cloud().add_migration(instance, "live-migration", "completed", "dst", "src");
        let read = bench.read(instance).await.expect("an answer").0.expect("the instance");
        assert!(!read.moving && read.destination.is_none(), "{read:?}");
        let domain = bench.act(Call::ReadDomain { host: TARGET, instance }).await;
        assert_eq!(domain, absent.map(|at| Told::Absent { host: TARGET, instance, at }));
    }
}

#[tokio::test]
async fn a_token_is_renewed_and_a_version_found() {
    let (bench, instance) = Bench::dead().await;
    bench.read(instance).await.expect("an answer");
    bench.model.cloud().expire();
    bench.read(instance).await.expect("an answer with a new token");
    assert_eq!(bench.asked("POST /identity"), 2);
    for (newest, works) in [(58, false), (59, true), (90, true), (104, true)] {
        let (bench, instance) = Bench::dead().await;
        bench.model.cloud().newest = newest;
        assert_eq!(bench.read(instance).await.is_some(), works, "2.{newest}");
        let answer = if works { Answer::Taken } else { Answer::NotSent };
        assert_eq!(bench.evacuate(instance, 1).await, answer, "2.{newest}");
    }
}

/// Without the right to see hosts Nova leaves out the filter, and lists all there is.
#[tokio::test]
async fn a_user_with_too_few_rights_learns_nothing_wrong() {
    let (bench, instance) = Bench::dead().await;
    bench.model.cloud().add_server("dst");
    bench.model.cloud().admin = false;
    assert_eq!(bench.act(Call::ListServers(SOURCE)).await, None);
    assert_eq!(bench.read(instance).await, None);
}

/// Nothing piles up behind a Nova that does not answer.
#[tokio::test(start_paused = true)]
async fn the_same_call_is_in_flight_once() {
    let (bench, instance) = Bench::dead().await;
    bench.model.cloud().faults.push(("GET /compute/v2.1/servers/", Fault::LoseAnswer));
    let (first, second) = tokio::join!(bench.read(instance), bench.read(instance));
    assert_eq!((first, second), (None, None));
    assert_eq!(bench.asked("GET /compute/v2.1/servers/"), 1);
    bench.model.cloud().faults.clear();
    assert!(bench.read(instance).await.is_some(), "what was given up stands in nobody's way");
}

/// What is logged, to be looked at.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no test panics with it").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_log_has_a_secret() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (bench, instance) = Bench::dead().await;
    bench.evacuate(instance, 1).await;
    for status in [400, 401, 403, 404, 409, 500] {
        bench.model.cloud().faults = vec![("/compute", Fault::Refuse(status))];
        assert_eq!(bench.read(instance).await, None);
        bench.model.cloud().faults = vec![("/identity", Fault::Refuse(status))];
        bench.model.cloud().expire();
        assert_eq!(bench.read(instance).await, None);
    }
    let text = String::from_utf8(log.0.lock().expect("a lock").clone()).expect("text");
    assert!(text.contains("Keystone at") && text.contains("refuses user 'pallium'"), "{text}");
    assert!(!text.contains(PASSWORD) && !text.contains("gAAAA"), "{text}");
}

fn nova_of(config: &mut Config) -> &mut operators::hands::Nova {
    config.nova.as_mut().expect("it has Nova")
}

#[tokio::test]
async fn what_cannot_work_is_refused_with_what_to_do() {
    let bench = Bench::new().await;
    let refused = |change: &dyn Fn(&mut Config)| {
        let mut config = bench.config.clone();
        change(&mut config);
        Hands::open(&config, Shared::default()).expect_err("a refusal").to_string()
    };
    let text = refused(&|config| nova_of(config).password_file = "/nowhere".into());
    assert!(text.starts_with("nova.password_file: /nowhere: cannot be read"), "{text}");
    let text = refused(&|config| nova_of(config).auth_url = "https://keystone:5000/v3".into());
    assert!(text.starts_with("nova.ca: no CA given, and https://keystone:5000/v3 is https: name the PEM"), "{text}");
    let text = refused(&|config| nova_of(config).auth_url = "keystone:5000".into());
    assert!(
        text.starts_with("nova.auth_url: 'keystone:5000' given, a URL as https://host:port/path expected"),
        "{text}"
    );
    let text = refused(&|config| nova_of(config).auth_url = "http://pallium:secret@keystone".into());
    assert!(text.starts_with("nova.auth_url: a user in a URL given") && !text.contains("secret"), "{text}");
    std::fs::write(bench.folder.path().join("two"), "one\ntwo\n").expect("a file");
    let text = refused(&|config| nova_of(config).password_file = bench.folder.path().join("two"));
    assert!(text.ends_with("one line with the password expected, and nothing else"), "{text}");
    let text = serde_json::from_str::<Config>(r#"{"nova": {"password": "x"}}"#).expect_err("a refusal").to_string();
    assert!(text.contains("unknown field `password`"), "{text}");
    let debug = format!("{:?} {:?}", bench.config, bench.hands);
    assert!(!debug.contains(PASSWORD), "{debug}");
}

/// Planned work: the service of a living host is disabled and nothing else; instances are migrated live or
/// stopped and confirmed, forced or given up by the migration's number, once, and not without the barrier.
#[tokio::test]
async fn a_living_host_is_emptied_by_migrations() {
    let bench = Bench::new().await;
    let live = bench.model.cloud().add_server("src");
    let stopped = bench.model.cloud().add_server("src");
    bench.model.cloud().server(stopped).vm_state = "stopped";
    bench.model.cloud().host("src").guests.remove(&stopped);
    let told = Some(Told::Service { host: SOURCE, forced_down: false, disabled: true });
    assert_eq!(bench.act(Call::Cordon { host: SOURCE, barrier: barrier(1, 5_000) }).await, told);
    assert!(!bench.model.cloud().host("src").forced_down, "a host that counts as down cannot be emptied");
    let migrate = async |instance, live, op| {
        let call = Call::Migrate { instance, target: TARGET, live, barrier: barrier(op, 2_000) };
        match bench.act(call).await {
            Some(Told::Migrated { answer, .. }) => answer,
            other => panic!("{other:?}"),
        }
    };
    let read = async |instance| bench.read(instance).await.expect("an answer").0.expect("the instance");
    *bench.book.0.only.lock().expect("no panic") = Some(Uuid::nil());
    assert_eq!(migrate(live, true, 1).await, Answer::NotSent);
    *bench.book.0.only.lock().expect("no panic") = None;
    assert_eq!(migrate(live, true, 1).await, Answer::Taken);
    assert_eq!(migrate(live, true, 2).await, Answer::Refused { forever: false }, "Nova keeps a second one out");
    let first = bench.model.cloud().migrations[0].uuid;
    let left = Some(Told::Progress { instance: live, remaining: 1 << 29 });
    assert_eq!(bench.act(Call::ReadProgress { instance: live, migration: first }).await, left);
    let barrier_of = |op| barrier(op, 2_000);
    bench.act(Call::AbortMigration { instance: live, migration: first, barrier: barrier_of(3) }).await;
    assert_eq!(bench.model.cloud().migrations[0].status, "cancelled");
    assert_eq!(migrate(live, true, 4).await, Answer::Taken);
    let second = bench.model.cloud().migrations[1].uuid;
    bench.act(Call::ForceComplete { instance: live, migration: second, barrier: barrier_of(5) }).await;
    let there = read(live).await;
    assert!(there.host == TARGET && !there.moving && there.now == ACTIVE, "{there:?}");

    assert_eq!(migrate(stopped, false, 6).await, Answer::Taken);
    bench.model.cloud().arrive();
    let there = read(stopped).await;
    assert!(there.host == TARGET && there.moving && !there.now.task, "it waits for a word: {there:?}");
    bench.act(Call::Confirm { instance: stopped, barrier: barrier_of(7) }).await;
    let there = read(stopped).await;
    assert!(!there.moving && there.now.vm == VmState::Stopped, "{there:?}");

    // One that restarts do not help is stopped for it, and runs there.
    let unhelped = bench.model.cloud().add_server("src");
    let call = Call::MoveUnhelped { instance: unhelped, host: SOURCE, target: TARGET, barrier: barrier_of(9) };
    let (op, answer) = (barrier_of(9).intent, Answer::Taken);
    assert_eq!(bench.act(call).await, Some(Told::Migrated { instance: unhelped, op, answer }));
    bench.model.cloud().arrive();
    let there = read(unhelped).await;
    assert!(there.host == TARGET && there.moving && !there.now.task, "{there:?}");
    bench.act(Call::Confirm { instance: unhelped, barrier: barrier_of(10) }).await;
    let there = read(unhelped).await;
    assert!(!there.moving && there.now.vm == VmState::Active, "{there:?}");
    assert_eq!(bench.model.cloud().rpcs, 1, "of a living host the service may be called");
    // A service that is down moves nothing, and Nova says so.
    bench.model.cloud().host("dst").reports = false;
    assert_eq!(migrate(live, true, 8).await, Answer::Refused { forever: false });
}

/// What ran on a host that came back is started there; one that must be stopped is.
#[tokio::test]
async fn an_instance_is_started_where_it_is_and_stopped_again() {
    let bench = Bench::new().await;
    let instance = bench.model.cloud().add_server("src");
    bench.model.cloud().host("src").guests.clear();
    let restart = |op| Call::Restart { instance, host: SOURCE, barrier: barrier(op, 2_000) };
    let told = |answer, op: u128| Some(Told::Restarted { instance, op: Uuid::from_u128(op), answer });
    assert_eq!(bench.act(restart(1)).await, told(Answer::Taken, 1));
    assert_eq!(bench.model.cloud().runs_on(instance), ["src"]);
    // What it wants when it crashes is asked for with everything else.
    for (said, expected) in [("restart", Some(OnCrash::Restart)), ("none", Some(OnCrash::Stays)), ("move", None)] {
        bench.model.cloud().servers.get_mut(&instance).expect("it").metadata.insert("pallium:recovery", said);
        assert_eq!(bench.read(instance).await.expect("an answer").0.expect("it").on_crash, expected, "{said}");
    }
    bench.model.cloud().faults.push(("/action", Fault::Refuse(503)));
    let before = bench.hands.tally();
    assert_eq!(bench.act(restart(2)).await, told(Answer::Unknown, 2));
    // Counted for T9.
    let after = bench.hands.tally();
    assert_eq!((after.answered - before.answered, after.failed - before.failed), (0, 1));
    bench.model.cloud().faults.clear();
    let stop = Call::Stop { instance, barrier: barrier(3, 2_000) };
    let stopped = Some(Told::Stopped { instance, op: Uuid::from_u128(3), answer: Answer::Taken });
    assert_eq!(bench.act(stop).await, stopped);
    assert_eq!((bench.hands.tally().answered, bench.hands.tally().failed), (after.answered + 1, after.failed));
    assert!(bench.model.cloud().runs_on(instance).is_empty());
}

/// The mark of the cluster: made once, kept beside others, taken over from one by name; and two that set it at once each
/// see both.
#[tokio::test]
async fn the_mark_names_the_clusters_that_act() {
    let bench = Bench::new().await;
    let [one, other] = [1, 2].map(|n| Uuid::from_u128(0xC1 + n));
    let told = async |call: Call| match bench.act(call).await {
        Some(Told::Mark(read)) => read,
        told => panic!("{told:?}"),
    };
    assert_eq!(told(Call::ReadMark).await, Ok(vec![]));
    assert!(bench.model.cloud().aggregates.is_empty(), "nothing is written by a read");
    let set = |cluster| Call::SetMark { cluster, over: None };
    assert_eq!(told(set(one)).await, Ok(vec![one]));
    assert_eq!(told(set(one)).await, Ok(vec![one]), "again");
    assert_eq!(told(set(other)).await, Ok(vec![one, other]));
    assert_eq!(told(Call::ReadMark).await, Ok(vec![one, other]));
    assert_eq!(told(Call::SetMark { cluster: other, over: Some(one) }).await, Ok(vec![other]));
    let aggregates = bench.model.cloud().aggregates.clone();
    assert_eq!(aggregates.keys().collect::<Vec<_>>(), ["pallium-ha"]);

    // Somebody else made it between the look and the creation; or it is there without any key.
    bench.model.cloud().aggregates.insert("pallium-ha".to_owned(), [("note".to_owned(), "x".to_owned())].into());
    assert_eq!(told(Call::ReadMark).await, Ok(vec![]));
    assert_eq!(told(set(one)).await, Ok(vec![one]));

    let key = ("pallium_cluster:mine".to_owned(), "x".to_owned());
    bench.model.cloud().aggregates.insert("pallium-ha".to_owned(), [key].into());
    assert!(
        told(Call::ReadMark).await.is_err_and(|why| why.contains("'pallium_cluster:mine', a cluster's uuid expected"))
    );
    for (status, said) in [(403, "forbids"), (503, "503")] {
        bench.model.cloud().faults = vec![("os-aggregates", Fault::Refuse(status))];
        assert!(told(Call::ReadMark).await.is_err_and(|why| why.contains(said)), "{status}");
        assert!(told(set(one)).await.is_err(), "{status}");
    }
}
