//! What a pod asks, as messages carry it, made into the core's words.

use scheduler::Domain;
use scheduler::pod::{Demand, Effect, InitContainer, Pod, Requirement, Sizes, Term, Toleration, together};

use crate::body::BadRequest;
use crate::proto::v1;

/// Most items in one list of a pod, and most requirements in its affinity.
const MOST: usize = 1024;
/// The one field of a node that affinities may name.
const NAME: &str = "metadata.name";

fn bad<T>(path: &str, message: impl Into<String>) -> Result<T, BadRequest> {
    Err(BadRequest { path: path.to_owned(), message: message.into() })
}

fn bounded(path: &str, count: usize) -> Result<(), BadRequest> {
    if count > MOST { bad(path, format!("{count} items given, at most {MOST} expected")) } else { Ok(()) }
}

/// What a request of `domain` asks of labels and taints, and what it takes: of a pod what its containers
/// take together, with `resources` in place of the sum where the pod names them as a whole.
pub(crate) fn pod(from: Option<v1::PodSpec>, domain: Domain, resources: Sizes) -> Result<(Pod, Sizes), BadRequest> {
    if from.is_some() && !matches!(domain, Domain::Pods | Domain::Machines) {
        return bad("pod", format!("given in domain {domain}, domain pods or machines expected"));
    }
    let from = from.unwrap_or_default();
    bounded("pod.containers", from.containers.len().max(from.init_containers.len()))?;
    bounded("pod.node_selector", from.node_selector.len())?;
    bounded("pod.tolerations", from.tolerations.len())?;
    let requirements = from.node_affinity.iter().map(|term| 1 + term.match_expressions.len() + term.match_fields.len());
    bounded("pod.node_affinity", requirements.sum())?;
    let resources = if domain == Domain::Pods {
        let containers: Vec<Sizes> = from.containers.into_iter().map(|container| container.resources).collect();
        let init = from.init_containers.into_iter().enumerate().map(init).collect::<Result<Vec<_>, _>>()?;
        together(&containers, &init, &resources, &from.overhead)
    } else if from.containers.is_empty() && from.init_containers.is_empty() && from.overhead.is_empty() {
        resources
    } else {
        return bad("pod.containers", format!("given in domain {domain}, resources expected"));
    };
    let pod = Pod {
        tolerations: from.tolerations.into_iter().enumerate().map(toleration).collect::<Result<_, _>>()?,
        node_selector: from.node_selector,
        affinity: from.node_affinity.into_iter().enumerate().map(term).collect::<Result<_, _>>()?,
    };
    Ok((pod, resources))
}

fn init((at, from): (usize, v1::Container)) -> Result<InitContainer, BadRequest> {
    let sidecar = match from.restart_policy.as_deref() {
        None | Some("") => false,
        Some("Always") => true,
        Some(other) => {
            let path = format!("pod.init_containers[{at}].restart_policy");
            return bad(&path, format!("'{}' given, Always or nothing expected", other.escape_debug()));
        }
    };
    Ok(InitContainer { sizes: from.resources, sidecar })
}

fn toleration((at, from): (usize, v1::Toleration)) -> Result<Toleration, BadRequest> {
    let path = |field: &str| format!("pod.tolerations[{at}].{field}");
    let value = match from.operator.as_str() {
        "" | "Equal" if from.key.is_empty() => {
            return bad(&path("key"), "none given: with it Exists expected as operator");
        }
        "" | "Equal" => Some(from.value),
        "Exists" if from.value.is_empty() => None,
        "Exists" => return bad(&path("value"), "given with operator Exists, none expected"),
        other => return bad(&path("operator"), format!("'{}' given, Equal or Exists expected", other.escape_debug())),
    };
    let effect = match (from.effect.as_str(), Effect::from_name(&from.effect)) {
        ("", _) => None,
        (_, Some(effect)) => Some(effect),
        (other, None) => {
            let expected = "NoSchedule, PreferNoSchedule, NoExecute or nothing expected";
            return bad(&path("effect"), format!("'{}' given, {expected}", other.escape_debug()));
        }
    };
    Ok(Toleration { key: from.key, value, effect })
}

fn term((at, from): (usize, v1::NodeSelectorTerm)) -> Result<Term, BadRequest> {
    let mut out = Term::default();
    for (number, requirement) in from.match_expressions.into_iter().enumerate() {
        let path = format!("pod.node_affinity[{at}].match_expressions[{number}]");
        if requirement.key.is_empty() {
            return bad(&format!("{path}.key"), "none given, the key of a label expected");
        }
        out.labels.push(Requirement {
            demand: demand(&path, &requirement.operator, requirement.values)?,
            key: requirement.key,
        });
    }
    for (number, field) in from.match_fields.into_iter().enumerate() {
        let path = format!("pod.node_affinity[{at}].match_fields[{number}]");
        if field.key != NAME {
            return bad(&format!("{path}.key"), format!("'{}' given, {NAME} expected", field.key.escape_debug()));
        }
        match demand(&path, &field.operator, field.values)? {
            // All fields must hold: of two lists the names in both stay.
            Demand::In(names) => {
                out.names = Some(match out.names.take() {
                    None => names,
                    Some(before) => before.into_iter().filter(|name| names.contains(name)).collect(),
                });
            }
            Demand::NotIn(names) => out.not_names.extend(names),
            _ => return bad(&format!("{path}.operator"), format!("'{}' given, In or NotIn expected", field.operator)),
        }
    }
    Ok(out)
}

fn demand(path: &str, operator: &str, values: Vec<String>) -> Result<Demand, BadRequest> {
    let path = |field: &str| format!("{path}.{field}");
    bounded(&path("values"), values.len())?;
    let number = || match values.as_slice() {
        [one] => one
            .parse::<i64>()
            .or_else(|_| bad(&path("values"), format!("'{}' given, a whole number expected", one.escape_debug()))),
        _ => bad(&path("values"), format!("{} given, one whole number expected", values.len())),
    };
    match operator {
        "In" | "NotIn" if values.is_empty() => bad(&path("values"), "none given, at least one expected"),
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            bad(&path("values"), format!("{} given with operator {operator}, none expected", values.len()))
        }
        "In" => Ok(Demand::In(values)),
        "NotIn" => Ok(Demand::NotIn(values)),
        "Exists" => Ok(Demand::Exists),
        "DoesNotExist" => Ok(Demand::DoesNotExist),
        "Gt" => number().map(Demand::Gt),
        "Lt" => number().map(Demand::Lt),
        other => {
            let expected = "In, NotIn, Exists, DoesNotExist, Gt or Lt expected";
            bad(&path("operator"), format!("'{}' given, {expected}", other.escape_debug()))
        }
    }
}
