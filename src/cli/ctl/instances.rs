//! `ctl instances`: what runs, and what is claimed for what is still to come.

use std::fmt::Write;

use api::proto::v1;

use super::Client;
use crate::cli::output::{Format, emit, listing, number, text};
use crate::cli::{Failure, wording};

const EXAMPLES: &str = "\
Examples:
  pallium ctl instances --host node001-bb00
  pallium ctl instances --claims
  pallium ctl instances --uuid 198d1710-5a6c-4990-8a9f-9ea722780747 -o yaml";

/// List instances and open claims
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Only on this host
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Only this instance
    #[arg(long)]
    uuid: Option<String>,
    /// Only of this project
    #[arg(long, value_name = "ID")]
    project: Option<String>,
    /// Only this domain: nova, cinder, manila, machines or pods
    #[arg(long)]
    domain: Option<String>,
    /// Only claims whose instance was not seen yet
    #[arg(long)]
    claims: bool,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

pub async fn run(client: &Client, format: Format, args: &Args) -> Result<(), Failure> {
    let most = args.limit.unwrap_or(usize::MAX);
    let mut instances = Vec::new();
    let mut page_token = None;
    loop {
        let request = v1::ListInstancesRequest {
            domain: args.domain.clone(),
            host: args.host.clone(),
            uuid: args.uuid.clone(),
            project_id: args.project.clone(),
            claims_only: args.claims,
            page_size: 1000,
            page_token,
        };
        let page = client.inventory().instances(request).await.map_err(|s| client.refusal(&s))?.into_inner();
        instances.extend(page.instances);
        page_token = page.next_page_token.filter(|token| !token.is_empty());
        if page_token.is_none() || instances.len() >= most {
            break;
        }
    }
    instances.truncate(most);
    let listed = v1::ListInstancesResponse { instances, next_page_token: None };
    emit(format, &listed, || table(&listed.instances))
}

fn table(instances: &[v1::Instance]) -> String {
    if instances.is_empty() {
        return "no instances".to_owned();
    }
    let columns = [
        text("INSTANCE", 0),
        text("HOST", 0),
        text("PHASE", 0),
        text("FLAVOR", 1),
        number("VCPU", 2),
        number("MEMORY", 2),
        number("DECISION", 3),
        text("SINCE (UTC)", 4),
    ];
    let rows: Vec<Vec<String>> = instances
        .iter()
        .map(|instance| {
            let amount = |class: &str| instance.resources.get(class).copied();
            let mut phase = instance.phase.clone();
            if instance.purpose == "move" {
                phase.push_str(" move");
            }
            if let Some(left) = instance.expires_in_ms {
                let _ = write!(phase, ", {} left", wording::duration(left));
            }
            vec![
                instance.uuid.clone(),
                instance.host.clone(),
                phase,
                instance.flavor.clone().unwrap_or_else(|| "-".to_owned()),
                amount("VCPU").map_or("-".to_owned(), |n| n.to_string()),
                amount("MEMORY_MB").map_or("-".to_owned(), |mib| format!("{}G", mib.div_ceil(1024))),
                if instance.decision == 0 { "-".to_owned() } else { instance.decision.to_string() },
                wording::utc(instance.since),
            ]
        })
        .collect();
    format!("{}\n{}", listing(&columns, &rows), wording::count(instances.len() as u64, "instance"))
}
