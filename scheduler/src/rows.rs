//! Sets of provider rows: a [`Mask`] holds a bit for each row; [`Rows`] is a posting list that is
//! sparse while it is small and a mask when it is not.

use crate::provider::Row;

/// A bit for each row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    words: Vec<u64>,
}

impl Mask {
    /// No row of `rows` rows.
    pub fn none(rows: usize) -> Self {
        Self { words: vec![0; rows.div_ceil(64)] }
    }

    /// The words, 64 rows each, lowest row in the lowest bit.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    pub(crate) fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// True when `row` is in the set.
    pub fn has(&self, row: Row) -> bool {
        self.words.get(row.0 as usize / 64).is_some_and(|word| word >> (row.0 % 64) & 1 == 1)
    }

    /// Puts `row` in; grows when needed.
    pub fn insert(&mut self, row: Row) {
        let at = row.0 as usize / 64;
        if at >= self.words.len() {
            self.words.resize(at + 1, 0);
        }
        self.words[at] |= 1 << (row.0 % 64);
    }

    /// Takes `row` out.
    pub fn remove(&mut self, row: Row) {
        if let Some(word) = self.words.get_mut(row.0 as usize / 64) {
            *word &= !(1 << (row.0 % 64));
        }
    }

    /// Number of rows in the set.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// True when no row is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// The rows in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Row> + '_ {
        self.words.iter().enumerate().flat_map(|(at, &word)| Bits(word).map(move |bit| Row((at * 64) as u32 + bit)))
    }

    /// Adds every row of `other`.
    pub fn union(&mut self, other: &Rows) {
        match other {
            Rows::Sparse(rows) => rows.iter().for_each(|&row| self.insert(Row(row))),
            Rows::Dense(mask, _) => {
                if self.words.len() < mask.words.len() {
                    self.words.resize(mask.words.len(), 0);
                }
                self.words.iter_mut().zip(&mask.words).for_each(|(mine, theirs)| *mine |= theirs);
            }
        }
    }
}

impl FromIterator<Row> for Mask {
    fn from_iter<I: IntoIterator<Item = Row>>(rows: I) -> Self {
        let mut mask = Self::default();
        rows.into_iter().for_each(|row| mask.insert(row));
        mask
    }
}

/// The set bits of a word, lowest first.
pub(crate) struct Bits(pub u64);

impl Iterator for Bits {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros();
        self.0 &= self.0 - 1;
        Some(bit)
    }
}

/// A posting list of rows.
#[derive(Clone, Debug)]
pub enum Rows {
    /// Ascending rows.
    Sparse(Vec<u32>),
    /// A mask and the number of rows in it.
    Dense(Mask, usize),
}

/// Beyond this many rows a posting list becomes a mask.
const SPARSE_MAX: usize = 256;

impl Default for Rows {
    fn default() -> Self {
        Self::Sparse(Vec::new())
    }
}

/// The list without rows, for names that no provider carries.
pub static NO_ROWS: Rows = Rows::Sparse(Vec::new());

impl Rows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Sparse(rows) => rows.len(),
            Self::Dense(_, len) => *len,
        }
    }

    /// True when there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True when `row` is in the list.
    pub fn has(&self, row: Row) -> bool {
        match self {
            Self::Sparse(rows) => rows.binary_search(&row.0).is_ok(),
            Self::Dense(mask, _) => mask.has(row),
        }
    }

    /// The rows in ascending order.
    pub fn iter(&self) -> Box<dyn Iterator<Item = Row> + '_> {
        match self {
            Self::Sparse(rows) => Box::new(rows.iter().map(|&row| Row(row))),
            Self::Dense(mask, _) => Box::new(mask.iter()),
        }
    }

    pub(crate) fn insert(&mut self, row: Row) {
        match self {
            Self::Sparse(rows) => {
                if let Err(at) = rows.binary_search(&row.0) {
                    rows.insert(at, row.0);
                }
                if rows.len() > SPARSE_MAX {
                    let mask: Mask = rows.iter().map(|&row| Row(row)).collect();
                    *self = Self::Dense(mask, SPARSE_MAX + 1);
                }
            }
            Self::Dense(mask, len) => {
                *len += usize::from(!mask.has(row));
                mask.insert(row);
            }
        }
    }

    pub(crate) fn remove(&mut self, row: Row) {
        match self {
            Self::Sparse(rows) => {
                if let Ok(at) = rows.binary_search(&row.0) {
                    rows.remove(at);
                }
            }
            Self::Dense(mask, len) => {
                *len -= usize::from(mask.has(row));
                mask.remove(row);
                if *len < SPARSE_MAX / 2 {
                    *self = Self::Sparse(mask.iter().map(|row| row.0).collect());
                }
            }
        }
    }
}

impl<'a> IntoIterator for &'a Rows {
    type Item = Row;
    type IntoIter = Box<dyn Iterator<Item = Row> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for Rows {
    /// Equal rows, whatever the form.
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}
