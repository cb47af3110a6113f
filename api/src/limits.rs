//! What a server takes at most, and how it refuses the rest: at once, with a status that says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::BoxError;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::error::ApiError;
use crate::failover::Mode;
use crate::identity::Identities;

/// Limits of a server, with the defaults of the front door.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// Bytes of a request body, of a gRPC message too. More: 413.
    pub body: usize,
    /// Bytes of all request bodies that are being read or worked on. More: 503.
    pub bodies: usize,
    /// Time from the head of a request to its decision. Later: 504.
    pub deadline: Duration,
    /// Requests that are worked on at one time. More: 503 at once.
    pub concurrency: usize,
    /// Connections at one time. More wait to be accepted.
    pub connections: usize,
    /// Time for the TLS handshake of a new connection.
    pub handshake: Duration,
    /// Bytes of the head of a request.
    pub head: usize,
    /// Time for the head of a request to arrive, from its connection's last use.
    pub head_timeout: Duration,
    /// Readers of watches, of all kinds. More: 503.
    pub watchers: usize,
    /// Events that wait for one reader of a watch; older ones are lost, and the reader is told.
    pub watch_queue: usize,
    /// Time that running requests get when the server stops.
    pub drain: Duration,
    /// What failover may do.
    pub failover: Mode,
    /// Whether who speaks for a host, or gives failover orders, must show that it may.
    pub identities: Identities,
    /// Agents' sessions at one time. More: 503.
    pub agents: usize,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            body: 16 << 20,
            bodies: 256 << 20,
            deadline: Duration::from_secs(5),
            concurrency: 1024,
            connections: 4096,
            handshake: Duration::from_secs(10),
            head: 64 << 10,
            head_timeout: Duration::from_secs(30),
            watchers: 64,
            watch_queue: 1024,
            drain: Duration::from_secs(10),
            failover: Mode::Off,
            identities: Identities::Optional,
            agents: 20_000,
        }
    }
}

/// A number of things that may be at one time.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    taken: Arc<AtomicUsize>,
    most: usize,
}

/// So many of them; given back on drop.
#[derive(Debug)]
pub(crate) struct Held {
    taken: Arc<AtomicUsize>,
    count: usize,
}

impl Slots {
    pub(crate) fn new(most: usize) -> Self {
        Self { taken: Arc::default(), most }
    }

    /// Takes `count`, or none when that would be too many.
    pub(crate) fn take(&self, count: usize) -> Option<Held> {
        let before = self.taken.fetch_add(count, Ordering::Relaxed);
        let held = Held { taken: Arc::clone(&self.taken), count };
        (before.saturating_add(count) <= self.most).then_some(held)
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub(crate) fn most(&self) -> usize {
        self.most
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.count, Ordering::Relaxed);
    }
}

/// The bytes of a body, and the place they take among all bodies.
#[derive(Debug)]
pub(crate) struct Read {
    pub bytes: Bytes,
    _held: Held,
}

/// Reads a body of at most `most` bytes until `deadline`. A longer one is refused by its announced
/// length, else as soon as it is too long; it is never buffered.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    most: usize,
    bodies: &Slots,
    deadline: Instant,
) -> Result<Read, ApiError> {
    let too_large = || {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "payload_too_large",
            format!("the body is longer than {most} bytes, which is the limit"),
        )
    };
    if headers.get(header::CONTENT_ENCODING).is_some_and(|given| given != "identity") {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_encoding",
            "a body with a Content-Encoding given, one that is not compressed expected",
        ));
    }
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > most) {
        return Err(too_large());
    }
    // A body that does not say how long it is may become as long as any.
    let held = bodies.take(announced.unwrap_or(most)).ok_or_else(|| {
        let message = format!("bodies of {} bytes are being worked on, which is the limit", bodies.most());
        ApiError::unavailable("overloaded", message, 1)
    })?;
    let length = announced.unwrap_or(0);
    let collected = tokio::time::timeout_at(deadline.into(), collect(Limited::new(body, most), length)).await;
    match collected {
        Err(_) => Err(ApiError::deadline("the deadline passed while the body was being read")),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(ApiError::bad_request("the body broke off")),
        Ok(Ok(bytes)) => Ok(Read { bytes, _held: held }),
    }
}

/// The bytes of a body that says it is so long. Each piece is copied as it comes: while the next is on its way, and into
/// what is known to be large enough; its own memory is then free for the next.
async fn collect(mut body: Limited<Body>, length: usize) -> Result<Bytes, BoxError> {
    let (mut only, mut all) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame?.into_data() else { continue };
        if only.is_empty() && all.is_empty() {
            only = piece;
            continue;
        }
        if all.is_empty() {
            all.reserve(length);
            all.extend_from_slice(&std::mem::take(&mut only));
        }
        all.extend_from_slice(&piece);
    }
    Ok(if all.is_empty() { only } else { all.freeze() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_given_back_and_never_overdrawn() {
        let slots = Slots::new(3);
        let two = slots.take(2).expect("two of three");
        assert!(slots.take(2).is_none());
        assert_eq!(slots.taken(), 2);
        let one = slots.take(1).expect("the third");
        drop((two, one));
        assert_eq!(slots.taken(), 0);
        assert!(slots.take(usize::MAX).is_none());
    }
}
