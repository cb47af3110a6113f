#![allow(dead_code, reason = "each bench takes what it needs")]

//! A large state, built as a server builds it: from reports and claims through `Core::apply`.

use std::hint::black_box;

use rand::Rng;
use rand::rngs::SmallRng;
use scheduler::command::{Action, Part, Place};
use scheduler::names::Text;
use scheduler::{Amounts, Batch, Command, Core, Domain, HostReport, InstanceReport, Intent, Proposer, Purpose, Row};
use simulation::fleet::{FLAVORS, FleetSpec};
use uuid::{Builder, Uuid};

const PROJECTS: u32 = 2000;
/// One instance of so many is in a server group.
const GROUPED: u32 = 10;

/// So many hosts with so many consumers on each, the last of them a claim that was not seen yet; and
/// the reports of the hosts without instances.
pub fn build(hosts: usize, on_each: usize, random: &mut SmallRng) -> (Core, Vec<HostReport>) {
    let mut core = Core::new();
    let reports = FleetSpec { instances_per_host: 0, ..FleetSpec::new(hosts, 42) }.generate();
    for chunk in reports.chunks(64) {
        let reports: Vec<HostReport> = chunk.iter().map(|report| with_instances(report, on_each, random)).collect();
        apply(&mut core, reports.into_iter().map(|report| Command::Report(Box::new(report))).collect());
    }
    for first in (0..hosts).step_by(64) {
        let numbers = first..hosts.min(first + 64);
        let commands = numbers.map(|number| claim(&core, number, hosts, random)).collect();
        apply(&mut core, commands);
    }
    (core, reports)
}

pub fn apply(core: &mut Core, commands: Vec<Command>) {
    let now = core.state().now() + 1;
    black_box(core.apply(&Batch { proposer: Proposer::default(), now, wall: 1_700_000_000_000 + now, commands }));
}

fn project(random: &mut SmallRng) -> String {
    format!("{:032x}", random.random_range(0..PROJECTS))
}

/// The host with its instances, all but one of so many that will be on it.
pub fn with_instances(report: &HostReport, on_each: usize, random: &mut SmallRng) -> HostReport {
    let instances = (0..on_each - 1).map(|_| {
        let flavor = &FLAVORS[random.random_range(0..6)];
        let group = random.random_ratio(1, GROUPED).then(|| Uuid::from_u128(random.random_range(0..1 << 17)));
        InstanceReport {
            uuid: Builder::from_random_bytes(random.random()).into_uuid(),
            project_id: Some(project(random)),
            flavor: Some(flavor.name.to_owned()),
            resources: Some(flavor.resources()),
            server_group: group,
        }
    });
    HostReport { instances: Some(instances.collect()), observed_at: None, ..report.clone() }
}

/// A claim on the next host in turn, with everything that a decision leaves in it.
pub fn claim(core: &Core, number: usize, hosts: usize, random: &mut SmallRng) -> Command {
    let class = core.state().tables().names.get("MEMORY_MB").expect("a class");
    let rows = (0..3).map(|next| Row(((number + next * 7) % hosts) as u32)).collect();
    let amounts: Amounts = [(class, 1)].into_iter().collect();
    let part = Part {
        consumer: Builder::from_random_bytes(random.random()).into_uuid(),
        purpose: Purpose::Instance,
        seen: None,
        action: Action::Claim { ticket: number as u64 + 1, targets: rows, amounts },
    };
    Command::Place(Box::new(Place {
        domain: Domain::Nova,
        intent: Intent::Create,
        project: Some(Text::New(project(random))),
        user: Some(Text::New(project(random))),
        flavor: Some(Text::New("m1".to_owned())),
        group: None,
        request: Some(Uuid::from_u128(number as u128)),
        key: None,
        parts: vec![part],
        life: 600_000,
        learned: Vec::new(),
        record: None,
    }))
}
