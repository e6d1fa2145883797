//! Sets of instants: spans of time in order, which neither overlap nor touch.

use jiff::{SignedDuration, Timestamp};

use super::Interval;

/// Puts spans in order and makes one of those that overlap or touch.
#[must_use]
pub fn merged(mut spans: Vec<Interval>) -> Vec<Interval> {
    spans.sort_unstable();
    let mut merged: Vec<Interval> = Vec::new();
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.start() <= last.end() => last.end = last.end.max(span.end()),
            _ => merged.push(span),
        }
    }
    merged
}

/// The instants in both sets.
#[must_use]
pub fn common(a: &[Interval], b: &[Interval]) -> Vec<Interval> {
    let pairs = a.iter().flat_map(|a| b.iter().filter_map(|b| a.intersect(b)));
    pairs.collect()
}

/// The instants of `whole` outside the set.
#[must_use]
pub fn gaps(whole: Interval, spans: &[Interval]) -> Vec<Interval> {
    let mut gaps = Vec::new();
    let mut from = Timestamp::MIN;
    for span in spans {
        gaps.extend(Interval::new(from, span.start()));
        from = span.end();
    }
    gaps.extend(Interval::new(from, Timestamp::MAX));
    common(&[whole], &gaps)
}

/// The instants of one set outside the other. Neither need be in order or free of overlaps.
#[must_use]
pub fn without(these: &[Interval], those: &[Interval]) -> Vec<Interval> {
    let those = merged(those.to_vec());
    let rest = merged(these.to_vec()).into_iter().map(|span| gaps(span, &those));
    rest.flatten().collect()
}

/// How long spans are together; what overlaps counts once.
#[must_use]
pub fn length(spans: &[Interval]) -> SignedDuration {
    let lengths = merged(spans.to_vec()).into_iter().map(|span| span.duration());
    lengths.fold(SignedDuration::ZERO, SignedDuration::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span(from: i64, to: i64) -> Interval {
        let t = |second| Timestamp::from_second(second).unwrap();
        Interval::new(t(from), t(to)).unwrap()
    }

    #[test]
    fn spans_merge_where_they_touch_and_leave_gaps_elsewhere() {
        let set = merged(vec![span(5, 7), span(1, 2), span(2, 3), span(6, 9), span(6, 8)]);
        assert_eq!(set, [span(1, 3), span(5, 9)]);
        assert_eq!(
            common(&set, &[span(2, 6), span(8, 20)]),
            [span(2, 3), span(5, 6), span(8, 9)]
        );
        assert_eq!(gaps(span(0, 20), &set), [span(0, 1), span(3, 5), span(9, 20)]);
        assert_eq!(gaps(span(6, 8), &set), []);
        assert_eq!(gaps(span(2, 6), &[]), [span(2, 6)]);
        assert_eq!(merged(vec![]), []);
        assert_eq!(gaps(Interval::ALWAYS, &[Interval::ALWAYS]), []);
    }

    fn lasting((from, long): (i64, i64)) -> Interval {
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
            let these: Vec<Interval> = these.into_iter().map(lasting).collect();
            let those: Vec<Interval> = those.into_iter().map(lasting).collect();
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
