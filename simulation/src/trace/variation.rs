//! A policy with other options than its pipeline says, for a search for good ones: `nova-packing:slot_prices.power=1`.

use scheduler::pipeline::spec::{Param, StepSpec};

use super::policy::Policy;

/// Most options that a variation sets.
const MOST: usize = 64;

/// A policy with the settings that follow its name, `STEP.OPTION=VALUE` with `:` between them; it is named with them. A step
/// that stands in the pipeline more than once is set everywhere. `multiplier` is an option of every weigher; a list has `|`
/// between its items; one number of a map is `STEP.OPTION.KEY=VALUE`.
pub fn vary(policy: &Policy, settings: &str) -> Result<Policy, String> {
    let mut varied = policy.clone();
    varied.name = format!("{}:{settings}", policy.name);
    let settings: Vec<&str> = settings.split(':').collect();
    if settings.len() > MOST {
        return Err(format!("policy '{}': {} settings given, at most {MOST} expected", policy.name, settings.len()));
    }
    for setting in settings {
        let wrong = |what: &str| format!("policy '{}': '{setting}' given, {what} expected", policy.name);
        let split = setting.split_once('=').and_then(|(key, value)| Some((key.split_once('.')?, value)));
        let Some(((name, option), value)) = split else {
            return Err(wrong("STEP.OPTION=VALUE, as in packing.multiplier=0.5,"));
        };
        let spec = &mut varied.resource.spec;
        let mut steps: Vec<&mut StepSpec> =
            spec.filters.iter_mut().chain(&mut spec.weighers).filter(|step| step.name == name).collect();
        if steps.is_empty() {
            let names: Vec<&str> =
                policy.resource.spec.filters.iter().chain(&policy.resource.spec.weighers).map(|s| &*s.name).collect();
            return Err(wrong(&format!("a step of it, {},", names.join(", "))));
        }
        for step in &mut steps {
            set(step, option, value).map_err(|what| wrong(&what))?;
        }
    }
    Ok(varied)
}

/// Sets one option; the error says what is expected. What kind of value it is, the pipeline says, else the value itself.
fn set(step: &mut StepSpec, option: &str, value: &str) -> Result<(), String> {
    let number = || value.parse::<f64>().ok().filter(|number| number.is_finite()).ok_or("a number".to_owned());
    if option == "multiplier" {
        step.multiplier = Some(number()?);
        return Ok(());
    }
    let (key, entry) = option.split_once('.').map_or((option, None), |(key, entry)| (key, Some(entry)));
    let at = step.params.iter().position(|param| param.key == key).unwrap_or_else(|| {
        step.params.push(Param { key: key.to_owned(), ..Param::default() });
        step.params.len() - 1
    });
    let param = &mut step.params[at];
    if let Some(entry) = entry {
        let map = param.float_map_value.as_mut().ok_or("an option that is a map")?;
        map.insert(entry.to_owned(), number()?);
        return Ok(());
    }
    let list = || value.split('|').filter(|item| !item.is_empty()).map(str::to_owned).collect();
    let fresh = Param { key: key.to_owned(), ..Param::default() };
    *param = match param {
        Param { float_value: Some(_), .. } => Param { float_value: Some(number()?), ..fresh },
        Param { int_value: Some(_), .. } => {
            Param { int_value: Some(value.parse().map_err(|_| "a whole number")?), ..fresh }
        }
        Param { bool_value: Some(_), .. } => {
            Param { bool_value: Some(value.parse().map_err(|_| "true or false")?), ..fresh }
        }
        Param { string_list_value: Some(_), .. } => Param { string_list_value: Some(list()), ..fresh },
        Param { float_map_value: Some(_), .. } => return Err("STEP.OPTION.KEY=VALUE for a map".to_owned()),
        Param { string_value: Some(_), .. } => Param { string_value: Some(value.to_owned()), ..fresh },
        _ if value.contains('|') => Param { string_list_value: Some(list()), ..fresh },
        _ => Param {
            bool_value: value.parse().ok(),
            float_value: number().ok(),
            string_value: (value.parse::<bool>().is_err() && number().is_err()).then(|| value.to_owned()),
            ..fresh
        },
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::vary;
    use crate::trace::Policy;
    use scheduler::Domain;

    #[test]
    fn settings() {
        let policy = Policy::named("nova-packing", Domain::Nova, false, 42).expect("a shipped pipeline");
        let good = "slot_prices.shapes=1 8 57344 0 0 -:slot_prices.power=1:slot_prices.smooth=0:packing.multiplier=2:\
                    packing.resourceWeights.cpu=0.5";
        let varied = vary(&policy, good).expect("good settings");
        assert!(varied.engine().is_ok(), "{:?}", varied.engine().err());
        assert_eq!(varied.name, format!("nova-packing:{good}"));
        let text = varied.resource.text();
        for wanted in [
            r#""stringListValue":["1 8 57344 0 0 -"]"#,
            r#""key":"power","floatValue":1.0"#,
            r#""key":"smooth","floatValue":0.0"#,
            r#""multiplier":2.0"#,
            r#""floatMapValue":{"cpu":0.5,"memory":1.0}"#,
        ] {
            assert!(text.contains(wanted), "{wanted} expected in {text}");
        }
        for (bad, wanted) in [
            ("power=1", "'power=1' given, STEP.OPTION=VALUE, as in packing.multiplier=0.5, expected"),
            ("slot_price.power=1", "a step of it, filter_status_conditions, "),
            ("slot_prices.power=much", "'slot_prices.power=much' given, a number expected"),
            ("packing.resourceWeights=1", "STEP.OPTION.KEY=VALUE for a map expected"),
        ] {
            let told = vary(&policy, bad).expect_err(bad);
            assert!(told.contains(wanted), "{bad}: {told}");
        }
        // What the step itself refuses is told by it.
        let told = vary(&policy, "slot_prices.power=9").expect("a number").engine().map(drop).expect_err("too much");
        assert!(told.contains("power: 9 given, a number above 0 and at most 4 expected"), "{told}");
    }
}
