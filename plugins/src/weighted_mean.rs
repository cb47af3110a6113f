//! The mean of a few values of each host, each with its weight: Σ w × v ÷ Σ w. One value of all hosts is added
//! after the other, in loops that compilers can turn into vector code.

/// Means on their way, one for each host.
#[derive(Debug)]
pub struct WeightedMeans<'a> {
    sums: &'a mut [f64],
    weights: Vec<f64>,
}

impl<'a> WeightedMeans<'a> {
    /// Of as many hosts as there are zeros in `sums`, which become the means.
    pub fn new(sums: &'a mut [f64]) -> Self {
        let weights = vec![0.0; sums.len()];
        Self { sums, weights }
    }

    /// Adds a value of each host; hosts with `None` are left out.
    pub fn add(&mut self, weight: f64, values: impl Iterator<Item = Option<f64>>) {
        for ((sum, weights), value) in self.sums.iter_mut().zip(&mut self.weights).zip(values) {
            let (weight, value) = value.map_or((0.0, 0.0), |value| (weight, value));
            *sum += weight * value;
            *weights += weight;
        }
    }

    /// Divides by the weights. A host without any has 0.
    pub fn finish(self) {
        for (sum, weights) in self.sums.iter_mut().zip(self.weights) {
            *sum = if weights > 0.0 { *sum / weights } else { 0.0 };
        }
    }
}
