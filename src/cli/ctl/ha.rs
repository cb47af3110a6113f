//! `ctl ha`: failover, seen and told.

mod policy;
mod show;

use std::path::PathBuf;

use api::proto::ha;
use clap::{Subcommand, ValueEnum};

use super::{Client, Target, input};
use crate::cli::Failure;
use crate::cli::output::{Format, complain, emit};

const EXAMPLES: &str = "\
Examples:
  pallium ctl ha                        # what it does, and what stops it
  pallium ctl ha hosts --state suspect
  pallium ctl ha apply hosts.yaml       # which hosts it watches
  pallium ctl ha case compute-17        # what was seen, decided and done
  pallium ctl ha drain compute-17 --reason 'new DIMMs'   # empty it
  pallium ctl ha drain                  # how far drains are
  pallium ctl ha confirm-dead compute-17 --reason 'pulled the plug'
  pallium ctl ha policy show            # how bold it is with which hosts
  pallium ctl ha pause kill --for 30m --reason 'switch update in row 7'
  pallium ctl ha answer az:az-a proceed compute-17 --for 10m --reason burning

What is told needs a reason, which is kept. docs/failover.md has the words.";

const APPLY: &str = "\
Example:
  pallium ctl ha apply hosts.yaml

FILE is YAML or JSON, as the body of POST /v1/ha/hosts:
  hosts:
    - host: compute-17              # Nova's name
      machine_uuid: 4c4c4544-…      # DMI, as its BMC says it too
      machine_serial: CZJ1234567
      bmc: https://10.1.0.17/redfish/v1/Systems/1
      fencers: [redfish, manual]    # absent: these with a BMC, else manual
      power: feed-7                 # what shares a feed
      chassis: c7                   # what shares an enclosure
Absent: its id (its provider's uuid), its zone (its provider's), cell1.";

const DRAIN: &str = "\
Examples:
  pallium ctl ha drain compute-17 --reason 'new DIMMs'
  pallium ctl ha drain compute-17                      # how far it is
  pallium ctl ha drain compute-17 --cancel --reason 'not today'
  pallium ctl ha drain compute-17 --done --reason 'new DIMMs are in'

Its service is disabled, and its instances are migrated, two at a time, live or
stopped as they are. What cannot be moved stays and is named.";

/// Look at failover and tell it things
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What failover does now, and what stops it (as without a command)
    #[command(after_help = "Example: pallium ctl ha status -o json")]
    Status,
    /// Hosts that it watches
    #[command(after_help = "Example: pallium ctl ha hosts --state unreachable")]
    Hosts {
        /// Only those: alive, suspect, isolated, unreachable or dead
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
    },
    /// Could a host be lost now, and which one not? By capacity, of the hosts that hold most
    #[command(after_help = "Example: pallium ctl ha losses --hosts 50")]
    Losses {
        /// So many of those that hold most, 200 at most
        #[arg(long, value_name = "N", default_value_t = 20)]
        hosts: u32,
    },
    /// Tell which hosts it watches and how they are fenced
    #[command(after_help = APPLY)]
    Apply {
        /// File, or - for stdin
        file: PathBuf,
    },
    /// Forget a host without an open case on which nothing may run
    #[command(after_help = "Example: pallium ctl ha remove compute-17 --reason scrapped")]
    Remove(Told),
    /// Cases, open ones first
    #[command(after_help = "Example: pallium ctl ha cases --closed")]
    Cases {
        /// Closed ones too
        #[arg(long)]
        closed: bool,
    },
    /// One case: what was seen, decided and done, when and by whom
    #[command(after_help = "Example: pallium ctl ha case compute-17")]
    Case {
        /// Host, by Nova's name or id
        host: String,
    },
    /// Open a case of a host by hand
    #[command(after_help = "Example: pallium ctl ha open compute-17 --reason 'smoke in rack 7'")]
    Open(Told),
    /// Say that a host is dead: it neither runs nor writes, and you have made sure
    #[command(after_help = "Example: pallium ctl ha confirm-dead compute-17 --reason 'pulled the plug'")]
    ConfirmDead {
        #[command(flatten)]
        told: Told,
        /// Do not ask back
        #[arg(long)]
        yes: bool,
    },
    /// Take a case back whose fence failed and whose host is heard; the host must be rebooted afterwards
    #[command(after_help = "Example: pallium ctl ha abort compute-17 --reason 'its BMC hangs'")]
    Abort(Told),
    /// Plan an instance of a case anew: one that stays where it is, or that hosts have refused
    #[command(after_help = "Example: pallium ctl ha retry 6f1c… --reason 'its volume is mended'")]
    Retry(Instance),
    /// Leave an instance of a case where it is: you see to it
    #[command(after_help = "Example: pallium ctl ha skip 6f1c… --reason 'restored from a backup'")]
    Skip(Instance),
    /// Choose where an instance of a case goes that waits, or is planned and not on its way
    #[command(
        after_help = "Examples, with the case held so that nothing begins meanwhile:\n  pallium ctl ha hold compute-17 recover --reason 'sorting'\n  pallium ctl ha retarget 6f1c… compute-23 --reason 'fast disks'\n  pallium ctl ha release compute-17 recover --reason sorted"
    )]
    Retarget {
        /// Instance, by its uuid
        instance: String,
        /// Host, by Nova's name or id
        host: String,
        #[command(flatten)]
        why: Why,
    },
    /// Keep a host from being fenced for a while
    #[command(after_help = "Example: pallium ctl ha exempt compute-17 --for 2h --reason 'firmware update'")]
    Exempt {
        #[command(flatten)]
        told: Told,
        #[command(flatten)]
        span: Span,
    },
    /// Stop fencing or evacuations everywhere for a while
    #[command(after_help = "Example: pallium ctl ha pause kill --for 30m --reason 'switch update'")]
    Pause {
        /// What stops: kill (fencing) or recover (evacuations)
        act: Act,
        #[command(flatten)]
        span: Span,
        #[command(flatten)]
        why: Why,
    },
    /// Let fencing or evacuations go on
    #[command(after_help = "Example: pallium ctl ha resume kill --reason 'update done'")]
    Resume {
        /// What goes on: kill or recover
        act: Act,
        #[command(flatten)]
        why: Why,
    },
    /// Hold an act of one case
    #[command(after_help = "Example: pallium ctl ha hold compute-17 recover --reason 'copying disks'")]
    Hold {
        /// Host, by Nova's name or id
        host: String,
        /// What is held: kill or recover
        act: Act,
        #[command(flatten)]
        why: Why,
    },
    /// Let a held act of one case go on; without a host: let failover act again after a restore
    #[command(
        after_help = "Examples:\n  pallium ctl ha release compute-17 recover --reason 'copied'\n  pallium ctl ha release --after-restore --reason 'hosts looked at'"
    )]
    Release {
        /// Host, by Nova's name or id
        #[arg(requires = "act")]
        host: Option<String>,
        /// What goes on: kill or recover
        act: Option<Act>,
        /// After a restore: every proof and intent of before is void, and the hosts have been looked at
        #[arg(long, conflicts_with = "host", required_unless_present = "host")]
        after_restore: bool,
        #[command(flatten)]
        why: Why,
    },
    /// Answer an open breaker
    #[command(after_help = "Example: pallium ctl ha answer region proceed-all --for 10m --reason drill")]
    Answer {
        /// region, az:NAME, cell:NAME or cluster:NAME
        scope: String,
        /// proceed (with the hosts that follow), proceed-all or abort
        decision: Answer,
        /// Hosts that may be fenced
        hosts: Vec<String>,
        #[command(flatten)]
        span: Span,
        #[command(flatten)]
        why: Why,
    },
    /// Say why a host is not at work, or that it is
    #[command(after_help = "Example: pallium ctl ha maintain compute-17 manual --reason 'Jo is inside'")]
    Maintain {
        /// Host, by Nova's name or id
        host: String,
        /// none, manual (a person may be inside: never fenced), auto or termination
        mode: String,
        #[command(flatten)]
        why: Why,
    },
    /// Empty a living host by migrations, for planned work; without a host: how far drains are
    #[command(after_help = DRAIN)]
    Drain {
        /// Host, by Nova's name or id
        host: Option<String>,
        /// For what: auto (it may be fenced meanwhile), manual (a person works at it) or termination
        #[arg(long, value_name = "MODE", default_value = "auto")]
        mode: String,
        /// Why, in a few words; kept with who said it. Without it: how far the drain is
        #[arg(long, value_name = "TEXT", requires = "host")]
        reason: Option<String>,
        /// End it before its time: what is on its way arrives, the rest stays, the host is at work again
        #[arg(long, requires = "reason", conflicts_with = "done")]
        cancel: bool,
        /// The work is done: the host's service is enabled, and instances are placed on it again
        #[arg(long, requires = "reason")]
        done: bool,
        /// Who says so
        #[arg(long = "as", value_name = "NAME", env = "USER", default_value = "operator")]
        actor: String,
    },
    /// See, check and set how bold failover is with which hosts
    Policy(policy::Args),
    /// Say that a host in quarantine is what it says it is, or let an instance go that was on three hosts that died
    #[command(
        group = clap::ArgGroup::new("whom").required(true).args(["host", "instance"]),
        after_help = "Examples:\n  pallium ctl ha end-quarantine compute-17 --reason 'new mainboard'\n  pallium ctl ha end-quarantine --instance 2c9e… --reason 'the switch it was'"
    )]
    EndQuarantine {
        /// Host, by Nova's name or id
        host: Option<String>,
        /// Instance, by its uuid
        #[arg(long, value_name = "UUID")]
        instance: Option<String>,
        #[command(flatten)]
        why: Why,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Act {
    Kill,
    Recover,
}

impl Act {
    fn name(self) -> String {
        match self {
            Self::Kill => "kill",
            Self::Recover => "recover",
        }
        .to_owned()
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Answer {
    Proceed,
    ProceedAll,
    Abort,
}

/// A host and why.
#[derive(Debug, clap::Args)]
struct Told {
    /// Host, by Nova's name or id
    host: String,
    #[command(flatten)]
    why: Why,
}

/// An instance and why.
#[derive(Debug, clap::Args)]
struct Instance {
    /// Instance, by its uuid
    instance: String,
    #[command(flatten)]
    why: Why,
}

/// Why.
#[derive(Debug, clap::Args)]
struct Why {
    /// Why, in a few words; kept with who said it
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who says so
    #[arg(long = "as", value_name = "NAME", env = "USER", default_value = "operator")]
    actor: String,
}

/// How long.
#[derive(Debug, clap::Args)]
struct Span {
    /// How long, a day at most: 90s, 30m, 2h
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    span: u64,
}

/// Milliseconds of `90s`, `30m`, `2h`.
pub fn span(text: &str) -> Result<u64, String> {
    let expected = || format!("'{text}' given, a number with s, m or h expected, as in 90s, 30m or 2h");
    let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(expected)?;
    let unit = match unit {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(expected()),
    };
    let number: u64 = digits.parse().map_err(|_| expected())?;
    let millis = number.saturating_mul(unit);
    match millis {
        0 => Err("0 given, a longer time expected".to_owned()),
        1..=86_400_000 => Ok(millis),
        _ => Err(format!("'{text}' given, 24h at most expected")),
    }
}

/// Hosts in one message.
const TOGETHER: usize = 1_000;

pub async fn run(target: &Target, format: Format, args: Args) -> Result<(), Failure> {
    let command = args.command.unwrap_or(Command::Status);
    if let Command::Apply { file } = &command {
        let (name, text) = input::read(file)?;
        let request: ha::ApplyFailoverHostsRequest = serde_norway::from_str(&text).map_err(|error| {
            Failure::new(format!("{name}: {error}; 'hosts' with 'host' and more of each expected (see --help)"))
        })?;
        if request.hosts.is_empty() {
            return Err(Failure::new(format!("{name}: no host in it, at least one expected under 'hosts'")));
        }
        return apply(&Client::connect(target).await?, format, request.hosts).await;
    }
    if let Command::Policy(args) = command {
        return policy::run(target, format, args).await;
    }
    let client = Client::connect(target).await?;
    let mut failover = client.failover();
    let refused = |status: tonic::Status| client.refusal(&status);
    let done = match command {
        Command::Apply { .. } | Command::Policy(_) => return Ok(()),
        Command::Status => {
            let status = failover.status(ha::FailoverStatusRequest {}).await.map_err(refused)?.into_inner();
            return emit(format, &status, || show::status(&status));
        }
        Command::Hosts { state } => {
            let hosts = hosts(&client, state).await?;
            return emit(format, &hosts, || show::hosts(&hosts.hosts));
        }
        Command::Losses { hosts } => {
            let asked = ha::FailoverLossesRequest { limit: hosts };
            let losses = failover.losses(asked).await.map_err(refused)?.into_inner();
            return emit(format, &losses, || show::losses(&losses.losses));
        }
        Command::Cases { closed } => {
            let asked = ha::FailoverCasesRequest { closed, limit: 1_000 };
            let cases = failover.cases(asked).await.map_err(refused)?.into_inner();
            return emit(format, &cases, || show::cases(&cases.cases));
        }
        Command::Case { host } => {
            let asked = ha::FailoverHostRequest { host, ..ha::FailoverHostRequest::default() };
            let case = failover.case(asked).await.map_err(refused)?.into_inner();
            return emit(format, &case, || show::case(&case));
        }
        Command::Remove(told) => failover.remove_host(told.into_request()).await,
        Command::Open(told) => failover.open_case(told.into_request()).await,
        Command::EndQuarantine { host, instance, why: Why { reason, actor } } => {
            let asked = ha::EndQuarantineRequest { host: host.unwrap_or_default(), actor, reason, instance };
            failover.end_quarantine(asked).await
        }
        Command::ConfirmDead { told, yes } => {
            let asked = ha::FailoverHostRequest { host: told.host.clone(), ..ha::FailoverHostRequest::default() };
            let case = failover.case(asked).await.map_err(refused)?.into_inner();
            let token = case.token.clone().ok_or_else(|| {
                Failure::new(format!(
                    "{} is in phase {}: an operator's word is taken in unreachable, fence_pending and fence_failed",
                    case.host, case.phase
                ))
            })?;
            if !yes {
                return Err(Failure::new(format!(
                    "{} would be taken for dead, and its {} instances be started elsewhere. If one still runs there, its \
                     disks are destroyed. Make sure that the machine is off, then say so with --yes",
                    case.host,
                    show::protected(&client, &case.host).await?
                )));
            }
            let Told { host, why: Why { reason, actor } } = told;
            failover.confirm_dead(ha::ConfirmDeadRequest { host, token, actor, reason }).await
        }
        Command::Abort(Told { host, why: Why { reason, actor } }) => {
            let asked = ha::FailoverHostRequest { host: host.clone(), ..ha::FailoverHostRequest::default() };
            let case = failover.case(asked).await.map_err(refused)?.into_inner();
            let Some(token) = case.token.filter(|_| case.phase == "fence_failed") else {
                return Err(Failure::new(format!(
                    "{} is in phase {}: a case is taken back in fence_failed, once its host is heard. Before that it ends by \
                     itself when the host is heard (`pallium ctl ha exempt` keeps it from being fenced), after that the host \
                     is dead and comes back by a boot",
                    case.host, case.phase
                )));
            };
            failover.abort_case(ha::AbortCaseRequest { host, token, actor, reason }).await
        }
        Command::Retry(instance) => failover.decide_instance(instance.into_request("retry")).await,
        Command::Skip(instance) => failover.decide_instance(instance.into_request("skip")).await,
        Command::Retarget { instance, host, why } => {
            let asked = Instance { instance, why }.into_request("retarget");
            failover.decide_instance(ha::DecideInstanceRequest { host: Some(host), ..asked }).await
        }
        Command::Exempt { told: Told { host, why: Why { reason, actor } }, span: Span { span } } => {
            failover.exempt(ha::ForAWhileRequest { host, for_ms: span, actor, reason }).await
        }
        Command::Pause { act, span: Span { span }, why: Why { reason, actor } } => {
            failover.pause(ha::PauseRequest { act: act.name(), for_ms: span, actor, reason }).await
        }
        Command::Resume { act, why: Why { reason, actor } } => {
            failover.pause(ha::PauseRequest { act: act.name(), for_ms: 0, actor, reason }).await
        }
        Command::Hold { host, act, why: Why { reason, actor } } => {
            failover.hold(ha::HoldRequest { host, act: act.name(), hold: true, actor, reason }).await
        }
        Command::Release { host: Some(host), act: Some(act), why: Why { reason, actor }, .. } => {
            failover.hold(ha::HoldRequest { host, act: act.name(), hold: false, actor, reason }).await
        }
        Command::Release { why: Why { reason, actor }, .. } => {
            failover.release(ha::FailoverReasonRequest { actor, reason }).await
        }
        Command::Answer { scope, decision, hosts, span: Span { span }, why: Why { reason, actor } } => {
            let decision = match decision {
                Answer::Proceed if hosts.is_empty() => {
                    return Err(Failure::Usage("proceed: no host named; name them, or answer proceed-all".to_owned()));
                }
                Answer::Proceed => "proceed",
                Answer::ProceedAll => "proceed_all",
                Answer::Abort => "abort",
            };
            let decision = decision.to_owned();
            failover.answer(ha::AnswerBreakerRequest { scope, decision, hosts, for_ms: span, actor, reason }).await
        }
        Command::Drain { host, reason: None, .. } => {
            let asked = ha::FailoverDrainsRequest { host };
            let drains = failover.drains(asked).await.map_err(refused)?.into_inner();
            return emit(format, &drains, || show::drains(&drains.drains));
        }
        Command::Drain { host, mode, reason: Some(reason), cancel, done, actor } => {
            let host = host.unwrap_or_default();
            match (cancel, done) {
                (false, false) => failover.drain(ha::DrainRequest { host, mode, actor, reason }).await,
                (true, _) => failover.cancel_drain(ha::FailoverHostRequest { host, actor, reason }).await,
                (false, true) => failover.end_drain(ha::FailoverHostRequest { host, actor, reason }).await,
            }
        }
        Command::Maintain { host, mode, why: Why { reason, actor } } => {
            failover.maintain(ha::MaintainRequest { host, mode, actor, reason }).await
        }
    };
    let done = done.map_err(refused)?.into_inner();
    emit(format, &done, || done.text.clone())
}

impl Instance {
    fn into_request(self, verdict: &str) -> ha::DecideInstanceRequest {
        let Self { instance, why: Why { reason, actor } } = self;
        ha::DecideInstanceRequest { instance, verdict: verdict.to_owned(), host: None, actor, reason }
    }
}

impl Told {
    fn into_request(self) -> ha::FailoverHostRequest {
        let Self { host, why: Why { reason, actor } } = self;
        ha::FailoverHostRequest { host, actor, reason }
    }
}

async fn apply(client: &Client, format: Format, hosts: Vec<ha::FailoverHostSpec>) -> Result<(), Failure> {
    let mut sum = ha::ApplyFailoverHostsResponse::default();
    for hosts in hosts.chunks(TOGETHER) {
        let asked = ha::ApplyFailoverHostsRequest { hosts: hosts.to_vec() };
        let told = client.failover().apply_hosts(asked).await;
        let told = told.map_err(|status| client.refusal(&status))?.into_inner();
        sum.changed += told.changed;
        sum.unchanged += told.unchanged;
        sum.refused.extend(told.refused);
    }
    for refused in &sum.refused {
        complain(&format!("pallium: {refused}"));
    }
    emit(format, &sum, || {
        format!("{} changed, {} were so already, {} refused", sum.changed, sum.unchanged, sum.refused.len())
    })?;
    match sum.refused.len() {
        0 => Ok(()),
        refused => Err(Failure::new(format!("{refused} hosts were refused; the others are taken in"))),
    }
}

/// All hosts, page by page.
async fn hosts(client: &Client, detection: Option<String>) -> Result<ha::FailoverHostsResponse, Failure> {
    let mut all = ha::FailoverHostsResponse::default();
    let mut after = None;
    loop {
        let asked = ha::FailoverHostsRequest { detection: detection.clone(), limit: TOGETHER as u32, after };
        let page = client.failover().hosts(asked).await.map_err(|status| client.refusal(&status))?.into_inner();
        all.hosts.extend(page.hosts);
        after = page.next;
        if after.is_none() {
            return Ok(all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn spans_have_a_unit_and_a_bound() {
        assert_eq!(span("90s"), Ok(90_000));
        assert_eq!(span("30m"), Ok(1_800_000));
        assert_eq!(span("24h"), Ok(86_400_000));
        for bad in ["", "h", "30", "-1h", "0s", "25h", "1d", "99999999999999999999h", "½h"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }
}
