//! What clients send and what came of it: done, certainly not done, or not known.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(1);
/// Longest wait for an answer: more than a node takes for a decision, less than for a command.
const ANSWER: Duration = Duration::from_secs(3);
/// Error codes that say that nothing was done.
const NOTHING: [&str; 6] = ["no_leader", "not_leader", "overloaded", "contended", "stopped", "deadline"];

/// What came of a request.
#[derive(Debug)]
pub enum Came {
    /// The answer.
    Done(Value),
    /// Nothing was done.
    Nothing,
    /// It may have been done, or may be yet.
    Unknown,
    /// An answer that no fault explains.
    Wrong(String),
}

/// An HTTP client. Clones share connections.
#[derive(Clone)]
pub struct Http(Client<HttpConnector, Full<Bytes>>);

impl Http {
    /// A client without connections.
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }

    /// Sends a request with a JSON body, or none.
    pub async fn send(&self, method: &str, url: &str, body: Option<&Value>) -> Came {
        let bytes = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(bytes)))
            .expect("a request");
        let answer = async {
            let response = match self.0.request(request).await {
                Ok(response) => response,
                Err(error) if error.is_connect() => return Came::Nothing,
                Err(_) => return Came::Unknown,
            };
            let status = response.status();
            let Ok(body) = response.into_body().collect().await else { return Came::Unknown };
            let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
            let Ok(value) = serde_json::from_str::<Value>(&text) else {
                return Came::Wrong(format!("{method} {url}: {status} without JSON: {text}"));
            };
            match value["error"]["code"].as_str() {
                None if status.is_success() => Came::Done(value),
                Some(code) if NOTHING.contains(&code) => Came::Nothing,
                Some("outcome_unknown" | "internal") => Came::Unknown,
                _ => Came::Wrong(format!("{method} {url}: {status}: {text}")),
            }
        };
        tokio::time::timeout(ANSWER, answer).await.unwrap_or(Came::Unknown)
    }

    /// Gets something; `None` when that did not work.
    pub async fn get(&self, url: &str) -> Option<Value> {
        match self.send("GET", url, None).await {
            Came::Done(value) => Some(value),
            _ => None,
        }
    }
}
