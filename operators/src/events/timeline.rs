//! Events as the replicated state has them. Pure: the same state gives the same events with the same ids,
//! whoever leads.

use scheduler::ha::breaker::Scope;
use scheduler::ha::case::{Case, FenceOp, Phase};
use scheduler::ha::drain::{Drain, Over, Stage};
use scheduler::ha::note::{self, Note, Ordered, Seen, What};
use scheduler::ha::order::Groups;
use scheduler::ha::poison::Deaths;
use scheduler::ha::recovery::{Recovery, Status};
use scheduler::ha::restart::Restart;
use scheduler::ha::trouble::{self, Trouble};
use scheduler::ha::{Detection, Host, HostId, Leader};
use scheduler::state::Tables;
use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Made of what it tells.
    pub id: Uuid,
    /// When, replicated milliseconds: by this they are in order.
    pub at: u64,
    /// The same for people, milliseconds since 1970.
    pub wall: u64,
    /// The last part of its type, as in `case.opened`.
    pub kind: &'static str,
    /// `host/ID`, `instance/UUID` or `breaker/SCOPE`.
    pub subject: String,
    /// The record.
    pub data: Value,
}

impl Event {
    /// As a CloudEvent.
    pub fn cloud(&self, cluster: Uuid) -> Value {
        json!({
            "specversion": "1.0",
            "id": self.id,
            "source": format!("/pallium/{cluster}"),
            "type": format!("dev.pallium.ha.{}.v1", self.kind),
            "subject": self.subject,
            "time": rfc3339(self.wall),
            "datacontenttype": "application/json",
            "data": self.data,
        })
    }
}

fn rfc3339(wall: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(wall) * 1_000_000);
    let at = at.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (date, (hour, minute, second, milli)) = (at.date(), at.time().as_hms_milli());
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// A name in `snake_case`, as serde writes it.
fn name<T: Serialize>(value: T) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// What happened at `told` or later, in order; and what stands now and has no time of its own, each time anew.
pub fn since(tables: &Tables, cluster: Uuid, told: u64) -> Vec<Event> {
    let failover = tables.failover();
    let mut events = Vec::new();
    let open = failover.cases.iter().map(|case| &**case);
    for case in open.chain(failover.closed()) {
        let of = Of { tables, case };
        let last = case.ops.iter().map(|op| op.outcome.as_ref().map_or(op.at, |outcome| outcome.at.max(op.at))).max();
        if case.since.max(last.unwrap_or(0)) >= told {
            events.extend(case.steps.iter().map(|step| of.entered(step.phase, step.at, step.wall, step.by)));
            events.extend(case.ops.iter().flat_map(|op| of.fence(op)));
        }
        events.extend(case.notes.iter().filter_map(|note| of.violated(note)));
        if let Some(reason) = case.needs_operator.as_ref().filter(|_| !case.phase.is_terminal()) {
            events.push(of.flagged(reason));
        }
    }
    let instances = failover.recoveries.iter().filter(|recovery| recovery.status.is_settled());
    events.extend(instances.filter_map(|recovery| {
        let case = failover.cases.get(recovery.case.host).filter(|case| case.id == recovery.case)?;
        Some(Of { tables, case }.settled(recovery))
    }));
    let given_up = failover.restarts.iter().filter(|restart| restart.gave_up() && restart.over >= told);
    events.extend(given_up.map(|restart| exhausted(tables, restart)));
    events.extend(failover.small.troubles.iter().map(|trouble| befell(tables, trouble)));
    events.extend(failover.deaths.iter().filter_map(|known| quarantined(tables, known)));
    events.extend(breakers(tables, cluster));
    for host in failover.hosts.iter().filter(|host| host.seen.last().is_some_and(|seen| seen.at >= told)) {
        events.extend(host.seen.iter().map(|seen| sighted(tables, host, seen)));
    }
    events.extend(failover.small.orders.iter().map(|order| ordered(tables, cluster, order)));
    events.extend(failover.drains.iter().filter_map(|drain| stalled(tables, drain)));
    events.retain(|event| event.at >= told || event.kind == FLAGGED);
    // Stable: what is of one time stays in the order of its case.
    events.sort_by_key(|event| event.at);
    events
}

const FLAGGED: &str = "case.needs-operator";

/// A case, and what is known of its host.
struct Of<'a> {
    tables: &'a Tables,
    case: &'a Case,
}

impl Of<'_> {
    fn host(&self, id: HostId) -> String {
        name_of(self.tables, id)
    }

    fn event(&self, kind: &'static str, (at, wall): (u64, u64), named: &str, more: &Value) -> Event {
        let case = self.case;
        let mut data = json!({
            "case": case.id.to_string(),
            "host": self.host(case.id.host),
            "host_id": case.id.host,
            "incarnation": case.id.incarnation,
            "cause": name(case.cause),
        });
        if let (Some(data), Some(more)) = (data.as_object_mut(), more.as_object()) {
            data.extend(more.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        let id = Uuid::new_v5(&case.id.host.0, format!("{}/{kind}/{named}", case.id).as_bytes());
        Event { id, at, wall, kind, subject: format!("host/{}", case.id.host), data }
    }

    /// A replicated time for people, by the case's first step.
    fn wall(&self, at: u64) -> u64 {
        let (first, wall) = self.case.steps.first().map_or((0, 0), |step| (step.at, step.wall));
        wall.saturating_add(at.saturating_sub(first))
    }

    fn entered(&self, phase: Phase, at: u64, wall: u64, by: Leader) -> Event {
        let kind = match phase {
            Phase::Unreachable => "case.opened",
            Phase::FencePending => "fence.pending",
            Phase::Fencing => "fence.started",
            Phase::FenceFailed => "fence.failed",
            Phase::Fenced => "host.proven-dead",
            Phase::NovaDown => "nova.marked",
            Phase::Planning => "evacuation.planning",
            Phase::Evacuating => "evacuation.started",
            Phase::Recovered => "evacuation.completed",
            Phase::PartiallyRecovered => "evacuation.partly-completed",
            Phase::AwaitReturn => "host.awaited",
            Phase::Returning => "host.returning",
            Phase::Closed => "host.recovered",
            Phase::Cleared => "case.cleared",
        };
        let more = json!({"phase": name(phase), "by": by});
        self.event(kind, (at, wall), &format!("{at}/{}/{}", by.term, by.node), &more)
    }

    fn fence(&self, op: &FenceOp) -> Vec<Event> {
        let ordered = json!({"op": op.id, "level": op.level, "fencer": name(op.fencer), "by": op.by});
        let mut events = vec![self.event("fence.ordered", (op.at, self.wall(op.at)), &op.id.to_string(), &ordered)];
        if let Some(outcome) = &op.outcome {
            let read = json!({"op": op.id, "power": name(outcome.power), "raw": outcome.raw});
            events.push(self.event("fence.read", (outcome.at, self.wall(outcome.at)), &op.id.to_string(), &read));
        }
        events
    }

    fn violated(&self, note: &Note) -> Option<Event> {
        let What::Violated(boot) = note.what else { return None };
        let more = json!({"boot": boot, "by": note.by});
        Some(self.event("host.proof-violated", (note.at, note.wall), &format!("{}/{boot}", note.at), &more))
    }

    fn flagged(&self, reason: &str) -> Event {
        let at = self.case.since;
        self.event(FLAGGED, (at, self.wall(at)), reason, &json!({"reason": reason, "phase": name(self.case.phase)}))
    }

    fn settled(&self, recovery: &Recovery) -> Event {
        let over = recovery.attempt.as_ref().map(|attempt| attempt.over).filter(|over| *over > 0);
        let at = over.unwrap_or(self.case.since);
        let (kind, more) = match recovery.status {
            Status::Succeeded(target) => {
                ("instance.evacuated", json!({"target": self.host(target), "target_id": target}))
            }
            Status::Stays(why) => ("instance.not-evacuated", json!({"reason": name(why)})),
            _ => ("instance.vanished", json!({})),
        };
        let mut more = more;
        more["instance"] = json!(recovery.instance);
        let named = format!("{}/{:?}", recovery.instance, recovery.status);
        Event {
            subject: format!("instance/{}", recovery.instance),
            ..self.event(kind, (at, self.wall(at)), &named, &more)
        }
    }
}

fn name_of(tables: &Tables, id: HostId) -> String {
    let host = tables.failover().hosts.get(id);
    host.map_or_else(|| id.to_string(), |host| tables.names.text(host.nova_host).to_owned())
}

fn sighted(tables: &Tables, host: &Host, seen: &Seen) -> Event {
    let kind = match seen.detection {
        Detection::Alive => "host.heard-again",
        Detection::Suspect => "host.suspected",
        Detection::Isolated => "host.isolated",
        Detection::Unreachable => "host.unreachable",
        Detection::Dead => "host.dead",
    };
    let groups = [
        (Groups::MANAGEMENT, "management"),
        (Groups::OUT_OF_BAND, "out_of_band"),
        (Groups::STORAGE, "storage"),
        (Groups::DATA, "data"),
    ];
    let silent: Vec<_> = groups.iter().filter(|(group, _)| seen.groups.has(*group)).map(|(_, name)| name).collect();
    let named = format!("{}/{kind}/{}/{}/{}", seen.life, seen.at, seen.by.term, seen.by.node);
    Event {
        id: Uuid::new_v5(&host.id.0, named.as_bytes()),
        at: seen.at,
        wall: seen.wall,
        kind,
        subject: format!("host/{}", host.id),
        data: json!({
            "host": name_of(tables, host.id),
            "host_id": host.id,
            "incarnation": seen.life,
            "silent_ms": seen.age,
            "silent_to": silent,
            "by": seen.by,
        }),
    }
}

/// What a person ordered; an answer to a breaker is the breaker's.
fn ordered(tables: &Tables, cluster: Uuid, order: &Ordered) -> Event {
    let answered = order.what.strip_prefix(note::ANSWERS).and_then(|rest| rest.split_once(": "));
    let kind = if answered.is_some() { "breaker.acknowledged" } else { "operator.ordered" };
    let who = &order.who;
    let named = format!("{kind}/{}/{}/{}", order.at, who.name, order.what);
    let subject = match (answered, order.host) {
        (Some((scope, _)), _) => format!("breaker/{scope}"),
        (None, Some(host)) => format!("host/{host}"),
        (None, None) => "failover".to_owned(),
    };
    let until = (who.until > 0).then(|| rfc3339(order.wall.saturating_add(who.until).saturating_sub(order.at)));
    let data = json!({
        "host": order.host.map(|host| name_of(tables, host)),
        "what": order.what,
        "actor": who.name,
        "reason": who.reason,
        "until": until,
        "by": order.by,
    });
    Event { id: Uuid::new_v5(&cluster, named.as_bytes()), at: order.at, wall: order.wall, kind, subject, data }
}

/// Something befell a guest of a host that lives.
fn befell(tables: &Tables, trouble: &Trouble) -> Event {
    let Trouble { instance, life, kind, at, wall } = *trouble;
    let kind = match kind {
        trouble::Kind::Destroyed => "instance.destroyed",
        trouble::Kind::PostcopyFailed => "instance.postcopy-failed",
        trouble::Kind::Unmanaged => "instance.unmanaged",
    };
    Event {
        id: Uuid::new_v5(&instance, format!("{kind}/{life}/{at}").as_bytes()),
        at,
        wall,
        kind,
        subject: format!("instance/{instance}"),
        data: json!({
            "instance": instance,
            "host": name_of(tables, life.host),
            "host_id": life.host,
            "incarnation": life.incarnation,
        }),
    }
}

/// An instance that restarts do not help.
fn exhausted(tables: &Tables, restart: &Restart) -> Event {
    let Restart { instance, life, op, tries, over: at, .. } = *restart;
    let counters = tables.counters();
    Event {
        id: Uuid::new_v5(&op, b"instance.recovery-exhausted"),
        at,
        wall: counters.wall.saturating_sub(counters.now.saturating_sub(at)),
        kind: "instance.recovery-exhausted",
        subject: format!("instance/{instance}"),
        data: json!({
            "instance": instance,
            "host": name_of(tables, life.host),
            "host_id": life.host,
            "incarnation": life.incarnation,
            "restarts": tries,
        }),
    }
}

/// An instance is kept from further hosts.
fn quarantined(tables: &Tables, known: &Deaths) -> Option<Event> {
    let at = known.quarantined?;
    let counters = tables.counters();
    let hosts: Vec<_> = known.hosts.iter().map(|(host, _)| name_of(tables, *host)).collect();
    Some(Event {
        id: Uuid::new_v5(&known.instance, format!("instance.quarantined/{at}").as_bytes()),
        at,
        wall: counters.wall.saturating_sub(counters.now.saturating_sub(at)),
        kind: "instance.quarantined",
        subject: format!("instance/{}", known.instance),
        data: json!({"instance": known.instance, "reason": known.stays().map(name), "hosts": hosts}),
    })
}

/// A drain that is over, and what could not be moved is left.
fn stalled(tables: &Tables, drain: &Drain) -> Option<Event> {
    let counters = tables.counters();
    let left: Vec<_> =
        drain.left.iter().map(|(instance, why)| json!({"instance": instance, "why": name(why)})).collect();
    (drain.stage == Stage::Over(Over::Partial)).then(|| Event {
        id: Uuid::new_v5(&drain.host.0, format!("drain.stalled/{}/{}", drain.incarnation, drain.since).as_bytes()),
        at: drain.since,
        wall: counters.wall.saturating_sub(counters.now.saturating_sub(drain.since)),
        kind: "drain.stalled",
        subject: format!("host/{}", drain.host),
        data: json!({"host": name_of(tables, drain.host), "host_id": drain.host, "moved": drain.moved, "left": left}),
    })
}

fn breakers(tables: &Tables, cluster: Uuid) -> Vec<Event> {
    let text = |sym| tables.names.text(sym);
    let counters = tables.counters();
    let breakers = tables.failover().small.breakers.iter().map(|(scope, breaker)| {
        let scope_name = match *scope {
            Scope::Region => "region".to_owned(),
            Scope::Az(az) => format!("az:{}", text(az)),
            Scope::Cell(cell) => format!("cell:{}", text(cell)),
            Scope::Cluster(block) => format!("cluster:{}", text(block)),
        };
        let count = tables.failover().count(*scope, counters.now);
        let ago = counters.now.saturating_sub(breaker.since);
        Event {
            id: Uuid::new_v5(&cluster, format!("breaker/{scope_name}/{}", breaker.since).as_bytes()),
            at: breaker.since,
            wall: counters.wall.saturating_sub(ago),
            kind: "breaker.opened",
            subject: format!("breaker/{scope_name}"),
            data: json!({"scope": scope_name, "hosts": count.hosts, "unavailable": count.unavailable}),
        }
    });
    breakers.collect()
}
