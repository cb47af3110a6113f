//! Drops hosts that are set apart for other projects: a host with a list of allowed projects takes
//! only these. Ids are compared exactly.
//!
//! Skipped for the intents `reserve_for_failover`, `reuse_failover_reservation`, `capacity_probe`.
//!
//! Source: cobaltcore-dev/cortex, `filter_allowed_projects`.

use scheduler::pipeline::step::NoOptions;
use scheduler::pipeline::{Cx, Detail, Filter, FilterPlugin, Reads, Survivors, Verdict};
use scheduler::{Domain, Facet, Mask, Request};

/// The step.
#[derive(Debug)]
pub struct AllowedProjects;

impl Filter for AllowedProjects {
    fn filter(&self, cx: &Cx<'_>, hosts: &mut Survivors) -> Verdict {
        if super::is_ownerless(cx.intent) {
            return Verdict::Skipped("internal intent");
        }
        let Some(project) = cx.request.project.as_deref().filter(|project| !project.is_empty()) else {
            return Verdict::Skipped("no project");
        };
        let mut closed = Mask::default();
        closed.union(cx.view.flag(Facet::RestrictsProjects));
        cx.view.facet(Facet::AllowedProject, project).iter().for_each(|row| closed.remove(row));
        hosts.drop_mask(&closed, "set apart for other projects", |_| Detail::None);
        Verdict::Ran
    }

    fn reads(&self, _: &Request) -> Reads {
        Reads::Facts
    }
}

impl FilterPlugin for AllowedProjects {
    const NAME: &'static str = "filter_allowed_projects";
    const DOMAINS: &'static [Domain] = &[Domain::Nova];
    const SUMMARY: &'static str = "Drops hosts that are set apart for other projects.";
    const MISSING_DATA: &'static str = "A host without a list, and a request without a project, are not restricted.";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self, String> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::AllowedProjects;
    use crate::fleet::{Fleet, case, host};
    use scheduler::Intent;

    #[test]
    fn listed_projects_only() {
        let mut fleet = Fleet::of([
            host("h1").allowed_projects(&[]),
            host("h2").allowed_projects(&["project-a", "project-b"]),
            host("h3").allowed_projects(&["project-a"]),
            host("h4").allowed_projects(&["project-c"]),
            host("h5"),
        ]);
        let project = |name: &'static str| case(name).request(move |r| r.project = Some(name.to_owned()));
        project("project-a")
            .kept(&["h1", "h2", "h3", "h5"])
            .dropped("h4", "set apart for other projects")
            .check::<AllowedProjects>(&mut fleet);
        project("Project-A").hosts(&["h2", "h3"]).kept(&[]).check::<AllowedProjects>(&mut fleet);
        project("project-z").kept(&["h1", "h5"]).check::<AllowedProjects>(&mut fleet);
        project("").kept_all().skipped("no project").check::<AllowedProjects>(&mut fleet);
        project("project-z")
            .intent(Intent::CapacityProbe)
            .kept_all()
            .skipped("internal intent")
            .check::<AllowedProjects>(&mut fleet);
        project("project-z")
            .intent(Intent::ReserveForCommittedResource)
            .kept(&["h1", "h5"])
            .check::<AllowedProjects>(&mut fleet);
    }
}
