//! The query of a list: filters, order, and a page of it.

use std::cmp::Ordering;

use axum::extract::Query;
use axum::http::Uri;
use serde_json::Value;

use super::wire;
use crate::error::ApiError;

/// Items of a page at most.
const PAGE: usize = 1_000;

/// What is asked for.
pub(super) struct Asked(Vec<(String, String)>);

impl Asked {
    pub(super) fn of(uri: &Uri) -> Result<Self, ApiError> {
        let read = Query::<Vec<(String, String)>>::try_from_uri(uri);
        read.map(|Query(asked)| Self(asked)).map_err(|error| ApiError::bad_request(error.to_string()))
    }

    fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// Whether an item is as the query wants it, in the fields that may be asked for.
    pub(super) fn fits(&self, view: &Value, fields: &[&str]) -> Result<bool, ApiError> {
        for field in fields {
            let Some(wanted) = self.get(field) else { continue };
            let same = match &view[*field] {
                Value::Bool(is) => *is == wire::truth(field, &Value::from(wanted))?,
                Value::String(is) => is == wanted,
                _ => false,
            };
            if !same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Since when notifications were generated, microseconds.
    pub(super) fn since(&self) -> Result<Option<i64>, ApiError> {
        let read = |text| wire::time(text).ok_or_else(|| ApiError::bad_request("Invalid generated-since value"));
        self.get("generated-since").map(read).transpose()
    }

    /// The items in order, from behind the marker, so many as may.
    pub(super) fn page(&self, mut views: Vec<Value>, key: &str) -> Result<Vec<Value>, ApiError> {
        let mut order: Vec<(&str, &str)> = self.all("sort_key").map(|key| (key, "desc")).collect();
        for (at, direction) in self.all("sort_dir").enumerate() {
            if !matches!(direction, "asc" | "desc") {
                return Err(ApiError::bad_request("Unknown sort direction, must be 'desc' or 'asc'"));
            }
            match order.get_mut(at) {
                Some(place) => place.1 = direction,
                None => order.push(("created_at", direction)),
            }
        }
        if order.is_empty() {
            order.push(("created_at", "desc"));
        }
        let last = order.last().map_or("desc", |(_, direction)| direction);
        order.push(("id", last));
        if let Some(known) = views.first()
            && order.iter().any(|(key, _)| known.get(key).is_none_or(|value| value.is_object() || value.is_array()))
        {
            return Err(ApiError::bad_request("Sort key supplied was not valid."));
        }
        views.sort_by(|one, other| {
            let by = |(key, direction): &(&str, &str)| {
                let order = compare(&one[*key], &other[*key]);
                if *direction == "asc" { order } else { order.reverse() }
            };
            order.iter().map(by).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        });
        // The client names the last one by its number where an item has both.
        if let Some(marker) = self.get("marker") {
            let number = marker.parse::<u64>().ok();
            let is_it = |view: &Value| view[key] == marker || number.is_some_and(|number| view["id"] == number);
            let at = views.iter().position(is_it).ok_or_else(|| {
                ApiError::bad_request(format!("Marker {} could not be found.", marker.escape_debug()))
            })?;
            views.drain(..=at);
        }
        let limit = match self.get("limit").map(str::parse::<usize>) {
            None => PAGE,
            Some(Ok(limit)) => limit.min(PAGE),
            Some(Err(_)) => {
                return Err(ApiError::bad_request("Invalid input received: limit must be an integer, 0 or more"));
            }
        };
        views.truncate(limit);
        Ok(views)
    }
}

fn compare(one: &Value, other: &Value) -> Ordering {
    match (one, other) {
        (Value::String(one), Value::String(other)) => one.cmp(other),
        (Value::Number(one), Value::Number(other)) => one.as_u64().cmp(&other.as_u64()),
        (Value::Bool(one), Value::Bool(other)) => one.cmp(other),
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Less,
        (_, Value::Null) => Ordering::Greater,
        _ => Ordering::Equal,
    }
}
