//! Sums and differences of spans of time.

use jiff::SignedDuration;

use crate::model::Interval;

/// Sorted, with those that touch or overlap made one.
pub(crate) fn union(mut spans: Vec<Interval>) -> Vec<Interval> {
    spans.sort();
    let mut whole: Vec<Interval> = Vec::new();
    for span in spans {
        match whole.last_mut() {
            Some(last) if span.start() <= last.end() => {
                *last = Interval::new(last.start(), last.end().max(span.end())).unwrap_or(*last);
            }
            _ => whole.push(span),
        }
    }
    whole
}

/// What of `these` is in none of `those`.
pub(crate) fn without(these: &[Interval], those: &[Interval]) -> Vec<Interval> {
    let those = union(those.to_vec());
    let mut rest = Vec::new();
    for span in union(these.to_vec()) {
        let mut from = span.start();
        for hole in those.iter().filter(|hole| hole.intersect(&span).is_some()) {
            rest.extend(Interval::new(from, hole.start()));
            from = from.max(hole.end());
        }
        rest.extend(Interval::new(from, span.end()));
    }
    rest
}

/// How long they are together; what overlaps counts once.
pub(crate) fn length(spans: &[Interval]) -> SignedDuration {
    let lengths = union(spans.to_vec()).into_iter().map(|span| span.duration());
    lengths.fold(SignedDuration::ZERO, SignedDuration::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use proptest::prelude::*;

    fn span((from, long): (i64, i64)) -> Interval {
        let at = |second| Timestamp::from_second(second).unwrap();
        Interval::new(at(from), at(from + long)).unwrap()
    }

    proptest! {
        /// Second by second, as a slow and obvious program would.
        #[test]
        fn they_agree_with_counting_seconds(
            these in proptest::collection::vec((0..40i64, 1..12i64), 0..6),
            those in proptest::collection::vec((0..40i64, 1..12i64), 0..6),
        ) {
            let these: Vec<Interval> = these.into_iter().map(span).collect();
            let those: Vec<Interval> = those.into_iter().map(span).collect();
            let inside = |spans: &[Interval], s| spans.iter().any(|i| i.contains(Timestamp::from_second(s).unwrap()));
            let rest = without(&these, &those);
            for second in 0..60 {
                prop_assert_eq!(inside(&rest, second), inside(&these, second) && !inside(&those, second));
            }
            let seconds = (0..60).filter(|s| inside(&these, *s)).count();
            prop_assert_eq!(length(&these), SignedDuration::from_secs(i64::try_from(seconds).unwrap()));
        }
    }
}
