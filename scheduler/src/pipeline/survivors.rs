//! The hosts that are still in, while filters run: a mask, and a record of what was dropped, why,
//! and by which step.

use std::borrow::Cow;
use std::ops::Range;

use crate::names::{Names, Sym};
use crate::provider::Row;
use crate::rows::{Bits, Mask, Rows};

/// What a dropped host had instead of what was wanted; rendered into the reason of that host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// The reason says it all.
    None,
    /// The host has no such value at all.
    Missing,
    /// The host has this value.
    Has(Sym),
    /// Asked and free amount of a class.
    Amounts {
        /// Resource class.
        class: Sym,
        /// Asked amount.
        asked: u64,
        /// Free amount.
        free: u64,
    },
    /// Asked amount of a class of which enough is free, and the most that one consumer may have.
    InOne {
        /// Resource class.
        class: Sym,
        /// Asked amount.
        asked: u64,
        /// The most that one may have: `max_unit`.
        most: u64,
    },
    /// Counted and allowed number of something.
    Count {
        /// Found on the host.
        found: u64,
        /// Allowed.
        limit: u64,
    },
}

impl Detail {
    /// The words that follow a reason, with a leading separator; empty when there is nothing to add.
    pub fn render(self, names: &Names) -> String {
        match self {
            Self::None => String::new(),
            Self::Missing => ": the host has none".to_owned(),
            Self::Has(sym) => format!(": the host has {}", names.text(sym)),
            Self::Amounts { class, asked, free } => {
                let unit = unit(names.text(class));
                format!(": {asked}{unit} asked, {free}{unit} free")
            }
            Self::InOne { class, asked, most } => {
                let unit = unit(names.text(class));
                format!(": {asked}{unit} asked, at most {most}{unit} for one (max_unit)")
            }
            Self::Count { found, limit } => format!(": {found} there, at most {limit} allowed"),
        }
    }
}

fn unit(class: &str) -> &'static str {
    match class {
        "MEMORY_MB" => " MiB",
        "MILLICPU" => "m",
        "DISK_GB" => " GiB",
        _ => "",
    }
}

/// Something a step saw that an operator may want to count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Name of the event.
    pub name: &'static str,
    /// Labels with values from a bounded set.
    pub labels: Vec<(&'static str, String)>,
}

/// A dropped host.
#[derive(Clone, Copy, Debug)]
pub struct Dropped {
    /// The host.
    pub row: Row,
    /// Step, by its position among the filters.
    pub step: u16,
    /// Reason, by its position among the reasons of that step.
    pub reason: u16,
    /// What the host had.
    pub detail: Detail,
}

/// The hosts that are still in.
#[derive(Debug)]
pub struct Survivors {
    mask: Mask,
    /// The words of the mask that may have hosts.
    words: Range<usize>,
    len: usize,
    step: u16,
    reasons: Vec<(Cow<'static, str>, u64)>,
    details: Option<Vec<Dropped>>,
    notes: Vec<String>,
    events: Vec<Event>,
}

impl Survivors {
    /// Starts with the rows of `mask`. With `detailed`, each dropped host keeps its reason.
    pub fn new(mask: Mask, detailed: bool) -> Self {
        let len = mask.len();
        Self {
            words: 0..mask.words().len(),
            mask,
            len,
            step: 0,
            reasons: Vec::new(),
            details: detailed.then(Vec::new),
            notes: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Starts with one row, which keeps its reason when it is dropped.
    pub(crate) fn only(row: Row) -> Self {
        let mut survivors = Self::new(Mask::default(), true);
        survivors.mask.insert(row);
        survivors.words = row.0 as usize / 64..row.0 as usize / 64 + 1;
        survivors.len = 1;
        survivors
    }

    /// Number of hosts that are still in.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when no host is left.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The hosts that are still in.
    pub fn mask(&self) -> &Mask {
        &self.mask
    }

    /// The hosts that are still in, ascending by row.
    pub fn iter(&self) -> impl Iterator<Item = Row> + '_ {
        self.mask.iter()
    }

    /// Number of hosts that are still in and not in `rows`.
    pub fn outside(&self, rows: &Rows) -> usize {
        let inside = match rows {
            Rows::Sparse(_) => rows.iter().filter(|&row| self.mask.has(row)).count(),
            Rows::Dense(mask, _) => {
                let mine = self.mask.words()[self.words.clone()].iter();
                let both = mine.zip(mask.words().iter().skip(self.words.start)).map(|(mine, theirs)| mine & theirs);
                both.map(|word| word.count_ones() as usize).sum()
            }
        };
        self.len - inside
    }

    /// Keeps the hosts in `rows`; the others are dropped for `why`.
    pub fn keep(&mut self, rows: &Rows, why: impl Into<Cow<'static, str>>, detail: impl Fn(Row) -> Detail) {
        match rows {
            Rows::Dense(mask, _) => self.keep_mask(mask, why, detail),
            Rows::Sparse(_) => self.keep_mask(&rows.iter().collect(), why, detail),
        }
    }

    /// Keeps the hosts in `mask`; the others are dropped for `why`.
    pub fn keep_mask(&mut self, mask: &Mask, why: impl Into<Cow<'static, str>>, detail: impl Fn(Row) -> Detail) {
        let theirs = mask.words();
        self.retain_words(why.into(), detail, |at, word| word & theirs.get(at).copied().unwrap_or(0));
    }

    /// Drops the hosts in `mask` for `why`.
    pub fn drop_mask(&mut self, mask: &Mask, why: impl Into<Cow<'static, str>>, detail: impl Fn(Row) -> Detail) {
        let theirs = mask.words();
        self.retain_words(why.into(), detail, |at, word| word & !theirs.get(at).copied().unwrap_or(0));
    }

    /// Keeps the hosts whose value in `column` is at least `least` (rows beyond its end count as 0);
    /// the others are dropped for `why`.
    pub fn keep_at_least(
        &mut self,
        column: &[u64],
        least: u64,
        why: impl Into<Cow<'static, str>>,
        detail: impl Fn(Row) -> Detail,
    ) {
        self.retain_words(why.into(), detail, |at, word| {
            let start = (at * 64).min(column.len());
            let values = &column[start..(start + 64).min(column.len())];
            let enough =
                values.iter().enumerate().fold(0_u64, |mask, (bit, &value)| mask | (u64::from(value >= least) << bit));
            // Rows beyond the end have 0, which is enough only when nothing is asked.
            let beyond = if least == 0 { u64::MAX } else { 0 };
            word & (enough | beyond)
        });
    }

    /// Drops the hosts in `rows` for `why`.
    pub fn drop(&mut self, rows: &Rows, why: impl Into<Cow<'static, str>>, detail: impl Fn(Row) -> Detail) {
        match rows {
            Rows::Dense(mask, _) => {
                let theirs = mask.words();
                self.retain_words(why.into(), detail, |at, word| word & !theirs.get(at).copied().unwrap_or(0));
            }
            Rows::Sparse(few) if few.iter().any(|&row| self.mask.has(Row(row))) => {
                let mask: Mask = rows.iter().collect();
                let theirs = mask.words();
                self.retain_words(why.into(), detail, |at, word| word & !theirs.get(at).copied().unwrap_or(0));
            }
            Rows::Sparse(_) => {}
        }
    }

    /// Keeps the hosts for which `good` holds; the others are dropped for `why`.
    pub fn keep_where(
        &mut self,
        why: impl Into<Cow<'static, str>>,
        good: impl Fn(Row) -> bool,
        detail: impl Fn(Row) -> Detail,
    ) {
        self.retain_words(why.into(), detail, |at, word| {
            let mut kept = word;
            for bit in Bits(word) {
                if !good(Row((at * 64) as u32 + bit)) {
                    kept &= !(1 << bit);
                }
            }
            kept
        });
    }

    /// Drops every host for `why`.
    pub fn drop_all(&mut self, why: impl Into<Cow<'static, str>>) {
        self.retain_words(why.into(), |_| Detail::None, |_, _| 0);
    }

    /// A remark that the explanation shows.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Counts an event.
    pub fn event(&mut self, name: &'static str, labels: Vec<(&'static str, String)>) {
        self.events.push(Event { name, labels });
    }

    fn retain_words(
        &mut self,
        why: Cow<'static, str>,
        detail: impl Fn(Row) -> Detail,
        keep: impl Fn(usize, u64) -> u64,
    ) {
        let reason = self.reasons.iter().position(|(text, _)| *text == why).unwrap_or(self.reasons.len());
        let step = self.step;
        let mut gone = 0;
        let words = self.words.clone();
        for (at, word) in words.clone().zip(&mut self.mask.words_mut()[words]) {
            if *word == 0 {
                continue;
            }
            let dropped = *word & !keep(at, *word);
            if dropped == 0 {
                continue;
            }
            *word &= !dropped;
            gone += dropped.count_ones() as usize;
            if let Some(details) = &mut self.details {
                for bit in Bits(dropped) {
                    let row = Row((at * 64) as u32 + bit);
                    details.push(Dropped { row, step, reason: reason as u16, detail: detail(row) });
                }
            }
        }
        if gone > 0 {
            self.len -= gone;
            if reason == self.reasons.len() {
                self.reasons.push((why, 0));
            }
            self.reasons[reason].1 += gone as u64;
        }
    }

    /// Ends the running step and hands out what it recorded.
    pub(crate) fn end_step(&mut self) -> StepRecord {
        self.step += 1;
        StepRecord {
            reasons: std::mem::take(&mut self.reasons),
            notes: std::mem::take(&mut self.notes),
            events: std::mem::take(&mut self.events),
        }
    }

    pub(crate) fn into_dropped(self) -> Option<Vec<Dropped>> {
        self.details
    }
}

/// What one step recorded.
pub(crate) struct StepRecord {
    pub reasons: Vec<(Cow<'static, str>, u64)>,
    pub notes: Vec<String>,
    pub events: Vec<Event>,
}
