//! The operator grammar of flavor extra specs: whether a host's value satisfies a wanted one.
//!
//! The wanted text is split on blanks and its first word is the operator. Without a known operator
//! the two texts must be equal. Words beyond the operand are ignored.
//!
//! | operator | holds when (x = host value, y = second word) |
//! | --- | --- |
//! | `=` | x ≥ y, as numbers |
//! | `==` `!=` `>=` `<=` | as numbers |
//! | `s==` `s!=` `s<` `s<=` `s>` `s>=` | as texts, byte by byte |
//! | `<in>` | y is a part of x |
//! | `<all-in>` | every further word is a part of x |
//! | `<or> v1 <or> v2 …` | x equals one of v1, v2, … |
//!
//! A missing host value, a missing operand and an operand that is no number fail the host. Stock
//! Nova raises on the latter and on a bare `<or>`, which fails the whole request.
//!
//! Source: openstack/nova, `nova/scheduler/filters/extra_specs_ops.py`.

use crate::nova_stock::python::float;

/// A wanted value, read once for a request.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    text: &'a str,
    operator: Option<&'a str>,
    operand: Option<&'a str>,
    /// The operand as a number.
    number: Option<f64>,
}

impl<'a> Wanted<'a> {
    /// Reads a wanted text.
    pub fn of(text: &'a str) -> Self {
        let mut words = text.split_whitespace();
        let operator = words.next().filter(|word| is_operator(word));
        let operand = operator.and_then(|_| words.next());
        Self { text, operator, operand, number: operand.and_then(float) }
    }

    /// Whether a host's value satisfies it.
    pub fn accepts(&self, value: &str) -> bool {
        self.holds(value, || float(value))
    }

    /// Whether a host's number satisfies it; `text` is the same number as a text.
    pub fn accepts_number(&self, text: &str, number: f64) -> bool {
        self.holds(text, || Some(number))
    }

    fn holds(&self, value: &str, number: impl Fn() -> Option<f64>) -> bool {
        let Some(operator) = self.operator else { return value == self.text };
        let Some(operand) = self.operand else { return false };
        let rest = || self.text.split_whitespace().skip(1);
        let compare = |good: fn(f64, f64) -> bool| self.number.zip(number()).is_some_and(|(y, x)| good(x, y));
        match operator {
            "=" | ">=" => compare(|x, y| x >= y),
            "==" => compare(|x, y| x.partial_cmp(&y).is_some_and(std::cmp::Ordering::is_eq)),
            "!=" => compare(|x, y| x.partial_cmp(&y).is_none_or(std::cmp::Ordering::is_ne)),
            "<=" => compare(|x, y| x <= y),
            "s==" => value == operand,
            "s!=" => value != operand,
            "s<" => value < operand,
            "s<=" => value <= operand,
            "s>" => value > operand,
            "s>=" => value >= operand,
            "<in>" => value.contains(operand),
            "<all-in>" => rest().all(|word| value.contains(word)),
            // <or>: every second word is a separator, skipped unseen.
            _ => rest().step_by(2).any(|word| word == value),
        }
    }
}

/// Whether `value`, what the host has, satisfies `wanted`.
pub fn matches(value: Option<&str>, wanted: &str) -> bool {
    value.is_some_and(|value| Wanted::of(wanted).accepts(value))
}

fn is_operator(word: &str) -> bool {
    matches!(
        word,
        "=" | "==" | "!=" | ">=" | "<=" | "s==" | "s!=" | "s<" | "s<=" | "s>" | "s>=" | "<in>" | "<all-in>" | "<or>"
    )
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn grammar() {
        let cases: &[(Option<&str>, &str, bool)] = &[
            // no operator: equal texts
            (Some("x86_64"), "x86_64", true),
            (Some("x86_64"), "X86_64", false),
            (Some("VMware vCenter Server"), "VMware vCenter Server", true),
            (Some("x86_64"), "s>=x86_64", false),
            (Some(""), "", true),
            (Some("a"), "< a", false),
            (None, "x86_64", false),
            (None, "", false),
            // numbers
            (Some("4"), "= 4", true),
            (Some("8"), "= 4", true),
            (Some("3"), "= 4", false),
            (Some("4"), "== 4.0", true),
            (Some("5"), "== 4", false),
            (Some("5"), "!= 4", true),
            (Some("4"), "!= 4", false),
            (Some("4"), ">= 4", true),
            (Some("3.5"), ">= 4", false),
            (Some("4"), "<= 4", true),
            (Some("5"), "<= 4", false),
            (Some("4"), "= 4 8", true),
            (Some("four"), "= 4", false),
            (Some("4"), "= four", false),
            (Some("four"), "!= 4", false),
            (None, "!= 4", false),
            (Some("4"), "=", false),
            // texts
            (Some("abc"), "s== abc", true),
            (Some("VMware vCenter Server"), "s== VMware vCenter Server", false),
            (Some("abc"), "s!= abd", true),
            (Some("abc"), "s!= abc", false),
            (Some("abc"), "s< abd", true),
            (Some("abc"), "s<= abc", true),
            (Some("abd"), "s> abc", true),
            (Some("abc"), "s> abc", false),
            (Some("abc"), "s>= abc", true),
            (Some("abc"), "s==", false),
            // parts
            (Some("avx avx2"), "<in> avx2", true),
            (Some("avx"), "<in> avx2", false),
            (Some("avx"), "<in>", false),
            (Some("aes mmx avx"), "<all-in> aes avx", true),
            (Some("aes mmx"), "<all-in> aes avx", false),
            (Some("aes"), "<all-in>", false),
            // alternatives
            (Some("v1"), "<or> v1 <or> v2", true),
            (Some("v2"), "<or> v1 <or> v2", true),
            (Some("v3"), "<or> v1 <or> v2", false),
            (Some("v2"), "<or> v1 and v2", true),
            (Some("v1"), "<or>", false),
            (None, "<or> v1", false),
        ];
        for &(value, wanted, expected) in cases {
            assert_eq!(matches(value, wanted), expected, "{value:?} against '{wanted}'");
        }
    }
}
