//! The bodies of the hooks of Cinder and Manila, made into a [`Request`].
//!
//! The spec is theirs and may be any JSON: only the uuid of the volume (`volume_id`) or share (`share_id`)
//! is read of it, so that the history can be asked for it; where there is none, one is made up. Amounts
//! are not known, so nothing is claimed. Source: `sapcc/cinder:cinder/scheduler/external.py`,
//! `sapcc/manila:manila/scheduler/drivers/external.py`, and the request specs of both.

use std::fmt;

use scheduler::Domain;
use scheduler::request::Request;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

use crate::body::{BadRequest, Text, split};

/// Reads a body of Cinder.
pub fn cinder(body: &[u8]) -> Result<Request, BadRequest> {
    translate(body, Domain::Cinder)
}

/// Reads a body of Manila.
pub fn manila(body: &[u8]) -> Result<Request, BadRequest> {
    translate(body, Domain::Manila)
}

fn translate(body: &[u8], domain: Domain) -> Result<Request, BadRequest> {
    let (spec, mut request) = split::<Spec>(body, domain)?;
    request.options.validate().map_err(|message| BadRequest { path: "options".to_owned(), message })?;
    request.options.skip_inflight = true;
    request.consumers = vec![spec.and_then(|Spec(id)| id).unwrap_or_else(Uuid::now_v7)];
    Ok(request)
}

/// The uuid that a spec names, if it names one.
struct Spec(Option<Uuid>);

impl<'de> Deserialize<'de> for Spec {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Spec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_bool<E>(self, _: bool) -> Result<Spec, E> {
                Ok(Spec(None))
            }
            fn visit_u64<E>(self, _: u64) -> Result<Spec, E> {
                Ok(Spec(None))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Spec, E> {
                Ok(Spec(None))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Spec, E> {
                Ok(Spec(None))
            }
            fn visit_str<E>(self, text: &str) -> Result<Spec, E> {
                Ok(Spec(Uuid::try_parse(text).ok()))
            }
            fn visit_unit<E>(self) -> Result<Spec, E> {
                Ok(Spec(None))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Spec, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Spec(None))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Spec, A::Error> {
                let mut out = Spec(None);
                while let Some(Text(key)) = map.next_key()? {
                    match &*key {
                        // What stands there is read as a spec of its own: a text may be the uuid.
                        "volume_id" | "share_id" => out = Spec(map.next_value::<Self::Value>()?.0.or(out.0)),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(out)
            }
        }
        input.deserialize_any(Read)
    }
}
