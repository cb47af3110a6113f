//! The methods of pallium's own API, once: REST and gRPC only carry these messages in and out.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use futures::{StreamExt, stream};
use raft::{Freshness, Node};
use scheduler::command::Change;
use scheduler::ha::admission;
use scheduler::state::Tables;
use scheduler::{Batch, Command, Core, Decision, Domain, HostReport, Outcome, Proposer, Purpose, Request, Row};
use uuid::Uuid;

use crate::body::BadRequest;
use crate::error::ApiError;
use crate::failover::agents::Agents;
use crate::failover::requests::Requests;
use crate::limits::{ApiConfig, Slots};
use crate::metrics::{Metrics, Reading};
use crate::proto::v1;
use crate::watch::{Events, Watch};
use crate::{backup, convert};

/// Reports that are proposed together, at most.
const TOGETHER: usize = 256;
/// Errors that one answer names.
const NAMED: usize = 20;
/// Backups that are written at one time: each holds a copy of the state as it was.
const BACKUPS: usize = 2;
/// Searches for what would help that run at one time: each builds a copy of what is derived from the state,
/// and keeps a processor busy for as long as hundreds of decisions.
const SEARCHES: usize = 1;
/// Most items of a page.
const PAGE: usize = 1000;

/// What a server's protocols share.
pub(crate) struct Service {
    pub node: Node,
    pub config: ApiConfig,
    pub metrics: Metrics,
    pub watch: Watch,
    pub requests: Slots,
    pub bodies: Slots,
    pub backups: Slots,
    pub searches: Slots,
    pub connections: Slots,
    pub agents: Agents,
    pub agent_slots: Slots,
    pub agent_requests: Requests,
    /// Clients speak TLS to it.
    pub https: bool,
}

/// One call: whose it is, and until when it may take.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Id of the call.
    pub id: String,
    /// True when the caller gave it.
    pub given: bool,
    /// Until when it must be decided.
    pub deadline: Instant,
    /// How new what it reads must be.
    pub fresh: Freshness,
}

/// Names a host among what is known.
struct Key {
    domain: Domain,
    name: String,
    node: Option<String>,
    uuid: Option<Uuid>,
}

fn page(size: u32) -> usize {
    match size as usize {
        0 => 100,
        size => size.min(PAGE),
    }
}

/// Hosts that hold most, of which the loss is looked at for the metrics.
const LOOKED_AT: usize = 20;

impl Service {
    pub(crate) fn new(node: Node, config: ApiConfig) -> Self {
        Self {
            node,
            metrics: Metrics::new(&config),
            watch: Watch::new(&config),
            requests: Slots::new(config.concurrency),
            bodies: Slots::new(config.bodies),
            backups: Slots::new(BACKUPS),
            searches: Slots::new(SEARCHES),
            connections: Slots::new(config.connections),
            agents: Agents::default(),
            agent_slots: Slots::new(config.agents),
            agent_requests: Requests::default(),
            https: false,
            config,
        }
    }

    /// Decides a translated request, from whatever protocol.
    pub(crate) async fn decide(&self, request: Request, call: &Call) -> Result<Arc<Decision>, ApiError> {
        let started = Instant::now();
        if request.options.read_only && call.fresh != Freshness::Linearizable {
            self.node.read_barrier(call.fresh).await?;
            return Ok(Arc::new(self.node.probe(request).await?));
        }
        let flavor_group = request.extra_specs.get("quota:hw_version").cloned().unwrap_or_default();
        let decision = self.node.decide(request, call.deadline).await?;
        self.metrics.decided(&decision, &flavor_group, started.elapsed());
        Ok(decision)
    }

    pub(crate) async fn place(&self, request: v1::PlaceRequest, call: &Call) -> Result<v1::PlaceResponse, ApiError> {
        let steps = !request.options.as_ref().is_some_and(|options| options.without_steps);
        let request = convert::request(request, &call.id)?;
        let decision = self.decide(request, call).await?;
        Ok(v1::PlaceResponse { decision: Some(convert::decision(&decision, steps)) })
    }

    pub(crate) async fn explain(
        &self,
        request: v1::ExplainRequest,
        call: &Call,
    ) -> Result<v1::ExplainResponse, ApiError> {
        let v1::ExplainRequest { decision, consumer, request, domain, hosts } = request;
        let domain = convert::domain("domain", domain.as_deref())?;
        let (subject, nothing) = match (decision, consumer, request) {
            (Some(id), None, None) => (Ok(id), format!("decision {id} is not known here, or no longer remembered")),
            (None, Some(text), None) => {
                let uuid = convert::uuid("consumer", &text)?;
                (Err(uuid), format!("no decision about {uuid} is remembered in domain {domain}"))
            }
            (None, None, Some(request)) => {
                let request = convert::request(v1::PlaceRequest { dry_run: true, ..request }, &call.id)?;
                self.node.read_barrier(call.fresh).await?;
                let detail = self.node.probe_detail(request.clone(), hosts).await?;
                let (remedies, note) =
                    if detail.decision.hosts.is_empty() { self.remedies(request).await? } else { (None, None) };
                return Ok(v1::ExplainResponse { record: None, detail: Some(detail.into()), note, remedies });
            }
            _ => return Err(ApiError::bad_request("exactly one of decision, consumer and request expected")),
        };
        self.node.read_barrier(call.fresh).await?;
        let here = hosts.clone();
        let found = self.node.query(move |core| {
            let id = subject.or_else(|uuid| core.decision_of(domain, uuid).ok_or(())).ok()?;
            let record = convert::record(core.state().tables(), core.state().tables().decision(id)?);
            Some((id, record, core.explain(id, &here)?))
        });
        let (id, record, mut explanation) = found.await?.ok_or_else(|| ApiError::not_found(nothing))?;
        // The stories of the hosts are on the node that decided: the leader, as a rule.
        if explanation.detail.is_none()
            && call.fresh == Freshness::Linearizable
            && let Some(told) = self.node.explain(id, hosts).await?
        {
            explanation = *told;
        }
        let (remedies, note) = match explanation.request {
            Some(request) => self.remedies(*request).await?,
            None if record.hosts_out == 0 => {
                let note = "what would help is not known, as the request is no longer kept: ask with a dry run of it";
                (None, Some(note.to_owned()))
            }
            None => (None, None),
        };
        Ok(v1::ExplainResponse {
            record: Some(record),
            detail: explanation.detail.map(Into::into),
            note: explanation.note.or(note),
            remedies,
        })
    }

    /// What would help a request that nothing fits, worked out on a thread of its own; or why it was not.
    async fn remedies(&self, request: Request) -> Result<(Option<v1::Remedies>, Option<String>), ApiError> {
        let Some(held) = self.searches.take(1) else {
            let note = "what would help was not worked out, as the node is busy with that for others: ask again";
            return Ok((None, Some(note.to_owned())));
        };
        // A refusal here means that the pipeline has changed since: there is nothing to tell then.
        let survey = match self.node.engine(move |core, engine| core.survey(engine, &request)).await? {
            Ok(survey) => survey,
            Err(refusal) => return Ok((None, Some(format!("what would help is not known: {refusal}")))),
        };
        let found = tokio::task::spawn_blocking(move || {
            let _held = held;
            survey.remedies()
        });
        let found = found.await.map_err(|_| ApiError::internal("the search for what would help broke off"))?;
        Ok((Some(found.into()), None))
    }

    pub(crate) async fn decisions(
        &self,
        request: v1::DecisionsRequest,
        fresh: Freshness,
    ) -> Result<v1::DecisionsResponse, ApiError> {
        let domain = convert::some_domain(request.domain.as_deref())?;
        let consumer = request.consumer.as_deref().map(|text| convert::uuid("consumer", text)).transpose()?;
        let intent = convert::intent("intent", request.intent.as_deref())?;
        let most = page(request.limit);
        self.look(fresh, move |tables| {
            let project = request.project_id.as_deref().map(|project| tables.names.get(project));
            let fits = tables
                .decisions()
                .filter(|stored| request.before == 0 || stored.id < request.before)
                .filter(|stored| domain.is_none_or(|domain| stored.domain == domain))
                .filter(|stored| intent.is_none_or(|intent| stored.intent == intent))
                .filter(|stored| project.is_none_or(|project| project.is_some() && stored.project == project))
                .filter(|stored| {
                    consumer.is_none_or(|consumer| stored.parts.iter().any(|(uuid, _)| *uuid == consumer))
                });
            let mut decisions: Vec<_> = fits.take(most + 1).map(|stored| convert::record(&tables, stored)).collect();
            let more = decisions.len() > most;
            decisions.truncate(most);
            let next_before = decisions.last().filter(|_| more).map_or(0, |record| record.id);
            v1::DecisionsResponse { decisions, next_before }
        })
        .await
    }

    pub(crate) async fn watch_decisions(
        &self,
        request: v1::WatchDecisionsRequest,
    ) -> Result<Events<v1::DecisionEvent>, ApiError> {
        let domain = convert::some_domain(request.domain.as_deref())?;
        self.watch.decisions(&self.node, domain, request.after, self.lost()).await
    }

    pub(crate) async fn watch_hosts(&self, request: &v1::WatchHostsRequest) -> Result<Events<v1::HostEvent>, ApiError> {
        let domain = convert::some_domain(request.domain.as_deref())?;
        self.watch.hosts(domain, self.lost()).await
    }

    fn lost(&self) -> impl Fn(u64) + Send + 'static {
        let lost = self.metrics.watch_lost.clone();
        move |count| {
            lost.inc_by(count);
        }
    }

    /// Reports that are proposed together: half of what may wait, so that an import never fills the queue alone.
    pub(crate) fn together(&self) -> usize {
        (self.node.status().queue_limit / 2).clamp(1, TOGETHER)
    }

    pub(crate) async fn apply(&self, request: v1::ApplyHostsRequest) -> Result<v1::ApplyHostsResponse, ApiError> {
        let v1::ApplyHostsRequest { hosts, prune, keep, dry_run } = request;
        let reports = reports(hosts)?;
        let kept = if prune { kept(&reports, keep)? } else { Vec::new() };
        let mut answer = v1::ApplyHostsResponse { dry_run, ..v1::ApplyHostsResponse::default() };
        if dry_run {
            return self.rehearse(reports, prune.then_some(kept), answer).await;
        }
        let names: Vec<_> = reports.iter().map(named).collect();
        let total = names.len();
        let commands = reports.into_iter().map(|report| Command::Report(Box::new(report)));
        let mut outcomes = stream::iter(commands).map(|command| self.node.propose(command)).buffered(self.together());
        let mut done = 0;
        let mut names = names.into_iter();
        while let Some(outcome) = outcomes.next().await {
            let outcome = outcome.map_err(|refused| broke_off(refused.into(), done, total))?;
            done += 1;
            if let Some(name) = names.next() {
                note(&mut answer, name, outcome);
            }
        }
        drop(outcomes);
        if prune {
            let gone = self.look(Freshness::Linearizable, move |tables| gone(&tables, &kept)).await?;
            let commands = gone.into_iter().map(async |(name, domain, provider)| {
                (name, self.node.propose(Command::RemoveHost { domain, provider }).await)
            });
            let mut outcomes = stream::iter(commands).buffered(self.together());
            while let Some((name, outcome)) = outcomes.next().await {
                let outcome = outcome.map_err(|refused| broke_off(refused.into(), total, total))?;
                note(&mut answer, name, outcome);
            }
        }
        Ok(answer)
    }

    pub(crate) async fn apply_features(
        &self,
        request: v1::ApplyFeaturesRequest,
    ) -> Result<v1::ApplyHostsResponse, ApiError> {
        let mut errors = Vec::new();
        let mut reports = Vec::with_capacity(request.hosts.len());
        for (at, host) in request.hosts.into_iter().enumerate() {
            let named = host.name.clone();
            let read = convert::features(host).map_err(|error| error.to_string());
            match read.and_then(|report| report.validate().map(|()| report)) {
                Ok(report) => reports.push(report),
                Err(error) => errors.push(format!("hosts[{at}] ({}): {error}", named.escape_debug())),
            }
        }
        refuse(errors)?;
        let total = reports.len();
        let mut answer = v1::ApplyHostsResponse::default();
        let names: Vec<Named> = reports
            .iter()
            .map(|report| (report.name.clone(), report.domain, report.hypervisor_hostname.clone()))
            .collect();
        let commands = reports.into_iter().map(|report| Command::Features(Box::new(report)));
        let mut outcomes = stream::iter(commands).map(|command| self.node.propose(command)).buffered(self.together());
        for (done, name) in names.into_iter().enumerate() {
            let Some(outcome) = outcomes.next().await else { break };
            note(&mut answer, name, outcome.map_err(|refused| broke_off(refused.into(), done, total))?);
        }
        Ok(answer)
    }

    /// What an Apply would do, on a copy of the state.
    async fn rehearse(
        &self,
        reports: Vec<HostReport>,
        kept: Option<Vec<Key>>,
        mut answer: v1::ApplyHostsResponse,
    ) -> Result<v1::ApplyHostsResponse, ApiError> {
        self.node.read_barrier(Freshness::Linearizable).await?;
        let frozen = self.node.query(Core::freeze).await?;
        let rehearsal = tokio::task::spawn_blocking(move || {
            let mut core = Core::of(frozen);
            let names: Vec<_> = reports.iter().map(named).collect();
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
            let commands = reports.into_iter().map(|report| Command::Report(Box::new(report))).collect();
            let batch = Batch { proposer: Proposer::default(), now: core.state().now(), wall, commands };
            for (name, outcome) in names.into_iter().zip(core.apply(&batch)) {
                note(&mut answer, name, outcome);
            }
            for (name, ..) in kept.iter().flat_map(|kept| gone(core.state().tables(), kept)) {
                note(&mut answer, name, Outcome::Removed(true));
            }
            Ok(answer)
        });
        rehearsal.await.map_err(|error| ApiError::internal(error.to_string()))?
    }

    pub(crate) async fn list_hosts(
        &self,
        request: v1::ListHostsRequest,
        fresh: Freshness,
    ) -> Result<v1::ListHostsResponse, ApiError> {
        let domain = convert::some_domain(request.domain.as_deref())?;
        let after = token(request.page_token.as_deref())?.map(|(row, _)| row);
        let most = page(request.page_size);
        self.look(fresh, move |tables| {
            let zone = request.availability_zone.as_deref().map(|zone| tables.names.get(zone));
            let mut fits = tables
                .providers()
                .filter(|(row, _)| after.is_none_or(|after| row.0 > after))
                .filter(|(_, provider)| domain.is_none_or(|domain| provider.domain == domain))
                .filter(|(_, provider)| zone.is_none_or(|zone| zone.is_some() && provider.zone == zone))
                .filter(|(_, provider)| {
                    request.name.as_deref().is_none_or(|name| matches(name, tables.names.text(provider.host)))
                })
                .peekable();
            let mut last = 0;
            let hosts = fits
                .by_ref()
                .take(most)
                .map(|(row, provider)| {
                    last = row.0;
                    convert::host(&tables, provider)
                })
                .collect();
            let next_page_token = fits.peek().is_some().then(|| last.to_string());
            v1::ListHostsResponse { hosts, next_page_token }
        })
        .await
    }

    pub(crate) async fn list_instances(
        &self,
        request: v1::ListInstancesRequest,
        fresh: Freshness,
    ) -> Result<v1::ListInstancesResponse, ApiError> {
        let domain = convert::some_domain(request.domain.as_deref())?;
        let uuid = request.uuid.as_deref().map(|text| convert::uuid("uuid", text)).transpose()?;
        let after = token(request.page_token.as_deref())?;
        let most = page(request.page_size);
        self.look(fresh, move |tables| {
            let project = request.project_id.as_deref().map(|project| tables.names.get(project));
            let fits = |consumer: &scheduler::Consumer| {
                domain.is_none_or(|domain| consumer.domain == domain)
                    && project.is_none_or(|project| project.is_some() && consumer.project == project)
                    && (!request.claims_only || consumer.is_open())
            };
            let on_host = |row: Row| {
                request.host.as_deref().is_none_or(|host| {
                    let known = tables.provider(row).map(|provider| tables.names.text(provider.host));
                    known.is_some_and(|known| known.eq_ignore_ascii_case(host))
                })
            };
            if let Some(uuid) = uuid {
                let purposes = [Purpose::Instance, Purpose::Move];
                let keys = Domain::ALL.into_iter().flat_map(|domain| purposes.map(|purpose| (domain, purpose)));
                let instances = keys
                    .filter_map(|(domain, purpose)| tables.consumer(domain, uuid, purpose))
                    .filter(|consumer| fits(consumer) && on_host(consumer.row))
                    .map(|consumer| convert::consumer(&tables, consumer))
                    .collect();
                return v1::ListInstancesResponse { instances, next_page_token: None };
            }
            let (first, slot) = after.unwrap_or((0, None));
            let mut fits = tables
                .providers()
                .filter(|(row, _)| row.0 >= first && on_host(*row))
                .flat_map(|(row, provider)| provider.consumers.iter().map(move |slot| (row, *slot)))
                .filter(|(row, at)| row.0 > first || slot.is_none_or(|slot| at.0 > slot))
                .filter_map(|(row, slot)| Some((row, slot, tables.consumer_at(slot)?)))
                .filter(|(_, _, consumer)| fits(consumer))
                .peekable();
            let mut last = String::new();
            let mut instances = Vec::new();
            for (row, slot, consumer) in fits.by_ref().take(most) {
                instances.push(convert::consumer(&tables, consumer));
                if instances.len() == most {
                    last = format!("{}.{}", row.0, slot.0);
                }
            }
            let next_page_token = fits.peek().is_some().then_some(last);
            v1::ListInstancesResponse { instances, next_page_token }
        })
        .await
    }

    pub(crate) async fn release(&self, request: v1::ReleaseRequest) -> Result<v1::ReleaseResponse, ApiError> {
        let domain = convert::domain("domain", request.domain.as_deref())?;
        let consumer = convert::uuid("consumer", &request.consumer)?;
        let command = Command::Release { domain, consumer, open_only: !request.observed_too };
        match self.node.propose(command).await? {
            Outcome::Released(released) => Ok(v1::ReleaseResponse { released }),
            Outcome::Refused(message) => Err(ApiError::bad_request(message)),
            other => Err(ApiError::internal(format!("a release came out as {other:?}"))),
        }
    }

    pub(crate) async fn backup(&self) -> Result<Events<Result<v1::BackupChunk, ApiError>>, ApiError> {
        let held = self.backups.take(1).ok_or_else(|| {
            ApiError::unavailable("overloaded", format!("{BACKUPS} backups are being written, which is the limit"), 10)
        })?;
        Ok(backup::pieces(self.node.backup().await?, held))
    }

    /// Whether this node can answer requests: it leads and has applied its log, or knows the leader.
    pub(crate) fn ready(&self) -> Result<(), String> {
        let status = self.node.status();
        match (status.fatal, status.leader) {
            (Some(fatal), _) => Err(fatal),
            (None, None) => Err("no leader is known".to_owned()),
            (None, Some(leader)) if leader == status.node && !status.ready => {
                Err("the log is not applied yet".to_owned())
            }
            (None, Some(_)) => Ok(()),
        }
    }

    /// All metrics as text.
    pub(crate) async fn render_metrics(&self) -> String {
        let read = self.node.engine(|core, engine| {
            (
                (core.state().tables().clone(), core.clock(), core.headroom()),
                engine.unrunnable().count(),
                core.shadows(engine),
            )
        });
        let read = tokio::time::timeout(std::time::Duration::from_secs(1), read).await.ok().and_then(Result::ok);
        let (state, unrunnable, shadows) = match read {
            Some((state, unrunnable, shadows)) => (Some(state), unrunnable, shadows),
            None => (None, 0, Vec::new()),
        };
        if let Some((tables, _, rooms)) = state.as_ref().filter(|(tables, ..)| self.metrics.wants_headroom(tables)) {
            let tables = tables.clone();
            let worst = move || admission::losses(&tables, LOOKED_AT).first().map_or(0, |loss| loss.left);
            if let Ok(left) = tokio::task::spawn_blocking(worst).await {
                self.metrics.headroom(left, rooms);
            }
        }
        self.metrics.render(&Reading {
            disk: self.node.disk().await,
            blind: self.node.ears().is_blind(),
            status: &self.node.status(),
            state: state.map(|(tables, clock, _)| (tables, clock)),
            failover: self.config.failover,
            unrunnable,
            shadows,
            requests: &self.requests,
            connections: self.connections.taken(),
            bodies: &self.bodies,
            watchers: &self.watch.readers,
        })
    }

    /// Reads a snapshot of the tables on a thread that may take its time.
    async fn look<T: Send + 'static>(
        &self,
        fresh: Freshness,
        read: impl FnOnce(Tables) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        self.node.read_barrier(fresh).await?;
        let tables = self.node.query(|core| core.state().tables().clone()).await?;
        tokio::task::spawn_blocking(move || read(tables)).await.map_err(|error| ApiError::internal(error.to_string()))
    }
}

/// The reports of an Apply; every error of every one of them, when there is any.
fn reports(hosts: Vec<v1::HostReport>) -> Result<Vec<HostReport>, ApiError> {
    let mut errors = Vec::new();
    let mut reports: Vec<HostReport> = Vec::with_capacity(hosts.len());
    let mut seen = HashSet::with_capacity(hosts.len());
    for (at, host) in hosts.into_iter().enumerate() {
        let name = host.name.clone();
        let report = HostReport::try_from(host).map_err(|error| error.to_string());
        let report = report.and_then(|report| report.validate().map(|()| report));
        let report = report.and_then(|report| {
            let key = (report.domain, report.name.clone(), report.hypervisor_hostname.clone());
            if seen.insert(key) { Ok(report) } else { Err("the host is listed twice".to_owned()) }
        });
        match report {
            Ok(report) => reports.push(report),
            Err(error) => errors.push(format!("hosts[{at}] ({}): {error}", name.escape_debug())),
        }
    }
    refuse(errors)?;
    Ok(reports)
}

/// The first errors of a list, when there is any.
fn refuse(mut errors: Vec<String>) -> Result<(), ApiError> {
    if errors.is_empty() {
        return Ok(());
    }
    let more = errors.len().saturating_sub(NAMED);
    errors.truncate(NAMED);
    if more > 0 {
        errors.push(format!("and {more} more"));
    }
    Err(ApiError::bad_request(errors.join("\n")))
}

/// The hosts that a prune keeps.
fn kept(reports: &[HostReport], keep: Vec<v1::HostKey>) -> Result<Vec<Key>, ApiError> {
    let reported = reports.iter().map(|report| {
        Ok(Key {
            domain: report.domain,
            name: report.name.clone(),
            node: report.hypervisor_hostname.clone(),
            uuid: report.uuid,
        })
    });
    let named = keep.into_iter().enumerate().map(|(at, key)| {
        Ok::<_, BadRequest>(Key {
            domain: convert::domain(&format!("keep[{at}].domain"), key.domain.as_deref())?,
            name: key.name,
            node: key.hypervisor_hostname,
            uuid: key.uuid.map(|uuid| convert::uuid(&format!("keep[{at}].uuid"), &uuid)).transpose()?,
        })
    });
    let kept: Vec<Key> = reported.chain(named).collect::<Result<_, _>>()?;
    if kept.is_empty() {
        return Err(ApiError::bad_request("prune: no hosts given, which would remove the whole fleet"));
    }
    Ok(kept)
}

type Named = (String, Domain, Option<String>);

fn named(report: &HostReport) -> Named {
    (report.name.clone(), report.domain, report.hypervisor_hostname.clone())
}

/// The hosts that are not kept, in the domains that the kept ones name.
fn gone(tables: &Tables, kept: &[Key]) -> Vec<(Named, Domain, Uuid)> {
    let domains: BTreeSet<Domain> = kept.iter().map(|key| key.domain).collect();
    let mut rows = HashSet::new();
    let mut hosts = HashSet::new();
    for key in kept {
        rows.extend(key.uuid.and_then(|uuid| tables.row_of(uuid)));
        match &key.node {
            Some(node) => rows.extend(tables.row_of_node(key.domain, &key.name, Some(node))),
            // A host that is named without a node stands for all of its nodes.
            None => {
                hosts.insert((key.domain, key.name.as_str()));
            }
        }
    }
    tables
        .providers()
        .filter(|(row, provider)| domains.contains(&provider.domain) && !rows.contains(row))
        .map(|(_, provider)| (tables.names.text(provider.host), provider))
        .filter(|(name, provider)| !hosts.contains(&(provider.domain, *name)))
        .map(|(name, provider)| {
            let node = provider.node.map(|node| tables.names.text(node).to_owned());
            ((name.to_owned(), provider.domain, node), provider.domain, provider.uuid)
        })
        .collect()
}

fn note(answer: &mut v1::ApplyHostsResponse, (name, domain, node): Named, outcome: Outcome) {
    let (count, result, message) = match outcome {
        Outcome::Reported(Change::Added) => (&mut answer.added, "added", None),
        Outcome::Reported(Change::Changed) => (&mut answer.changed, "changed", None),
        Outcome::Reported(Change::Unchanged) | Outcome::Removed(false) => (&mut answer.unchanged, "unchanged", None),
        Outcome::Reported(Change::Stale) => (&mut answer.stale, "stale", None),
        Outcome::Removed(true) => (&mut answer.removed, "removed", None),
        Outcome::Refused(message) => (&mut answer.refused, "refused", Some(message)),
        other => (&mut answer.refused, "refused", Some(format!("{other:?}"))),
    };
    *count += 1;
    answer.results.push(v1::ApplyResult {
        domain: domain.to_string(),
        name,
        hypervisor_hostname: node,
        result: result.to_owned(),
        message,
    });
}

fn broke_off(mut error: ApiError, done: usize, total: usize) -> ApiError {
    let more = format!(" ({done} of {total} hosts were applied; applying them again is safe)");
    error.message.push_str(&more);
    error
}

/// Reads a page token: `row` or `row.slot`.
fn token(text: Option<&str>) -> Result<Option<(u32, Option<u32>)>, ApiError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let parsed = match text.split_once('.') {
        None => text.parse().map(|row| (row, None)),
        Some((row, slot)) => row.parse().and_then(|row| Ok((row, Some(slot.parse()?)))),
    };
    parsed.map(Some).map_err(|_| ApiError::bad_request("page_token: a token of a former page expected"))
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start)),
        None => name.eq_ignore_ascii_case(pattern),
    }
}
