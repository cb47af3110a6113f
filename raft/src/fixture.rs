//! A small fleet and an engine with the capacity rule alone, for tests and measurements.

#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use scheduler::pipeline::spec::{Metadata, PipelineKind, PipelineResource, PipelineSpec, StepSpec};
use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Registry, Survivors, Verdict};
use scheduler::{Command, Domain, Engine, HostReport, Inventory, Request, Settings};
use uuid::Uuid;

/// Keeps hosts where what is asked fits.
#[derive(Debug)]
struct Fits;

impl Filter for Fits {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        for (class, asked) in &cx.request.resources {
            match cx.view.column(class) {
                Some((_, column)) => {
                    hosts.keep_where("short", |row| column.fit[row.0 as usize] >= *asked, |_| Detail::None);
                }
                None => hosts.drop_all("no inventory"),
            }
        }
        Verdict::Ran
    }
}

impl FilterPlugin for Fits {
    const NAME: &'static str = "filter_fits";
    const DOMAINS: &'static [Domain] = &Domain::ALL;
    const SUMMARY: &'static str = "";
    const MISSING_DATA: &'static str = "";
    type Options = NoOptions;
    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

pub fn engine() -> Engine {
    let mut engine = Engine::new(Registry::default().filter::<Fits>(), Settings::default());
    let step = StepSpec { name: "filter_fits".into(), description: String::new(), params: vec![], multiplier: None };
    let resource = PipelineResource {
        api_version: "cortex.cloud/v1alpha1".into(),
        kind: "Pipeline".into(),
        metadata: Metadata { name: "nova-general".into(), rest: BTreeMap::new() },
        spec: PipelineSpec {
            scheduling_domain: Domain::Nova,
            description: String::new(),
            kind: PipelineKind::FilterWeigher,
            ignore_preselection: false,
            scoring: scheduler::pipeline::Scoring::default(),
            filters: vec![step],
            weighers: vec![],
            detectors: vec![],
        },
        status: serde::de::IgnoredAny,
    };
    engine.activate(&resource).unwrap();
    engine
}

/// A host with so many CPUs.
pub fn host(number: u64, cpus: u64) -> Command {
    let inventory =
        Inventory { total: cpus, reserved: 0, allocation_ratio: 1.0, min_unit: 1, max_unit: 1 << 20, step_size: 1 };
    Command::Report(Box::new(HostReport {
        domain: Domain::Nova,
        name: format!("node-{number}"),
        hypervisor_hostname: Some(format!("node-{number}")),
        inventories: Some(BTreeMap::from([("VCPU".to_owned(), inventory)])),
        ..HostReport::default()
    }))
}

/// Asks for one CPU for an instance.
pub fn ask(instance: u64) -> Request {
    Request {
        domain: Domain::Nova,
        consumers: vec![Uuid::from_u128(u128::from(instance) + 1)],
        pipeline: Some("nova-general".into()),
        resources: BTreeMap::from([("VCPU".to_owned(), 1)]),
        ..Request::default()
    }
}

/// A deadline that no test reaches.
pub fn soon() -> Instant {
    Instant::now() + Duration::from_mins(1)
}
