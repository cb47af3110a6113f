//! The same cases for pallium.

use scheduler::command::{Batch, Proposer};
use scheduler::decision::DetailView;
use scheduler::pipeline::spec::{Metadata, PipelineKind, PipelineResource, PipelineSpec, StepSpec};
use scheduler::pipeline::{Param, Scoring};
use scheduler::{Command, Core, Domain, Engine, Outcome, Request, Settings};
use serde_json::Value;

use crate::cases::{Case, Step};

pub struct Ours {
    core: Core,
    request: Request,
}

fn param((key, value): (&String, &Value)) -> Param {
    let mut param = Param { key: key.clone(), ..Param::default() };
    match value {
        Value::Bool(flag) => param.bool_value = Some(*flag),
        Value::Number(number) if number.is_i64() => param.int_value = number.as_i64(),
        Value::Number(number) => param.float_value = number.as_f64(),
        Value::String(text) => param.string_value = Some(text.clone()),
        list => param.string_list_value = serde_json::from_value(list.clone()).ok(),
    }
    param
}

fn spec(step: &Step) -> StepSpec {
    StepSpec {
        name: step.name.clone(),
        description: String::new(),
        params: step.options.iter().map(param).collect(),
        multiplier: None,
    }
}

impl Ours {
    pub fn of(case: &Case) -> Self {
        let mut core = Core::new();
        let commands = case.hosts.iter().map(|host| Command::Report(Box::new(host.clone()))).collect();
        for outcome in core.apply(&Batch { proposer: Proposer::default(), now: 1, wall: 1, commands }) {
            assert!(matches!(outcome, Outcome::Reported(_)), "{outcome:?}");
        }
        Self { core, request: case.request.clone() }
    }

    fn run(&mut self, filters: Vec<StepSpec>, weighers: Vec<StepSpec>) -> DetailView {
        let spec = PipelineSpec {
            scheduling_domain: Domain::Nova,
            description: String::new(),
            kind: PipelineKind::FilterWeigher,
            ignore_preselection: true,
            scoring: Scoring::Nova,
            filters,
            weighers,
            detectors: Vec::new(),
        };
        let resource = PipelineResource {
            api_version: "cortex.cloud/v1alpha1".to_owned(),
            kind: "Pipeline".to_owned(),
            metadata: Metadata { name: "test".to_owned(), rest: std::collections::BTreeMap::new() },
            spec,
            status: serde::de::IgnoredAny,
        };
        let mut engine = Engine::new(plugins::registry(), Settings::default());
        engine.activate(&resource).expect("a good pipeline");
        self.request.pipeline = Some("test".to_owned());
        self.core.probe_detail(&engine, &self.request, &["*".to_owned()]).expect("a sensible request")
    }

    /// Names of the hosts that a filter keeps.
    pub fn filter(&mut self, _: &Case, step: &Step) -> Vec<String> {
        let seen = self.run(vec![spec(step)], Vec::new());
        seen.decision.hosts.into_iter().map(|host| host.host.into()).collect()
    }

    /// Raw value and share of each host.
    pub fn weigh(&mut self, case: &Case, step: &Step) -> Vec<(f64, f64)> {
        let seen = self.run(Vec::new(), vec![spec(step)]);
        let score = |name: &String| {
            let story = seen.hosts.iter().find(|story| story.host == *name).expect("a story of each host");
            story.scores.first().map_or((0.0, 0.0), |(_, raw, share)| (*raw, *share))
        };
        case.hosts.iter().map(|host| score(&host.name)).collect()
    }

    /// The ranking of the shipped pipeline.
    pub fn rank(&mut self, _: &Case) -> Vec<(String, f64)> {
        let engine = plugins::engine(Settings::default());
        self.request.pipeline = Some("nova-default".to_owned());
        let decision = self.core.probe(&engine, &self.request).expect("a sensible request");
        decision.hosts.into_iter().map(|host| (host.host.into(), host.score)).collect()
    }
}
