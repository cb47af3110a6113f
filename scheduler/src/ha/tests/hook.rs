//! What Nova asks about instances that failover recovers is answered from the plan.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bench::{Bench, RUNS, life, op, vm};
use crate::consumer::{Phase, Purpose};
use crate::decision::{Claim, Decision};
use crate::ha::Change;
use crate::ha::order::To;
use crate::ha::planner::groups::ServerGroups;
use crate::ha::planner::{self, Asked, Targets, Told};
use crate::ha::recovery::{AttemptState, Life};
use crate::intent::Intent;
use crate::pipeline::Registry;
use crate::pipeline::spec::{Metadata, PipelineKind, PipelineResource, PipelineSpec};
use crate::request::{Caller, Candidate, Candidates, Request};
use crate::{Domain, Engine, Settings, Settled, SmolStr};

/// The caller's order, and nothing dropped but what failover keeps out.
pub fn engine() -> Engine {
    let mut engine = Engine::new(Registry::default(), Settings { cordon: true, ..Settings::default() });
    let pipeline = PipelineResource {
        api_version: "cortex.cloud/v1alpha1".into(),
        kind: "Pipeline".into(),
        metadata: Metadata { name: "nova-general".into(), rest: BTreeMap::new() },
        spec: PipelineSpec {
            scheduling_domain: Domain::Nova,
            description: String::new(),
            kind: PipelineKind::FilterWeigher,
            ignore_preselection: false,
            scoring: crate::pipeline::Scoring::default(),
            filters: vec![],
            weighers: vec![],
            detectors: vec![],
        },
        status: serde::de::IgnoredAny,
    };
    engine.activate(&pipeline).expect("a pipeline");
    engine
}

/// Nova asks for an instance, with these hosts.
pub fn ask(bench: &mut Bench, instance: u128, label: Option<Intent>, sent: &[u128]) -> Arc<Decision> {
    let sent =
        sent.iter().map(|n| Candidate { host: format!("node-{n}").into(), node: SmolStr::default(), weight: 0.0 });
    let request = Request {
        domain: Domain::Nova,
        consumers: vec![vm(instance)],
        caller: Caller::Hook { request: None },
        label,
        resources: BTreeMap::from([("VCPU".to_owned(), 2)]),
        candidates: Candidates::Sent(sent.collect()),
        num_instances: 1,
        ..Request::default()
    };
    let mut proposal = bench.core.decide(&engine(), &request).expect("a decision");
    let outcome = proposal.take_command().map(|command| bench.apply(command));
    match bench.core.settle(proposal, outcome) {
        Settled::Done(decision) => decision,
        other => panic!("{other:?}"),
    }
}

pub fn names(decision: &Decision) -> Vec<&str> {
    decision.hosts.iter().map(|ranked| ranked.host.as_str()).collect()
}

/// The claim of its attempt stands as the plan made it: until the attempt is over.
fn claimed(bench: &Bench, instance: u128) -> bool {
    let attempt = bench.recovery(instance).attempt.as_ref().expect("planned");
    let claim = bench.core.state().tables().consumer(Domain::Nova, vm(instance), Purpose::Move);
    let stands = Phase::Claimed { expires: u64::MAX };
    claim.is_some_and(|claim| claim.ticket == attempt.ticket && claim.phase == stands)
}

#[test]
fn an_instance_on_its_way_is_answered_with_its_target_or_with_nothing() {
    let mut bench = Bench::new();
    bench.evacuating();
    bench.must(bench.attempt(1, 3, 100));
    for state in [None, Some(AttemptState::Called), Some(AttemptState::Ambiguous), Some(AttemptState::Running(op(7)))] {
        if let Some(state) = state {
            bench.must(Change::AttemptObserved { instance: vm(1), number: 1, state });
        }
        // Stock Nova labels nothing, and an operator may do anything: there is one answer.
        for label in [None, Some(Intent::Evacuate), Some(Intent::LiveMigration), Some(Intent::Rebuild)] {
            for (sent, expected, claim, note) in [
                (&[5, 3, 6][..], &["node-3"][..], Claim::Kept, "brings it to node-3: that is the answer"),
                (&[3], &["node-3"], Claim::Kept, "brings it to node-3: that is the answer"),
                (&[5, 6], &[], Claim::None, "brings it to node-3, which is not among the hosts sent"),
            ] {
                let decision = ask(&mut bench, 1, label, sent);
                let what = format!("{state:?}, {label:?}, {sent:?}: {decision:?}");
                assert_eq!((names(&decision).as_slice(), decision.claim), (expected, claim), "{what}");
                assert_eq!(decision.intent, Intent::Evacuate, "{what}");
                assert!(decision.notes[0].contains(note), "{what}");
                assert!(claimed(&bench, 1), "{what}");
            }
        }
    }
    // Why the others were left out is in the explanation.
    let decision = ask(&mut bench, 1, None, &[5, 3, 6]);
    let explained = bench.core.explain(decision.id, &["node-5".to_owned()]).expect("it is remembered");
    let story = &explained.detail.expect("this node decided it").hosts[0];
    assert_eq!(story.dropped_by.as_deref(), Some("failover_plan"));
    // A question of our own.
    let probe = ask(&mut bench, 1, Some(Intent::CapacityProbe), &[5, 6]);
    assert_eq!(names(&probe), ["node-5", "node-6"], "it is not answered from the plan");
}

#[test]
fn an_instance_that_is_planned_goes_to_its_target_first() {
    let mut bench = Bench::new();
    bench.evacuating();
    for label in [None, Some(Intent::Evacuate)] {
        let decision = ask(&mut bench, 1, label, &[5, 3, 6]);
        assert_eq!((names(&decision), decision.claim), (vec!["node-3", "node-5", "node-6"], Claim::Kept));
        assert!(decision.notes.iter().any(|note| note.contains("has planned it for node-3")), "{decision:?}");
        assert_eq!(decision.placements[0].host, "node-3");
        assert!(claimed(&bench, 1), "{label:?}");
    }
    // Nothing proves that the host of another one is dead.
    let decision = ask(&mut bench, 5, Some(Intent::Evacuate), &[6]);
    assert!(decision.notes.iter().any(|note| note.starts_with("UnfencedEvacuation")), "{decision:?}");
}

/// Everything may go to host 8.
struct Eighth;

impl Targets for Eighth {
    fn ranked(&self, _: &Asked<'_>) -> Vec<Life> {
        vec![life(8)]
    }
}

#[test]
fn the_plan_follows_an_evacuation_by_hand() {
    let mut bench = Bench::new();
    let case = bench.evacuating();
    let decision = ask(&mut bench, 1, Some(Intent::Evacuate), &[5, 6]);
    assert_eq!((names(&decision), decision.claim), (vec!["node-5", "node-6"], Claim::Replaced));
    let note = "planned it for node-3, which is not among the hosts sent";
    assert!(decision.notes.iter().any(|known| known.contains(note)), "{decision:?}");
    assert!(!decision.notes.iter().any(|known| known.starts_with("Unfenced")), "its host is proven dead");
    // Another one, which no plan has yet.
    ask(&mut bench, 3, Some(Intent::Evacuate), &[6]);
    // What the plan had claimed is gone: it is planned anew, for where the claims are now.
    let servers: Vec<_> = (1..=4).map(|n| (vm(n), RUNS).into()).collect();
    let told = Told { case: bench.case(1), servers: &servers, returns: false };
    let plans = planner::plan(bench.core.state().tables(), &[told], &ServerGroups::default(), &Eighth);
    let (_, plan) = plans.into_iter().next().expect("one case");
    let to = |n| plan.iter().find(|assignment| assignment.instance == vm(n)).map(|assignment| assignment.to);
    assert_eq!([1, 3, 4].map(to), [5, 6, 8].map(|n| Some(To::Target(life(n)))), "{plan:?}");
    assert_eq!(to(2), None, "it is planned as it was");
    bench.phase(1, crate::ha::Phase::Planning);
    bench.must(Change::CommitPlan { case, assignments: plan });
    assert!([1, 3].into_iter().all(|n| claimed(&bench, n)), "one claim each, of its attempt");
}
