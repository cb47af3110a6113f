//! The watchdog of a session's host: leases that are handed on, and when it is armed.

use scheduler::ha::host::Watchdog;
use scheduler::ha::order::{Actor, Change, Role};

use super::{DEAF, Session};
use crate::error::ApiError;
use crate::proto::ha;

impl Session {
    /// What a watchdog is stands in the log before anybody relies on it, and before it is not so any more.
    pub(super) async fn replicate_watchdog(&self, watchdog: Watchdog) -> Result<(), ApiError> {
        let name = format!("agent of {}", self.host);
        let actor = Actor { role: Role::Coordinator, name, reason: String::new() };
        let change = Change::Watchdog { host: self.host, incarnation: self.life.incarnation, watchdog };
        match self.service.node.order(actor, change).await? {
            Ok(_) => Ok(()),
            Err(refusal) => Err(ApiError::conflict(refusal.to_string())),
        }
    }

    /// What the leader granted is handed on; the first lease arms the watchdog by itself, as nothing else may change
    /// for hours.
    pub(super) async fn lease(&mut self) -> Result<(), String> {
        let Some(grant) = self.service.node.ears().grant(self.host) else { return Ok(()) };
        let lease = ha::AgentLease { lease: grant.lease, for_seq: grant.seq, ttl_ms: grant.ttl };
        self.granted_lease |= self.say(ha::AgentDirective { lease: Some(lease), ..ha::AgentDirective::default() });
        self.arm().await
    }

    /// Armed once a lease was given, and disarmed once it is committed that nothing rests on it. Why the session must end,
    /// if it must.
    pub(super) async fn arm(&mut self) -> Result<(), String> {
        let device = self.watchdog.timeout > 0;
        let armed = self.watchdog.armed || self.arming;
        let on = self.leased && device && self.granted_lease;
        if on == armed || self.leased && !on {
            return Ok(());
        }
        self.arming = on;
        if !on {
            self.watchdog.armed = false;
            self.replicate_watchdog(self.watchdog).await.map_err(|error| error.to_string())?;
        }
        let told = self.say(ha::AgentDirective { watchdog: Some(on), ..ha::AgentDirective::default() });
        if told { Ok(()) } else { Err(DEAF.to_owned()) }
    }
}
