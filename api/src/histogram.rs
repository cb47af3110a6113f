//! A histogram of atomics: observing takes no lock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// A histogram; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Histogram(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Upper bounds, ascending, each with the observations that are not above it nor in a bucket
    /// before; the last is everything.
    buckets: Box<[(f64, AtomicU64)]>,
    /// Bits of the sum.
    sum: AtomicU64,
}

impl Histogram {
    /// A histogram with these upper bounds, ascending.
    pub fn new(bounds: impl IntoIterator<Item = f64>) -> Self {
        let buckets = bounds.into_iter().chain([f64::INFINITY]).map(|bound| (bound, AtomicU64::new(0))).collect();
        Self(Arc::new(Inner { buckets, sum: AtomicU64::new(0) }))
    }

    /// Counts one observation; a value that is no number is left out.
    pub fn observe(&self, value: f64) {
        if value.is_nan() {
            return;
        }
        let buckets = &self.0.buckets;
        let at = buckets.partition_point(|(bound, _)| *bound < value);
        let Some((_, count)) = buckets.get(at) else { return };
        count.fetch_add(1, Ordering::Relaxed);
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        let _ = self.0.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let buckets: Vec<(f64, u64)> =
            self.0.buckets.iter().map(|(bound, count)| (*bound, count.load(Ordering::Relaxed))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = f64::from_bits(self.0.sum.load(Ordering::Relaxed));
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn observations_land_in_their_bucket() {
        let histogram = Histogram::new([1.0, 2.0]);
        for value in [0.5, 1.0, 1.5, 9.0, f64::NAN] {
            histogram.observe(value);
        }
        let mut registry = Registry::default();
        registry.register("x", "X", histogram);
        let mut text = String::new();
        encode(&mut text, &registry).expect("a string takes everything");
        expect_test::expect![[r#"
            # HELP x X.
            # TYPE x histogram
            x_sum 12.0
            x_count 4
            x_bucket{le="1.0"} 2
            x_bucket{le="2.0"} 3
            x_bucket{le="+Inf"} 4
            # EOF
        "#]]
        .assert_eq(&text);
    }
}
