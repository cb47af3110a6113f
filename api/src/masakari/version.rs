//! Versions: which one is asked for, and the documents that name them.

use axum::http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::service::Service;

pub(super) static HEADER: header::HeaderName = header::HeaderName::from_static("openstack-api-version");
/// The newest version.
const NEWEST: u8 = 3;

/// Minor number of the version that is asked for; the header names it for several services.
pub(super) fn asked(headers: &HeaderMap) -> Result<u8, ApiError> {
    let texts = headers.get_all(&HEADER).iter().filter_map(|text| text.to_str().ok());
    let asked = texts.flat_map(|text| text.split(',')).find_map(|one| {
        let (service, version) = one.trim().split_once(char::is_whitespace)?;
        (service == "instance-ha").then(|| version.trim())
    });
    let Some(asked) = asked else { return Ok(0) };
    if asked == "latest" {
        return Ok(NEWEST);
    }
    let read = asked.split_once('.').and_then(|(major, minor)| {
        let digits = |text: &str| (!text.is_empty()).then(|| text.parse::<u32>().ok()).flatten();
        Some((digits(major)?, digits(minor)?))
    });
    match read {
        None => Err(ApiError::bad_request(format!(
            "API Version String {} is of invalid format. Must be of format MajorNum.MinorNum.",
            asked.escape_debug()
        ))),
        Some((1, minor)) if minor <= NEWEST.into() => Ok(minor as u8),
        Some((major, minor)) => Err(ApiError::new(
            StatusCode::NOT_ACCEPTABLE,
            "bad_request",
            format!("Version {major}.{minor} is not supported by the API. Minimum is 1.0 and maximum is 1.{NEWEST}."),
        )),
    }
}

/// Where the documents of versions are.
pub(super) struct Root<'a> {
    pub service: &'a Service,
    pub base: &'a str,
    pub headers: &'a HeaderMap,
}

impl Root<'_> {
    pub(super) fn version(&self, id: &str) -> Value {
        let text = |name: &str| self.headers.get(name).and_then(|value| value.to_str().ok());
        let scheme = match text("x-forwarded-proto") {
            Some(scheme @ ("http" | "https")) => scheme,
            _ if self.service.https => "https",
            _ => "http",
        };
        // Without a host it is relative to what was asked.
        let origin = text("host").map(|host| format!("{scheme}://{host}")).unwrap_or_default();
        json!({
            "id": id,
            "status": "CURRENT",
            "version": format!("1.{NEWEST}"),
            "min_version": "1.0",
            "updated": "2016-07-01T11:33:21Z",
            "links": [{"rel": "self", "href": format!("{origin}{}/v1/", self.base)}],
            "media-types": [{"base": "application/json", "type": "application/vnd.openstack.masakari+json;version=1"}],
        })
    }
}
