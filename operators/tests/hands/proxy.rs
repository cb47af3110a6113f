//! A proxy in front of a Redfish emulator that breaks what a BMC may break, and counts what came.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// What is broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// It says 204 to a reset, and does nothing.
    Lies,
    /// It says 409 to a reset, and does nothing.
    Conflict,
    /// It never answers a reset.
    SlowPost,
    /// It never answers a read.
    SlowGet,
    /// Each system is another machine.
    Stranger,
    /// The power goes off, and never is.
    PoweringOff,
    /// It knows nobody without a session.
    Sessions,
}

#[derive(Clone)]
pub struct Proxy {
    upstream: u16,
    pub fault: Fault,
    pub address: SocketAddr,
    /// "METHOD path" of all that came.
    pub came: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub async fn start(upstream: u16, fault: Fault) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let proxy = Self { upstream, fault, address, came: Arc::default() };
        let app = Router::new().fallback(serve).with_state(proxy.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        proxy
    }

    pub fn count(&self, what: &str) -> usize {
        self.came.lock().expect("no handler panics").iter().filter(|came| came.contains(what)).count()
    }
}

async fn serve(State(proxy): State<Proxy>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    proxy.came.lock().expect("no handler panics").push(format!("{method} {uri}"));
    let reset = method == Method::POST && uri.path().ends_with("ComputerSystem.Reset");
    match proxy.fault {
        Fault::Lies if reset => return StatusCode::NO_CONTENT.into_response(),
        Fault::Conflict if reset => return StatusCode::CONFLICT.into_response(),
        Fault::SlowPost if reset => std::future::pending().await,
        Fault::SlowGet if method == Method::GET => std::future::pending().await,
        _ => {}
    }
    let mut authorization = headers.get("authorization").cloned();
    if proxy.fault == Fault::Sessions {
        let sessions = "/redfish/v1/SessionService/Sessions";
        if method == Method::POST && uri.path() == sessions {
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            let known = body["UserName"] == super::USER && body["Password"] == super::PASSWORD;
            let location = format!("https://bmc.example{sessions}/1");
            let session = [("x-auth-token", "t0k3n"), ("location", location.as_str())];
            let refused = StatusCode::UNAUTHORIZED.into_response();
            return if known { (StatusCode::CREATED, session).into_response() } else { refused };
        }
        if headers.get("x-auth-token").is_none_or(|token| token != "t0k3n") {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        if method == Method::DELETE {
            return StatusCode::NO_CONTENT.into_response();
        }
        // The emulator behind knows no sessions.
        authorization = Some("Basic cGFsbGl1bTpjb3JyZWN0LWhvcnNl".parse().expect("a header"));
    }
    let url = format!("http://127.0.0.1:{}{}", proxy.upstream, uri.path());
    let mut request = axum::http::Request::builder().method(method).uri(url);
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    request = request.header("content-type", "application/json");
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(request.body(Full::new(body)).expect("a request")).await.expect("the emulator");
    let (status, body) = (answer.status(), answer.into_body().collect().await.expect("a body").to_bytes());
    let mut text = String::from_utf8_lossy(&body).into_owned();
    match proxy.fault {
        Fault::Stranger => text = text.replace("\"UUID\": \"00000000", "\"UUID\": \"99999999"),
        Fault::PoweringOff => text = text.replace("\"PowerState\": \"On\"", "\"PowerState\": \"PoweringOff\""),
        _ => {}
    }
    (status, [("content-type", "application/json")], text).into_response()
}
