//! `certs`: certificates for development, and what to do with them.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use api::Identity;
use scheduler::ha::HostId;
use uuid::Uuid;

use super::{Failure, output};

const EXAMPLES: &str = "\
Examples:
  pallium certs certs
  pallium certs certs --nodes 5 --host node-1.example --host 10.0.0.1
  pallium certs certs --agent 5b1f0c3e-… --agent 0a3c7d1e-…
  pallium certs certs --force           new ones in place of the old ones

For development: whoever can read DIR can be everybody. Certificates of a real
cluster come from a CA that somebody guards; see \"TLS\" in docs/operations.md.";

/// Make certificates for development
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Folder for the files; created when absent
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Nodes of the cluster, each with a certificate of its own
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    nodes: u32,
    /// Name or address of a machine, besides localhost, 127.0.0.1 and ::1; may be given several times
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// Id of a host that failover watches, for whose agent a certificate is made; may be given several times
    #[arg(long = "agent", value_name = "HOST_ID")]
    agents: Vec<Uuid>,
    /// Write over files that exist
    #[arg(long)]
    force: bool,
}

/// Who vouches for the identities in them.
const TRUST_DOMAIN: &str = "development";

pub fn run(args: &Args) -> Result<(), Failure> {
    let mut clients = vec![("operator".to_owned(), Identity::Operator(TRUST_DOMAIN.to_owned()))];
    clients.extend(args.agents.iter().map(|host| (format!("agent-{host}"), Identity::Hypervisor(HostId(*host)))));
    let set = tls::Development {
        nodes: args.nodes,
        hosts: args.hosts.clone(),
        clients: clients.into_iter().map(|(name, identity)| (name, identity.uri(TRUST_DOMAIN))).collect(),
        overwrite: args.force,
    };
    let files = tls::development(&args.dir, &set).map_err(|error| {
        let exists = if error.file.exists() && error.file != args.dir { "; --force makes new ones" } else { "" };
        Failure::new(format!("{error}{exists}"))
    })?;
    let dir = args.dir.canonicalize().unwrap_or_else(|_| args.dir.clone());
    output::print(&usage(&dir, args, files.len()));
    Ok(())
}

fn usage(dir: &Path, args: &Args, files: usize) -> String {
    let at = |name: &str| dir.join(name).display().to_string();
    let mut text = format!("{files} files in {}, valid for a year, for development only.\n", dir.display());
    for node in 1..=args.nodes {
        let _ = write!(
            text,
            "\nIn the config file of node {node}:\n\ntls:\n  client:\n    cert: {}\n    key: {}\n  peer:\n    cert: {}\n    \
             key: {}\n    ca: {}\n",
            at("server.pem"),
            at("server-key.pem"),
            at(&format!("peer-{node}.pem")),
            at(&format!("peer-{node}-key.pem")),
            at("peer-ca.pem"),
        );
    }
    let (ca, cert, key) = (at("ca.pem"), at("client.pem"), at("client-key.pem"));
    let _ = write!(
        text,
        "\nTo let in only clients that show a certificate, add under client:\n\n    ca: {ca}\n\nThen:\n\n  pallium ctl \
         --server https://127.0.0.1:8080 --ca {ca} \\\n    --cert {cert} --key {key} hosts\n  curl --cacert {ca} \
         https://127.0.0.1:8080/readyz\n\nWith ha: {{identities: required}} only {} gives failover orders.",
        at("operator.pem"),
    );
    for host in &args.agents {
        let (cert, key) = (at(&format!("agent-{host}.pem")), at(&format!("agent-{host}-key.pem")));
        let _ = write!(
            text,
            "\n\nIn the config file of the agent of host {host}:\n\ntls: {{ca: {ca}, cert: {cert}, key: {key}}}"
        );
    }
    text
}
