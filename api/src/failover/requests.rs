//! Agents' sessions in single requests, for those whose way to a node lets no stream through: reports are posted,
//! directives fetched. A session is that of gRPC ([`agents`]), without leases: one would be as late as the next request.
//!
//! An answer may be lost on its way, so a directive stays until a report acknowledges it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use scheduler::ha::HostId;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::agents::{self, Way, uuid};
use crate::error::ApiError;
use crate::identity::{Caller, Denied};
use crate::proto::ha;
use crate::service::{Call, Service};

/// Reports of a request that wait for their session.
const REPORTS: usize = 16;
/// Directives that wait to be acknowledged; with more the session ends, as that of an agent that takes none.
const DIRECTIVES: usize = 64;
/// Longest wait for a directive.
const WAIT: Duration = Duration::from_secs(25);

type Reports = mpsc::Sender<Result<ha::AgentReport, tonic::Status>>;

/// Sessions by host.
#[derive(Default)]
pub(crate) struct Requests(Mutex<BTreeMap<HostId, Line>>);

/// The server's end of one session.
#[derive(Clone)]
struct Line {
    reports: Reports,
    kept: Arc<watch::Sender<Kept>>,
}

#[derive(Default)]
struct Kept {
    /// Not acknowledged yet.
    directives: VecDeque<ha::AgentDirective>,
    /// Of the newest report, by which a late one is told.
    last: (u64, u64),
    /// Why the session is over.
    ended: Option<String>,
}

impl Kept {
    fn acknowledged(&mut self, report: &ha::AgentReport) {
        let at = (report.agent_epoch, report.seq);
        if at > self.last {
            self.last = at;
            self.directives.retain(|directive| directive.id > report.ack_directive);
        }
    }
}

impl Line {
    /// Keeps what the session says, until it is over or nobody takes it.
    fn open(
        reports: Reports,
        last: (u64, u64),
        mut said: mpsc::Receiver<Result<ha::AgentDirective, tonic::Status>>,
    ) -> Self {
        let kept = Arc::new(watch::Sender::new(Kept { last, ..Kept::default() }));
        let keep = Arc::clone(&kept);
        tokio::spawn(async move {
            let mut why = "it is over".to_owned();
            while let Some(said) = said.recv().await {
                match said {
                    Ok(directive) => keep.send_modify(|kept| kept.directives.push_back(directive)),
                    Err(status) => status.message().clone_into(&mut why),
                }
                if keep.borrow().directives.len() > DIRECTIVES {
                    "it takes no directives".clone_into(&mut why);
                    break;
                }
            }
            keep.send_modify(|kept| kept.ended = Some(why));
        });
        Self { reports, kept }
    }

    fn is_over(&self) -> bool {
        self.kept.borrow().ended.is_some()
    }

    fn over(&self, host: HostId) -> ApiError {
        let why = self.kept.borrow().ended.clone().unwrap_or_else(|| "it is over".to_owned());
        ApiError::conflict(format!("the session of {host} has ended: {why}. Begin another one with a Hello"))
    }
}

impl Requests {
    fn lines(&self) -> MutexGuard<'_, BTreeMap<HostId, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, host: HostId) -> Result<Line, ApiError> {
        self.lines().get(&host).cloned().ok_or_else(|| {
            ApiError::conflict(format!("{host} has no session with this node by requests: begin one with a Hello"))
        })
    }
}

/// Of milliseconds or seconds: `500ms`, `20s`.
fn wait(given: Option<&str>) -> Result<Duration, ApiError> {
    let Some(given) = given else { return Ok(Duration::ZERO) };
    let read = given.strip_suffix("ms").map(|millis| millis.parse().map(Duration::from_millis));
    let read = read.or_else(|| given.strip_suffix('s').map(|seconds| seconds.parse().map(Duration::from_secs)));
    match read {
        Some(Ok(wait)) => Ok(wait.min(WAIT)),
        _ => Err(ApiError::bad_request(format!(
            "wait: '{}' given, a time as 20s or 500ms expected",
            given.escape_debug()
        ))),
    }
}

impl Service {
    /// Takes in reports of a host, in their order. One that begins with a Hello begins a session.
    pub(crate) async fn agent_reports(
        self: &Arc<Self>,
        caller: Option<Caller>,
        host: &str,
        reports: Vec<ha::AgentReport>,
        call: &Call,
    ) -> Result<(), ApiError> {
        let host = HostId(uuid("host", host)?);
        for report in &reports {
            if HostId(uuid("host", &report.host)?) != host {
                let message = format!("host: {} given in a request of {host}", report.host.escape_debug());
                return Err(self.denied(Denied { reason: "other_host", message }));
            }
        }
        let mut reports = reports.into_iter();
        let Some(first) = reports.next() else {
            return Err(ApiError::bad_request("no reports given: at least one expected"));
        };
        let line = if first.hello.is_some() {
            let last = (first.agent_epoch, first.seq);
            let (sender, receiver) = mpsc::channel(REPORTS);
            // There is room for the first.
            let _ = sender.try_send(Ok(first));
            let said = agents::session(Arc::clone(self), caller, Way::Requests, ReceiverStream::new(receiver)).await?;
            let line = Line::open(sender, last, said);
            let mut lines = self.agent_requests.lines();
            lines.retain(|_, line| !line.is_over());
            lines.insert(host, line.clone());
            line
        } else {
            self.speaks_for(caller.as_ref(), host)?;
            let line = self.agent_requests.line(host)?;
            self.hand_on(&line, host, first, call).await?;
            line
        };
        for report in reports {
            self.hand_on(&line, host, report, call).await?;
        }
        Ok(())
    }

    async fn hand_on(&self, line: &Line, host: HostId, report: ha::AgentReport, call: &Call) -> Result<(), ApiError> {
        line.kept.send_if_modified(|kept| {
            kept.acknowledged(&report);
            false
        });
        match tokio::time::timeout_at(call.deadline.into(), line.reports.send(Ok(report))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(line.over(host)),
            Err(_) => Err(ApiError::deadline("the deadline passed before all reports were taken in: send them again")),
        }
    }

    /// Directives of a host after that number: those there are, else the next within a time.
    pub(crate) async fn agent_directives(
        &self,
        caller: Option<Caller>,
        host: &str,
        asked: ha::AgentDirectivesRequest,
    ) -> Result<Vec<ha::AgentDirective>, ApiError> {
        let host = HostId(uuid("host", host)?);
        self.speaks_for(caller.as_ref(), host)?;
        let wait = wait(asked.wait.as_deref())?;
        let line = self.agent_requests.line(host)?;
        let mut kept = line.kept.subscribe();
        let ready = |kept: &Kept| kept.ended.is_some() || kept.directives.iter().any(|said| said.id > asked.after);
        tokio::select! {
            _ = tokio::time::timeout(wait, kept.wait_for(ready)) => {}
            () = self.watch.closed() => {}
        }
        let kept = kept.borrow();
        let after: Vec<_> = kept.directives.iter().filter(|said| said.id > asked.after).cloned().collect();
        let over = after.is_empty() && kept.ended.is_some();
        drop(kept);
        if over { Err(line.over(host)) } else { Ok(after) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_a_time_with_its_unit() {
        for (given, want) in [(None, 0), (Some("20s"), 20_000), (Some("500ms"), 500), (Some("99999999999s"), 25_000)] {
            assert_eq!(wait(given).map(|wait| wait.as_millis()), Ok(want), "{given:?}");
        }
        for given in ["", "20", "s", "-1s", "99999999999999999999s", "1m"] {
            assert!(wait(Some(given)).is_err(), "{given}");
        }
    }
}
