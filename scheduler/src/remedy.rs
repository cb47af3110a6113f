//! What would help a request that nothing fits: the smallest changes of the request, the pipeline or the
//! fleet after which it fits. Each was tried on a copy of the state; none is a guess.

use uuid::Uuid;

/// What would help a request, as the state is when it is asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remedies {
    /// Hosts that fit by now: above 0 when the state has moved on since the request was refused.
    pub fits: u64,
    /// Consumers of the request that can be placed before one that cannot; the remedies are for that one.
    pub placed: u64,
    /// The remedies, of each kind the smallest first.
    pub remedies: Vec<Remedy>,
    /// The search ended at its bound of work: there may be more of them.
    pub bounded: bool,
}

/// Changes that help together, and none of them alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Remedy {
    /// The changes; moves in the order in which they are made.
    pub changes: Vec<Change>,
    /// Hosts that fit then. Of [`Change::More`] and [`Change::Move`]: hosts of which any one may be changed.
    pub hosts: u64,
    /// The first of these hosts by name.
    pub first: Vec<String>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The request without a part of it.
    Without(Aspect),
    /// The pipeline without a step, for this request.
    WithoutFilter {
        /// Name of the step.
        step: String,
        /// Why it drops hosts.
        reasons: Vec<String>,
    },
    /// More capacity on one host: each class by so much, in its unit.
    More {
        /// Resource class → amount.
        amounts: Vec<(String, u64)>,
        /// Availability zone of the hosts.
        zone: Option<String>,
    },
    /// A consumer moved to another host, where it fits.
    Move {
        /// It.
        consumer: Uuid,
        /// Its host.
        from: String,
        /// Another host.
        to: String,
        /// What it takes: resource class → amount.
        amounts: Vec<(String, u64)>,
    },
}

/// A part of a request that could be asked otherwise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// The wanted amounts. They are never left out; what is sought instead is what hosts lack of them.
    Amounts,
    /// A trait that must be there.
    RequiredTrait(String),
    /// A trait that must not be there.
    ForbiddenTrait(String),
    /// The server group.
    Group,
    /// That only hosts are used that the caller sent.
    Candidates,
}
