//! BMCs that speak Redfish.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::trap::Trap;
use crate::spec::uuid;

/// Systems behind one Redfish service: whether each has power, and how often it was told to lose it.
#[derive(Clone, Default)]
pub struct Bmcs {
    systems: Arc<Mutex<BTreeMap<usize, (bool, usize)>>>,
    /// Systems whose BMC answers nothing.
    dead: Arc<Mutex<BTreeSet<usize>>>,
}

impl Bmcs {
    pub async fn start(at: IpAddr, trap: &Trap) -> (Self, String) {
        let listener = tokio::net::TcpListener::bind((at, 0)).await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let bmcs = Self::default();
        let app = Router::new()
            .route("/redfish/v1/Systems/{n}", get(async |bmcs: State<Self>, n: Path<usize>| bmcs.system(*n).await))
            .route(
                "/redfish/v1/Systems/{n}/Actions/ComputerSystem.Reset",
                post(async |bmcs: State<Self>, n: Path<usize>, body: String| bmcs.reset(*n, &body).await),
            )
            .with_state(bmcs.clone());
        let app = trap.in_front_of(app);
        tokio::spawn(async move { axum::serve(listener, app).await });
        (bmcs, url)
    }

    /// Whether a system has power, and how often it was told to lose it.
    pub fn of(&self, n: usize) -> (bool, usize) {
        self.with(n, |known| *known)
    }

    pub fn switch(&self, n: usize, on: bool) {
        self.with(n, |known| known.0 = on);
    }

    /// The BMC of a system is dead from now on.
    pub fn kill(&self, n: usize) {
        self.dead.lock().expect("no panic").insert(n);
    }

    async fn lives(&self, n: usize) {
        let dead = self.dead.lock().expect("no panic").contains(&n);
        if dead {
            std::future::pending::<()>().await;
        }
    }

    async fn system(&self, n: usize) -> Json<Value> {
        self.lives(n).await;
        let power = if self.of(n).0 { "On" } else { "Off" };
        Json(json!({"PowerState": power, "UUID": uuid(0xC000 + n as u64), "SerialNumber": format!("S{n}")}))
    }

    async fn reset(&self, n: usize, body: &str) -> StatusCode {
        self.lives(n).await;
        assert!(body.contains("\"ForceOff\""), "nothing gentler: {body}");
        self.with(n, |(on, told)| (*on, *told) = (false, *told + 1));
        StatusCode::NO_CONTENT
    }

    fn with<T>(&self, n: usize, change: impl FnOnce(&mut (bool, usize)) -> T) -> T {
        change(self.systems.lock().expect("no panic").entry(n).or_insert((true, 0)))
    }
}
