//! `ctl release`: gives up a claim.

use api::proto::v1;
use uuid::Uuid;

use super::Client;
use crate::cli::output::{Format, emit};
use crate::cli::{Failure, wording};

const EXAMPLES: &str = "\
Example:
  pallium ctl release 198d1710-5a6c-4990-8a9f-9ea722780747";

/// Give up the open claims of an instance that will not come
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Uuid of the instance
    instance: Uuid,
    /// Also forget the instance where it was seen, until its host lists it again
    #[arg(long)]
    observed_too: bool,
    /// Domain of the instance
    #[arg(long, default_value = "nova")]
    domain: String,
}

pub async fn run(client: &Client, format: Format, args: &Args) -> Result<(), Failure> {
    let request = v1::ReleaseRequest {
        domain: Some(args.domain.clone()),
        consumer: args.instance.to_string(),
        observed_too: args.observed_too,
    };
    let answer = client.inventory().release(request).await.map_err(|status| client.refusal(&status))?.into_inner();
    emit(format, &answer, || {
        let told = format!("{} released", wording::count(u64::from(answer.released), "claim"));
        if answer.released > 0 || args.observed_too {
            return told;
        }
        format!(
            "{told}: {} has no open claim; where its host reported it, only --observed-too forgets it",
            args.instance
        )
    })
}
