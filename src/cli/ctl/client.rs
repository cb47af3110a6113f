//! The connection to a server, and its refusals in words.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use api::proto::ha::failover_client::FailoverClient;
use api::proto::ha::host_agent_client::HostAgentClient;
use api::proto::v1::cluster_client::ClusterClient;
use api::proto::v1::inventory_client::InventoryClient;
use api::proto::v1::pipelines_client::PipelinesClient;
use api::proto::v1::scheduler_client::SchedulerClient;
use api::proto::v1::what_if_client::WhatIfClient;
use hyper::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower::service_fn;

use crate::cli::Failure;

/// Between two questions whether a connection still has another end, and the longest wait for the answer: a
/// machine without power closes nothing.
const ALIVE: Duration = Duration::from_secs(3);
/// Bytes of a message that are sent or read.
const MOST_MESSAGE: usize = 64 << 20;

/// Which server, and what makes the two trust each other.
#[derive(Clone, Debug, clap::Args)]
pub struct Target {
    /// Address of a server; several with commas between: the first that answers is asked
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "PALLIUM_SERVER",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8080"
    )]
    server: String,
    /// CA of the server's certificate (PEM), for https://
    #[arg(long, global = true, value_name = "FILE", env = "PALLIUM_CA", hide_env_values = true)]
    ca: Option<PathBuf>,
    /// Certificate to show to the server (PEM)
    #[arg(long, global = true, value_name = "FILE", env = "PALLIUM_CERT", hide_env_values = true)]
    cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, global = true, value_name = "FILE", env = "PALLIUM_KEY", hide_env_values = true)]
    key: Option<PathBuf>,
    /// How new what is read must be: linearizable (the default), bounded:MILLISECONDS, or local, which
    /// answers without a majority too
    #[arg(long, global = true, value_name = "HOW", value_parser = fresh)]
    read: Option<Fresh>,
}

/// Metadata of every call that says how new what is read must be.
#[derive(Clone, Debug)]
struct Fresh(AsciiMetadataValue);

fn fresh(given: &str) -> Result<Fresh, String> {
    let bounded = given.strip_prefix("bounded:").is_some_and(|millis| millis.parse::<u64>().is_ok());
    if !bounded && !matches!(given, "linearizable" | "local") {
        return Err("linearizable, bounded:MILLISECONDS or local expected".to_owned());
    }
    given.parse().map(Fresh).map_err(|_| "plain text expected".to_owned())
}

/// What a call goes through on its way.
#[derive(Clone, Debug)]
pub struct Marked(Option<Fresh>);

impl Interceptor for Marked {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        if let Some(Fresh(value)) = &self.0 {
            request.metadata_mut().insert("x-pallium-read", value.clone());
        }
        Ok(request)
    }
}

type Link = InterceptedService<Channel, Marked>;

impl Target {
    /// A server without TLS.
    pub fn plain(url: &str) -> Self {
        Self { server: url.to_owned(), ca: None, cert: None, key: None, read: None }
    }

    /// Addresses with commas between, and what makes both sides trust each other.
    pub fn new(server: String, ca: Option<PathBuf>, cert: Option<PathBuf>, key: Option<PathBuf>) -> Self {
        Self { server, ca, cert, key, read: None }
    }

    /// The same, tried from the `n`th address on.
    pub fn from(&self, n: usize) -> Self {
        let mut servers: Vec<&str> = self.server.split(',').collect();
        let first = n % servers.len();
        servers.rotate_left(first);
        Self { server: servers.join(","), ..self.clone() }
    }

    /// Opens the files for an https:// address.
    fn tls(&self) -> Result<tls::Client, Failure> {
        let Some(ca) = &self.ca else {
            return Err(Failure::new(format!(
                "{}: the CA of the server's certificate is needed: name its PEM file with --ca or PALLIUM_CA (CAs of \
                 the system are not used)",
                self.server
            )));
        };
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some((cert.as_path(), key.as_path())),
            (None, None) => None,
            (cert, _) => {
                let (given, missing) = if cert.is_some() { ("--cert", "--key") } else { ("--key", "--cert") };
                return Err(Failure::Usage(format!("{given} is given without {missing}: they belong together")));
            }
        };
        tls::Client::open(ca, identity, tls::H2).map_err(|error| Failure::new(error.to_string()))
    }
}

/// A connected server.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Link,
    url: String,
}

impl Client {
    /// Connects to the first server that answers.
    pub async fn connect(target: &Target) -> Result<Self, Failure> {
        let servers = target.server.split(',').map(str::trim).filter(|server| !server.is_empty());
        let mut failure = None;
        for server in servers {
            match Self::connect_to(target, server).await {
                Ok(client) => return Ok(client),
                Err(one) => failure = Some(one),
            }
        }
        Err(failure.unwrap_or_else(|| Failure::new("server: no address given")))
    }

    async fn connect_to(target: &Target, server: &str) -> Result<Self, Failure> {
        let url = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
        let expected = "an address as in http://127.0.0.1:8080 or https://… expected (--server or PALLIUM_SERVER)";
        let endpoint = Endpoint::from_shared(url.clone())
            .map_err(|error| Failure::new(format!("server: '{server}' given, {expected}: {error}")))?
            .connect_timeout(Duration::from_secs(5))
            .http2_keep_alive_interval(ALIVE)
            .keep_alive_timeout(ALIVE)
            .keep_alive_while_idle(true);
        let connected = match (endpoint.uri().scheme_str(), endpoint.uri().host()) {
            (Some("http"), Some(_)) => endpoint.connect().await,
            (Some("https"), Some(_)) => {
                let tls = target.tls()?;
                endpoint.connect_with_connector(service_fn(move |uri| secured(tls.clone(), uri))).await
            }
            _ => return Err(Failure::new(format!("server: '{server}' given, {expected}"))),
        };
        let channel = connected.map_err(|error| unreachable(&url, &error))?;
        Ok(Self { channel: Link::new(channel, Marked(target.read.clone())), url })
    }

    /// Placements and explanations.
    pub fn scheduler(&self) -> SchedulerClient<Link> {
        SchedulerClient::new(self.channel.clone()).max_decoding_message_size(MOST_MESSAGE)
    }

    /// Questions that touch nothing.
    pub fn what_if(&self) -> WhatIfClient<Link> {
        WhatIfClient::new(self.channel.clone()).max_decoding_message_size(MOST_MESSAGE)
    }

    /// The nodes and their data.
    pub fn cluster(&self) -> ClusterClient<Link> {
        ClusterClient::new(self.channel.clone()).max_decoding_message_size(MOST_MESSAGE)
    }

    /// Hosts and instances.
    pub fn inventory(&self) -> InventoryClient<Link> {
        InventoryClient::new(self.channel.clone())
            .max_decoding_message_size(MOST_MESSAGE)
            .max_encoding_message_size(MOST_MESSAGE)
    }

    /// Pipelines.
    pub fn pipelines(&self) -> PipelinesClient<Link> {
        PipelinesClient::new(self.channel.clone()).max_decoding_message_size(MOST_MESSAGE)
    }

    /// Failover.
    pub fn failover(&self) -> FailoverClient<Link> {
        FailoverClient::new(self.channel.clone()).max_decoding_message_size(MOST_MESSAGE)
    }

    /// Sessions of agents.
    pub fn host_agent(&self) -> HostAgentClient<Link> {
        HostAgentClient::new(self.channel.clone())
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
            Code::Unavailable if message.contains("ask again") => format!("{}: {message}", self.url),
            Code::Unavailable => format!("{}: {message}; ask again later", self.url),
            Code::Unknown | Code::Internal => match innermost(status) {
                inner if inner == message => format!("{}: {message}", self.url),
                inner if self.url.starts_with("https") => return mistrusted(&self.url, &inner),
                inner => {
                    format!(
                        "{}: {message}: {inner}; if the server has TLS, give an https:// address and --ca",
                        self.url
                    )
                }
            },
            _ => message,
        })
    }
}

/// A connection to an https:// address.
async fn secured(tls: tls::Client, uri: Uri) -> Result<TokioIo<tls::Stream>, Box<dyn Error + Send + Sync>> {
    let host = uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((bare, uri.port_u16().unwrap_or(443))).await?;
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(tls.connect(stream, host).await?))
}

fn unreachable(url: &str, error: &tonic::transport::Error) -> Failure {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<tls::ConnectError>() {
            return mistrusted(url, &error.to_string());
        }
        cause = error.source();
    }
    Failure::new(format!(
        "cannot reach {url}: {}; start a server with 'pallium serve --data-dir DIR', or name another one with --server or \
         PALLIUM_SERVER",
        innermost(error)
    ))
}

fn mistrusted(url: &str, words: &str) -> Failure {
    Failure::new(format!(
        "{url}: {words}; --ca names the CA that is trusted, --cert and --key what the server is shown"
    ))
}

/// The cause at the bottom says what happened.
fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
