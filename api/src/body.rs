//! What the bodies of all hooks have in common: the caller's context, hosts with their weights, the
//! pipeline and the options, around a spec of each service's own. Unknown fields are skipped, null and
//! absent are one. Source: the request types of cobaltcore-dev/cortex, `sapcc/nova`, `sapcc/cinder` and
//! `sapcc/manila` (their `external.py`).

mod depth;
mod sent;

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use scheduler::Domain;
use scheduler::request::{Caller, Candidates, Options, Request};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

pub use self::depth::DEEPEST;
use self::depth::too_deep;
use self::sent::{Hosts, HostsIn, Weights, WeightsOf};

/// Longest id of a caller that is kept, in bytes.
pub const LONGEST_ID: usize = 64;

/// Why a body is no scheduling request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{message}", path, if path.is_empty() { "" } else { ": " })]
pub struct BadRequest {
    /// Where, as in `spec.flavor.vcpus`; empty for the body as a whole.
    pub path: String,
    /// What was given, what was expected.
    pub message: String,
}

impl BadRequest {
    pub(crate) fn at(path: &str, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), message: message.into() }
    }
}

/// True for an id that may go into logs and headers: 1 to 64 bytes of visible ASCII.
pub fn is_id(text: &str) -> bool {
    (1..=LONGEST_ID).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

fn caller_id(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text.strip_prefix("req-").unwrap_or(text)).ok()
}

pub(crate) fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

pub(crate) fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(64) {
        Some((at, _)) => format!("{}…", &text[..at]).into(),
        None => text.into(),
    }
}

fn options(given: OptionsData) -> Options {
    let set = |flag: Option<bool>| flag.unwrap_or(false);
    Options {
        read_only: set(given.read_only),
        assume_empty_hosts: set(given.assume_empty_hosts),
        lock_reservations: set(given.lock_reservations),
        ignored_reservation_types: given.ignored_reservation_types.unwrap_or_default(),
        max_candidates: given.max_candidates.unwrap_or(0).max(0) as u64,
        skip_history: set(given.skip_history),
        skip_inflight: set(given.skip_inflight),
        skip_committed_resource_tracking: set(given.skip_committed_resource_tracking),
    }
}

/// Reads JSON in one pass. Only a body that turns out bad is read again, to name the place.
pub(crate) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, BadRequest> {
    read_with(body, || PhantomData::<T>, |_| &[])
}

/// [`read`] by seed; `flat` tells where what was read is known to nest no deeper, as ranges of addresses.
fn read_with<'a, S: DeserializeSeed<'a>>(
    body: &'a [u8],
    seed: impl Fn() -> S,
    flat: fn(&S::Value) -> &[Range<usize>],
) -> Result<S::Value, BadRequest> {
    // What is skipped need not be UTF-8; of a body that is, no string is checked again.
    let read = match std::str::from_utf8(body) {
        Ok(text) => whole(seed(), serde_json::Deserializer::from_str(text)),
        Err(_) => whole(seed(), serde_json::Deserializer::from_slice(body)),
    };
    // The parser bounds its own recursion, and what it skips it skips without.
    if let Some(at) = too_deep(body, read.as_ref().map_or(&[], flat)) {
        return Err(BadRequest::at("", format!("nested deeper than {DEEPEST} at byte {at}")));
    }
    read.map_err(|_| {
        let mut input = serde_json::Deserializer::from_slice(body);
        let mut track = serde_path_to_error::Track::new();
        match seed().deserialize(serde_path_to_error::Deserializer::new(&mut input, &mut track)) {
            Err(error) => {
                let path = track.path().to_string().replace(".nova_object.data", "");
                // A message about the syntax says where itself; the path would be a guess.
                let path = if error.is_data() { path } else { String::new() };
                BadRequest { path: if path == "." { String::new() } else { path }, message: error.to_string() }
            }
            Ok(_) => BadRequest::at("", "one JSON value expected, more bytes follow it"),
        }
    })
}

/// Reads one value with nothing behind it.
fn whole<'a, S: DeserializeSeed<'a>, R: serde_json::de::Read<'a>>(
    seed: S,
    mut input: serde_json::Deserializer<R>,
) -> serde_json::Result<S::Value> {
    let value = seed.deserialize(&mut input)?;
    input.end()?;
    Ok(value)
}

/// [`read`], for what borrows nothing.
pub(crate) fn read_owned<T: DeserializeOwned>(body: &[u8]) -> Result<T, BadRequest> {
    read(body)
}

/// A body around a spec of type `S`. A field may stand there once, be it null.
#[expect(clippy::option_option, reason = "to be null and to be absent is different for the second of its name")]
struct Body<'a, S> {
    spec: Option<Option<S>>,
    context: Option<Option<Object<Context<'a>>>>,
    hosts: Option<Option<Hosts>>,
    weights: Option<Option<Weights<'a>>>,
    pipeline: Option<Option<String>>,
    options: Option<Option<Object<OptionsData>>>,
    /// Where hosts and weights stand, from key to key, by address. They are nearly all of a large body, and to look for
    /// what nests too deep takes a quarter of the time that reading takes.
    flat: Vec<Range<usize>>,
}

/// Reads a body of so many bytes.
struct Reading<S>(usize, PhantomData<S>);

impl<'de, S: Deserialize<'de>> DeserializeSeed<'de> for Reading<S> {
    type Value = Body<'de, S>;
    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_map(self)
    }
}

impl<'de, S: Deserialize<'de>> Visitor<'de> for Reading<S> {
    type Value = Body<'de, S>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (spec, context, hosts, weights, pipeline, options) = (None, None, None, None, None, None);
        let mut body = Body { spec, context, hosts, weights, pipeline, options, flat: Vec::new() };
        let mut began = None;
        while let Some(Text(key)) = map.next_key()? {
            // The quote in front of the key; a key with escapes is not where it was read.
            let here = if let Cow::Borrowed(key) = key { Some(key.as_ptr().addr() - 1) } else { None };
            body.flat.extend(began.take().zip(here).map(|(began, here)| began..here));
            match &*key {
                "spec" => once(&mut body.spec, "spec", &mut map, PhantomData)?,
                "context" => once(&mut body.context, "context", &mut map, PhantomData)?,
                "hosts" => {
                    once(&mut body.hosts, "hosts", &mut map, HostsIn(self.0))?;
                    began = here.filter(|_| body.hosts.iter().flatten().all(|hosts| !hosts.nested));
                }
                "weights" => {
                    let hosts = body.hosts.as_mut().and_then(Option::as_mut);
                    once(&mut body.weights, "weights", &mut map, WeightsOf(hosts))?;
                    began = here;
                }
                "pipeline" => once(&mut body.pipeline, "pipeline", &mut map, PhantomData)?,
                "options" => once(&mut body.options, "options", &mut map, PhantomData)?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        body.flat.extend(began.map(|began| began..usize::MAX));
        Ok(body)
    }
}

/// Reads a field that may stand there once.
fn once<'de, T: DeserializeSeed<'de>, A: MapAccess<'de>>(
    field: &mut Option<T::Value>,
    name: &'static str,
    map: &mut A,
    seed: T,
) -> Result<(), A::Error> {
    if field.is_some() {
        return Err(A::Error::duplicate_field(name));
    }
    *field = Some(map.next_value_seed(seed)?);
    Ok(())
}

/// Reads a body: its spec, and a request without consumers of everything around it. The trace id is the
/// context's `request_id`, else its `global_request_id`, else empty.
pub(crate) fn split<'a, S: Deserialize<'a>>(
    body: &'a [u8],
    domain: Domain,
) -> Result<(Option<S>, Request), BadRequest> {
    let body = read_with(body, || Reading(body.len(), PhantomData::<S>), |body| &body.flat)?;
    let hosts = body.hosts.flatten().unwrap_or_default();
    let candidates = hosts.weighed(&body.weights.flatten().unwrap_or_default())?;
    let context = body.context.flatten().map(|Object(context)| context).unwrap_or_default();
    let ids = || context.request_id.iter().chain(&context.global_request_id).map(|id| &*id.0);
    let request = Request {
        domain,
        caller: Caller::Hook { request: ids().find_map(caller_id) },
        pipeline: filled(body.pipeline.flatten()),
        candidates: Candidates::Sent(candidates),
        num_instances: 1,
        options: body.options.flatten().map(|Object(given)| options(given)).unwrap_or_default(),
        trace_id: ids().find(|id| is_id(id)).unwrap_or_default().to_owned(),
        ..Request::default()
    };
    Ok((body.spec.flatten(), request))
}

/// An object and nothing else: what serde derives would also take a list of the fields.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Read<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Read<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        input.deserialize_map(Read(PhantomData))
    }
}

#[derive(Default, Deserialize)]
struct Context<'a> {
    #[serde(borrow)]
    request_id: Option<Text<'a>>,
    #[serde(borrow)]
    global_request_id: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct OptionsData {
    read_only: Option<bool>,
    assume_empty_hosts: Option<bool>,
    lock_reservations: Option<bool>,
    ignored_reservation_types: Option<Vec<String>>,
    max_candidates: Option<i64>,
    skip_history: Option<bool>,
    skip_inflight: Option<bool>,
    skip_committed_resource_tracking: Option<bool>,
}

/// A string that is only looked at: borrowed from the body where it has no escapes.
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        input.deserialize_str(Read)
    }
}
