//! How the activations of weighers add up to the score of a host. A pipeline chooses one way.
//!
//! ```text
//! cortex  score(h) = base(h) + Σ m × f(h) × tanh(a(h))             base(h) = tanh(weight(h))
//! nova    score(h) = base(h) + Σ m × f(h) × (a(h) − low) / (high − low)    base(h) = weight(h)
//! ```
//!
//! m is the multiplier in the pipeline and f(h) the factor that the weigher gives the host, 1 for most.
//! With `nova`, low and high are the weigher's bounds, else its smallest and largest activation over
//! the hosts that are left; activations are clamped to the bounds, a weigher with low = high adds
//! nothing, and a single host is not weighed at all.
//!
//! Sources: cobaltcore-dev/cortex, filter-weigher pipeline; openstack/nova, `nova/weights.py`.

use serde::{Deserialize, Serialize};

use crate::pipeline::run::tanh;

/// The way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scoring {
    /// tanh of each activation.
    #[default]
    Cortex,
    /// Each weigher's activations stretched to 0…1 over the hosts that are left.
    Nova,
}

impl Scoring {
    /// True for the default, which a pipeline need not name.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Bounds of a weigher's activations for [`Scoring::Nova`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounds {
    /// Stands for the smallest activation.
    pub min: Option<f64>,
    /// Stands for the largest.
    pub max: Option<f64>,
}

/// A weigher's activations on their way into the score.
pub(crate) struct Scores<'a> {
    pub multiplier: f64,
    pub factors: Option<Vec<f64>>,
    pub bounds: Bounds,
    pub activations: &'a mut [f64],
}

/// What [`Scores::add`] found.
pub(crate) struct Added {
    /// Smallest and largest activation.
    pub range: Option<(f64, f64)>,
    /// Activations that were no finite numbers; counted as 0.
    pub odd: u64,
    /// What each host got, where tanh alone does not tell it.
    pub shares: Vec<f64>,
}

impl Scores<'_> {
    /// Adds them to `total`.
    pub fn add(self, scoring: Scoring, total: &mut [f64]) -> Added {
        let Self { multiplier, factors, bounds, activations } = self;
        let mut odd = 0_u64;
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for activation in &mut *activations {
            if !activation.is_finite() {
                odd += 1;
                *activation = 0.0;
            }
            // Not f64::min and max: every value is finite here, and their care for NaN costs more than tanh.
            low = if *activation < low { *activation } else { low };
            high = if *activation > high { *activation } else { high };
        }
        let range = (low <= high).then_some((low, high));
        if scoring == Scoring::Cortex && factors.is_none() {
            for (total, activation) in total.iter_mut().zip(activations) {
                *total += multiplier * tanh(*activation);
            }
            return Added { range, odd, shares: Vec::new() };
        }
        // Once some activation is clamped, the bound is the smallest or largest.
        let least = bounds.min.unwrap_or(low);
        let most = bounds.max.unwrap_or(high);
        let equal = least.partial_cmp(&most) == Some(std::cmp::Ordering::Equal);
        let shape = |activation: f64| match scoring {
            Scoring::Cortex => tanh(activation),
            Scoring::Nova if equal => 0.0,
            Scoring::Nova => {
                let clamped = activation.max(bounds.min.unwrap_or(activation)).min(bounds.max.unwrap_or(f64::INFINITY));
                (clamped - least) / (most - least)
            }
        };
        let factor = |at: usize| factors.as_ref().and_then(|factors| factors.get(at)).copied().unwrap_or(1.0);
        let shares: Vec<f64> =
            activations.iter().enumerate().map(|(at, &a)| multiplier * factor(at) * shape(a)).collect();
        for (total, share) in total.iter_mut().zip(&shares) {
            *total += share;
        }
        Added { range, odd, shares }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bounds, Scores, Scoring};

    fn shares(bounds: Bounds, factors: Option<Vec<f64>>, mut activations: Vec<f64>) -> Vec<f64> {
        let mut total = vec![1.0; activations.len()];
        let scores = Scores { multiplier: 2.0, factors, bounds, activations: &mut activations };
        scores.add(Scoring::Nova, &mut total);
        total.iter().map(|total| total - 1.0).collect()
    }

    /// nova/tests/unit/test_weights.py, and the bounds of the RAM weigher.
    #[test]
    fn novas_normalisation() {
        let none = Bounds::default();
        let zero = Bounds { min: Some(0.0), max: None };
        for (bounds, factors, activations, wanted) in [
            (none, None, vec![0.0, 1.0, 5.0, 10.0], vec![0.0, 0.2, 1.0, 2.0]),
            (none, None, vec![3.0, 3.0], vec![0.0, 0.0]),
            // The minimum is the bound: equal values give the whole factor.
            (zero, None, vec![3.0, 3.0], vec![2.0, 2.0]),
            (zero, None, vec![-8.0, 0.0, 4.0], vec![0.0, 0.0, 2.0]),
            (zero, None, vec![-8.0, -4.0], vec![0.0, 0.0]),
            (none, Some(vec![1.0, -3.0]), vec![0.0, 1.0], vec![0.0, -6.0]),
            (Bounds { min: Some(0.0), max: Some(1.0) }, None, vec![0.5, 2.0], vec![1.0, 2.0]),
            (none, None, vec![f64::NAN, 1.0], vec![0.0, 2.0]),
        ] {
            let shares = shares(bounds, factors, activations.clone());
            let close = shares.iter().zip(&wanted).all(|(share, wanted)| (share - wanted).abs() < 1e-12);
            assert!(close && shares.len() == wanted.len(), "{activations:?}: {shares:?}, {wanted:?} expected");
        }
    }
}
