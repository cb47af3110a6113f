//! Asking for a new instance, as Nova does.

use std::collections::BTreeMap;

use scheduler::pipeline::Registry;
use scheduler::pipeline::spec::PipelineResource;
use scheduler::request::{Candidate, Candidates};
use scheduler::{Domain, Engine, Request, Settings, SmolStr};

use super::truth::vm;
use super::world::World;

/// It drops nothing by itself.
const PIPELINE: &str = r#"{
    "apiVersion": "cortex.cloud/v1alpha1", "kind": "Pipeline", "metadata": {"name": "nova-general"},
    "spec": {"schedulingDomain": "nova", "type": "filter-weigher"}
}"#;

impl World {
    /// Why nothing new is placed on host `n`; none: it would be.
    pub fn kept_out(&mut self, n: u128) -> Option<String> {
        let mut engine = Engine::new(Registry::default(), Settings { cordon: true, ..Settings::default() });
        engine.activate(&PipelineResource::read(PIPELINE).expect("it is ours")).expect("it is well");
        let sent = Candidate { host: format!("node-{n}").into(), node: SmolStr::default(), weight: 0.0 };
        let request = Request {
            domain: Domain::Nova,
            consumers: vec![vm(0xFFFF)],
            resources: BTreeMap::from([("VCPU".to_owned(), 1)]),
            candidates: Candidates::Sent(vec![sent]),
            num_instances: 1,
            ..Request::default()
        };
        let told = self.core.probe_detail(&engine, &request, &["*".to_owned()]).expect("the host is known");
        let story = told.hosts.into_iter().next().expect("one host was sent");
        story.dropped_by.map(|step| format!("{step}: {}", story.reason.unwrap_or_default()))
    }
}
