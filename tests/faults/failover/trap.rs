//! A request that is stopped on its way, so that the leader can meet its fate at a known step of a case.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tokio::sync::watch;

/// A step of a case, by the request that takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The power state is read.
    PowerRead,
    PowerOff,
    ForceDown,
    Disable,
    /// What is on the host is listed.
    List,
    /// Migrations are read in front of an evacuation.
    Baseline,
    Evacuate,
    /// Migrations are read once an evacuation was accepted.
    Verify,
}

impl Step {
    pub const ALL: [Self; 8] = [
        Self::PowerRead,
        Self::PowerOff,
        Self::ForceDown,
        Self::Disable,
        Self::List,
        Self::Baseline,
        Self::Evacuate,
        Self::Verify,
    ];

    fn of(method: &Method, path: &str, body: &[u8], evacuated: bool) -> Option<Self> {
        let says = |text: &str| body.windows(text.len()).any(|part| part == text.as_bytes());
        match method.as_str() {
            "GET" if path.starts_with("/redfish/") => Some(Self::PowerRead),
            "POST" if path.starts_with("/redfish/") => Some(Self::PowerOff),
            "PUT" if path.contains("/os-services/") && says("disabled") => Some(Self::Disable),
            "PUT" if path.contains("/os-services/") => Some(Self::ForceDown),
            "GET" if path.ends_with("/servers/detail") => Some(Self::List),
            "GET" if path.ends_with("/os-migrations") && evacuated => Some(Self::Verify),
            "GET" if path.ends_with("/os-migrations") => Some(Self::Baseline),
            "POST" if path.ends_with("/action") => Some(Self::Evacuate),
            _ => None,
        }
    }
}

/// When it is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Nothing is done yet: it is done when the request goes on, and never if its sender has died.
    Before,
    /// It is done, and no answer has come.
    After,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Unset,
    Set(Step, When),
    Sprung,
    Free,
}

/// The trap, in front of every service that failover calls.
#[derive(Clone)]
pub struct Trap {
    stage: Arc<watch::Sender<Stage>>,
    evacuated: Arc<Mutex<bool>>,
}

impl Default for Trap {
    fn default() -> Self {
        Self { stage: Arc::new(watch::Sender::new(Stage::Unset)), evacuated: Arc::default() }
    }
}

impl Trap {
    pub fn in_front_of(&self, app: Router) -> Router {
        app.layer(from_fn_with_state(self.clone(), pass))
    }

    pub fn set(&self, step: Step, when: When) {
        self.stage.send_replace(Stage::Set(step, when));
    }

    /// A request is held.
    pub fn is_sprung(&self) -> bool {
        *self.stage.borrow() == Stage::Sprung
    }

    /// The request goes on.
    pub fn free(&self) {
        self.stage.send_replace(Stage::Free);
    }

    fn hit(&self, method: &Method, path: &str, body: &Bytes) -> Option<When> {
        let mut evacuated = self.evacuated.lock().expect("no panic");
        let step = Step::of(method, path, body, *evacuated)?;
        *evacuated |= step == Step::Evacuate;
        let mut hit = None;
        self.stage.send_if_modified(|stage| match *stage {
            Stage::Set(wanted, when) if wanted == step => {
                hit = Some(when);
                *stage = Stage::Sprung;
                true
            }
            _ => false,
        });
        hit
    }

    async fn held(&self) {
        let _ = self.stage.subscribe().wait_for(|stage| *stage == Stage::Free).await;
    }
}

async fn pass(State(trap): State<Trap>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.expect("a small body");
    let hit = trap.hit(&parts.method, parts.uri.path(), &body);
    if hit == Some(When::Before) {
        trap.held().await;
    }
    let answer = next.run(Request::from_parts(parts, Body::from(body))).await;
    if hit == Some(When::After) {
        trap.held().await;
    }
    answer
}
