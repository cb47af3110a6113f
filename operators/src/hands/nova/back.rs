//! A host that comes back: what Nova says of its nova-compute, and our marks taken back.
//!
//! Nova refuses to take `forced_down` back while an evacuation away from the host is `done` and not cleaned up
//! (`openstack/nova:nova/compute/api.py`, `update_service`), so a mark is read after it was asked for.

use hyper::header::DATE;
use scheduler::ha::coordinator::{Barrier, Told};
use scheduler::ha::host::HostId;
use scheduler::ha::reentry::ComputeRead;
use serde_json::{Value, json};
use time::format_description::well_known::Iso8601;
use time::{Duration, OffsetDateTime, PrimitiveDateTime};
use uuid::Uuid;

use super::client::{Client, Row};
use super::{Key, Nova, OURS};
use crate::failover::Gate;
use crate::hands::http::{Failed, Said};
use crate::hands::{Known, View};

/// A service that reported so lately is at work: Nova's `service_down_time`.
const FRESH: Duration = Duration::seconds(60);

impl Nova {
    /// Whether nova-compute of a host reports, and how evacuations away from it stand.
    pub(in crate::hands) async fn compute<V: View>(&self, id: HostId, known: &Known, view: &V) -> Option<Told> {
        let read = async { Ok(Told::Compute(id, self.client.compute(known, view).await?)) };
        self.told(Key::List(id), "read its nova-compute", known, read).await
    }

    pub(in crate::hands) async fn unforce(
        &self,
        id: HostId,
        known: &Known,
        barrier: &Barrier,
        gate: &dyn Gate,
    ) -> Option<Told> {
        let unmark = self.client.mark(known, |row| !row.forced_down, json!({"forced_down": false}), barrier, gate);
        self.told(Key::Service(id), "take forced_down back", known, async { Ok(unmark.await?.told(id)) }).await
    }

    /// Of a service that somebody else has disabled since, our mark is gone and theirs stays.
    pub(in crate::hands) async fn enable(
        &self,
        id: HostId,
        known: &Known,
        barrier: &Barrier,
        gate: &dyn Gate,
    ) -> Option<Told> {
        let theirs = |row: &Row| row.disabled && !row.reason.starts_with(OURS);
        let unmark = self.client.mark(
            known,
            |row| !(row.disabled && row.reason.starts_with(OURS)),
            json!({"status": "enabled"}),
            barrier,
            gate,
        );
        let told = async {
            let row = unmark.await?;
            if theirs(&row) {
                tracing::warn!(host = %known.nova_host, reason = row.reason, "its service is disabled by somebody else, and stays so");
            }
            Ok(Row { disabled: row.disabled && !theirs(&row), ..row }.told(id))
        };
        self.told(Key::Service(id), "enable", known, told).await
    }
}

impl Client {
    async fn compute<V: View>(&self, known: &Known, view: &V) -> Result<ComputeRead, Failed> {
        let (row, said) = self.service_said(known).await?;
        let path = "/os-migrations?migration_type=evacuation";
        let rows = self.pages(path, "migrations", "uuid").await?;
        let away = |row: &&Value| row["source_compute"] == known.nova_host && row["migration_type"] == "evacuation";
        let of = |statuses: &[&str]| {
            let rows =
                rows.iter().filter(away).filter(|row| row["status"].as_str().is_some_and(|s| statuses.contains(&s)));
            rows.filter_map(|row| Uuid::parse_str(row["instance_uuid"].as_str()?).ok()).collect()
        };
        Ok(ComputeRead {
            fresh: is_fresh(&row, &said),
            open: of(&["accepted", "pre-migrating"]),
            done: of(&["done"]),
            sentinel: self.sentinel(known, view).await?,
        })
    }
}

/// By Nova's own clocks: that of the answer, and that of the report.
fn is_fresh(row: &Row, said: &Said) -> bool {
    let reported = PrimitiveDateTime::parse(&row.updated, &Iso8601::DEFAULT).map(PrimitiveDateTime::assume_utc);
    let answered = said.headers.get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    match (reported, answered.map(OffsetDateTime::from)) {
        (Ok(reported), Some(answered)) => answered - reported < FRESH,
        _ => false,
    }
}
