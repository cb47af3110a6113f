//! The keys below `spec`, one row each, and what is planned.

use serde_json::Value;

use crate::ha::admission::Refuses;
use crate::ha::policy::{Mode, Rules};
use crate::ha::proof::LeaseMode;

/// A key below `spec`.
pub(super) struct Key {
    /// Below `spec`, as in `fencing.leaseMode`.
    pub path: &'static str,
    /// What its value may be.
    pub expected: &'static str,
    /// Takes a value; false: it is not what is expected.
    pub read: fn(&mut Rules, &Value) -> bool,
    /// What rules say of it.
    pub write: fn(&Rules) -> Option<Value>,
}

const LEASES: [(&str, LeaseMode); 2] = [("off", LeaseMode::Off), ("strict", LeaseMode::Strict)];
const ERRORS: [(&str, bool); 2] = [("skip", false), ("evacuate", true)];
const REFUSES: [(&str, Refuses); 3] = [("enforce", Refuses::Enforce), ("warn", Refuses::Warn), ("off", Refuses::Off)];
const FENCE_AFTER: &str = "fence_after ";

/// All that is carried out.
pub(super) static KEYS: [Key; 13] = [
    Key {
        path: "mode",
        expected: "enforce, dry-run or off",
        read: |rules, given| take(&mut rules.mode, word(&Mode::ALL.map(|mode| (mode.as_str(), mode)), given)),
        write: |rules| Some(rules.mode?.as_str().into()),
    },
    Key {
        path: "isolationResponse",
        expected: "hold, or 'fence_after TIME' as in 'fence_after 90s'",
        read: |rules, given| take(&mut rules.fence_isolated, isolation(given)),
        write: |rules| {
            Some(match rules.fence_isolated? {
                0 => "hold".into(),
                after => format!("{FENCE_AFTER}{}", time(after)).into(),
            })
        },
    },
    Key {
        path: "fencing.leaseMode",
        expected: "off or strict",
        read: |rules, given| take(&mut rules.lease, word(&LEASES, given)),
        write: |rules| Some(written(&LEASES, rules.lease?)),
    },
    Key {
        path: "fencing.autoPowerOn",
        expected: FLAG,
        read: |rules, given| take(&mut rules.power_on, given.as_bool()),
        write: |rules| rules.power_on.map(Value::from),
    },
    Key {
        path: "errorInstances",
        expected: "skip or evacuate",
        read: |rules, given| take(&mut rules.error_instances, word(&ERRORS, given)),
        write: |rules| Some(written(&ERRORS, rules.error_instances?)),
    },
    Key {
        path: "restartInPlace",
        expected: FLAG,
        read: |rules, given| take(&mut rules.in_place, given.as_bool()),
        write: |rules| rules.in_place.map(Value::from),
    },
    Key {
        path: "rates.evacuationsFromHost",
        expected: WHOLE,
        read: |rules, given| take(&mut rules.from_source, whole(given)),
        write: |rules| rules.from_source.map(Value::from),
    },
    Key {
        path: "rates.evacuationsToHost",
        expected: WHOLE,
        read: |rules, given| take(&mut rules.to_target, whole(given)),
        write: |rules| rules.to_target.map(Value::from),
    },
    Key {
        path: "admission.policy",
        expected: "'hosts 1', or 'percent N' with N from 1 to 90",
        read: |rules, given| take(&mut rules.admission, given.as_str().and_then(|given| given.parse().ok())),
        write: |rules| Some(rules.admission?.to_string().into()),
    },
    Key {
        path: "admission.mode",
        expected: "enforce, warn or off",
        read: |rules, given| take(&mut rules.refuses, word(&REFUSES, given)),
        write: |rules| Some(written(&REFUSES, rules.refuses?)),
    },
    Key {
        path: "drain.maxUnavailable",
        expected: WHOLE,
        read: |rules, given| take(&mut rules.drains, whole(given)),
        write: |rules| rules.drains.map(Value::from),
    },
    Key {
        path: "drain.keepSpare",
        expected: FLAG,
        read: |rules, given| take(&mut rules.keep_spare, given.as_bool()),
        write: |rules| rules.keep_spare.map(Value::from),
    },
    Key {
        path: "drain.forceComplete",
        expected: FLAG,
        read: |rules, given| take(&mut rules.force_complete, given.as_bool()),
        write: |rules| rules.force_complete.map(Value::from),
    },
];
const FLAG: &str = "true or false";
const WHOLE: &str = "a whole number";

/// Keys of the specification that nothing carries out yet, and how it is instead.
pub(super) static PLANNED: [(&str, &str); 11] = [
    ("detection", "the times of detection are the same for all hosts"),
    ("fencing.topology", "what fences a host is in its inventory, 'fencers' of `pallium ctl ha apply`"),
    ("breaker", "the thresholds of the breakers are fixed"),
    ("admission.degradationTolerance", "what instances need counts in full"),
    ("admission.unit", "one host is lost at a time"),
    ("protect", "every instance of a protected host is protected"),
    ("tagKeys", "every instance of a protected host is protected"),
    ("localDiskPolicy", "nothing looks at local disks"),
    ("transformStates", "paused, suspended and rescued instances stay where they are"),
    ("nova", "the microversion is agreed on with Nova"),
    ("drills", "nothing is fenced for an exercise"),
];
/// The same for values.
pub(super) static PLANNED_VALUES: [(&str, &str); 6] = [
    ("fencing.leaseMode", "quorum"),
    ("isolationResponse", "self_stop"),
    ("admission.policy", "hosts 2"),
    ("admission.policy", "slots"),
    ("admission.policy", "dedicated"),
    ("admission.policy", "reservations"),
];

fn take<T>(to: &mut Option<T>, read: Option<T>) -> bool {
    *to = read;
    to.is_some()
}

/// What a word stands for.
pub(super) fn word<T: Copy>(words: &[(&str, T)], given: &Value) -> Option<T> {
    let given = given.as_str()?;
    words.iter().find(|(word, _)| *word == given).map(|(_, value)| *value)
}

/// The word for something.
pub(super) fn written<T: PartialEq + Copy>(words: &[(&str, T)], value: T) -> Value {
    words.iter().find(|(_, known)| *known == value).map_or(Value::Null, |(word, _)| (*word).into())
}

fn whole(given: &Value) -> Option<u32> {
    given.as_u64()?.try_into().ok()
}

fn isolation(given: &Value) -> Option<u64> {
    match given.as_str()? {
        "hold" => Some(0),
        text => millis(text.strip_prefix(FENCE_AFTER)?.trim()),
    }
}

/// Milliseconds of `90s`, `5m`, `1h`; more than none.
fn millis(text: &str) -> Option<u64> {
    let unit = match text.chars().last()? {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        _ => return None,
    };
    let number: u64 = text[..text.len() - 1].parse().ok()?;
    number.checked_mul(unit).filter(|millis| *millis > 0)
}

/// `90s`, `5m`, `1h`.
pub(super) fn time(millis: u64) -> String {
    match millis {
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ => format!("{}s", millis / 1_000),
    }
}
