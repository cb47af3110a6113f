//! A recording on its way to a caller: the backup of its moment, then its lines.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, stream};
use scheduler::recording::Event;
use tokio_stream::wrappers::ReceiverStream;

use crate::backup;
use crate::body::BadRequest;
use crate::error::ApiError;
use crate::proto::v1;
use crate::service::Service;
use crate::watch::Events;

/// Decisions of a recording, where no number is given and at most.
const DECISIONS: (u64, u64) = (1_000, 1_000_000);

impl Service {
    pub(crate) async fn record(
        &self,
        asked: v1::RecordRequest,
    ) -> Result<Events<Result<v1::RecordChunk, ApiError>>, ApiError> {
        let decisions = if asked.decisions == 0 { DECISIONS.0 } else { asked.decisions };
        if decisions > DECISIONS.1 {
            let message = format!("{decisions} given, at most {} expected", DECISIONS.1);
            return Err(BadRequest { path: "decisions".to_owned(), message }.into());
        }
        let held = self
            .backups
            .take(1)
            .ok_or_else(|| ApiError::unavailable("overloaded", "too many backups are being written: ask again", 10))?;
        let (backup, events) = self.node.record(decisions).await?;
        let pieces = backup::pieces(backup, held)
            .map(|piece| piece.map(|piece| v1::RecordChunk { backup: piece.data, line: String::new() }));
        let answers = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&answers);
        let lines = ReceiverStream::new(events).map(move |event| {
            counted.fetch_add(u64::from(matches!(event, Event::Answer { .. })), Ordering::Relaxed);
            let line = serde_json::to_string(&event).map_err(|error| ApiError::internal(error.to_string()))?;
            Ok(v1::RecordChunk { backup: Vec::new(), line })
        });
        let end = stream::once(async move {
            let made = answers.load(Ordering::Relaxed);
            (made < decisions).then(|| {
                let why = format!(
                    "the recording ended after {made} of {decisions} decisions: its reader was too slow, or the state was \
                     replaced; record again"
                );
                Err(ApiError::unavailable("stopped", why, 1))
            })
        });
        Ok(pieces.chain(lines).chain(end.filter_map(async |end| end)).boxed())
    }
}
