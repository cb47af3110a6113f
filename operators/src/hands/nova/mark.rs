//! The mark of the cluster: an aggregate without hosts, with a key of metadata for each cluster that acts here. Nova
//! knows no condition on a write, so each writes its own key and then reads them all: of two that do so at once at
//! least one sees the other.

use std::time::Duration;

use hyper::{Method, StatusCode};
use scheduler::ha::coordinator::Told;
use scheduler::ha::mark::AGGREGATE;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::client::Client;
use super::{Key, Nova};
use crate::hands::http::{Ask, Failed};

/// How the key of a cluster begins; its id follows.
const KEY: &str = "pallium_cluster:";
/// The whole of a call: a few requests.
const MOST: Duration = Duration::from_secs(20);

impl Nova {
    pub(in crate::hands) async fn read_mark(&self) -> Option<Told> {
        self.mark(async { Ok(self.client.aggregate().await?.map(|(_, clusters)| clusters).unwrap_or_default()) }).await
    }

    pub(in crate::hands) async fn set_mark(&self, cluster: Uuid, over: Option<Uuid>) -> Option<Told> {
        let marked = self.mark(self.client.set_mark(cluster, over)).await;
        tracing::info!(%cluster, ?over, ?marked, "the mark of this cluster was set in Nova's aggregate '{AGGREGATE}'");
        marked
    }

    /// One at a time, in time, and why not.
    async fn mark(&self, call: impl Future<Output = Result<Vec<Uuid>, Failed>>) -> Option<Told> {
        let flight = self.reads.enter(Key::Mark);
        let read = match tokio::time::timeout(MOST, async { Some((flight.await?, call.await)) }).await {
            Ok(None) => return None,
            Ok(Some((_flight, read))) => read.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {MOST:?}")),
        };
        if let Err(why) = &read {
            tracing::warn!(why, "Nova: cannot read which cluster acts here, and nothing is done before it is known");
        }
        Some(Told::Mark(read))
    }
}

impl Client {
    /// The aggregate, and the clusters that it names. None: there is none.
    async fn aggregate(&self) -> Result<Option<(u64, Vec<Uuid>)>, Failed> {
        let body = self.json(Ask::get("/os-aggregates".to_owned())).await?;
        let Some(all) = body.get("aggregates").and_then(Value::as_array) else {
            return Err(Failed::Answer("a list of aggregates without 'aggregates'".to_owned()));
        };
        let Some(row) = all.iter().find(|row| row["name"] == AGGREGATE) else { return Ok(None) };
        let (Some(id), Some(metadata)) = (row["id"].as_u64(), row["metadata"].as_object()) else {
            return Err(Failed::Answer(format!("aggregate '{AGGREGATE}' without an id or metadata: {row}")));
        };
        let cluster = |key: &str| {
            Uuid::parse_str(key).map_err(|_| {
                Failed::Answer(format!(
                    "aggregate '{AGGREGATE}' has '{KEY}{key}', a cluster's uuid expected: remove that key"
                ))
            })
        };
        let named: Result<_, _> = metadata.keys().filter_map(|key| key.strip_prefix(KEY)).map(cluster).collect();
        Ok(Some((id, named?)))
    }

    async fn set_mark(&self, cluster: Uuid, over: Option<Uuid>) -> Result<Vec<Uuid>, Failed> {
        let id = if let Some((id, _)) = self.aggregate().await? {
            id
        } else {
            let body = json!({"aggregate": {"name": AGGREGATE, "availability_zone": null}});
            let (said, place) = self.call(Ask::with(Method::POST, "/os-aggregates".to_owned(), body)).await?;
            // 409: somebody was faster.
            if !said.status.is_success() && said.status != StatusCode::CONFLICT {
                return Err(Failed::Answer(format!(
                    "{place} answered {} to the creation of aggregate '{AGGREGATE}': {}",
                    said.status,
                    said.text()
                )));
            }
            let made = self.aggregate().await?;
            made.ok_or_else(|| Failed::Answer(format!("aggregate '{AGGREGATE}' is gone again")))?.0
        };
        let mut metadata = Map::from_iter([(format!("{KEY}{cluster}"), json!("acts on this cloud"))]);
        if let Some(over) = over {
            metadata.insert(format!("{KEY}{over}"), Value::Null);
        }
        let body = json!({"set_metadata": {"metadata": metadata}});
        self.json(Ask::with(Method::POST, format!("/os-aggregates/{id}/action"), body)).await?;
        let read = self.aggregate().await?;
        Ok(read.map(|(_, clusters)| clusters).unwrap_or_default())
    }
}
