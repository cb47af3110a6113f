//! The checksum that replicas compare: a function of the content of the tables alone, whatever was
//! summed before and in whatever order it came about. Its hash has no seed and its constants never
//! change: XXH3 over what bitcode makes of a chunk.

use bitcode::Encode;
use twox_hash::XxHash3_64;

use crate::ha::Failover;
use crate::level;
use crate::state::Tables;

/// The sum of some content.
pub(crate) fn sum_of<T: Encode + ?Sized>(content: &T) -> u64 {
    XxHash3_64::oneshot(&bitcode::encode(content))
}

/// One sum of several, in their order.
pub(crate) fn fold(sums: impl Iterator<Item = u64>) -> u64 {
    let bytes: Vec<u8> = sums.flat_map(u64::to_le_bytes).collect();
    XxHash3_64::oneshot(&bytes)
}

impl Tables {
    /// The sum; reads again only what changed since it was last asked for.
    pub(crate) fn checksum(&self) -> u64 {
        let chunked = [
            self.names.sum(),
            self.providers.sum(),
            self.consumers.sum(),
            self.free_slots.sum(),
            self.history.sum(),
            self.keys.entries.sum(),
        ];
        self.with_small(chunked, Failover::sum)
    }

    /// The sum, with nothing remembered: what [`Tables::checksum`] must give.
    pub(crate) fn checksum_anew(&self) -> u64 {
        let chunked = [
            self.names.sum_anew(),
            self.providers.sum_anew(),
            self.consumers.sum_anew(),
            self.free_slots.sum_anew(),
            self.history.sum_anew(),
            self.keys.entries.sum_anew(),
        ];
        self.with_small(chunked, Failover::sum_anew)
    }

    /// Adds what is not in chunks.
    fn with_small(&self, chunked: [u64; 6], failover: impl Fn(&Failover) -> u64) -> u64 {
        let small = [
            sum_of(&self.counters),
            sum_of(&*self.aggregates),
            sum_of(&*self.catalogue),
            sum_of(&(self.keys.arrived, self.keys.horizon)),
        ];
        let sums = chunked.into_iter().chain(small);
        // A sum is of a level as the bytes are: what came with a level counts from that level on.
        let sums = sums.chain((self.level() >= level::FAILOVER).then(|| failover(&self.failover)));
        #[cfg(feature = "next-level")]
        let sums = sums.chain((self.level() == level::NEWEST).then(|| sum_of(&*self.notes)));
        fold(sums)
    }
}
