//! Two programs of which one has a step that the other lacks, on one log: equal states, and the older one
//! refuses what it cannot run instead of deciding with something else.

use scheduler::catalogue::Change;
use scheduler::pipeline::spec::PipelineResource;
use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Filter, FilterPlugin, Registry, Survivors, Verdict};
use scheduler::{
    Batch, Catalogue, Command, Core, Domain, Engine, HostReport, Outcome, Proposer, Refusal, Request, Settings,
};
use serde_json::json;

/// Makes a filter that keeps everything.
macro_rules! keeps_all {
    ($step:ident, $name:literal) => {
        #[derive(Debug)]
        struct $step;

        impl Filter for $step {
            fn filter(&self, _: &Cx<'_>, _: &mut Survivors) -> Verdict {
                Verdict::Ran
            }
        }

        impl FilterPlugin for $step {
            const NAME: &'static str = $name;
            const DOMAINS: &'static [Domain] = &Domain::ALL;
            const SUMMARY: &'static str = "";
            const MISSING_DATA: &'static str = "";
            type Options = NoOptions;
            fn new(_: NoOptions) -> Result<Self, String> {
                Ok(Self)
            }
        }
    };
}

keeps_all!(Old, "filter_old");
keeps_all!(New, "filter_new");

fn resource(name: &str, step: &str) -> PipelineResource {
    let resource = json!({
        "apiVersion": "cortex.cloud/v1alpha1", "kind": "Pipeline", "metadata": {"name": name},
        "spec": {"schedulingDomain": "nova", "type": "filter-weigher", "filters": [{"name": step}]},
    });
    serde_json::from_value(resource).expect("a resource")
}

/// A program: `nova-general` and `other` ship with it, and requests that name none ask for `other`.
struct Program {
    core: Core,
    engine: Engine,
}

impl Program {
    fn of(registry: Registry) -> Self {
        let registry = registry.selector(Domain::Nova, |_, _| Ok(Some("other".to_owned())));
        let mut engine = Engine::new(registry, Settings::default());
        for name in ["nova-general", "other"] {
            engine.activate(&resource(name, "filter_old")).expect("both have this step");
        }
        Self { core: Core::new(), engine }
    }

    fn apply(&mut self, commands: &[Command]) -> Outcome {
        let batch = Batch { proposer: Proposer::default(), now: 0, wall: 1, commands: commands.to_vec() };
        let outcome = self.core.apply(&batch).pop().expect("one for each command");
        self.engine.follow(self.core.state().tables().catalogue());
        outcome
    }

    fn ran(&mut self, pipeline: Option<&str>) -> Result<(String, u32), Refusal> {
        let consumers = vec![uuid::Uuid::from_u128(1)];
        let request = Request { consumers, pipeline: pipeline.map(str::to_owned), ..Request::default() };
        self.core.probe(&self.engine, &request).map(|decision| (decision.pipeline, decision.version))
    }
}

#[test]
fn a_program_without_the_step_refuses_and_keeps_the_state() {
    let mut old = Program::of(Registry::default().filter::<Old>());
    let mut new = Program::of(Registry::default().filter::<Old>().filter::<New>());
    let apply = |name: &str, step: &str| Change::Apply {
        name: name.to_owned(),
        resource: resource(name, step).text(),
        note: String::new(),
        activate: true,
        seen: None,
    };
    // Before the log: the older program would not propose it, and says where it hurts.
    let newer = apply("other", "filter_new");
    let empty = Catalogue::default();
    let refused = old.engine.admit(&empty, &newer).expect_err("it lacks the step");
    assert!(refused.starts_with("pipeline other: spec.filters[0].name: step 'filter_new' is not known"), "{refused}");
    assert_eq!(new.engine.admit(&empty, &newer), Ok(()));

    let host = Command::Report(Box::new(HostReport { name: "a".to_owned(), ..HostReport::default() }));
    let log =
        [host, Command::Pipeline(Box::new(apply("nova-general", "filter_old"))), Command::Pipeline(Box::new(newer))];
    assert_eq!(old.apply(&log), new.apply(&log));
    assert_eq!(old.core.state().checksum(), new.core.state().checksum());

    assert_eq!(new.ran(None), Ok(("other".to_owned(), 1)));
    for asked in [None, Some("other")] {
        let refused = old.ran(asked).expect_err("nothing decides in its place").to_string();
        assert!(
            refused.starts_with("pipeline 'other' is active in version 1, which this node cannot run"),
            "{refused}"
        );
        assert!(refused.contains("step 'filter_new' is not known"), "{refused}");
    }
    assert_eq!(old.engine.unrunnable().count(), 1);
    assert_eq!(old.ran(Some("nova-general")), Ok(("nova-general".to_owned(), 1)), "the others go on");

    // Back to what both have.
    let rollback = [Command::Pipeline(Box::new(Change::Rollback { name: "other".to_owned(), from: Some(1) }))];
    assert_eq!(old.apply(&rollback), new.apply(&rollback));
    assert_eq!((old.ran(None), new.ran(None)), (Ok(("other".to_owned(), 0)), Ok(("other".to_owned(), 0))));
}
