//! Looks things up in what is sorted, by keys that are sorted likewise.

use std::cmp::Ordering;
use std::iter::Peekable;

/// Looks up keys that come in ascending order in what is sorted likewise: it goes through both once, where a search of each
/// key compares many, which are long and begin alike.
pub(crate) struct Along<K, V, I: Iterator<Item = (K, V)>> {
    sorted: Peekable<I>,
    asked: Option<K>,
}

impl<K: Ord + Copy, V, I: Iterator<Item = (K, V)>> Along<K, V, I> {
    pub(crate) fn new(sorted: impl IntoIterator<IntoIter = I>) -> Self {
        Self {
            sorted: sorted.into_iter().peekable(),
            asked: None,
        }
    }

    /// What stands under `key`, which is greater than the one asked for before.
    pub(crate) fn find(&mut self, key: K) -> Option<V> {
        // Out of order it would miss what is there, which here is a wrong revoke.
        debug_assert!(self.asked < Some(key), "keys are asked for in ascending order");
        self.asked = Some(key);
        loop {
            match self.sorted.peek()?.0.cmp(&key) {
                Ordering::Less => drop(self.sorted.next()),
                Ordering::Equal => return self.sorted.next().map(|(_, value)| value),
                Ordering::Greater => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn going_along_finds_what_a_search_finds() {
        let of = |keys: &[i32]| keys.iter().map(|key| (*key, key * 10)).collect::<BTreeMap<_, _>>();
        for (known, asked) in [
            (vec![1, 3, 5, 7], vec![0, 1, 2, 5, 6, 8]),
            (vec![], vec![1]),
            (vec![2], vec![1, 2, 3]),
        ] {
            let known = of(&known);
            let mut along = Along::new(&known);
            for key in &asked {
                assert_eq!(along.find(key), known.get(key), "{key} in {known:?}");
            }
        }
    }
}
