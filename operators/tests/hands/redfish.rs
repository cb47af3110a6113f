//! Redfish.

use std::path::Path;
use std::sync::atomic::Ordering;

use scheduler::ha::coordinator::Call;
use scheduler::ha::host::{Fencer, Machine};
use scheduler::ha::proof::Power;
use serde_json::{Value, json};
use uuid::Uuid;

use super::ledger::barrier;
use super::outside::sushy;
use super::proxy::{Fault, Proxy};
use super::{Bench, HOST, USER, hands, host, power, unread, until, with};

const ON: Uuid = Uuid::from_u128(0xa1);
const OFF: Uuid = Uuid::from_u128(0xa2);

fn machine(uuid: Uuid) -> Machine {
    Machine { uuid: Some(uuid), serial: None }
}

fn off(millis: u64) -> Call {
    Call::PowerOff { host: HOST, barrier: barrier(9, millis) }
}

/// Hands on one system, with these options beside the credentials.
fn on(uuid: Uuid, bmc: &str, options: &Value) -> Bench {
    let config = |file: &Path| json!({"redfish": with(json!({"user": USER, "password_file": file}), options)});
    hands(config, host(machine(uuid), bmc, &[Fencer::Redfish]))
}

#[tokio::test]
async fn a_system_is_switched_off_over_tls_and_its_state_says_so() {
    let certificates = tempfile::tempdir().expect("a folder");
    let set = tls::Development { nodes: 1, hosts: vec![], clients: vec![], overwrite: false };
    tls::development(certificates.path(), &set).expect("certificates");
    let systems = [(ON, "On"), (OFF, "Off")];
    let Some((_sushy, port)) = sushy(&systems, Some(certificates.path())).await else { return };
    let bmc = format!("127.0.0.1:{port}");
    let ca = json!({"ca": certificates.path().join("ca.pem")});

    let bench = on(ON, &bmc, &ca);
    let before = power(&bench, Call::ReadPower(HOST)).await.expect("a state");
    assert_eq!((before.power, before.raw.as_str(), &before.machine), (Power::On, "On", &machine(ON)));
    let after = power(&bench, off(10_000)).await.expect("a state");
    assert!(machine(ON).is(&after.machine) && bench.book.0.checks.load(Ordering::SeqCst) == 1);
    let last = until(&bench, Power::Off).await;
    assert_eq!((last.raw.as_str(), last.machine), ("Off", machine(ON)));
    // What is off is left alone, and no barrier is asked for.
    assert_eq!(power(&bench, off(10_000)).await.expect("a state").power, Power::Off);
    assert_eq!(bench.book.0.checks.load(Ordering::SeqCst), 1);

    let strangers = tempfile::tempdir().expect("a folder");
    tls::development(strangers.path(), &set).expect("certificates");
    let cases = [
        ("another CA", json!({"ca": strangers.path().join("ca.pem")}), None),
        ("no CA", json!({}), None),
        ("any certificate", json!({"danger_accept_any_certificate": true}), Some(Power::Off)),
        ("the system by its path", ca.clone(), Some(Power::Off)),
        ("another user", json!({"ca": certificates.path().join("ca.pem"), "user": "nobody"}), None),
    ];
    for (name, options, expected) in cases {
        let path = format!("https://127.0.0.1:{port}/redfish/v1/Systems/{OFF}");
        let bmc = if name.contains("path") { &path } else { &bmc };
        let bench = on(OFF, bmc, &options);
        let read = power(&bench, Call::ReadPower(HOST)).await;
        assert_eq!(read.map(|read| read.power), expected, "{name}");
    }
}

/// What a power-off comes to when the BMC does not do as it should: the state that is told, and the resets
/// that were sent.
#[tokio::test]
async fn a_power_off_is_what_the_state_says() {
    let Some((_sushy, port)) = sushy(&[(ON, "On")], None).await else { return };
    let cases = [
        (Fault::Lies, Some(Power::On), 1),
        (Fault::Conflict, Some(Power::On), 1),
        (Fault::SlowPost, None, 1),
        (Fault::SlowGet, None, 0),
        // The last one: it is really sent.
        (Fault::PoweringOff, Some(Power::PoweringOff), 1),
    ];
    for (fault, expected, resets) in cases {
        let proxy = Proxy::start(port, fault).await;
        // Named by its path it is looked at whoever it is; looked for, it is only found when it is the one.
        let bmc = format!("http://{}/redfish/v1/Systems/{ON}", proxy.address);
        let bench = on(ON, &bmc, &json!({}));
        let read = power(&bench, off(1_500)).await;
        assert_eq!(read.as_ref().map(|read| read.power), expected, "{fault:?}: {read:?}");
        assert_eq!(proxy.count("POST"), resets, "{fault:?}");
    }
}

#[tokio::test]
async fn nothing_is_sent_to_another_machine_or_without_the_barrier() {
    let other = Uuid::from_u128(0xb1);
    let Some((_sushy, port)) = sushy(&[(other, "On"), (ON, "On"), (OFF, "Off")], None).await else { return };
    let proxy = Proxy::start(port, Fault::None).await;
    let bmc = format!("http://{}", proxy.address);

    // One of several systems, found by who it is.
    let bench = on(ON, &bmc, &json!({}));
    *bench.book.0.only.lock().expect("a lock") = Some(Uuid::nil());
    assert_eq!(power(&bench, off(2_000)).await, None, "the barrier does not hold");
    assert_eq!((proxy.count("POST"), bench.book.0.checks.load(Ordering::SeqCst)), (0, 1));
    let read = power(&bench, Call::ReadPower(HOST)).await.expect("a state");
    assert_eq!((read.power, read.machine), (Power::On, machine(ON)));

    // The address leads to another machine: by its path, and by no system being the one.
    let path = format!("{bmc}/redfish/v1/Systems/{other}");
    let bench = on(ON, &path, &json!({}));
    let read = power(&bench, off(2_000)).await.expect("what was read");
    assert_eq!((read.power, &read.machine), (Power::On, &machine(other)));
    let bench = on(Uuid::from_u128(0xcc), &bmc, &json!({}));
    assert_eq!(power(&bench, off(2_000)).await, None);
    let why = unread(&bench).await;
    assert!(why.contains("none of its 3 systems is uuid"), "{why}");
    assert_eq!(proxy.count("POST"), 0);

    let stranger = Proxy::start(port, Fault::Stranger).await;
    let bench = on(ON, &format!("http://{}/redfish/v1/Systems/{ON}", stranger.address), &json!({}));
    let read = power(&bench, off(2_000)).await.expect("what was read");
    assert!(!machine(ON).is(&read.machine) && stranger.count("POST") == 0, "{read:?}");

    // Nobody is there.
    let bench = on(ON, "http://127.0.0.1:9", &json!({}));
    let why = unread(&bench).await;
    assert!(why.contains("127.0.0.1:9"), "{why}");
    assert_eq!(power(&bench, off(2_000)).await, None);
}

#[tokio::test]
async fn a_session_is_ended_after_use() {
    let Some((_sushy, port)) = sushy(&[(OFF, "Off")], None).await else { return };
    let proxy = Proxy::start(port, Fault::Sessions).await;
    let bmc = format!("http://{}", proxy.address);
    let bench = on(OFF, &bmc, &json!({"auth": "session"}));
    let read = power(&bench, Call::ReadPower(HOST)).await.expect("a state");
    assert_eq!((read.power, read.machine), (Power::Off, machine(OFF)));
    let sessions = "/redfish/v1/SessionService/Sessions";
    assert_eq!((proxy.count(&format!("POST {sessions}")), proxy.count(&format!("DELETE {sessions}/1"))), (1, 1));
    let bench = on(OFF, &bmc, &json!({}));
    assert_eq!(power(&bench, Call::ReadPower(HOST)).await, None, "it knows nobody without a session");
    let bench = on(OFF, &bmc, &json!({"auth": "session", "user": "nobody"}));
    let why = unread(&bench).await;
    assert!(why.contains("refuses user 'nobody' (401"), "{why}");
}
