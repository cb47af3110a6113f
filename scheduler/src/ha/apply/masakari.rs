//! Masakari's segments, hosts and notifications.

use std::sync::Arc;

use uuid::Uuid;

use super::{Cx, Result, invalid, text};
use crate::ha::host::Maintenance;
use crate::ha::masakari::{
    Change, Member, MemberSpec, Notification, NotificationSpec, PAYLOAD, Refused, Report, Segment, SegmentSpec, TEXT,
    is_compute, watched,
};
use crate::ha::order::Done;
use crate::ha::refusal::Refusal;
use crate::ha::table::{MEMBERS, NOTIFIED, SEGMENTS};

impl Cx<'_> {
    pub(super) fn masakari(&mut self, change: &Change) -> Result {
        match change {
            Change::Segment(spec) => self.segment(spec),
            Change::SegmentRemove(uuid) => self.segment_remove(*uuid),
            Change::Member(spec) => self.member(spec),
            Change::MemberRemove { segment, uuid } => {
                self.free(*segment, "Host", *uuid)?;
                self.known(*segment, *uuid)?;
                self.ha_mut().members.remove(*uuid);
                Ok(Done::Changed)
            }
            Change::Notify(spec) => self.notify(spec),
        }
    }

    fn wall(&self) -> u64 {
        self.state.tables.counters.wall
    }

    fn known(&self, segment: Uuid, uuid: Uuid) -> Result<&Arc<Member>> {
        let known = self.ha().members.get(uuid).filter(|member| member.segment == segment);
        Ok(known.ok_or(Refused::Member(uuid))?)
    }

    /// The segment is there, and nothing is still done about what was said of its hosts.
    fn free(&self, segment: Uuid, what: &str, uuid: Uuid) -> Result<()> {
        self.ha().segments.get(segment).ok_or(Refused::Segment(segment))?;
        if self.ha().in_use(segment, self.now()) {
            return Err(Refused::InUse(format!("{what} {uuid}")).into());
        }
        Ok(())
    }

    fn segment(&mut self, spec: &SegmentSpec) -> Result {
        for one in [&spec.name, &spec.service_type].into_iter().flatten() {
            text("segment", one)?;
        }
        long("segment.description", spec.description.as_ref().and_then(Option::as_ref))?;
        let wall = self.wall();
        let base = match self.ha().segments.get(spec.uuid) {
            Some(known) => {
                let base = Segment { updated: Some(wall), ..Segment::clone(known) };
                self.free(spec.uuid, "Failover segment", spec.uuid)?;
                base
            }
            None if !spec.create => return Err(Refused::Segment(spec.uuid).into()),
            None if self.ha().segments.len() >= SEGMENTS => {
                return Err(Refusal::Full { table: "segments".to_owned(), most: SEGMENTS as u64 });
            }
            None => {
                let small = self.ha_mut().small_mut();
                Segment {
                    uuid: spec.uuid,
                    id: small.segment_ids + 1,
                    name: String::new(),
                    description: None,
                    method: crate::ha::masakari::Method::Auto,
                    service_type: String::new(),
                    enabled: true,
                    created: wall,
                    updated: None,
                }
            }
        };
        let segment = Segment {
            name: spec.name.clone().unwrap_or(base.name),
            description: spec.description.clone().unwrap_or(base.description),
            method: spec.method.unwrap_or(base.method),
            service_type: spec.service_type.clone().unwrap_or(base.service_type),
            enabled: spec.enabled.unwrap_or(base.enabled),
            ..base
        };
        if self.ha().segments.iter().any(|known| known.uuid != segment.uuid && known.name == segment.name) {
            return Err(Refused::SegmentExists(segment.name).into());
        }
        let small = self.ha_mut().small_mut();
        small.segment_ids = small.segment_ids.max(segment.id);
        self.ha_mut().segments.put(Arc::new(segment));
        Ok(Done::Changed)
    }

    fn segment_remove(&mut self, uuid: Uuid) -> Result {
        self.free(uuid, "Failover segment", uuid)?;
        let members: Vec<_> = self.ha().members.iter().filter(|m| m.segment == uuid).map(|m| m.uuid).collect();
        for member in members {
            self.ha_mut().members.remove(member);
        }
        self.ha_mut().segments.remove(uuid);
        Ok(Done::Changed)
    }

    fn member(&mut self, spec: &MemberSpec) -> Result {
        for one in spec.name.iter().chain(spec.kind.iter().flatten()) {
            text("host", one)?;
        }
        long("host.control_attributes", spec.control.as_ref().and_then(Option::as_ref))?;
        self.ha().segments.get(spec.segment).ok_or(Refused::Segment(spec.segment))?;
        let wall = self.wall();
        let base = if spec.create {
            if self.ha().members.len() >= MEMBERS {
                return Err(Refusal::Full { table: "hosts of segments".to_owned(), most: MEMBERS as u64 });
            }
            Member {
                uuid: spec.uuid,
                id: self.ha().small.member_ids + 1,
                segment: spec.segment,
                name: String::new(),
                kind: None,
                control: None,
                reserved: false,
                maintenance: false,
                created: wall,
                updated: None,
            }
        } else {
            let known = Member { updated: Some(wall), ..Member::clone(self.known(spec.segment, spec.uuid)?) };
            self.free(spec.segment, "Host", spec.uuid)?;
            known
        };
        let member = Member {
            name: spec.name.clone().unwrap_or(base.name),
            kind: spec.kind.clone().unwrap_or(base.kind),
            control: spec.control.clone().unwrap_or(base.control),
            reserved: spec.reserved.unwrap_or(base.reserved),
            maintenance: spec.maintenance.unwrap_or(base.maintenance),
            ..base
        };
        if spec.name.is_some() && !is_compute(&self.state.tables, &member.name) {
            return Err(Refused::NoCompute(member.name).into());
        }
        if self.ha().member(&member.name).is_some_and(|known| known.uuid != member.uuid) {
            return Err(Refused::MemberExists(member.name).into());
        }
        if let Some(maintenance) = spec.maintenance {
            self.under_maintenance(&member.name, maintenance);
        }
        let small = self.ha_mut().small_mut();
        small.member_ids = small.member_ids.max(member.id);
        self.ha_mut().members.put(Arc::new(member));
        Ok(Done::Changed)
    }

    /// What Masakari does not recover, failover does not fence.
    fn under_maintenance(&mut self, name: &str, maintenance: bool) {
        let Some((id, mode)) = watched(&self.state.tables, name).map(|host| (host.id, host.maintenance)) else {
            return;
        };
        let to = match (mode, maintenance) {
            (Maintenance::None, true) => Maintenance::Manual,
            (Maintenance::Manual, false) => Maintenance::None,
            _ => return,
        };
        self.with_host(id, |host| host.maintenance = to);
    }

    fn notify(&mut self, spec: &NotificationSpec) -> Result {
        if spec.payload.len() > PAYLOAD {
            return Err(invalid("payload", &format!("{} texts", spec.payload.len()), "8 at most"));
        }
        for (key, value) in &spec.payload {
            text("payload", key)?;
            text("payload", value)?;
        }
        let (now, wall) = (self.now(), self.wall());
        let ha = self.ha();
        let member = ha.member(&spec.host).ok_or_else(|| Refused::NoHost(spec.host.clone()))?;
        let host = watched(&self.state.tables, &spec.host);
        if ha.under_maintenance(member, host.map(|host| host.id)) {
            return Err(Refused::Maintenance(spec.host.clone()).into());
        }
        if ha.is_duplicate(spec, member.uuid, now) {
            return Err(Refused::Duplicate(spec.host.clone()).into());
        }
        let enabled = ha.segments.get(member.segment).is_some_and(|segment| segment.enabled);
        let open = host.is_some_and(|host| ha.cases.get(host.id).is_some());
        let notification = Notification {
            uuid: spec.uuid,
            id: ha.small.notified + 1,
            kind: spec.kind,
            member: member.uuid,
            segment: member.segment,
            host: host.map(|host| host.id),
            generated: spec.generated,
            payload: spec.payload.clone(),
            report: if enabled && host.is_some_and(|host| host.enabled) { spec.report } else { Report::Nothing },
            case: host.map_or(0, |host| host.case_seq + u64::from(!open)),
            at: now,
            wall,
        };
        let ha = self.ha_mut();
        let at = ha.small.notified as usize % NOTIFIED;
        match ha.notified.get_mut(at) {
            Some(place) => *place = Arc::new(notification),
            None => drop(ha.notified.push(Arc::new(notification))),
        }
        ha.small_mut().notified += 1;
        Ok(Done::Changed)
    }
}

fn long(field: &str, text: Option<&String>) -> Result<()> {
    match text {
        Some(text) if text.len() > TEXT => Err(invalid(field, &format!("{} bytes", text.len()), "4096 bytes at most")),
        _ => Ok(()),
    }
}
