//! IPMI over LAN+. `ipmi_sim` has no HMAC-SHA256, so these sessions are of cipher suite 3.

use std::fs;
use std::path::Path;

use scheduler::ha::coordinator::Call;
use scheduler::ha::host::{Fencer, Machine};
use scheduler::ha::proof::Power;
use serde_json::{Value, json};
use uuid::Uuid;

use super::ledger::barrier;
use super::outside::{executable, ipmi_sim, named};
use super::{Bench, HOST, USER, hands, host, power, until, with};

const GUID: Uuid = Uuid::from_u128(0xa123_4567_89ab_cdef_a123_4567_89ab_cdef);

fn machine() -> Machine {
    Machine { uuid: Some(GUID), serial: Some("SN-42".to_owned()) }
}

/// A FRU with a product's serial number (IPMI Platform Management FRU Information Storage Definition 1.0).
fn fru(serial: &str) -> Vec<u8> {
    let summed = |mut bytes: Vec<u8>| {
        let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        bytes.push(0u8.wrapping_sub(sum));
        bytes
    };
    let header = summed(vec![1, 0, 0, 0, 1, 0, 0]);
    let mut product = vec![1, 0, 0];
    for field in ["Maker", "Model", "P1", "V1", serial, "", ""] {
        product.push(0xC0 | field.len() as u8);
        product.extend(field.as_bytes());
    }
    product.push(0xC1);
    product.resize((product.len() + 1).next_multiple_of(8) - 1, 0);
    product[1] = ((product.len() + 1) / 8) as u8;
    [header, summed(product)].concat()
}

/// Hands on a host with these levels, with these options beside the credentials.
fn on(levels: &[Fencer], machine: Machine, port: u16, options: &Value) -> Option<Bench> {
    let program = named("PALLIUM_IPMITOOL")?;
    let config = |file: &Path| {
        let login = json!({"user": USER, "password_file": file, "address": format!("127.0.0.1:{port}")});
        let ipmi = json!({
            "user": USER,
            "password_file": file,
            "cipher_suite": 3,
            "ipmitool": Path::new(&program),
            "hosts": {"compute-1": login},
        });
        json!({"ipmi": with(ipmi, options), "redfish": {"user": USER, "password_file": file}})
    };
    // Nobody speaks Redfish there.
    Some(hands(config, host(machine, "http://127.0.0.1:9", levels)))
}

#[tokio::test]
async fn a_chassis_is_switched_off_and_says_so() {
    let Some((sim, port)) = ipmi_sim(GUID, &fru("SN-42")) else { return };
    let done = || fs::read_to_string(sim.folder.path().join("done")).unwrap_or_default();
    let off = || Call::PowerOff { host: HOST, barrier: barrier(9, 10_000) };
    let Some(bench) = on(&[Fencer::Ipmi], machine(), port, &json!({})) else { return };
    let read = until(&bench, Power::On).await;
    assert!(machine().is_surely(&read.machine), "{}", read.machine);

    *bench.book.0.only.lock().expect("a lock") = Some(Uuid::nil());
    assert_eq!(power(&bench, off()).await, None, "the barrier does not hold");
    let others = [
        Machine { uuid: Some(Uuid::from_u128(7)), serial: None },
        Machine { uuid: Some(GUID), serial: Some("SN-43".to_owned()) },
        Machine { uuid: None, serial: Some("SN-43".to_owned()) },
    ];
    for other in others {
        let bench = on(&[Fencer::Ipmi], other.clone(), port, &json!({})).expect("ipmitool");
        let read = power(&bench, off()).await.expect("what was read");
        assert!(read.power == Power::On && !other.is(&read.machine), "{other}: {read:?}");
    }
    let wrong = tempfile::tempdir().expect("a folder");
    fs::write(wrong.path().join("password"), "wrong").expect("a file");
    let login =
        json!({"user": USER, "password_file": wrong.path().join("password"), "address": format!("127.0.0.1:{port}")});
    let options = json!({"hosts": {"compute-1": login}});
    let stranger = on(&[Fencer::Ipmi], machine(), port, &options).expect("ipmitool");
    assert_eq!(power(&stranger, Call::ReadPower(HOST)).await, None);
    assert_eq!(done(), "");

    *bench.book.0.only.lock().expect("a lock") = None;
    let after = power(&bench, off()).await.expect("a state");
    assert!(machine().is_surely(&after.machine), "{}", after.machine);
    assert_eq!(until(&bench, Power::Off).await.raw, "off");
    assert_eq!(done(), "set power 0\n");
    assert_eq!(power(&bench, off()).await.expect("a state").power, Power::Off);
    assert_eq!(done(), "set power 0\n", "what is off is left alone");
}

/// The levels of a host are read one beside the other: a dead Redfish does not hold up IPMI.
#[tokio::test]
async fn the_level_that_answers_is_read() {
    let Some((_sim, port)) = ipmi_sim(GUID, &fru("SN-42")) else { return };
    let levels = [Fencer::Redfish, Fencer::Ipmi];
    let Some(bench) = on(&levels, machine(), port, &json!({})) else { return };
    assert!(machine().is_surely(&until(&bench, Power::On).await.machine));
    // And yet the level of the intent alone switches.
    assert_eq!(power(&bench, Call::PowerOff { host: HOST, barrier: barrier(9, 1_000) }).await, None);
}

/// A BMC that does not answer costs the deadline, and leaves no process behind.
#[tokio::test]
async fn the_process_ends_with_the_call() {
    let folder = tempfile::tempdir().expect("a folder");
    let (script, pid) = (folder.path().join("ipmitool"), folder.path().join("pid"));
    fs::write(&script, format!("#!/bin/sh\necho $$ > {}\nexec sleep 600\n", pid.display())).expect("a script");
    executable(&script);
    let config = |file: &Path| json!({"ipmi": {"user": USER, "password_file": file, "ipmitool": script}});
    let bench = hands(config, host(machine(), "192.0.2.1", &[Fencer::Ipmi]));
    assert_eq!(power(&bench, Call::PowerOff { host: HOST, barrier: barrier(9, 1_000) }).await, None);
    let pid = fs::read_to_string(pid).expect("it ran");
    let stat = format!("/proc/{}/stat", pid.trim());
    let ended = || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
    let gone = async {
        while !ended() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.expect("it is killed");
}
