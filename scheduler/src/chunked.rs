//! A vector in chunks behind `Arc`: cheap to clone, and a write after a clone copies one chunk.
//! It is what makes a consistent snapshot cost nothing to take while the writer goes on.
//!
//! Each chunk, and each group of chunks, remembers the sum of its content until it is written to
//! again; clones share what they remember. It never sums by itself, only when asked.

use std::sync::{Arc, OnceLock};

use bitcode::Encode;

use crate::checksum::{fold, sum_of};

/// Chunks in a group: a clone costs one `Arc` for each group.
const GROUP: usize = 64;

/// A growable copy-on-write vector in chunks of `N` elements.
#[derive(Clone, Debug)]
pub struct Chunked<T, const N: usize = 128> {
    groups: Vec<Arc<Part<Arc<Part<T>>>>>,
    len: usize,
}

/// Some items, and their sum when it was asked for since they last changed.
#[derive(Clone, Debug)]
struct Part<T> {
    items: Vec<T>,
    sum: OnceLock<u64>,
}

impl<T> Part<T> {
    fn of(items: Vec<T>) -> Arc<Self> {
        Arc::new(Self { items, sum: OnceLock::new() })
    }
}

impl<T: Clone> Part<T> {
    /// The items for writing: copied when shared, and their sum forgotten.
    fn change(part: &mut Arc<Self>) -> &mut Vec<T> {
        let part = Arc::make_mut(part);
        part.sum.take();
        &mut part.items
    }
}

impl<T, const N: usize> Default for Chunked<T, N> {
    fn default() -> Self {
        Self { groups: Vec::new(), len: 0 }
    }
}

impl<T: Clone, const N: usize> Chunked<T, N> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The element at `at`, if there is one.
    pub fn get(&self, at: usize) -> Option<&T> {
        self.groups.get(at / N / GROUP)?.items.get(at / N % GROUP)?.items.get(at % N)
    }

    /// The element at `at` for writing; copies its chunk when a snapshot shares it.
    pub fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        let chunks = Part::change(self.groups.get_mut(at / N / GROUP)?);
        Part::change(chunks.get_mut(at / N % GROUP)?).get_mut(at % N)
    }

    /// Appends an element and returns its position.
    pub fn push(&mut self, value: T) -> usize {
        const ROOM: &str = "room was made in front of it";
        if self.len.is_multiple_of(N * GROUP) {
            self.groups.push(Part::of(Vec::new()));
        }
        let chunks = Part::change(self.groups.last_mut().expect(ROOM));
        if self.len.is_multiple_of(N) {
            chunks.push(Part::of(Vec::new()));
        }
        let items = Part::change(chunks.last_mut().expect(ROOM));
        if items.len() == items.capacity() {
            // A copy has no room to spare, and a chunk never needs more than this.
            items.reserve_exact(N - items.len());
        }
        items.push(value);
        self.len += 1;
        self.len - 1
    }

    /// Takes the last element off.
    pub fn pop(&mut self) -> Option<T> {
        let chunks = Part::change(self.groups.last_mut()?);
        let items = Part::change(chunks.last_mut()?);
        let value = items.pop()?;
        self.len -= 1;
        if items.is_empty() {
            chunks.pop();
        }
        if chunks.is_empty() {
            self.groups.pop();
        }
        Some(value)
    }

    /// All elements in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks().flatten()
    }

    /// All elements in order, by chunk.
    pub fn chunks(&self) -> impl Iterator<Item = &[T]> {
        self.groups.iter().flat_map(|group| &group.items).map(|chunk| chunk.items.as_slice())
    }
}

impl<T: Clone + Encode, const N: usize> Chunked<T, N> {
    /// The sum of the content: only what changed since it was last asked is read again, by whichever
    /// clone asks first.
    pub fn sum(&self) -> u64 {
        let chunk = |chunk: &Arc<Part<T>>| *chunk.sum.get_or_init(|| sum_of(chunk.items.as_slice()));
        let group = |group: &Arc<Part<Arc<Part<T>>>>| *group.sum.get_or_init(|| fold(group.items.iter().map(chunk)));
        fold(self.groups.iter().map(group))
    }

    /// The same, with nothing remembered.
    pub fn sum_anew(&self) -> u64 {
        let chunk = |chunk: &Arc<Part<T>>| sum_of(chunk.items.as_slice());
        fold(self.groups.iter().map(|group| fold(group.items.iter().map(chunk))))
    }
}

impl<T: Clone, const N: usize> Extend<T> for Chunked<T, N> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        for item in items {
            self.push(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Chunked;

    #[test]
    fn a_clone_keeps_what_it_was_and_the_sum_is_that_of_the_content() {
        let mut one: Chunked<u32, 4> = Chunked::default();
        one.extend(0..1000);
        let frozen = one.clone();
        let before = frozen.sum();
        assert_eq!(one.sum(), before, "a clone shares what was summed");
        *one.get_mut(777).expect("there") = 1;
        assert_eq!((frozen.get(777), frozen.sum()), (Some(&777), before));
        assert_ne!(one.sum(), before);
        assert_eq!(one.sum(), one.sum_anew());
        *one.get_mut(777).expect("there") = 777;
        assert_eq!(one.sum(), before, "equal content, equal sum");
        while one.len() > 500 {
            one.pop();
        }
        let mut two: Chunked<u32, 4> = Chunked::default();
        two.extend(0..500);
        assert_eq!(one.sum(), two.sum(), "how it came about does not matter");
        one.extend(500..1000);
        assert_eq!((one.sum(), one.iter().copied().collect::<Vec<_>>()), (before, (0..1000).collect()));
        assert!(one.get(1000).is_none() && one.get_mut(1000).is_none());
    }
}
