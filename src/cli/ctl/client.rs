//! The connection to a server, and its refusals in words.

use std::error::Error;
use std::time::Duration;

use api::proto::v1::cluster_client::ClusterClient;
use api::proto::v1::inventory_client::InventoryClient;
use api::proto::v1::pipelines_client::PipelinesClient;
use api::proto::v1::scheduler_client::SchedulerClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::cli::Failure;

/// Bytes of a message that are sent or read.
const MOST_MESSAGE: usize = 64 << 20;

/// A connected server.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    url: String,
}

impl Client {
    /// Connects to a server.
    pub async fn connect(server: &str) -> Result<Self, Failure> {
        let url = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
        if url.starts_with("https://") {
            return Err(Failure::new(format!("{url}: TLS does not exist yet: give an http:// address")));
        }
        let expected = "an address as in http://127.0.0.1:8080 expected (--server or PALLIUM_SERVER)";
        let endpoint = Endpoint::from_shared(url.clone())
            .map_err(|error| Failure::new(format!("server: '{server}' given, {expected}: {error}")))?
            .connect_timeout(Duration::from_secs(5));
        if endpoint.uri().scheme_str() != Some("http") || endpoint.uri().host().is_none() {
            return Err(Failure::new(format!("server: '{server}' given, {expected}")));
        }
        let channel = endpoint.connect().await.map_err(|error| {
            Failure::new(format!(
                "cannot reach {url}: {}; start a server with 'pallium serve --data-dir DIR', or name another one \
                 with --server or PALLIUM_SERVER",
                innermost(&error)
            ))
        })?;
        Ok(Self { channel, url })
    }

    /// Placements and explanations.
    pub fn scheduler(&self) -> SchedulerClient<Channel> {
        SchedulerClient::new(self.channel.clone()).max_decoding_message_size(MOST_MESSAGE)
    }

    /// The nodes and their data.
    pub fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone()).max_decoding_message_size(MOST_MESSAGE)
    }

    /// Hosts and instances.
    pub fn inventory(&self) -> InventoryClient<Channel> {
        InventoryClient::new(self.channel.clone())
            .max_decoding_message_size(MOST_MESSAGE)
            .max_encoding_message_size(MOST_MESSAGE)
    }

    /// Pipelines.
    pub fn pipelines(&self) -> PipelinesClient<Channel> {
        PipelinesClient::new(self.channel.clone()).max_decoding_message_size(MOST_MESSAGE)
    }

    /// Why the server did not answer.
    pub fn refusal(&self, status: &Status) -> Failure {
        let message = match status.message() {
            "" => "no reason was given".to_owned(),
            message => message.to_owned(),
        };
        Failure::new(match status.code() {
            Code::Unimplemented => {
                format!("{} does not know this call: is it a pallium server of this version?", self.url)
            }
            Code::Unavailable => format!("{}: {message}; ask again later", self.url),
            Code::Unknown | Code::Internal => match innermost(status) {
                inner if inner == message => format!("{}: {message}", self.url),
                inner => format!("{}: {message}: {inner}", self.url),
            },
            _ => message,
        })
    }
}

/// The cause at the bottom says what happened.
fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
