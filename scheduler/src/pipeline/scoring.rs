//! How the activations of weighers add up to the score of a host. A pipeline chooses one way.
//!
//! ```text
//! cortex  score(h) = base(h) + Σ m × f(h) × tanh(a(h))             base(h) = tanh(weight(h))
//! nova    score(h) = base(h) + Σ m × f(h) × (a(h) − low) / (high − low)    base(h) = weight(h)
//! raw     score(h) = base(h) + Σ m × f(h) × a(h)                   base(h) = weight(h)
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
    /// Activations as they are: for a weigher whose values mean something by themselves, as a packing score does.
    Raw,
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

/// Factors of a weigher beside the pipeline's multiplier.
#[derive(Clone, Debug, PartialEq)]
pub enum Factors {
    /// The same for every host.
    One(f64),
    /// One for each of the hosts that were asked about, in their order.
    Each(Vec<f64>),
}

/// What makes a share of the score of an activation, for one weigher of one run.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    scoring: Scoring,
    multiplier: f64,
    factors: Factors,
    bounds: Bounds,
    /// With [`Scoring::Nova`]: what stands for 0, and how far from it what stands for 1 is; `None`: nothing
    /// lies between them.
    low: f64,
    span: Option<f64>,
}

impl Shape {
    pub fn new(scoring: Scoring, multiplier: f64, factors: Factors, bounds: Bounds) -> Self {
        Self { scoring, multiplier, factors, bounds, low: 0.0, span: None }
    }

    /// Whether what it makes of a host depends on the other hosts that are left.
    pub fn is_relative(&self) -> bool {
        self.scoring == Scoring::Nova
    }

    /// Sets the smallest and the largest activation; `None` without hosts.
    pub fn stretch(&mut self, range: Option<(f64, f64)>) {
        let Some((low, high)) = range else { return };
        // Once some activation is clamped, the bound is the smallest or largest.
        let (low, high) = (self.bounds.min.unwrap_or(low), self.bounds.max.unwrap_or(high));
        let equal = low.partial_cmp(&high) == Some(std::cmp::Ordering::Equal);
        (self.low, self.span) = (low, (!equal).then_some(high - low));
    }

    /// The share of the host at this place.
    pub fn share(&self, at: usize, activation: f64) -> f64 {
        let factor = match &self.factors {
            Factors::One(factor) => *factor,
            Factors::Each(factors) => factors.get(at).copied().unwrap_or(1.0),
        };
        let mut share = [0.0];
        self.add_each(&[activation], &mut share, |_| self.multiplier * factor);
        share[0]
    }

    /// Adds the shares of all hosts to `total`.
    pub fn add(&self, activations: &[f64], total: &mut [f64]) {
        match &self.factors {
            Factors::One(factor) => {
                let weight = self.multiplier * factor;
                self.add_each(activations, total, |_| weight);
            }
            Factors::Each(factors) => {
                self.add_each(activations, total, |at| self.multiplier * factors.get(at).copied().unwrap_or(1.0));
            }
        }
    }

    fn add_each(&self, activations: &[f64], total: &mut [f64], weight: impl Fn(usize) -> f64) {
        let hosts = activations.iter().zip(total).enumerate();
        match (self.scoring, self.span) {
            (Scoring::Cortex, _) => hosts.for_each(|(at, (&a, total))| *total += weight(at) * tanh(a)),
            (Scoring::Raw, _) => hosts.for_each(|(at, (&a, total))| *total += weight(at) * a),
            (Scoring::Nova, None) => {}
            (Scoring::Nova, Some(span)) => {
                let least = self.bounds.min.unwrap_or(f64::NEG_INFINITY);
                let most = self.bounds.max.unwrap_or(f64::INFINITY);
                // Not f64::clamp, which panics: a smallest activation may be larger than the largest.
                let clamped = |a: f64| if a < least { least } else { a };
                let clamped = |a: f64| if clamped(a) > most { most } else { clamped(a) };
                hosts.for_each(|(at, (&a, total))| *total += weight(at) * ((clamped(a) - self.low) / span));
            }
        }
    }

    /// Of some of the hosts only.
    pub fn only(&self, places: &[usize]) -> Self {
        let factors = match &self.factors {
            Factors::One(factor) => Factors::One(*factor),
            Factors::Each(all) => Factors::Each(places.iter().filter_map(|&at| all.get(at).copied()).collect()),
        };
        Self { factors, ..self.clone() }
    }
}

/// Smallest and largest activation.
pub(crate) fn extremes(activations: &[f64]) -> Option<(f64, f64)> {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for &a in activations {
        // Not f64::min and max: every value is finite here, and their care for NaN costs more than tanh.
        low = if a < low { a } else { low };
        high = if a > high { a } else { high };
    }
    (low <= high).then_some((low, high))
}

/// Sets activations that are no finite numbers to 0, and counts them.
pub(crate) fn tidy(activations: &mut [f64]) -> u64 {
    let mut odd = 0;
    for a in activations {
        odd += u64::from(!a.is_finite());
        *a = if a.is_finite() { *a } else { 0.0 };
    }
    odd
}

#[cfg(test)]
mod tests {
    use super::{Bounds, Factors, Scoring, Shape, extremes, tidy};

    #[test]
    fn raw_activations_count_as_they_are() {
        let shape = Shape::new(Scoring::Raw, -2.0, Factors::Each(vec![1.0, 3.0]), Bounds::default());
        let mut total = vec![1.0; 2];
        shape.add(&[40.0, -0.5], &mut total);
        assert_eq!(total, [-79.0, 4.0]);
        assert!(!shape.is_relative());
    }

    fn shares(bounds: Bounds, factors: Factors, mut activations: Vec<f64>) -> Vec<f64> {
        tidy(&mut activations);
        let mut shape = Shape::new(Scoring::Nova, 2.0, factors, bounds);
        shape.stretch(extremes(&activations));
        let mut total = vec![1.0; activations.len()];
        shape.add(&activations, &mut total);
        let alone = activations.iter().enumerate().map(|(at, &a)| shape.share(at, a) + 1.0);
        assert!(alone.eq(total.iter().copied()), "a host alone gets what it gets among all");
        total.iter().map(|total| total - 1.0).collect()
    }

    /// nova/tests/unit/test_weights.py, and the bounds of the RAM weigher.
    #[test]
    fn novas_normalisation() {
        let (none, one) = (Bounds::default(), || Factors::One(1.0));
        let zero = Bounds { min: Some(0.0), max: None };
        for (bounds, factors, activations, wanted) in [
            (none, one(), vec![0.0, 1.0, 5.0, 10.0], vec![0.0, 0.2, 1.0, 2.0]),
            (none, one(), vec![3.0, 3.0], vec![0.0, 0.0]),
            // The minimum is the bound: equal values give the whole factor.
            (zero, one(), vec![3.0, 3.0], vec![2.0, 2.0]),
            (zero, one(), vec![-8.0, 0.0, 4.0], vec![0.0, 0.0, 2.0]),
            (zero, one(), vec![-8.0, -4.0], vec![0.0, 0.0]),
            (none, Factors::Each(vec![1.0, -3.0]), vec![0.0, 1.0], vec![0.0, -6.0]),
            (Bounds { min: Some(0.0), max: Some(1.0) }, one(), vec![0.5, 2.0], vec![1.0, 2.0]),
            (none, one(), vec![f64::NAN, 1.0], vec![0.0, 2.0]),
        ] {
            let shares = shares(bounds, factors, activations.clone());
            let close = shares.iter().zip(&wanted).all(|(share, wanted)| (share - wanted).abs() < 1e-12);
            assert!(close && shares.len() == wanted.len(), "{activations:?}: {shares:?}, {wanted:?} expected");
        }
    }
}
