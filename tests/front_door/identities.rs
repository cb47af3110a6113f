//! Who may speak for a host, and who may give orders: by the certificates of clients.

use std::fs;
use std::path::PathBuf;

use api::proto::ha;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::server::{Server, run};
use crate::spec::host;
use crate::support::agents::{Agent, hello, id, watched};
use crate::support::nodes::until;
use crate::tls::{Connection, certs, config, ctl};

/// A server that lets in only clients with a certificate, and those certificates.
struct Estate {
    dir: tempfile::TempDir,
    server: Server,
}

impl Estate {
    fn new(more: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let said = certs(&dir.path().join("certs"), &["--agent", &id(1), "--agent", &id(2)]);
        let file = config(dir.path(), &said, true);
        fs::write(&file, fs::read_to_string(&file).expect("the config") + "\n" + more).expect("written");
        let server = Server::start_with(&dir.path().join("data"), &["--config", file.to_str().expect("UTF-8")]);
        Self { dir, server }
    }

    /// CA, certificate and key of somebody.
    fn files(&self, who: &str) -> [PathBuf; 3] {
        let dir = self.dir.path().join("certs");
        [dir.join("ca.pem"), dir.join(format!("{who}.pem")), dir.join(format!("{who}-key.pem"))]
    }

    fn ctl(&self, who: &str, command: &[&str]) -> Result<String, String> {
        let [ca, cert, key] = self.files(who);
        let (code, printed) = ctl(&self.server.url, &[("--ca", &ca), ("--cert", &cert), ("--key", &key)], command);
        if code == Some(0) { Ok(printed) } else { Err(printed) }
    }

    async fn channel(&self, who: &str) -> Channel {
        let [ca, cert, key] = self.files(who);
        let client = tls::Client::open(&ca, Some((&cert, &key)), tls::H2).expect("certificates");
        let connect = move |uri: Uri| {
            let client = client.clone();
            async move {
                let stream = TcpStream::connect(("127.0.0.1", uri.port_u16().expect("a port"))).await?;
                client.connect(stream, "127.0.0.1").await.map(TokioIo::new).map_err(std::io::Error::other)
            }
        };
        let endpoint = Endpoint::from_shared(self.server.url.clone()).expect("a URL");
        endpoint.connect_with_connector(service_fn(connect)).await.expect("a connection")
    }

    async fn agent(&self, who: &str, hello: ha::AgentReport) -> Result<Agent, tonic::Status> {
        Agent::over(self.channel(who).await, hello).await
    }

    /// What somebody hears over HTTP.
    async fn http(&self, who: &str, method: &str, path: &str, body: Value) -> (u16, String) {
        let [ca, cert, key] = self.files(who);
        let mut connection = Connection::open(&self.server.url, &ca, Some((&cert, &key))).await;
        let (status, body) = connection.send(method, path, body.to_string()).await;
        (status.as_u16(), body)
    }

    /// How often somebody was refused for this reason.
    async fn refused(&self, reason: &str) -> Option<u32> {
        let (_, text) = self.http("client", "GET", "/metrics", Value::Null).await;
        let name = format!("pallium_ha_identity_refused_total{{reason=\"{reason}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok())
    }

    /// Two hosts that failover watches, told by an operator.
    async fn watch(&self) {
        let fleet = self.dir.path().join("fleet.json");
        let hosts = [host("a", 8, 8192), host("b", 8, 8192)];
        fs::write(&fleet, json!({"domain": "nova", "hosts": hosts}).to_string()).expect("written");
        self.ctl("client", &["import", fleet.to_str().expect("UTF-8")]).expect("it needs no operator");
        let file = self.watched();
        until("the feature level", async || self.ctl("operator", &["ha", "apply", &file]).ok()).await;
    }

    fn watched(&self) -> String {
        let file = self.dir.path().join("watched.json");
        fs::write(&file, watched(&["a", "b"]).to_string()).expect("written");
        file.display().to_string()
    }
}

fn agent_of(n: u64) -> String {
    format!("agent-{}", id(n))
}

fn denied(refused: Result<Agent, tonic::Status>, why: &str) {
    let status = refused.err().expect("refused");
    assert!(status.code() == Code::PermissionDenied && status.message().contains(why), "{status}");
}

#[test]
fn an_agent_speaks_for_the_host_of_its_certificate() {
    run(async {
        let estate = Estate::new("ha: {identities: required}\n");
        estate.watch().await;
        let mut own = estate.agent(&agent_of(1), hello(1)).await.expect("it is known");
        assert_eq!(own.next().await.welcome.map(|welcome| welcome.incarnation), Some(1));

        denied(estate.agent(&agent_of(1), hello(2)).await, &format!("the certificate is of {}", id(1)));
        denied(estate.agent("client", hello(2)).await, "names no host");
        denied(estate.agent("operator", hello(2)).await, "operator development speaks for no host");
        for (reason, times) in [("other_host", 1), ("no_identity", 1), ("wrong_class", 1), ("unreadable", 0)] {
            assert_eq!(estate.refused(reason).await, Some(times), "{reason}");
        }
        let (_, hosts) = estate.http("client", "GET", "/v1/ha/hosts", Value::Null).await;
        let hosts: Value = serde_json::from_str(&hosts).expect("JSON");
        let heard: Vec<_> = hosts["hosts"].as_array().expect("hosts").iter().map(|host| &host["incarnation"]).collect();
        assert_eq!(heard, [1, 0], "nobody spoke for the other: {hosts}");

        // Amid its session it names another host.
        own.say(ha::AgentReport { seq: 1, hello: None, ..hello(2) }).await;
        let status = own.refused().await;
        assert!(status.code() == Code::PermissionDenied && status.message().contains(&id(2)), "{status}");
        assert_eq!(estate.refused("other_host").await, Some(2));
        assert!(estate.server.log().contains("refused, by the client's certificate"), "{}", estate.server.log());

        // The same in single requests.
        let (who, of) = (agent_of(1), |n| format!("/v1/ha/hosts/{}", id(n)));
        let (status, body) = estate.http(&who, "POST", &(of(1) + "/reports"), json!([hello(1)])).await;
        assert_eq!(status, 204, "{body}");
        for (method, path) in [("POST", of(2) + "/reports"), ("GET", of(2) + "/directives")] {
            let (status, body) = estate.http(&who, method, &path, json!([hello(2)])).await;
            assert!(status == 403 && body.contains("the certificate is of"), "{path}: {status} {body}");
        }
        assert_eq!(estate.refused("other_host").await, Some(4));
    });
}

#[test]
fn only_an_operator_gives_orders() {
    run(async {
        let estate = Estate::new("ha: {identities: required}\n");
        let file = estate.watched();
        let refused = estate.ctl("client", &["ha", "apply", &file]).expect_err("no operator");
        assert!(refused.contains("orders of failover are an operator's"), "{refused}");
        estate.watch().await;
        drop(estate.agent(&agent_of(2), hello(2)).await.expect("it is known"));
        estate.ctl("operator", &["ha", "open", "b", "--reason", "smoke"]).expect("a case");
        // Everybody may look but an agent, whose key lies on each host.
        let case = estate.ctl("client", &["ha", "case", "b", "-o", "json"]).expect("the case");
        let case: Value = serde_json::from_str(&case).expect("JSON");
        let token = case["token"].as_str().expect("a token");
        estate.ctl(&agent_of(1), &["ha", "case", "b"]).expect_err("an agent");
        estate.ctl(&agent_of(1), &["hosts"]).expect_err("an agent");

        let order = json!({"host": "b", "token": token, "actor": "ada", "reason": "its plug is in my hand"});
        for (who, reason) in [(agent_of(2), "wrong_class"), ("client".to_owned(), "no_identity")] {
            let before = estate.refused(reason).await.expect("it is counted");
            let refused = estate.ctl(&who, &["ha", "confirm-dead", "b", "--reason", "so it says", "--yes"]);
            refused.expect_err("no operator");
            let (status, body) = estate.http(&who, "POST", "/v1/ha/confirm-dead", order.clone()).await;
            assert!(status == 403 && body.contains("\"permission_denied\""), "{who}: {status} {body}");
            assert!(estate.refused(reason).await.expect("it is counted") >= before + 2, "{who}");
        }
        let case = estate.ctl("client", &["ha", "case", "b", "-o", "json"]).expect("the case");
        assert!(!case.contains("\"proof\""), "{case}");
        // Not while it was heard just now.
        until("the operator's word", async || {
            let (status, _) = estate.http("operator", "POST", "/v1/ha/confirm-dead", order.clone()).await;
            (status == 200).then_some(())
        })
        .await;
        let case = estate.ctl("operator", &["ha", "case", "b", "-o", "json"]).expect("the case");
        assert!(case.contains("\"P7"), "{case}");
    });
}

#[test]
fn who_says_nothing_of_himself_is_held_to_nothing_unless_it_is_required() {
    run(async {
        let estate = Estate::new("ha: {mode: dry-run}\n");
        estate.watch().await;
        estate.agent("client", hello(1)).await.expect("any certificate does");
        denied(estate.agent(&agent_of(1), hello(2)).await, &format!("the certificate is of {}", id(1)));
        estate.ctl(&agent_of(1), &["ha", "open", "a", "--reason", "x"]).expect_err("it is an agent's");
        estate.ctl("client", &["ha", "open", "a", "--reason", "smoke"]).expect("any other does");
        assert!(estate.server.log().contains("ha.identities: required ends that"), "{}", estate.server.log());
    });
}
