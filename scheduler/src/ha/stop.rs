//! The stops: guards without which an instance could run twice, or a host be fenced wrongly. Each has a
//! name, so that a test can take it out and see that it is what refuses (`ha::tests::stops`), and a
//! simulation that something notices. Without the feature `mutants` none can be taken out.

/// A stop. The number is that of its hole in section 0.6 of the specification, where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stop {
    /// 1: an intent demands the permit at the source's dead life exactly.
    PermitExact,
    /// An intent demands a proof of death of the source's life.
    ProofBeforeStart,
    /// 2: what an older epoch wrote authorises nothing.
    Epoch,
    /// 2: after a restore failover is paused until an operator has looked.
    PausedAfterRestore,
    /// 3: a leader is its term and its node.
    LeaderExact,
    /// 4: another target only after this attempt's migration ended.
    SameTarget,
    /// 5: absence counts only beside a known row.
    Sentinel,
    /// Nothing of the instance may be moving in Nova in front of an intent.
    NothingMoving,
    /// 6: pauses are read again by apply.
    Paused,
    /// 7: a host without a permit check is not protected.
    PermitCheck,
    /// 8: where a live migration was going must be clear.
    DestinationClear,
    /// 8: a resize or a migration in between is asked about.
    TaskState,
    /// 10: a new boot proves a death only of the same machine, with its former boot on its disk.
    SameMachine,
    /// A boot counts once.
    BootOnce,
    /// 11: an operator's confirmation is of the case, the life and the phase that were shown.
    TokenMatches,
    /// 11: and is young.
    TokenYoung,
    /// 11: and nothing was seen of the host meanwhile.
    NoSignOfLife,
    /// P1, P2: the BMC is the host's.
    BmcIdentity,
    /// P1, P2: `Off`, and nothing else.
    OffExactly,
    /// P1, P2: twice, some seconds apart.
    OffTwice,
    /// P2: after a fence operation of this case.
    KnownOp,
    /// 13: P4 only of a watchdog that must fire.
    WatchdogSound,
    /// 12: P4 only when it must have fired, by this leader's grants alone.
    LeaseOver,
    /// 17: what the plan recorded of an instance rules its attempts.
    RecordedRules,
    /// 18: the breaker is counted again where a fence intent is applied.
    BreakerCounted,
    /// 18: a breaker that is open stops.
    BreakerOpen,
    /// A host that only a former leader watched is not fenced.
    OwnWatch,
    /// No host is unreachable before it was suspected for long, by this leader.
    Confirmed,
    /// The management group and another one say no.
    TwoGroups,
    /// A case is fenced for its own life only.
    LifeMatches,
    /// The target of a fence is the machine of the inventory.
    FenceIdentity,
    /// Nobody fences the machine that a person works at.
    NotManual,
    /// A host that an operator exempts is not fenced.
    NotExempt,
    /// No fence takes the voters' majority.
    QuorumStays,
    /// One host of a chassis at a time.
    ChassisOnce,
    /// Forced down and disabled in front of evacuations.
    NovaOrder,
    /// At most one attempt of an instance is alive.
    OneAttempt,
    /// The target is alive, and in the life that was planned for.
    TargetAlive,
    /// 19: after a failed attempt the target must be clear in front of the next.
    FailedTargetClear,
    /// A dead life never lives again: nothing is permitted on it but to wait there.
    NoPermitOnDead,
    /// A permit leaves a live host only by a migration.
    NoStealing,
    /// Nova's clean-up on a host that comes back never meets the only copy of an instance.
    OnlyCopy,
    /// No guest is left on it whose place is elsewhere.
    StaleGuests,
    /// A host is let back in step by step, and watched in between.
    ReturnOrder,
    /// Drains at once in a cluster and of a server group that declares a minimum, and migrations at once of a source and
    /// a target.
    DrainLimits,
    /// Nothing is done about a host whose policy is no more than a dry run.
    Enforced,
    /// 2: no act of a leader that has not read its own cluster's mark in Nova, and no other's.
    Marked,
    /// A case whose fence failed is taken back only while its host is heard.
    HeardAgain,
}

#[cfg(any(test, feature = "mutants"))]
mod removed {
    use std::cell::Cell;

    use super::Stop;

    thread_local! {
        static REMOVED: Cell<u64> = const { Cell::new(0) };
    }

    impl Stop {
        /// Runs something in this thread without this stop; calls may stand in one another.
        pub fn without<T>(self, run: impl FnOnce() -> T) -> T {
            struct Back(u64);
            impl Drop for Back {
                fn drop(&mut self) {
                    REMOVED.set(self.0);
                }
            }
            let _back = Back(REMOVED.replace(REMOVED.get() | 1 << self as u64));
            run()
        }

        pub(crate) fn is_removed(self) -> bool {
            REMOVED.get() & 1 << self as u64 != 0
        }
    }
}

impl Stop {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::PermitExact,
        Self::ProofBeforeStart,
        Self::Epoch,
        Self::PausedAfterRestore,
        Self::LeaderExact,
        Self::SameTarget,
        Self::Sentinel,
        Self::NothingMoving,
        Self::Paused,
        Self::PermitCheck,
        Self::DestinationClear,
        Self::TaskState,
        Self::SameMachine,
        Self::BootOnce,
        Self::TokenMatches,
        Self::TokenYoung,
        Self::NoSignOfLife,
        Self::BmcIdentity,
        Self::OffExactly,
        Self::OffTwice,
        Self::KnownOp,
        Self::WatchdogSound,
        Self::LeaseOver,
        Self::RecordedRules,
        Self::BreakerCounted,
        Self::BreakerOpen,
        Self::OwnWatch,
        Self::Confirmed,
        Self::TwoGroups,
        Self::LifeMatches,
        Self::FenceIdentity,
        Self::NotManual,
        Self::NotExempt,
        Self::QuorumStays,
        Self::ChassisOnce,
        Self::NovaOrder,
        Self::OneAttempt,
        Self::TargetAlive,
        Self::FailedTargetClear,
        Self::NoPermitOnDead,
        Self::NoStealing,
        Self::OnlyCopy,
        Self::StaleGuests,
        Self::ReturnOrder,
        Self::DrainLimits,
        Self::Enforced,
        Self::Marked,
        Self::HeardAgain,
    ];

    /// Whether it lets something pass: `safe`, or it was taken out.
    #[inline]
    #[cfg_attr(not(any(test, feature = "mutants")), expect(clippy::unused_self, reason = "none can be taken out"))]
    pub(crate) fn lets(self, safe: bool) -> bool {
        #[cfg(any(test, feature = "mutants"))]
        if self.is_removed() {
            return true;
        }
        safe
    }
}
