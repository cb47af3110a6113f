//! What befell single guests.

use std::sync::Arc;

use uuid::Uuid;

use super::{Cx, Result};
use crate::ha::order::Done;
use crate::ha::poison::Deaths;
use crate::ha::recovery::{Life, Recovery, Status, Stays};
use crate::ha::refusal::Refusal;
use crate::ha::table::DEATHS;
use crate::ha::trouble::{Kind, TROUBLES, Trouble};

impl Cx<'_> {
    pub(super) fn guest_trouble(&mut self, instance: Uuid, life: Life, kind: Kind) -> Result {
        self.alive(life.host, life.incarnation)?;
        if self.ha().permits.get(instance).is_none() {
            return Err(Refusal::Instance(instance));
        }
        let (at, wall) = (self.now(), self.state.tables.counters.wall);
        if self.ha().is_told(instance, life, kind, at) {
            return Ok(Done::Unchanged);
        }
        if kind == Kind::PostcopyFailed {
            self.quarantine_split(instance)?;
        }
        let small = self.ha_mut().small_mut();
        small.troubled[kind as usize] += 1;
        let troubles = Arc::make_mut(&mut small.troubles);
        if troubles.len() >= TROUBLES {
            troubles.remove(0);
        }
        troubles.push(Trouble { instance, life, kind, at, wall });
        Ok(Done::Changed)
    }

    /// Neither half is started, nor is it built anew elsewhere, until a person lets it go.
    fn quarantine_split(&mut self, instance: Uuid) -> Result<()> {
        let known = self.ha().deaths.get(instance).cloned();
        if known.is_none() && self.ha().deaths.len() >= DEATHS {
            self.forget_deaths();
            if self.ha().deaths.len() >= DEATHS {
                return Err(Refusal::Full { table: "deaths".to_owned(), most: DEATHS as u64 });
            }
        }
        let mut deaths = known.unwrap_or(Deaths::none(instance));
        deaths.quarantined = deaths.quarantined.or(Some(self.now()));
        deaths.split = true;
        self.ha_mut().deaths.put(deaths);
        let open = |known: &&Arc<Recovery>| matches!(known.status, Status::Waiting(_) | Status::Planned);
        if let Some(recovery) = self.ha().recoveries.get(instance).filter(open).cloned() {
            self.unclaim(&recovery);
            let status = Status::Stays(Stays::PostcopySplit);
            self.ha_mut().recoveries.put(Arc::new(Recovery { status, attempt: None, ..Recovery::clone(&recovery) }));
        }
        Ok(())
    }
}
