//! The mark of the cluster in Nova is read, and set where there is none or an operator says so.

use uuid::Uuid;

use super::{Call, Coordinator, Due, Lead, pace};
use crate::ha::mark::{Mark, Marked};
use crate::ha::order::Change;
use crate::ha::policy::Mode;

/// Bytes of a reason that are kept.
const WHY: usize = 400;

impl Coordinator {
    /// A leader that may act reads the mark, and tells the state what it read.
    pub(super) fn look_for_mark(&mut self, lead: &Lead<'_>, due: &mut Vec<Due>) {
        let (ha, epoch) = (lead.ha(), lead.tables.counters().epoch);
        if lead.ceiling != Mode::Enforce || ha.hosts.is_empty() {
            return;
        }
        let ours = ha.is_marked(self.leader, epoch);
        if let Some(read) = self.mark.take() {
            let mark = seen(read, lead.cluster);
            // What this leader has read stays true while Nova is away.
            if !(ours && matches!(mark, Mark::Unknown(_))) {
                // Nothing is written for a restored cluster before an operator has looked, nor for a dry run.
                let acts =
                    || ha.small.epoch == epoch && ha.hosts.iter().any(|host| lead.mode(Some(host.id)) == Mode::Enforce);
                let over = match mark {
                    Mark::Absent => Some(None),
                    Mark::Foreign(other) => (ha.small.takes == Some(other)).then_some(Some(other)),
                    Mark::Ours | Mark::Unknown(_) => None,
                };
                if let Some(over) = over.filter(|_| acts()) {
                    due.push(Due::Call(Call::SetMark { cluster: lead.cluster, over }));
                }
                let marked = Marked { mark, by: self.leader, epoch };
                if ha.small.marked.as_ref() != Some(&marked) {
                    due.push(Due::Propose(Change::Mark(marked.mark)));
                }
            }
        }
        // While Nova fails it is the question that says so (T9), and that it is over.
        let calm = ours && !self.unread && self.nova_fails(lead.now).is_none();
        let every = if calm { pace::MARK } else { pace::NOVA };
        if self.asked_mark.is_none_or(|asked| lead.now >= asked + every) {
            self.asked_mark = Some(lead.now);
            due.push(Due::Call(Call::ReadMark));
        }
    }
}

fn seen(read: Result<Vec<Uuid>, String>, cluster: Uuid) -> Mark {
    match read {
        Ok(all) => match all.iter().find(|known| **known != cluster) {
            Some(other) => Mark::Foreign(*other),
            None if all.is_empty() => Mark::Absent,
            None => Mark::Ours,
        },
        Err(mut why) => {
            why.truncate(why.floor_char_boundary(WHY));
            Mark::Unknown(why)
        }
    }
}
