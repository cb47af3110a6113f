//! The peer of the claims: members of etcd on loopback, asked at the first.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tonic::transport::Channel;

use super::servers::{folder, ports, processor, uuid};

/// A put of etcd's v3 API; the fields that are sent.
#[derive(Clone, PartialEq, prost::Message)]
struct Put {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// Its answer, of which nothing is read.
#[derive(Clone, PartialEq, prost::Message)]
struct PutAnswer {}

/// A put of 256 bytes.
pub async fn put(channel: Channel, key: String) -> Result<(), tonic::Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let codec = tonic_prost::ProstCodec::<Put, PutAnswer>::default();
    let path = http::uri::PathAndQuery::from_static("/etcdserverpb.KV/Put");
    let put = Put { key: key.into_bytes(), value: vec![b'x'; 256] };
    client.unary(tonic::Request::new(put), path, codec).await.map(|_| ())
}

/// Processes of etcd.
pub struct Members {
    children: Vec<Child>,
    /// Connections to the first.
    pub channels: Vec<Channel>,
    _data: tempfile::TempDir,
}

impl Members {
    /// So many members with an empty log; none where there is no etcd.
    pub async fn start(nodes: usize, channels: usize) -> Option<Members> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("no etcd on the path: it is not measured (Debian: etcd-server)");
            return None;
        }
        let (data, ports) = (folder(), ports(2 * nodes));
        let url = |at: usize| format!("http://127.0.0.1:{}", ports[at]);
        let cluster: Vec<String> = (0..nodes).map(|at| format!("n{at}={}", url(nodes + at))).collect();
        let member = |at: usize| {
            let (client, peer) = (url(at), url(nodes + at));
            Command::new("etcd")
                .args(["--name", &format!("n{at}"), "--listen-client-urls", &client])
                .args(["--advertise-client-urls", &client, "--listen-peer-urls", &peer])
                .args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &cluster.join(",")])
                .args(["--log-level", "error", "--data-dir"])
                .arg(data.path().join(at.to_string()))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("etcd starts")
        };
        let children = (0..nodes).map(member).collect();
        let open = |_| Channel::from_shared(url(0)).expect("an address").connect_lazy();
        let members = Members { children, channels: (0..channels).map(open).collect(), _data: data };
        while put(members.channels[0].clone(), uuid(0)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some(members)
    }

    /// Processor time of all, seconds.
    pub fn processor(&self) -> f64 {
        self.children.iter().map(|member| processor(member.id())).sum()
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for member in &mut self.children {
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}
