//! Counts what comes of requests, so that the coordinator sees when Nova fails (T9).

use std::sync::atomic::{AtomicU64, Ordering};

use crate::failover::Tally;
use crate::hands::http::{Failed, Said};

#[derive(Default)]
pub(super) struct Counts {
    answered: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    pub(super) fn read(&self) -> Tally {
        let [answered, failed] = [&self.answered, &self.failed].map(|count| count.load(Ordering::Relaxed));
        Tally { answered, failed }
    }

    /// A request. One that is dropped on its way had no answer in time.
    pub(super) fn begin(&self) -> Asked<'_> {
        Asked(Some(&self.failed), self)
    }
}

pub(super) struct Asked<'a>(Option<&'a AtomicU64>, &'a Counts);

impl Asked<'_> {
    /// It is over; None: nothing was sent.
    pub(super) fn over(mut self, said: Result<Option<&Said>, &Failed>) {
        self.0 = match said {
            Ok(None) => None,
            Ok(Some(said)) if !said.status.is_server_error() => Some(&self.1.answered),
            Ok(Some(_)) | Err(_) => Some(&self.1.failed),
        };
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.0 {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}
