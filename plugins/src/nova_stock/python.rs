//! How Python reads numbers, and how it writes image properties: what stock Nova's steps see.

use std::borrow::Cow;

/// `int(text)`: blanks around it, a sign, digits, single underscores between digits. `None` is a
/// `ValueError`, and a number beyond 64 bits.
pub fn int(text: &str) -> Option<i64> {
    digits(text.trim())?.parse().ok()
}

/// `float(text)`; `None` is a `ValueError`.
pub fn float(text: &str) -> Option<f64> {
    digits(text.trim())?.parse().ok()
}

/// The text without the underscores that Python allows between digits.
fn digits(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('_') {
        return Some(text.into());
    }
    let bytes = text.as_bytes();
    let digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let good = |(at, _)| digit(usize::checked_sub(at, 1)) && digit(Some(at + 1));
    text.match_indices('_').all(good).then(|| text.replace('_', "").into())
}

/// `str(property)` of an image property that is kept as text or JSON: booleans are `True` and `False`.
pub fn text(text: &str) -> Cow<'_, str> {
    match text {
        "true" => "True".into(),
        "false" => "False".into(),
        _ if text.starts_with('[') => match serde_json::from_str(text) {
            Ok(list) => scheduler::host_state::node::Node::of(list).text.into_string().into(),
            Err(_) => text.into(),
        },
        _ => text.into(),
    }
}

/// The same; `None` when Python takes the property for false.
pub fn property(property: &str) -> Option<Cow<'_, str>> {
    (!matches!(property, "" | "false" | "0" | "0.0" | "[]")).then(|| text(property))
}

#[cfg(test)]
mod tests {
    use super::{float, int, property};

    #[test]
    fn numbers() {
        for (text, wanted) in [
            (" 8 ", Some(8)),
            ("+8", Some(8)),
            ("-8", Some(-8)),
            ("1_000", Some(1000)),
            ("1__0", None),
            ("_1", None),
            ("1_", None),
            ("8.0", None),
            ("", None),
            ("0x8", None),
            ("9223372036854775808", None),
        ] {
            assert_eq!(int(text), wanted, "{text}");
        }
        for (text, wanted) in [
            ("1e3", Some(1000.0)),
            (" .5 ", Some(0.5)),
            ("5.", Some(5.0)),
            ("1_0.2_5", Some(10.25)),
            ("1_.5", None),
            ("-inf", Some(f64::NEG_INFINITY)),
            ("1,5", None),
        ] {
            assert_eq!(float(text), wanted, "{text}");
        }
        assert!(float("nan").is_some_and(f64::is_nan));
    }

    #[test]
    fn properties() {
        for (text, wanted) in [
            ("q35", Some("q35")),
            ("true", Some("True")),
            ("false", None),
            ("0", None),
            ("[\"a\",1]", Some("['a', 1]")),
        ] {
            assert_eq!(property(text).as_deref(), wanted, "{text}");
        }
    }
}
