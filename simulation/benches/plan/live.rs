//! The whole way of a plan: the questions to the shipped pipelines, over a fleet of hosts that differ in zones, traits,
//! hardware and use, and the plan. All dead hosts are planned together, as the coordinator does.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use plugins::engine;
use scheduler::ha::order::To;
use scheduler::ha::planner::groups::ServerGroups;
use scheduler::ha::planner::{self, Asked, Asks, Listed, Targets, Told};
use scheduler::ha::recovery::{Life, Waiting};
use scheduler::{Command, Engine, Settings};
use serde_json::json;
use simulation::fleet::{FleetSpec, nova_host_state};
use uuid::Uuid;

use super::{Estate, RUNS, host};

/// Answers as the program gets them, on the bench's own thread.
struct Live<'a> {
    tables: &'a scheduler::state::Tables,
    core: RefCell<scheduler::Core>,
    engine: &'a Engine,
    lives: HashMap<String, Life>,
    asked: RefCell<(u64, Duration)>,
}

impl Targets for Live<'_> {
    fn question(&self, instance: Uuid, asks: &Asks) -> Option<u64> {
        asks.question(self.tables, instance)
    }

    fn ranked(&self, asked: &Asked<'_>) -> Vec<Life> {
        let began = Instant::now();
        let request = asked.request(self.tables).expect("known");
        let said = self.core.borrow_mut().probe(self.engine, &request).expect("an answer");
        let lives = said.hosts.iter().filter_map(|ranked| self.lives.get(ranked.host.as_str()).copied()).collect();
        let mut asked = self.asked.borrow_mut();
        *asked = (asked.0 + 1, asked.1 + began.elapsed());
        lives
    }
}

/// `dead` hosts with so many instances each of so many projects, and `hosts` that live.
pub(super) fn measure(pipeline: &str, (dead, instances): (usize, usize), hosts: usize, projects: usize) {
    let mut estate = Estate::empty(dead, instances, hosts);
    let mut spec = FleetSpec { projects, ..FleetSpec::new(dead + hosts, 42) };
    // Without those that no VM of the dead hosts fits on.
    spec.sizes.retain(|size| !size.hana);
    let mut fleet = spec.generate();
    // What dies is spread over the zones, and is full.
    let stride = (dead + hosts) / dead;
    let mut sources = Vec::new();
    let flavors = &simulation::fleet::FLAVORS[..5];
    for (n, report) in fleet.iter_mut().enumerate() {
        report.nova_host_state = Some(nova_host_state(report).to_string());
        if n % stride == 0 && sources.len() < dead {
            let listed = report.instances.iter_mut().flatten().next().cloned();
            let blank = listed.unwrap_or_default();
            let one = |v: usize| scheduler::InstanceReport {
                uuid: super::vm(n, v),
                resources: Some(flavors[v % flavors.len()].resources()),
                flavor: Some(flavors[v % flavors.len()].name.to_owned()),
                project_id: Some(spec.project((n + v) % projects)),
                ..blank.clone()
            };
            report.instances = Some((0..instances).map(one).collect());
            sources.push(n);
        }
    }
    for (n, report) in fleet.into_iter().enumerate() {
        let name = report.name.clone();
        estate.apply(Command::Report(Box::new(report)));
        estate.begins_as(n, name);
        if sources.contains(&n) {
            estate.permits(n, instances);
        }
    }
    for n in &sources {
        estate.dies(*n);
    }
    let specs = |flavor: &simulation::fleet::Flavor| {
        let named = [("trait:CUSTOM_EXTERNAL_CUSTOMER_EXCLUSIVE", "forbidden"), ("hw_video:ram_max_mb", "16")];
        let mut specs: BTreeMap<String, String> = named.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        if flavor.vcpus > 4 {
            specs.insert("trait:HW_CPU_X86_AVX2".to_owned(), "required".to_owned());
        }
        specs
    };
    let listed = |n: usize| -> Vec<Listed> {
        let one = |v: usize| Listed {
            instance: super::vm(n, v),
            recorded: RUNS,
            asks: Asks::new(Some(specs(&flavors[v % flavors.len()])), &BTreeMap::default()),
        };
        (0..instances).map(one).collect()
    };
    let servers: Vec<_> = sources.iter().map(|n| listed(*n)).collect();
    let mut settings = Settings { cordon: true, ..Settings::default() };
    settings.default_pipeline.insert(scheduler::Domain::Nova, pipeline.to_owned());
    let engine = engine(settings);
    let tables = estate.core.state().tables().clone();
    let ha = tables.failover();
    let cases: Vec<_> = sources.iter().map(|n| ha.cases.get(host(*n)).expect("open").clone()).collect();
    let told = cases.iter().zip(&servers).map(|(case, servers)| Told { case, servers, returns: false });
    let told: Vec<_> = told.collect();
    let lives = ha.hosts.iter().filter(|host| host.takes_instances()).map(|host| {
        (tables.names.text(host.nova_host).to_owned(), Life { host: host.id, incarnation: host.incarnation })
    });
    let lives = lives.collect();
    let core = RefCell::new(std::mem::take(&mut estate.core));
    let live = Live { tables: &tables, core, engine: &engine, lives, asked: RefCell::default() };
    let began = Instant::now();
    let plans = planner::plan(&tables, &told, &ServerGroups::default(), &live);
    let whole = began.elapsed();
    let all = plans.iter().flat_map(|(_, plan)| plan);
    let placed = all.clone().filter(|one| matches!(one.to, To::Target(_))).count();
    let unlike = all.filter(|one| matches!(one.to, To::Waiting(Waiting::Unlike(_)))).count();
    let ms = |time: Duration| (time.as_secs_f64() * 10_000.0).round() / 10.0;
    let (questions, asked) = *live.asked.borrow();
    println!(
        "BENCH {}",
        json!({
            "bench": "plan", "case": format!("{pipeline}, {dead} × {instances}, {projects} projects"), "hosts": hosts,
            "unit": "ms", "count": dead * instances, "whole": ms(whole), "questions": questions, "asked": ms(asked),
            "restored": placed as f64 / (dead * instances) as f64, "unlike": unlike,
        })
    );
}
