//! What callers send, checked as Masakari's schemas do, and its times.

use scheduler::ha::masakari::{Kind, MemberSpec, Method, NotificationSpec, Report, SegmentSpec};
use serde_json::{Map, Value};
use time::format_description::well_known::Iso8601;
use time::{OffsetDateTime, PrimitiveDateTime};
use uuid::Uuid;

use crate::body;
use crate::error::ApiError;

type Result<T> = std::result::Result<T, ApiError>;

/// The object under the one key of a body.
pub(super) fn read(bytes: &[u8], name: &'static str) -> Result<Value> {
    let sent: Value = body::read_owned(bytes)?;
    let Value::Object(mut map) = sent else {
        return Err(ApiError::bad_request("Malformed message body: an object is expected"));
    };
    let one = map.remove(name).ok_or_else(|| ApiError::bad_request(format!("'{name}' is a required property")))?;
    only(&map, &[])?;
    if one.is_object() { Ok(one) } else { Err(wrong(name, &one, "is not of type 'object'")) }
}

fn wrong(field: &str, value: &Value, why: &str) -> ApiError {
    let given = body::shortened(&value.to_string()).into_owned();
    ApiError::bad_request(format!("Invalid input for field/attribute {field}. Value: {given}. {given} {why}"))
}

fn only(map: &Map<String, Value>, known: &[&str]) -> Result<()> {
    match map.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(ApiError::bad_request(format!(
            "Additional properties are not allowed ('{}' was unexpected)",
            body::shortened(key).escape_debug()
        ))),
    }
}

fn object(value: &Value) -> Result<&Map<String, Value>> {
    value.as_object().ok_or_else(|| wrong("body", value, "is not of type 'object'"))
}

fn required<'a>(map: &'a Map<String, Value>, field: &str) -> Result<&'a Value> {
    map.get(field).ok_or_else(|| ApiError::bad_request(format!("'{field}' is a required property")))
}

/// A text of so many characters that passes a test.
fn text(field: &str, value: &Value, most: usize, fits: fn(&str) -> bool) -> Result<String> {
    let Some(text) = value.as_str() else { return Err(wrong(field, value, "is not of type 'string'")) };
    if text.chars().count() > most {
        return Err(wrong(field, value, "is too long"));
    }
    if fits(text) { Ok(text.to_owned()) } else { Err(wrong(field, value, "does not match what is expected")) }
}

/// The same, or nothing.
fn maybe(field: &str, value: &Value, most: usize, fits: fn(&str) -> bool) -> Result<Option<String>> {
    if value.is_null() { Ok(None) } else { text(field, value, most, fits).map(Some) }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.trim() == text && !text.chars().any(char::is_control)
}

fn is_printable(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && c != '\n')
}

fn is_type(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

fn is_host(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

/// A boolean, or a text that says one.
pub(super) fn truth(field: &str, value: &Value) -> Result<bool> {
    const NO: &str = "is not one of true, false, 'on', 'off', 'yes', 'no', '1', '0'";
    match value {
        Value::Bool(is) => Ok(*is),
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "on" | "yes" => Ok(true),
            "false" | "0" | "off" | "no" => Ok(false),
            _ => Err(wrong(field, value, NO)),
        },
        _ => Err(wrong(field, value, NO)),
    }
}

/// One of some words, in whatever case; given back as it stands here.
fn word(field: &str, value: &Value, words: &[&'static str]) -> Result<&'static str> {
    let found = value.as_str().and_then(|text| words.iter().find(|word| word.eq_ignore_ascii_case(text)));
    found.copied().ok_or_else(|| wrong(field, value, &format!("is not one of {words:?}")))
}

fn method(value: &Value) -> Result<Method> {
    const METHODS: [&str; 4] = ["auto", "reserved_host", "auto_priority", "rh_priority"];
    match word("recovery_method", value, &METHODS)? {
        "auto" => Ok(Method::Auto),
        planned => Err(ApiError::bad_request(format!(
            "recovery_method: '{planned}' is planned, and does not exist yet: hosts are not kept for evacuations. Use \
             'auto', which takes any host that has room"
        ))),
    }
}

/// The segment that is to be; without an id a new one.
pub(super) fn segment(sent: &Value, id: Option<Uuid>, version: u8) -> Result<SegmentSpec> {
    let map = object(sent)?;
    let known = ["name", "description", "recovery_method", "service_type", "enabled"];
    only(map, if version >= 2 { &known } else { &known[..4] })?;
    if id.is_none() {
        for field in ["name", "recovery_method", "service_type"] {
            required(map, field)?;
        }
    } else if map.is_empty() {
        return Err(ApiError::bad_request("{} is not valid: a property to change is expected"));
    }
    Ok(SegmentSpec {
        uuid: id.unwrap_or_else(Uuid::now_v7),
        create: id.is_none(),
        name: map.get("name").map(|value| text("name", value, 255, is_name)).transpose()?,
        description: map
            .get("description")
            .map(|value| maybe("description", value, 4_096, is_printable))
            .transpose()?,
        method: map.get("recovery_method").map(method).transpose()?,
        service_type: map.get("service_type").map(|value| text("service_type", value, 255, is_name)).transpose()?,
        enabled: map.get("enabled").map(|value| truth("enabled", value)).transpose()?,
    })
}

/// The host of a segment that is to be; without an id a new one.
pub(super) fn member(sent: &Value, segment: Uuid, id: Option<Uuid>) -> Result<MemberSpec> {
    let map = object(sent)?;
    only(map, &["name", "type", "control_attributes", "reserved", "on_maintenance"])?;
    if id.is_none() {
        for field in ["name", "type", "control_attributes"] {
            required(map, field)?;
        }
    } else if map.is_empty() {
        return Err(ApiError::bad_request("{} is not valid: a property to change is expected"));
    }
    let flag = |field| map.get(field).map(|value| truth(field, value)).transpose();
    let control = |value| maybe("control_attributes", value, 4_096, is_printable);
    Ok(MemberSpec {
        uuid: id.unwrap_or_else(Uuid::now_v7),
        create: id.is_none(),
        segment,
        name: map.get("name").map(|value| text("name", value, 255, is_name)).transpose()?,
        kind: map.get("type").map(|value| maybe("type", value, 255, is_type)).transpose()?,
        control: map.get("control_attributes").map(control).transpose()?,
        reserved: flag("reserved")?,
        maintenance: flag("on_maintenance")?,
    })
}

/// What a monitor says.
pub(super) fn notification(sent: &Value) -> Result<NotificationSpec> {
    let map = object(sent)?;
    only(map, &["type", "hostname", "generated_time", "payload"])?;
    let generated = required(map, "generated_time")?;
    let kind = match word("type", required(map, "type")?, &["COMPUTE_HOST", "VM", "PROCESS"])? {
        "COMPUTE_HOST" => Kind::ComputeHost,
        "VM" => Kind::Vm,
        _ => Kind::Process,
    };
    let payload = required(map, "payload")?;
    let payload = payload.as_object().ok_or_else(|| wrong("payload", payload, "is not of type 'object'"))?;
    let report = match kind {
        Kind::ComputeHost => host(payload)?,
        Kind::Process => process(payload)?,
        Kind::Vm => guest(payload)?,
    };
    let said = payload.iter().map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()));
    Ok(NotificationSpec {
        uuid: Uuid::now_v7(),
        kind,
        host: text("hostname", required(map, "hostname")?, 255, is_host)?,
        generated: generated
            .as_str()
            .and_then(time)
            .ok_or_else(|| wrong("generated_time", generated, "is not a 'date-time'"))?,
        payload: said.collect(),
        report,
    })
}

const EVENTS: [&str; 2] = ["STARTED", "STOPPED"];

/// Only what a monitor is certain of is heard as silence.
fn host(payload: &Map<String, Value>) -> Result<Report> {
    only(payload, &["event", "host_status", "cluster_status"])?;
    let event = word("event", required(payload, "event")?, &EVENTS)?;
    let status = payload.get("host_status").map(|value| word("host_status", value, &["NORMAL", "UNKNOWN"]));
    payload.get("cluster_status").map(|value| word("cluster_status", value, &["ONLINE", "OFFLINE"])).transpose()?;
    Ok(match (event, status.transpose()?) {
        ("STARTED", _) => Report::Runs,
        (_, Some("NORMAL")) => Report::Silent,
        _ => Report::Nothing,
    })
}

fn process(payload: &Map<String, Value>) -> Result<Report> {
    only(payload, &["event", "process_name"])?;
    let name = text("process_name", required(payload, "process_name")?, 255, |name| !name.is_empty())?;
    let event = word("event", required(payload, "event")?, &EVENTS)?;
    // Monitors name a process as their configuration does, with its path or without.
    let compute = name.rsplit('/').next() == Some("nova-compute");
    Ok(match event {
        _ if !compute => Report::Nothing,
        "STARTED" => Report::ComputeUp,
        _ => Report::ComputeDown,
    })
}

/// Taken in and shown; nothing restarts a guest yet.
fn guest(payload: &Map<String, Value>) -> Result<Report> {
    only(payload, &["event", "instance_uuid", "vir_domain_event"])?;
    let id = required(payload, "instance_uuid")?;
    if id.as_str().is_none_or(|id| Uuid::try_parse(id).is_err()) {
        return Err(wrong("instance_uuid", id, "is not a 'uuid'"));
    }
    for field in ["event", "vir_domain_event"] {
        text(field, required(payload, field)?, 255, |text| !text.is_empty())?;
    }
    Ok(Report::Nothing)
}

/// Microseconds since 1970 of an ISO 8601 time, as Python writes it: `T` or a space in the middle, and UTC where
/// no zone is given.
pub(super) fn time(text: &str) -> Option<i64> {
    let mut text = text.trim().to_owned();
    if text.get(10..11) == Some(" ") {
        text.replace_range(10..11, "T");
    }
    let at = OffsetDateTime::parse(&text, &Iso8601::PARSING)
        .or_else(|_| PrimitiveDateTime::parse(&text, &Iso8601::PARSING).map(PrimitiveDateTime::assume_utc));
    i64::try_from(at.ok()?.unix_timestamp_nanos() / 1_000).ok()
}

/// The time as Masakari writes it: UTC, microseconds, no zone.
pub(super) fn stamp(micros: i64) -> String {
    let at =
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (date, (hour, minute, second, micro)) = (at.date(), at.time().as_hms_micro());
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micro:06}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_python_writes_them() {
        let expected = Some("2017-04-23T07:18:51.523726".to_owned());
        for text in [
            "2017-04-23T07:18:51.523726",
            "2017-04-23 07:18:51.523726",
            "2017-04-23T07:18:51.523726Z",
            "2017-04-23T09:18:51.523726+02:00",
        ] {
            assert_eq!(time(text).map(stamp), expected, "{text}");
        }
        assert_eq!(time("2017-04-23T07:18:51").map(stamp), Some("2017-04-23T07:18:51.000000".to_owned()));
        for text in ["", "yesterday", "2017-13-01T00:00:00", "ää-ää-äää", "99999999999"] {
            assert_eq!(time(text), None, "{text}");
        }
        assert_eq!(stamp(i64::MAX), "1970-01-01T00:00:00.000000", "beyond what a time can be");
    }
}
