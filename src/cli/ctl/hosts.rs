//! `ctl hosts`: what there is.

use api::proto::v1;

use super::Client;
use crate::cli::output::{Format, emit, listing, number, text};
use crate::cli::{Failure, wording};

const EXAMPLES: &str = "\
Examples:
  pallium ctl hosts
  pallium ctl hosts --zone az-a --state ready
  pallium ctl hosts --name 'node00*'
  pallium ctl hosts --name node001-bb00 -o yaml";

/// List hosts with what is in use and what there is
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Only this availability zone
    #[arg(long)]
    zone: Option<String>,
    /// Only this host; a * at the end matches any rest
    #[arg(long, visible_alias = "host", value_name = "NAME")]
    name: Option<String>,
    /// Only this domain: nova, cinder, manila, machines or pods
    #[arg(long)]
    domain: Option<String>,
    /// Only hosts in this state, as the STATE column names it
    #[arg(long)]
    state: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

pub async fn run(client: &Client, format: Format, args: &Args) -> Result<(), Failure> {
    let request = v1::ListHostsRequest {
        domain: args.domain.clone(),
        name: args.name.clone(),
        availability_zone: args.zone.clone(),
        page_size: 1000,
        page_token: None,
    };
    let wanted = |host: &v1::Host| args.state.as_ref().is_none_or(|wanted| state(host) == *wanted);
    let hosts = all(client, request, args.limit.unwrap_or(usize::MAX), wanted).await?;
    let listed = v1::ListHostsResponse { hosts, next_page_token: None };
    emit(format, &listed, || table(&listed.hosts))
}

/// The wanted ones of the hosts that are asked for, page by page; at most so many.
pub async fn all(
    client: &Client,
    mut request: v1::ListHostsRequest,
    most: usize,
    wanted: impl Fn(&v1::Host) -> bool,
) -> Result<Vec<v1::Host>, Failure> {
    let mut hosts = Vec::new();
    loop {
        let page = client.inventory().list(request.clone()).await.map_err(|status| client.refusal(&status))?;
        let page = page.into_inner();
        hosts.extend(page.hosts.into_iter().filter(&wanted));
        request.page_token = page.next_page_token.filter(|token| !token.is_empty());
        if request.page_token.is_none() || hosts.len() >= most {
            break;
        }
    }
    hosts.truncate(most);
    Ok(hosts)
}

fn table(hosts: &[v1::Host]) -> String {
    if hosts.is_empty() {
        return "no hosts".to_owned();
    }
    let columns = [
        text("HOST", 0),
        text("ZONE", 2),
        text("TYPE", 5),
        text("STATE", 0),
        number("VCPU", 0),
        number("MEMORY", 0),
        number("DISK", 4),
        number("INSTANCES", 1),
        number("CLAIMS", 3),
    ];
    let rows: Vec<Vec<String>> = hosts
        .iter()
        .map(|host| {
            let stock = |class: &str, show: fn(u64) -> String| {
                host.resources.get(class).map_or("-".to_owned(), |s| format!("{}/{}", show(s.used), show(s.capacity)))
            };
            vec![
                host.name.clone(),
                host.availability_zone.clone().unwrap_or_else(|| "-".to_owned()),
                host.hypervisor_type.clone().unwrap_or_else(|| "-".to_owned()),
                state(host),
                stock("VCPU", |n| n.to_string()),
                stock("MEMORY_MB", |mib| format!("{}G", mib / 1024)),
                stock("DISK_GB", |gib| format!("{gib}G")),
                host.instances.to_string(),
                host.claims.to_string(),
            ]
        })
        .collect();
    let footer = wording::count(hosts.len() as u64, "host");
    format!("{}\n{footer}; used/capacity, overcommit included", listing(&columns, &rows))
}

/// The worst thing about a host, or `ready`.
fn state(host: &v1::Host) -> String {
    let condition = |kind: &str| host.conditions.get(kind).map(String::as_str);
    let state = if host.forced_down {
        "down"
    } else if condition("Terminating").is_some_and(|status| status != "False") {
        "terminating"
    } else if host.disabled || condition("HypervisorDisabled").is_some_and(|status| status != "False") {
        "disabled"
    } else if condition("Ready").is_some_and(|status| status != "True") {
        "not-ready"
    } else if !host.excess.is_empty() {
        "over-full"
    } else {
        "ready"
    };
    state.to_owned()
}
