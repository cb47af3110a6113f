//! Which hosts could be lost, by capacity alone.

use super::{MEMORY, Site, Sizes, fits, less, share};

/// Tries losses one after the other on the same sites.
struct Trial<'a> {
    sites: &'a [Site],
    /// Sites with most left of what is scarcest there first.
    roomy: Vec<usize>,
    /// What is free, in this order.
    free: Vec<Sizes>,
    taken: Vec<usize>,
    orphans: Vec<Sizes>,
}

impl<'a> Trial<'a> {
    fn of(sites: &'a [Site]) -> Self {
        let scarcest =
            |site: &Site| (0..2).map(|r| share(site.free[r], site.capacity[r])).fold(f64::INFINITY, f64::min);
        let mut roomy: Vec<(f64, usize)> = sites.iter().map(scarcest).zip(0..).collect();
        roomy.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(&other.1)));
        let roomy: Vec<usize> = roomy.into_iter().map(|(_, at)| at).collect();
        let free = roomy.iter().map(|&at| sites[at].free).collect();
        Self { sites, roomy, free, taken: Vec::new(), orphans: Vec::new() }
    }

    /// Instances of a site that would find no room on the others.
    fn lost(&mut self, lost: usize) -> usize {
        self.orphans.clear();
        self.orphans.extend(self.sites[lost].items.iter().map(|item| item.sizes));
        self.orphans.sort_unstable_by_key(|asked| std::cmp::Reverse((asked[MEMORY], asked[0])));
        let (mut left, mut hopeless) = (0, None);
        for &asked in &self.orphans {
            let place = if hopeless == Some(asked) {
                None
            } else {
                (0..self.free.len()).find(|&at| self.roomy[at] != lost && fits(asked, self.free[at]))
            };
            if let Some(at) = place {
                self.free[at] = less(self.free[at], asked);
                self.taken.push(at);
            } else {
                // What found no room once finds none later: room only shrinks.
                (left, hopeless) = (left + 1, Some(asked));
            }
        }
        for at in self.taken.drain(..) {
            self.free[at] = self.sites[self.roomy[at]].free;
        }
        left
    }
}

/// Instances of each site that would find no room on the others if it were lost, by capacity alone: the largest first, on
/// the host with most left of what is scarcest there.
pub fn losses(sites: &[Site]) -> Vec<usize> {
    let mut trial = Trial::of(sites);
    (0..sites.len()).map(|at| trial.lost(at)).collect()
}

/// Sites that could not be lost.
pub fn uncovered(sites: &[Site]) -> usize {
    losses(sites).into_iter().filter(|&left| left > 0).count()
}

/// Whether at most so many sites could not be lost.
pub fn covered_but(sites: &[Site], most: usize) -> bool {
    let mut trial = Trial::of(sites);
    (0..sites.len()).filter(|&at| trial.lost(at) > 0).nth(most).is_none()
}
