//! What the bodies of all hooks have in common: the caller's context, hosts with their weights, the
//! pipeline and the options, around a spec of each service's own. Unknown fields are skipped, null and
//! absent are one. Source: the request types of cobaltcore-dev/cortex, `sapcc/nova`, `sapcc/cinder` and
//! `sapcc/manila` (their `external.py`).

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

use scheduler::request::{Caller, Candidate, Candidates, Options, Request};
use scheduler::{Domain, SmolStr};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

/// Deepest nesting of arrays and objects in a body.
pub const DEEPEST: usize = 64;
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

fn candidates(hosts: Vec<Object<Host>>, weights: &Weights<'_>) -> Result<Vec<Candidate>, BadRequest> {
    let candidate = |host: Host, weight: f64| {
        let node = host.hypervisor_hostname.unwrap_or_default();
        Candidate { host: host.host, node, weight }
    };
    // The services list weights in the order of the hosts, and each host once.
    let same =
        |(Object(host), (name, _)): (&Object<Host>, &(Text<'_>, f64))| !host.host.is_empty() && host.host == *name.0;
    if hosts.len() == weights.0.len() && hosts.iter().zip(&weights.0).all(same) {
        return Ok(hosts
            .into_iter()
            .zip(&weights.0)
            .map(|(Object(host), (_, weight))| candidate(host, *weight))
            .collect());
    }
    let mut known: HashMap<&str, (f64, bool)> =
        weights.0.iter().map(|(host, weight)| (&*host.0, (*weight, false))).collect();
    let mut out = Vec::with_capacity(hosts.len());
    for (at, Object(host)) in hosts.into_iter().enumerate() {
        if host.host.is_empty() {
            return Err(BadRequest::at(&format!("hosts[{at}].host"), "an empty name given, a host name expected"));
        }
        let Some((weight, used)) = known.get_mut(host.host.as_str()) else {
            return Err(BadRequest::at("weights", format!("missing weight for host '{}'", shortened(&host.host))));
        };
        *used = true;
        let weight = *weight;
        out.push(candidate(host, weight));
    }
    let unknown = known.iter().filter(|(_, (_, used))| !used).map(|(host, _)| *host).min();
    match unknown {
        Some(host) => Err(BadRequest::at("weights", format!("weight assigned to unknown host '{}'", shortened(host)))),
        None => Ok(out),
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
    if let Some(at) = too_deep(body) {
        return Err(BadRequest::at("", format!("nested deeper than {DEEPEST} at byte {at}")));
    }
    // What is skipped need not be UTF-8; of a body that is, no string is checked again.
    let read = std::str::from_utf8(body).map_or_else(|_| serde_json::from_slice(body), serde_json::from_str);
    read.map_err(|_| {
        let mut input = serde_json::Deserializer::from_slice(body);
        match serde_path_to_error::deserialize::<_, T>(&mut input) {
            Err(error) => {
                let path = error.path().to_string().replace(".nova_object.data", "");
                let inner = error.inner();
                // A message about the syntax says where itself; the path would be a guess.
                let path = if inner.is_data() { path } else { String::new() };
                BadRequest { path: if path == "." { String::new() } else { path }, message: inner.to_string() }
            }
            Ok(_) => BadRequest::at("", "one JSON value expected, more bytes follow it"),
        }
    })
}

/// [`read`], for what borrows nothing.
pub(crate) fn read_owned<T: DeserializeOwned>(body: &[u8]) -> Result<T, BadRequest> {
    read(body)
}

/// Byte at which the nesting gets deeper than [`DEEPEST`].
fn too_deep(body: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = body.get(at) {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > DEEPEST {
                    return Some(at);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                // To the quote that ends the string; one without an end is for the parser to tell.
                at += 1;
                loop {
                    at += memchr::memchr2(b'"', b'\\', body.get(at..)?)?;
                    if body[at] == b'"' {
                        break;
                    }
                    at += 2;
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// A body around a spec of type `S`.
#[derive(Deserialize)]
#[serde(bound(deserialize = "S: Deserialize<'de>"))]
struct Body<'a, S> {
    spec: Option<S>,
    #[serde(borrow)]
    context: Option<Object<Context<'a>>>,
    hosts: Option<Vec<Object<Host>>>,
    #[serde(borrow)]
    weights: Option<Weights<'a>>,
    pipeline: Option<String>,
    options: Option<Object<OptionsData>>,
}

/// Reads a body: its spec, and a request without consumers of everything around it. The trace id is the
/// context's `request_id`, else its `global_request_id`, else empty.
pub(crate) fn split<'a, S: Deserialize<'a>>(
    body: &'a [u8],
    domain: Domain,
) -> Result<(Option<S>, Request), BadRequest> {
    let Object(body): Object<Body<'a, S>> = read(body)?;
    let candidates = candidates(body.hosts.unwrap_or_default(), &body.weights.unwrap_or_default())?;
    let context = body.context.map(|Object(context)| context).unwrap_or_default();
    let ids = || context.request_id.iter().chain(&context.global_request_id).map(|id| &*id.0);
    let request = Request {
        domain,
        caller: Caller::Hook { request: ids().find_map(caller_id) },
        pipeline: filled(body.pipeline),
        candidates: Candidates::Sent(candidates),
        num_instances: 1,
        options: body.options.map(|Object(given)| options(given)).unwrap_or_default(),
        trace_id: ids().find(|id| is_id(id)).unwrap_or_default().to_owned(),
        ..Request::default()
    };
    Ok((body.spec, request))
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
struct Host {
    host: SmolStr,
    hypervisor_hostname: Option<SmolStr>,
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

/// Host → weight, as listed.
#[derive(Default)]
struct Weights<'a>(Vec<(Text<'a>, f64)>);

impl<'de: 'a, 'a> Deserialize<'de> for Weights<'a> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Weights<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from host to number")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut out = Vec::with_capacity(map.size_hint().unwrap_or(0));
                while let Some(entry) = map.next_entry()? {
                    out.push(entry);
                }
                Ok(Weights(out))
            }
        }
        input.deserialize_map(Read)
    }
}
