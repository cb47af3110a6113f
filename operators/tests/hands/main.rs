//! The hands on BMCs that others wrote: sushy-tools' Redfish emulator, through a proxy that breaks what a BMC
//! may break, and OpenIPMI's `ipmi_sim`.
//!
//! `cargo xtask test hands` installs both and sets `PALLIUM_SUSHY`, `PALLIUM_IPMI_SIM` and `PALLIUM_IPMITOOL`;
//! without them these tests print that they did not run.

mod ipmi;
#[path = "../model/ledger.rs"]
mod ledger;
mod outside;
mod proxy;
mod redfish;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ledger::{Book, Shared};
use operators::hands::{Config, Hands, Known};
use scheduler::ha::coordinator::{Call, Told};
use scheduler::ha::host::{Fencer, HostId, Machine};
use scheduler::ha::proof::{Power, PowerRead};
use tempfile::TempDir;
use uuid::Uuid;

const HOST: HostId = HostId(Uuid::from_u128(1));
const USER: &str = "pallium";
const PASSWORD: &str = "correct-horse";

/// A host with this machine and BMC, whose levels are these; the first one fences.
fn host(machine: Machine, bmc: &str, fencers: &[Fencer]) -> Book {
    let known = Known {
        nova_host: "compute-1".to_owned(),
        machine,
        bmc: Some(bmc.to_owned()),
        fencers: fencers.to_vec(),
        ..Known::default()
    };
    Book { hosts: [(HOST, known)].into(), fencer: fencers.first().copied(), ..Book::default() }
}

/// Hands, with the ledger that they look into and the folder that their password is in.
struct Bench {
    hands: Hands<Shared>,
    book: Shared,
    _folder: TempDir,
}

/// Hands with a configuration that is made of the password's file.
fn hands(config: impl FnOnce(&Path) -> serde_json::Value, book: Book) -> Bench {
    let _ = tracing_subscriber::fmt().with_test_writer().try_init();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("password");
    std::fs::write(&file, PASSWORD).expect("a file");
    let config: Config = serde_json::from_value(config(&file)).expect("a configuration");
    let book = Shared(Arc::new(book));
    Bench { hands: Hands::open(&config, book.clone()).expect("hands"), book, _folder: folder }
}

/// Options on top of others.
fn with(mut options: serde_json::Value, more: &serde_json::Value) -> serde_json::Value {
    options.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    options
}

async fn power(bench: &Bench, call: Call) -> Option<PowerRead> {
    match bench.hands.act(call, &bench.book).await {
        Some(Told::Power(HOST, read)) => Some(read),
        Some(Told::Unread(HOST, _)) | None => None,
        other => panic!("{other:?}"),
    }
}

/// Why there is no power state.
async fn unread(bench: &Bench) -> String {
    match bench.hands.act(Call::ReadPower(HOST), &bench.book).await {
        Some(Told::Unread(HOST, why)) => why,
        other => panic!("{other:?}"),
    }
}

/// Reads until a state comes; a BMC takes its time. Panics after half a minute.
async fn until(bench: &Bench, wanted: Power) -> PowerRead {
    let mut every = tokio::time::interval(Duration::from_millis(100));
    let reads = async {
        loop {
            every.tick().await;
            if let Some(read) = power(bench, Call::ReadPower(HOST)).await
                && read.power == wanted
            {
                return read;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reads).await.expect("the state within half a minute")
}
