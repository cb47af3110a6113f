//! Kubernetes quantities (`128`, `500m`, `1.5Gi`, `3e2`), read exactly and turned into whole units.
//! Source of the grammar: `k8s.io/apimachinery` `pkg/api/resource/quantity.go`.

use serde_json::Value;

/// A non-negative quantity: `digits × 10^ten × 2^two`, in the base unit (cores, bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantity {
    digits: u128,
    ten: i32,
    two: u32,
}

/// Digits that a quantity may have; more would not be exact.
const MOST_DIGITS: usize = 20;
/// Largest exponent that is read; 10^18 × 2^64 is far above any capacity.
const LARGEST_EXPONENT: i32 = 18;

impl Quantity {
    /// Reads a quantity as JSON holds it: a string or a number.
    pub fn of(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(text) => Self::parse(text),
            Value::Number(number) => Self::parse(&number.to_string()),
            other => Err(format!("a quantity such as 128 or 512Gi expected, {other} given")),
        }
    }

    /// Reads the text of a quantity.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("'{text}' is no quantity: {why}");
        let unsigned = text.strip_prefix('+').unwrap_or(text);
        if unsigned.starts_with('-') {
            return Err(wrong("at least 0 expected"));
        }
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(wrong("a number such as 128, 0.5 or 512Gi expected"));
        }
        let fraction = fraction.trim_end_matches('0');
        let all = format!("{whole}{fraction}");
        let all = all.trim_start_matches('0');
        if all.len() > MOST_DIGITS {
            return Err(wrong("too many digits"));
        }
        let digits = if all.is_empty() { 0 } else { all.parse().map_err(|_| wrong("too large"))? };
        let (ten, two) = match suffix {
            "" => (0, 0),
            "n" => (-9, 0),
            "u" => (-6, 0),
            "m" => (-3, 0),
            "k" => (3, 0),
            "M" => (6, 0),
            "G" => (9, 0),
            "T" => (12, 0),
            "P" => (15, 0),
            "E" => (18, 0),
            "Ki" => (0, 10),
            "Mi" => (0, 20),
            "Gi" => (0, 30),
            "Ti" => (0, 40),
            "Pi" => (0, 50),
            "Ei" => (0, 60),
            _ => match suffix.strip_prefix(['e', 'E']).map(str::parse::<i32>) {
                Some(Ok(exponent)) if exponent.abs() <= LARGEST_EXPONENT => (exponent, 0),
                Some(Ok(_)) => return Err(wrong("the exponent is too large")),
                _ => return Err(wrong("a suffix of n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi or Ei expected")),
            },
        };
        Ok(Self { digits, ten: ten - fraction.len() as i32, two })
    }

    /// Whole units of 2^`unit` base units, rounded down.
    pub fn floor(self, unit: u32) -> Option<u64> {
        let (over, under) = self.ratio(unit)?;
        u64::try_from(over / under).ok()
    }

    /// Whole units of 2^`unit` base units, rounded up.
    pub fn ceil(self, unit: u32) -> Option<u64> {
        let (over, under) = self.ratio(unit)?;
        u64::try_from(over.div_ceil(under)).ok()
    }

    fn ratio(self, unit: u32) -> Option<(u128, u128)> {
        let power = |exponent: i32| 10u128.checked_pow(u32::try_from(exponent.max(0)).ok()?);
        let shift = |bits: u32| 1u128.checked_shl(bits);
        let over = self.digits.checked_mul(power(self.ten)?)?.checked_mul(shift(self.two.saturating_sub(unit))?)?;
        let under = power(-self.ten)?.checked_mul(shift(unit.saturating_sub(self.two))?)?;
        Some((over, under))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::Quantity;
    use serde_json::json;

    #[test]
    fn reads_what_kubernetes_writes() {
        for (text, floor, ceil) in [
            ("0", 0, 0),
            ("128", 128, 128),
            ("+7", 7, 7),
            ("1.5", 1, 2),
            (".5", 0, 1),
            ("5.", 5, 5),
            ("1500m", 1, 2),
            ("100u", 0, 1),
            ("1n", 0, 1),
            ("0.000", 0, 0),
            ("2k", 2000, 2000),
            ("3M", 3_000_000, 3_000_000),
            ("1G", 1_000_000_000, 1_000_000_000),
            ("1E", 1_000_000_000_000_000_000, 1_000_000_000_000_000_000),
            ("1e3", 1000, 1000),
            ("15E-1", 1, 2),
            ("12E2", 1200, 1200),
            ("1Ki", 1024, 1024),
            ("0.5Ki", 512, 512),
            ("1Ei", 1 << 60, 1 << 60),
        ] {
            let quantity = Quantity::parse(text).unwrap();
            assert_eq!((quantity.floor(0), quantity.ceil(0)), (Some(floor), Some(ceil)), "{text}");
        }
    }

    #[test]
    fn turns_bytes_into_mebibytes() {
        for (text, floor, ceil) in [
            ("1Gi", 1024, 1024),
            ("1G", 953, 954),
            ("1048577", 1, 2),
            ("1Ki", 0, 1),
            ("2113929216Ki", 2_064_384, 2_064_384),
        ] {
            let quantity = Quantity::parse(text).unwrap();
            assert_eq!((quantity.floor(20), quantity.ceil(20)), (Some(floor), Some(ceil)), "{text}");
        }
        assert_eq!(Quantity::parse("99999999999999999999Ei").unwrap().floor(0), None);
    }

    #[test]
    fn refuses_what_is_none() {
        for text in
            ["", "-1", "1.2.3", "Gi", "1gi", "1KB", "1e", "1e99", "ten", "1 Gi", "1e3Gi", "123456789012345678901"]
        {
            let error = Quantity::parse(text).unwrap_err();
            assert!(error.contains(&format!("'{text}'")), "{text}: {error}");
        }
        assert!(Quantity::of(&json!(true)).is_err());
        assert_eq!(Quantity::of(&json!(2.5)).unwrap().ceil(0), Some(3));
        assert_eq!(Quantity::of(&json!(96)).unwrap().ceil(0), Some(96));
    }
}
