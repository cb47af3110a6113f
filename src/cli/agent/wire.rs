//! Between the agent's plain types and the messages of `pallium.ha.v1`.

use std::collections::BTreeSet;

use agent::report::{
    Body, Directive, Disk, DomainEvent, DomainState, Envelope, Event, Goodbye, Hello, Instance, Instances, Lifecycle,
    Order, Watchdog,
};
use api::proto::ha;
use uuid::Uuid;

/// A report.
pub fn report(envelope: Envelope) -> ha::AgentReport {
    let Envelope { host, boot, agent_epoch, seq, boot_ns, wall_ms, ack_directive, body } = envelope;
    let mut report = ha::AgentReport {
        host: host.to_string(),
        boot: boot.to_string(),
        agent_epoch,
        seq,
        boot_ns,
        wall_ms,
        ack_directive,
        ..ha::AgentReport::default()
    };
    match body {
        Body::Hello(said) => report.hello = Some(hello(*said)),
        Body::Heartbeat(beat) => {
            report.heartbeat = Some(ha::AgentHeartbeat {
                libvirt_ok: beat.libvirt_ok,
                libvirt_rtt_ms: beat.libvirt_rtt_ms,
                nova_compute_ok: beat.nova_compute_ok,
                domains_active: beat.domains_active,
                unasked_starts: beat.unasked_starts,
                waiting_starts: beat.waiting.iter().map(Uuid::to_string).collect(),
                unmanaged: beat.unmanaged.iter().map(Uuid::to_string).collect(),
                load1: beat.load1,
                fed: beat.fed,
                quarantined: beat.quarantined,
            });
        }
        // That the host runs is in every report; how long is for people.
        Body::Uptime(_) => {}
        Body::Instances(told) => report.instances = Some(instances(told, boot_ns)),
        Body::DomainEvent(told) => report.event = Some(event(told)),
        Body::EventsDropped { events } => report.events_dropped = Some(events),
        Body::Goodbye { reason, expected_down_s } => {
            let reason = match reason {
                Goodbye::Shutdown => "shutdown",
                Goodbye::Reboot => "reboot",
                Goodbye::AgentRestart => "agent_restart",
                Goodbye::Maintenance => "maintenance",
            };
            (report.goodbye, report.expected_down_s) = (Some(reason.to_owned()), expected_down_s);
        }
        Body::DirectiveResult { directive, refused } => {
            report.result = Some(ha::AgentResult { directive, refused });
        }
    }
    report
}

fn hello(said: Hello) -> ha::AgentHello {
    ha::AgentHello {
        agent_version: said.agent_version,
        kernel: said.kernel,
        libvirt_version: said.libvirt_version,
        hypervisor: said.hypervisor,
        nova_host: said.nova_host,
        previous_boot: said.previous.map(|boot| boot.to_string()),
        cluster: said.cluster.map(|cluster| cluster.to_string()),
        machine_uuid: said.machine_uuid.map(|uuid| uuid.to_string()),
        machine_serial: said.machine_serial,
        permit_check: said.permit_check,
        resumes_guests: said.resumes_guests,
        resumes_by: said.resumes_by,
        watchdog: watchdog(said.watchdog),
        quarantined: said.quarantined,
        boots: said.boots.iter().map(Uuid::to_string).collect(),
    }
}

fn watchdog(device: Watchdog) -> Option<ha::AgentWatchdog> {
    device.present.then_some(ha::AgentWatchdog {
        armed: device.armed,
        hardware: device.hardware,
        nowayout: device.nowayout,
        virtual_host: device.virtual_host,
        suspends: device.suspends,
        timeout_ms: device.timeout_ms,
    })
}

fn instances(told: Instances, now_ns: u64) -> ha::AgentInstances {
    let instance = |instance: Instance| ha::AgentInstance {
        uuid: instance.uuid.to_string(),
        name: instance.name,
        state: match instance.state {
            DomainState::Unknown => "unknown",
            DomainState::Running => "running",
            DomainState::Blocked => "blocked",
            DomainState::Paused => "paused",
            DomainState::ShuttingDown => "shutting_down",
            DomainState::ShutOff => "shut_off",
            DomainState::Crashed => "crashed",
            DomainState::PmSuspended => "pm_suspended",
        }
        .to_owned(),
        state_reason: instance.state_reason,
        autostart: instance.autostart,
        migrating: instance.migrating,
        backends: backends(&instance.disks),
    };
    ha::AgentInstances {
        whole: told.whole,
        present: told.present.into_iter().map(instance).collect(),
        gone: told.gone.iter().map(Uuid::to_string).collect(),
        age_ms: now_ns.saturating_sub(told.asked_boot_ns) / 1_000_000,
    }
}

fn event(told: DomainEvent) -> ha::AgentEvent {
    let reason = match &told.event {
        Event::IoError { reason, .. } => reason.clone(),
        _ => String::new(),
    };
    let (kind, detail, text) = match told.event {
        Event::Lifecycle { event, detail } => {
            let kind = match event {
                Lifecycle::Defined => "lifecycle.defined",
                Lifecycle::Undefined => "lifecycle.undefined",
                Lifecycle::Started => "lifecycle.started",
                Lifecycle::Suspended => "lifecycle.suspended",
                Lifecycle::Resumed => "lifecycle.resumed",
                Lifecycle::Stopped => "lifecycle.stopped",
                Lifecycle::Shutdown => "lifecycle.shutdown",
                Lifecycle::PmSuspended => "lifecycle.pm_suspended",
                Lifecycle::Crashed => "lifecycle.crashed",
                Lifecycle::Other(_) => "lifecycle.other",
            };
            (kind, detail, String::new())
        }
        Event::Reboot => ("reboot", 0, String::new()),
        Event::Watchdog { action } => ("watchdog", action, String::new()),
        Event::IoError { path, device, action, reason } => ("io_error", action, format!("{device} {path} {reason}")),
        Event::ControlError => ("control_error", 0, String::new()),
        Event::MemoryFailure { recipient, action, flags } => {
            ("memory_failure", action, format!("recipient {recipient}, flags {flags}"))
        }
        Event::GuestAgent { connected, reason } => {
            ("guest_agent", reason, if connected { "connected" } else { "disconnected" }.to_owned())
        }
    };
    let (instance, kind) = (told.instance.to_string(), kind.to_owned());
    ha::AgentEvent { instance, name: told.name, kind, detail, text, reason }
}

fn uuids(texts: &[String]) -> Result<Vec<Uuid>, String> {
    texts.iter().map(|text| Uuid::parse_str(text).map_err(|error| format!("'{text}': {error}"))).collect()
}

/// Where a guest writes, each place once.
fn backends(disks: &[Disk]) -> Vec<String> {
    let written = disks.iter().filter(|disk| !disk.readonly);
    // Whose a block device is does not show: volumes of iSCSI and Fibre Channel are such.
    let local = |disk: &Disk| !disk.shared && matches!(disk.backend.as_str(), "file" | "dir");
    let places = written.map(|disk| if local(disk) { "local" } else { disk.backend.as_str() });
    places.collect::<BTreeSet<_>>().into_iter().map(str::to_owned).collect()
}

/// A directive; none: one that this version does not know.
pub fn directive(said: ha::AgentDirective) -> Result<Option<Directive>, String> {
    let cluster = Uuid::parse_str(&said.cluster).map_err(|error| format!("cluster '{}': {error}", said.cluster))?;
    let order = if let Some(ha::AgentWelcome { incarnation, quarantined, permits, holds_nova_compute }) = said.welcome {
        Order::Welcome { incarnation, quarantined, holds_compute: holds_nova_compute, permits: uuids(&permits)? }
    } else if let Some(ha::AgentPermits { incarnation, granted, withdrawn }) = said.permits {
        let (granted, withdrawn) = (uuids(&granted)?, uuids(&withdrawn)?);
        Order::Permits { incarnation, whole: false, granted, withdrawn }
    } else if let Some(on) = said.quarantine {
        Order::Quarantine { on }
    } else if let Some(ha::AgentLease { lease, for_seq, ttl_ms }) = said.lease {
        Order::LeaseGrant { lease, for_seq, ttl_ms }
    } else if let Some(on) = said.watchdog {
        Order::Watchdog { on }
    } else if let Some(on) = said.nova_compute {
        Order::Compute { on }
    } else if let Some(ha::AgentStopGuests { instances }) = said.stop_guests {
        Order::StopGuests { instances: uuids(&instances)? }
    } else if said.report_now == Some(true) {
        Order::ReportNow
    } else {
        return Ok(None);
    };
    Ok(Some(Directive { id: said.id, cluster, order }))
}
