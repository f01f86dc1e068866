//! A set of numbers of chunks, as disjoint intervals: memory goes with fragments, not with sizes.

use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint intervals that do not touch each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Intervals(BTreeMap<u64, u64>); // start -> end

impl Intervals {
    /// Adds all numbers of `range`.
    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // An interval that begins earlier and reaches here is joined, and all that begin within.
        if let Some((&before, &reach)) = self.0.range(..=start).next_back()
            && reach >= start
        {
            start = before;
            end = end.max(reach);
        }
        let within: Vec<u64> = self.0.range(start..=end).map(|(&start, _)| start).collect();
        for other in within {
            end = end.max(self.0.remove(&other).unwrap_or(end));
        }
        self.0.insert(start, end);
    }

    /// Takes all numbers of `range` out.
    pub(crate) fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let touched: Vec<(u64, u64)> = self
            .0
            .range(..range.end)
            .rev()
            .take_while(|(_, end)| **end > range.start)
            .map(|(&start, &end)| (start, end))
            .collect();
        for (start, end) in touched {
            self.0.remove(&start);
            if start < range.start {
                self.0.insert(start, range.start);
            }
            if end > range.end {
                self.0.insert(range.end, end);
            }
        }
    }

    /// Whether all numbers of `range` are in.
    pub(crate) fn contains(&self, range: Range<u64>) -> bool {
        let before = self.0.range(..=range.start).next_back();
        range.is_empty() || before.is_some_and(|(_, &end)| end >= range.end)
    }

    /// The first gap at or after `from` and before `end`.
    pub(crate) fn gap(&self, from: u64, end: u64) -> Option<Range<u64>> {
        let mut start = from;
        if let Some((_, &reach)) = self.0.range(..=from).next_back()
            && reach > from
        {
            start = reach;
        }
        let next = self.0.range(start..).next().map_or(end, |(&next, _)| next.min(end));
        (start < next).then_some(start..next)
    }

    /// How many numbers are in.
    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    /// The intervals, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().map(|(&start, &end)| start..end)
    }

    /// The last number that is in.
    pub(crate) fn last(&self) -> Option<u64> {
        self.0.values().next_back().map(|end| end - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(
            changes in prop::collection::vec((any::<bool>(), 0u64..40, 0u64..12), 0..40),
            from in 0u64..50,
        ) {
            let (mut intervals, mut set) = (Intervals::default(), BTreeSet::new());
            for (insert, start, len) in changes {
                for number in start..start + len {
                    if insert { set.insert(number) } else { set.remove(&number) };
                }
                let range = start..start + len;
                if insert {
                    intervals.insert(range.clone());
                } else {
                    intervals.remove(range.clone());
                }
                prop_assert_eq!(intervals.contains(range.clone()), insert || range.is_empty());
            }
            prop_assert_eq!(intervals.count(), set.len() as u64);
            prop_assert_eq!(intervals.last(), set.last().copied());
            let all: Vec<u64> = intervals.iter().flatten().collect();
            prop_assert_eq!(all, set.iter().copied().collect::<Vec<_>>());
            let gap: Vec<u64> = (from..60).skip_while(|n| set.contains(n))
                .take_while(|n| !set.contains(n)).collect();
            prop_assert_eq!(intervals.gap(from, 60).into_iter().flatten().collect::<Vec<_>>(), gap);
            // Intervals that touch are one.
            let ends: Vec<u64> = intervals.iter().map(|range| range.end).collect();
            prop_assert!(intervals.iter().skip(1).zip(ends).all(|(range, end)| range.start > end));
        }
    }
}
