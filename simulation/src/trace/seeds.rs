//! The same study under several seeds: mean and standard deviation of every figure.

use serde_json::{Map, Value, json};

use super::metrics::METRICS;

/// For each policy and each figure that every `result.json` has: `mean` and `sd`, the deviation over the seeds.
pub fn spread(results: &[Value]) -> Value {
    let Some(first) = results.first() else { return Value::Null };
    let mut policies = Map::new();
    for name in first["policies"].as_object().into_iter().flat_map(Map::keys) {
        let mut figures = Map::new();
        for metric in METRICS {
            let values: Option<Vec<f64>> = results.iter().map(|result| metric.of(&result["policies"][name])).collect();
            let Some(values) = values else { continue };
            let count = values.len() as f64;
            let mean = values.iter().sum::<f64>() / count;
            let variance = values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / count;
            figures.insert(metric.path.to_owned(), json!({ "mean": mean, "sd": variance.sqrt() }));
        }
        policies.insert(name.clone(), Value::Object(figures));
    }
    let seeds: Vec<&Value> = results.iter().map(|result| &result["seed"]).collect();
    json!({ "seeds": seeds, "policies": policies })
}

#[cfg(test)]
mod tests {
    use super::spread;
    use serde_json::json;

    #[test]
    fn mean_and_deviation() {
        let result = |seed: u64, hosts: u64, more: Option<f64>| json!({ "seed": seed, "policies": { "a": { "min_hosts": hosts, "replay": { "empty_hosts": more } } } });
        let found = spread(&[result(1, 3, Some(0.5)), result(2, 7, None)]);
        assert_eq!(found["policies"]["a"], json!({ "min_hosts": { "mean": 5.0, "sd": 2.0 } }));
        assert_eq!(found["seeds"], json!([1, 2]));
    }
}
