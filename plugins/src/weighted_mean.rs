//! The mean of a few values of a host, each with its weight.

/// Σ w × v ÷ Σ w over pairs of weight and value; `None` when the weights sum to 0.
pub fn weighted_mean(terms: impl IntoIterator<Item = (f64, f64)>) -> Option<f64> {
    let add = |(weights, sum): (f64, f64), (weight, value): (f64, f64)| (weights + weight, sum + weight * value);
    let (weights, sum) = terms.into_iter().fold((0.0, 0.0), add);
    (weights > 0.0).then(|| sum / weights)
}
