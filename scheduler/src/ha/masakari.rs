//! What Masakari's API keeps: segments, the hosts in them, and what was notified. What a notification came to
//! is not kept: it is what became of its host's case, read when somebody asks.

use bitcode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::case::{Case, Phase};
use super::host::{Detection, Host, HostId};
use super::keyed::Entry;
use super::table::{Failover, NOTIFIED};
use crate::domain::Domain;
use crate::state::Tables;

/// A second one with the same content is a duplicate when the first was generated at most so long before it,
/// microseconds.
pub const DUPLICATE: i64 = 180_000_000;
/// Those that were taken in longer ago are not looked at for that, replicated milliseconds.
const DUPLICATES_OF: u64 = 3_600_000;
/// What was said of a host that has not been suspected so long after, came to nothing: replicated milliseconds.
pub const WAITS: u64 = 120_000;
/// Bytes of a text in a segment or a host.
pub const TEXT: usize = 4_096;
/// Texts in a payload.
pub const PAYLOAD: usize = 8;

/// Which hosts instances of a dead one may go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Any that has room.
    #[default]
    Auto,
    /// Hosts that are kept for it. Planned.
    ReservedHost,
    /// Any, then those that are kept. Planned.
    AutoPriority,
    /// Those that are kept, then any. Planned.
    RhPriority,
}

/// A group of hosts.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Segment {
    /// Names it.
    pub uuid: Uuid,
    /// Counts them, from 1.
    pub id: u64,
    /// For people; of one segment only.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Where instances go.
    pub method: Method,
    /// What its hosts do.
    pub service_type: String,
    /// What is notified of its hosts counts.
    pub enabled: bool,
    /// When, wall milliseconds.
    pub created: u64,
    /// When it was changed last.
    pub updated: Option<u64>,
}

/// A host in a segment.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Member {
    /// Names it.
    pub uuid: Uuid,
    /// Counts them, from 1.
    pub id: u64,
    /// Its segment.
    pub segment: Uuid,
    /// Nova's name of the host; in one segment only.
    pub name: String,
    /// Told back.
    pub kind: Option<String>,
    /// Told back.
    pub control: Option<String>,
    /// Told back: nothing is kept for evacuations alone yet.
    pub reserved: bool,
    /// An operator works on it: what is notified of it is refused.
    pub maintenance: bool,
    /// When, wall milliseconds.
    pub created: u64,
    /// When it was changed last.
    pub updated: Option<u64>,
}

impl Entry for Segment {
    type Key = Uuid;
    fn key(&self) -> Uuid {
        self.uuid
    }
}

impl Entry for Member {
    type Key = Uuid;
    fn key(&self) -> Uuid {
        self.uuid
    }
}

/// What a notification is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Kind {
    /// A host.
    ComputeHost,
    /// A process on it.
    Process,
    /// A guest on it.
    Vm,
}

/// What failover hears in it. None of it is a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Report {
    /// Its cluster does not see the host.
    Silent,
    /// It sees it again.
    Runs,
    /// nova-compute does not run.
    ComputeDown,
    /// It runs again.
    ComputeUp,
    /// Nothing that is acted on.
    Nothing,
}

/// A notification.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Notification {
    /// Names it.
    pub uuid: Uuid,
    /// Counts them, from 1.
    pub id: u64,
    /// What it is about.
    pub kind: Kind,
    /// The segment's host that it is of.
    pub member: Uuid,
    /// The segment.
    pub segment: Uuid,
    /// The same host, if failover watches it.
    pub host: Option<HostId>,
    /// When the monitor wrote it, microseconds since 1970.
    pub generated: i64,
    /// As it was sent, sorted by key.
    pub payload: Vec<(String, String)>,
    /// What is heard in it.
    pub report: Report,
    /// Number of the case that it is about: the host's open one, else its next.
    pub case: u64,
    /// When, replicated milliseconds.
    pub at: u64,
    /// The same for people.
    pub wall: u64,
}

impl Notification {
    /// The guest that stopped by itself, if that is what is said: of what monitors send, what Masakari starts again, too
    /// (its `engine/instance_events.py`), but for I/O errors, which starting again does not mend.
    fn stopped(&self) -> Option<Uuid> {
        let text = |key| self.payload.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str());
        let failed = text("event") == Some("LIFECYCLE") && text("vir_domain_event") == Some("STOPPED_FAILED");
        text("instance_uuid").filter(|_| self.kind == Kind::Vm && failed)?.parse().ok()
    }
}

/// How a notification stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Taken in.
    New,
    /// The host is suspected, or has a case.
    Running,
    /// Its instances are settled, or it was alive.
    Finished,
    /// The case needs a person.
    Error,
    /// Nothing is done about it.
    Ignored,
}

impl Status {
    /// Whether something may still be done about it.
    pub fn is_open(self) -> bool {
        matches!(self, Self::New | Self::Running | Self::Error)
    }
}

/// What is changed. Absent fields of what is known stay as they are; of what is made anew they are empty.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Change {
    /// A segment is made, or changed.
    Segment(Box<SegmentSpec>),
    /// It is removed, with its hosts.
    SegmentRemove(Uuid),
    /// A host is put into a segment, or changed there.
    Member(Box<MemberSpec>),
    /// It is taken out.
    MemberRemove {
        /// The segment.
        segment: Uuid,
        /// The host.
        uuid: Uuid,
    },
    /// A monitor has something to say.
    Notify(Box<NotificationSpec>),
}

/// A segment as it is to be.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct SegmentSpec {
    /// Names it.
    pub uuid: Uuid,
    /// It is new.
    pub create: bool,
    /// See [`Segment`].
    pub name: Option<String>,
    /// See [`Segment`].
    pub description: Option<Option<String>>,
    /// See [`Segment`].
    pub method: Option<Method>,
    /// See [`Segment`].
    pub service_type: Option<String>,
    /// See [`Segment`]; of a new one true.
    pub enabled: Option<bool>,
}

/// A host in a segment as it is to be.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct MemberSpec {
    /// Names it.
    pub uuid: Uuid,
    /// It is new.
    pub create: bool,
    /// Its segment.
    pub segment: Uuid,
    /// See [`Member`].
    pub name: Option<String>,
    /// See [`Member`].
    pub kind: Option<Option<String>>,
    /// See [`Member`].
    pub control: Option<Option<String>>,
    /// See [`Member`].
    pub reserved: Option<bool>,
    /// See [`Member`].
    pub maintenance: Option<bool>,
}

/// What a monitor says.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct NotificationSpec {
    /// Names it.
    pub uuid: Uuid,
    /// What it is about.
    pub kind: Kind,
    /// Nova's name of the host.
    pub host: String,
    /// When it was written, microseconds since 1970.
    pub generated: i64,
    /// As it was sent, sorted by key.
    pub payload: Vec<(String, String)>,
    /// What is heard in it.
    pub report: Report,
}

/// Why it was not changed, in Masakari's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    /// No such segment.
    #[error("No failover segment with id {0}.")]
    Segment(Uuid),
    /// No such host in a segment.
    #[error("No host with id {0}.")]
    Member(Uuid),
    /// The name is another segment's.
    #[error("Failover segment with name {0} already exists.")]
    SegmentExists(String),
    /// The name is in a segment already.
    #[error("Host with name {0} already exists.")]
    MemberExists(String),
    /// Something is still done about it.
    #[error("{0} can't be changed as it is in-use to process notifications.")]
    InUse(String),
    /// Neither placement nor failover knows the host.
    #[error("Compute service with name {0} could not be found.")]
    NoCompute(String),
    /// In no segment.
    #[error("Host with name {0} could not be found.")]
    NoHost(String),
    /// Under maintenance.
    #[error("Notification received from host {0} is ignored as the host is already under maintenance.")]
    Maintenance(String),
    /// Said before.
    #[error("Notification received from host {0} is duplicate.")]
    Duplicate(String),
}

impl Failover {
    /// Notifications, newest first.
    pub fn notified(&self) -> impl Iterator<Item = &Notification> {
        let newest = self.small.notified;
        let kept = self.notified.len() as u64;
        (1..=kept).filter_map(move |back| {
            let at = newest.checked_sub(back)? as usize % NOTIFIED;
            self.notified.get(at).map(|notification| &**notification)
        })
    }

    /// The case that a notification is about: open, or over and remembered.
    pub fn case_of(&self, notification: &Notification) -> Option<&Case> {
        let host = notification.host.filter(|_| notification.report == Report::Silent)?;
        let is = |case: &&Case| case.id.host == host && case.id.seq == notification.case;
        self.cases.get(host).map(|case| &**case).filter(is).or_else(|| self.closed().find(is))
    }

    /// How a notification stands at `now`, replicated milliseconds.
    pub fn status_of(&self, notification: &Notification, now: u64) -> Status {
        use Phase::{AwaitReturn, Cleared, Closed, PartiallyRecovered, Recovered, Returning};
        match notification.report {
            Report::Nothing => return self.restart_of(notification, now),
            Report::Silent => {}
            _ => return Status::Finished,
        }
        let Some(host) = notification.host.and_then(|host| self.hosts.get(host)) else { return Status::Ignored };
        if host.case_seq >= notification.case {
            let open = self.cases.get(host.id).filter(|case| case.id.seq == notification.case);
            return match open.map(|case| case.phase) {
                None | Some(Recovered | PartiallyRecovered | AwaitReturn | Returning | Closed | Cleared) => {
                    Status::Finished
                }
                Some(_) if open.is_some_and(|case| case.needs_operator.is_some()) => Status::Error,
                Some(_) => Status::Running,
            };
        }
        match host.belief.detection {
            Detection::Alive if now.saturating_sub(notification.at) < WAITS => Status::New,
            Detection::Alive | Detection::Dead => Status::Ignored,
            _ => Status::Running,
        }
    }

    /// A guest of a watched host, in a segment that counts, that is said to have stopped by itself.
    pub(crate) fn stopped(&self, said: &Notification) -> Option<(HostId, Uuid)> {
        let host = self.hosts.get(said.host?).filter(|host| host.enabled)?;
        self.segments.get(said.segment).filter(|segment| segment.enabled)?;
        Some((host.id, said.stopped()?))
    }

    /// How a notification of a guest stands: as its restart does.
    fn restart_of(&self, said: &Notification, now: u64) -> Status {
        let Some((host, instance)) = self.stopped(said) else { return Status::Ignored };
        let restart = self.restarts.get(instance).filter(|known| known.life.host == host && known.at >= said.at);
        match restart.map(|known| (known.well, known.gave_up())) {
            None if now.saturating_sub(said.at) < WAITS => Status::New,
            None => Status::Ignored,
            Some((Some(true), _)) => Status::Finished,
            Some((_, true)) => Status::Error,
            Some(_) => Status::Running,
        }
    }

    /// Whether a host may not be notified about: an operator works on it, or it is proven dead and not back.
    pub fn under_maintenance(&self, member: &Member, host: Option<HostId>) -> bool {
        member.maintenance || host.and_then(|host| self.cases.get(host)).is_some_and(|case| case.phase.is_proven())
    }

    /// Whether something may still be done about what was said of the hosts of a segment.
    pub(crate) fn in_use(&self, segment: Uuid, now: u64) -> bool {
        self.notified().filter(|said| said.segment == segment).any(|said| match self.status_of(said, now) {
            // Nothing more is done about a guest that does not come up.
            Status::Error => said.kind != Kind::Vm,
            status => status.is_open(),
        })
    }

    /// Whether the same was said of the same host shortly before.
    pub(crate) fn is_duplicate(&self, spec: &NotificationSpec, member: Uuid, now: u64) -> bool {
        self.notified().take_while(|known| now.saturating_sub(known.at) < DUPLICATES_OF).any(|known| {
            known.member == member
                && known.kind == spec.kind
                && known.generated >= spec.generated.saturating_sub(DUPLICATE)
                && known.payload == spec.payload
        })
    }

    /// A host of a segment, by name.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name).map(|member| &**member)
    }
}

/// A host that failover watches, by Nova's name.
pub fn watched<'a>(tables: &'a Tables, name: &str) -> Option<&'a Host> {
    let name = tables.names.get(name)?;
    tables.failover().hosts.iter().find(|host| host.nova_host == name).map(|host| &**host)
}

/// Whether placement or failover knows a compute host of that name.
pub(crate) fn is_compute(tables: &Tables, name: &str) -> bool {
    tables.row_of_node(Domain::Nova, name, None).is_some() || watched(tables, name).is_some()
}
