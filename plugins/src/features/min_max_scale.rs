//! A value stretched from one range onto another and held within it.
//!
//! ```text
//! scale(v) = clamp(from + (v − lower) / (upper − lower) × (to − from), from, to)
//! ```
//!
//! Both ranges may run downwards. 0 when the second is a point. Source: cobaltcore-dev/cortex,
//! `MinMaxScale`.

/// The two ranges.
#[derive(Clone, Copy, Debug)]
pub struct MinMaxScale {
    lower: f64,
    upper: f64,
    from: f64,
    to: f64,
}

impl MinMaxScale {
    /// From the options of a step; errors name them: `<name>LowerBound` and so on.
    pub fn new(name: &str, bounds: [f64; 2], activations: [f64; 2]) -> Result<Self, String> {
        let ([lower, upper], [from, to]) = (bounds, activations);
        for (key, value) in
            [("LowerBound", lower), ("UpperBound", upper), ("ActivationLowerBound", from), ("ActivationUpperBound", to)]
        {
            if !value.is_finite() {
                return Err(format!("{name}{key}: {value} given, a finite number expected"));
            }
        }
        if upper - lower == 0.0 {
            return Err(format!(
                "{name}LowerBound and {name}UpperBound: {lower} given for both, two different numbers expected"
            ));
        }
        Ok(Self { lower, upper, from, to })
    }

    /// The value's place in the second range.
    pub fn of(&self, value: f64) -> f64 {
        if self.to - self.from == 0.0 {
            return 0.0;
        }
        let scaled = self.from + (value - self.lower) / (self.upper - self.lower) * (self.to - self.from);
        scaled.clamp(self.from.min(self.to), self.from.max(self.to))
    }
}

#[cfg(test)]
mod tests {
    use super::MinMaxScale;

    #[test]
    fn vectors_of_the_peer() {
        for (value, bounds, activations, wanted) in [
            (5.0, [0.0, 10.0], [0.0, 1.0], 0.5),
            (15.0, [0.0, 10.0], [0.0, 1.0], 1.0),
            (-5.0, [0.0, 10.0], [0.0, 1.0], 0.0),
            (5.0, [0.0, 10.0], [1.0, 2.0], 1.5),
            (2.5, [10.0, 0.0], [0.0, -1.0], -0.75),
        ] {
            let scale = MinMaxScale::new("x", bounds, activations).expect("good bounds");
            assert!((scale.of(value) - wanted).abs() < 1e-12, "{value} in {bounds:?}");
        }
        // Nothing to tell apart.
        let flat = MinMaxScale::new("x", [0.0, 10.0], [1.0, 1.0]).expect("good bounds");
        assert!(flat.of(5.0).abs() < 1e-12);
        assert_eq!(
            MinMaxScale::new("x", [3.0, 3.0], [0.0, 1.0]).expect_err("a point"),
            "xLowerBound and xUpperBound: 3 given for both, two different numbers expected"
        );
    }
}
