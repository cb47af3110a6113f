//! What a pod asks of its node beside amounts, and what its containers take together. A machine asks the
//! same of a machine pool. Nodes say theirs in `labels` and `taints` of a report.
//!
//! Source: kubernetes/kubernetes, what its scheduler does by default: `k8s.io/component-helpers`
//! (`scheduling/corev1/nodeaffinity`, `resource`), `k8s.io/api/core/v1` (`Toleration.ToleratesTaint`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Class of which each pod takes 1: how many pods a node has room for.
pub const PODS: &str = "PODS";

/// What a pod asks of its node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Taints that it bears.
    pub tolerations: Vec<Toleration>,
    /// Labels that the node must have, all of them.
    pub node_selector: BTreeMap<String, String>,
    /// Required node affinity: one of these must hold; none = no demand.
    pub affinity: Vec<Term>,
}

/// What a taint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// No pod that does not bear it is placed.
    NoSchedule,
    /// Rather none.
    PreferNoSchedule,
    /// As `NoSchedule`, and running ones go.
    NoExecute,
}

impl Effect {
    /// Reads Kubernetes' name of an effect.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "NoSchedule" => Self::NoSchedule,
            "PreferNoSchedule" => Self::PreferNoSchedule,
            "NoExecute" => Self::NoExecute,
            _ => return None,
        })
    }
}

/// A taint of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taint<'a> {
    /// Key.
    pub key: &'a str,
    /// Value; may be empty.
    pub value: &'a str,
    /// Effect.
    pub effect: Effect,
}

impl<'a> Taint<'a> {
    /// Reads `key=value:Effect` or `key:Effect`, as kubectl writes them.
    pub fn read(text: &'a str) -> Option<Self> {
        let (front, effect) = text.rsplit_once(':')?;
        let (key, value) = front.split_once('=').unwrap_or((front, ""));
        (!key.is_empty()).then_some(Self { key, value, effect: Effect::from_name(effect)? })
    }
}

/// A taint, or many, that a pod bears.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toleration {
    /// Key of the taint; empty = any.
    pub key: String,
    /// Value of the taint; `None` = any.
    pub value: Option<String>,
    /// Effect of the taint; `None` = any.
    pub effect: Option<Effect>,
}

impl Toleration {
    /// Whether it covers a taint.
    pub fn covers(&self, taint: Taint<'_>) -> bool {
        self.effect.is_none_or(|effect| effect == taint.effect)
            && (self.key.is_empty() || self.key == taint.key)
            && self.value.as_ref().is_none_or(|value| value == taint.value)
    }
}

impl Pod {
    /// Whether it bears a taint.
    pub fn tolerates(&self, taint: Taint<'_>) -> bool {
        self.tolerations.iter().any(|toleration| toleration.covers(taint))
    }
}

/// A term of a node affinity: all of it must hold. An empty one holds for no node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// Of the node's labels.
    pub labels: Vec<Requirement>,
    /// Names that the node may have; `None` = any.
    pub names: Option<Vec<String>>,
    /// Names that the node must not have.
    pub not_names: Vec<String>,
}

/// What is required of a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    /// Key of the label.
    pub key: String,
    /// What its value must be.
    pub demand: Demand,
}

/// What the value of a label must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Demand {
    /// One of these.
    In(Vec<String>),
    /// None of these, or the label is absent.
    NotIn(Vec<String>),
    /// Anything.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// A whole number above this.
    Gt(i64),
    /// A whole number below this.
    Lt(i64),
}

/// Amounts by resource class.
pub type Sizes = BTreeMap<String, u64>;

/// A container that runs before those of the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitContainer {
    /// What it takes.
    pub sizes: Sizes,
    /// It runs on beside those that follow.
    pub sidecar: bool,
}

/// What a pod takes. Init containers run one after the other, each beside the sidecars before it; then the
/// containers run beside all sidecars. The larger of both counts, of each class; what the pod names as a
/// whole stands in place of that; the overhead and one of [`PODS`] come on top.
pub fn together(containers: &[Sizes], init: &[InitContainer], whole: &Sizes, overhead: &Sizes) -> Sizes {
    let mut running = Sizes::new();
    let mut highest = Sizes::new();
    for container in init {
        if container.sidecar {
            add(&mut running, &container.sizes);
            raise(&mut highest, &running);
        } else {
            let mut beside = running.clone();
            add(&mut beside, &container.sizes);
            raise(&mut highest, &beside);
        }
    }
    for sizes in containers {
        add(&mut running, sizes);
    }
    raise(&mut highest, &running);
    highest.extend(whole.iter().map(|(class, amount)| (class.clone(), *amount)));
    add(&mut highest, overhead);
    highest.entry(PODS.to_owned()).or_insert(1);
    highest.retain(|_, amount| *amount > 0);
    highest
}

fn add(to: &mut Sizes, more: &Sizes) {
    for (class, amount) in more {
        let sum = to.entry(class.clone()).or_insert(0);
        *sum = sum.saturating_add(*amount);
    }
}

fn raise(to: &mut Sizes, least: &Sizes) {
    for (class, amount) in least {
        let most = to.entry(class.clone()).or_insert(0);
        *most = (*most).max(*amount);
    }
}

#[cfg(test)]
mod tests {
    use super::{Effect, InitContainer, Sizes, Taint, Toleration, together};

    fn sizes(cpu: u64, memory: u64) -> Sizes {
        [("MILLICPU".to_owned(), cpu), ("MEMORY_MB".to_owned(), memory)].into()
    }

    /// Name, containers, init containers, the pod as a whole, overhead, and what comes out.
    type Case<'a> = (&'a str, &'a [Sizes], &'a [InitContainer], Sizes, Sizes, (u64, u64));

    fn init(cpu: u64, memory: u64, sidecar: bool) -> InitContainer {
        InitContainer { sizes: sizes(cpu, memory), sidecar }
    }

    #[test]
    fn what_containers_take_together() {
        let none = Sizes::new();
        let table: [Case<'_>; 8] = [
            ("nothing", &[], &[], none.clone(), none.clone(), (0, 0)),
            ("a sum", &[sizes(200, 512), sizes(300, 1)], &[], none.clone(), none.clone(), (500, 513)),
            (
                "the largest of the init containers",
                &[sizes(200, 512)],
                &[init(1000, 1024, false), init(500, 2048, false)],
                none.clone(),
                none.clone(),
                (1000, 2048),
            ),
            (
                "sidecars run on",
                &[sizes(1000, 10)],
                &[init(100, 10, true), init(500, 10, false)],
                none.clone(),
                none.clone(),
                (1100, 20),
            ),
            (
                "an init container runs beside the sidecars before it only",
                &[sizes(10, 10)],
                &[init(100, 10, true), init(500, 10, false), init(200, 10, true)],
                none.clone(),
                none.clone(),
                (600, 30),
            ),
            ("with overhead", &[sizes(200, 512)], &[], none.clone(), sizes(50, 64), (250, 576)),
            (
                "the pod as a whole",
                &[sizes(200, 512)],
                &[init(900, 10, false)],
                sizes(700, 600),
                sizes(50, 64),
                (750, 664),
            ),
            ("without end", &[sizes(u64::MAX, 1), sizes(1, 1)], &[], none.clone(), none, (u64::MAX, 2)),
        ];
        for (name, containers, init, whole, overhead, (cpu, memory)) in table {
            let mut wanted = sizes(cpu, memory);
            wanted.retain(|_, amount| *amount > 0);
            wanted.insert("PODS".to_owned(), 1);
            assert_eq!(together(containers, init, &whole, &overhead), wanted, "{name}");
        }
    }

    #[test]
    fn tolerations_cover_taints() {
        let taint = Taint::read("app=database:NoSchedule").expect("a taint");
        assert_eq!(taint, Taint { key: "app", value: "database", effect: Effect::NoSchedule });
        let covers = |key: &str, value: Option<&str>, effect| {
            Toleration { key: key.to_owned(), value: value.map(str::to_owned), effect }.covers(taint)
        };
        assert!(covers("app", Some("database"), None));
        assert!(covers("app", Some("database"), Some(Effect::NoSchedule)));
        assert!(covers("app", None, None) && covers("", None, None));
        assert!(!covers("app", Some("database"), Some(Effect::NoExecute)));
        assert!(!covers("app", Some(""), None) && !covers("other", None, None));
        let bare = Taint::read("node.kubernetes.io/not-ready:NoExecute").expect("a taint");
        assert_eq!((bare.value, bare.effect), ("", Effect::NoExecute));
        for bad in ["", "a", "a=b", ":NoSchedule", "=b:NoSchedule", "a:Never"] {
            assert_eq!(Taint::read(bad), None, "{bad}");
        }
    }
}
