//! How long AWS takes for an assignment operation, by what was seen, and when to ask how one stands. Pure.
//!
//! Every question costs a request of a budget that creates and deletes need, and every moment that an ended operation goes
//! unnoticed keeps a place taken. So the first question comes about when the operation should have ended, and further ones
//! when it should have ended by what is known of operations that take longer.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::sights::{Expectation, Sight, Sights};
use crate::identity_center::ChangeKind;

/// Every so many operations the first question comes early. Without that, an AWS that has become faster would not be
/// noticed: an operation that has ended by the first question says only that it did not take longer.
const PROBE_EVERY: u32 = 8;

/// How early, as shares of its time, in turn: one finds a little faster, the other much faster.
const PROBES: [f64; 2] = [0.9, 0.5];

/// An early end is a surprise if no more than this share of operations was expected to have ended by then.
const SURPRISE: f64 = 0.05;

/// After so long without an operation, what was seen before says little of AWS's mood of the hour.
const STALE_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// What of the record's figure is sure to have been the operation and not the wait until somebody asked.
const OF_RECORD: f64 = 0.8;

/// How much lateness is worth saving a question. Shares are of the mean duration, the rest is in seconds.
struct Haste {
    /// The mean lateness of the first question, a share …
    first: f64,
    /// … and at least this.
    first_least: f64,
    /// The distance of further ones, a share …
    further: f64,
    /// … and at least this.
    further_least: f64,
    /// The same while nothing is known, a share of the time that has gone by.
    unknown: f64,
}

/// Others wait for the place: a late question delays everything behind it.
const CONTENDED: Haste = Haste {
    first: 0.02,
    first_least: 0.1,
    further: 0.04,
    further_least: 0.4,
    unknown: 0.1,
};

/// Nobody waits for the place.
const ALONE: Haste = Haste {
    first: 0.10,
    first_least: 0.25,
    further: 0.30,
    further_least: 1.0,
    unknown: 0.5,
};

/// The longest distance of questions, in seconds.
const MOST: f64 = 30.0;

/// When an operation is first asked about.
#[derive(Debug, Clone, Copy)]
pub(super) struct FirstLook {
    /// How long after its begin.
    pub(super) after: Duration,
    /// If it comes early to see whether AWS has become faster: the share of its time.
    probe: Option<f64>,
    /// Whether nothing that was seen lately says how long it will take.
    is_stale: bool,
}

impl FirstLook {
    /// Not later than this.
    pub(super) fn at_most(self, limit: Duration) -> Self {
        Self {
            after: self.after.min(limit),
            ..self
        }
    }
}

/// The operations seen last, by kind.
#[derive(Debug, Default)]
pub(super) struct Durations {
    grants: Seen,
    revokes: Seen,
}

impl Durations {
    /// Takes over what is on record.
    pub(super) fn recall(&mut self, kind: ChangeKind, took: SignedDuration) {
        let took = took.as_secs_f64();
        self.own(kind).sights.add(Sight {
            under_way: OF_RECORD * took,
            ended: took,
        });
    }

    /// An operation was seen ended after `ended`; when it was last seen under way, after `under_way`, it was not.
    pub(super) fn saw(
        &mut self,
        kind: ChangeKind,
        first: FirstLook,
        under_way: Option<Duration>,
        ended: Duration,
        now: Timestamp,
    ) {
        let sight = Sight {
            under_way: under_way.unwrap_or_default().as_secs_f64(),
            ended: ended.as_secs_f64(),
        };
        self.own(kind).saw(first, sight, now);
    }

    fn own(&mut self, kind: ChangeKind) -> &mut Seen {
        match kind {
            ChangeKind::Grant => &mut self.grants,
            ChangeKind::Revoke => &mut self.revokes,
        }
    }

    /// The mean of both kinds; `None` while nothing was seen.
    pub(super) fn mean(&self) -> Option<SignedDuration> {
        let (grants, revokes) = (&self.grants.sights, &self.revokes.sights);
        let means = [grants, revokes].map(|sights| (sights.expectation().map(|e| e.mean()), sights.len()));
        let (mut sum, mut all) = (0.0, 0.0);
        for (mean, many) in means {
            if let Some(mean) = mean {
                sum += many * mean;
                all += many;
            }
        }
        if all == 0.0 {
            return None;
        }
        SignedDuration::try_from_secs_f64(sum / all).ok()
    }

    /// When to ask first. While none of the kind was seen, the other one stands in.
    pub(super) fn first_look(&mut self, kind: ChangeKind, contended: bool, now: Timestamp) -> FirstLook {
        let expected = self.expect(kind).map(|expected| first(expected, contended));
        let latest = self.grants.latest.max(self.revokes.latest);
        let is_stale = latest.is_none_or(|at| STALE_AFTER < at.duration_until(now).abs());
        let own = self.own(kind);
        own.looks = own.looks.wrapping_add(1);
        let Some(first) = expected else {
            return FirstLook {
                after: Duration::from_secs(1),
                probe: None,
                is_stale,
            };
        };
        let turn = own.looks / PROBE_EVERY % 2;
        let due = own
            .looks
            .is_multiple_of(PROBE_EVERY)
            .then_some(PROBES[usize::from(turn == 0)]);
        let probe = own.suspicion.or(due).or(is_stale.then_some(PROBES[1]));
        let after = first * probe.unwrap_or(1.0);
        FirstLook {
            after: seconds(if is_stale { after.min(MOST) } else { after }),
            probe,
            is_stale,
        }
    }

    /// How long to wait after a question at `elapsed` that found the operation under way.
    pub(super) fn next_look(&self, kind: ChangeKind, look: FirstLook, elapsed: Duration, contended: bool) -> Duration {
        let elapsed = elapsed.as_secs_f64();
        let haste = haste(contended);
        let Some(expected) = self.expect(kind) else {
            return seconds((haste.unknown * elapsed).clamp(1.0, 5.0));
        };
        let until_first = first(expected, contended) - elapsed;
        if haste.first_least <= until_first {
            return seconds(if look.is_stale {
                until_first.min(MOST)
            } else {
                until_first
            });
        }
        let distance = |of: f64| (haste.further * expected.mean().max(of)).clamp(haste.further_least, MOST);
        seconds(match expected.beyond(elapsed) {
            Some(rest) => {
                let most = distance(elapsed / 2.0);
                (rest.latest_look(most / 2.0) - elapsed).clamp(haste.first_least, most)
            }
            None => distance(elapsed),
        })
    }

    fn expect(&self, kind: ChangeKind) -> Option<&Expectation> {
        let (own, other) = match kind {
            ChangeKind::Grant => (&self.grants, &self.revokes),
            ChangeKind::Revoke => (&self.revokes, &self.grants),
        };
        own.sights.expectation().or_else(|| other.sights.expectation())
    }
}

/// Operations of one kind.
#[derive(Debug, Default)]
struct Seen {
    sights: Sights,
    /// How many were asked about.
    looks: u32,
    /// The last early question, if it found its operation ended to our surprise.
    suspicion: Option<f64>,
    /// When the last one was seen ended.
    latest: Option<Timestamp>,
}

impl Seen {
    fn saw(&mut self, first: FirstLook, sight: Sight, now: Timestamp) {
        self.latest = Some(now);
        if first.probe.is_some() {
            let was_early = sight.under_way == 0.0;
            let expected = self.sights.expectation();
            let is_surprise = was_early && expected.is_some_and(|e| e.ended_by(sight.ended) <= SURPRISE);
            // One early end may be chance, a second one right after is AWS's new mood: what contradicts it is over.
            if was_early && self.suspicion.is_some() {
                self.sights.forget_from(sight.ended);
            }
            self.suspicion = first.probe.filter(|_| is_surprise);
        }
        self.sights.add(sight);
    }
}

/// When to ask first, in seconds.
fn first(expected: &Expectation, contended: bool) -> f64 {
    let haste = haste(contended);
    expected.latest_look((haste.first * expected.mean()).max(haste.first_least))
}

fn haste(contended: bool) -> Haste {
    if contended { CONTENDED } else { ALONE }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    /// Follows operations that take what `takes` says: questions for each, and the mean lateness as a share of the mean
    /// duration.
    fn follow(durations: &mut Durations, takes: impl Iterator<Item = f64>, contended: bool) -> (f64, f64) {
        let (mut questions, mut late, mut total, mut operations) = (0.0, 0.0, 0.0, 0.0);
        for takes in takes {
            let first = durations.first_look(ChangeKind::Grant, contended, NOW);
            let (mut at, mut under_way) = (first.after, None);
            questions += 1.0;
            while at.as_secs_f64() < takes {
                under_way = Some(at);
                at += durations.next_look(ChangeKind::Grant, first, at, contended);
                questions += 1.0;
            }
            durations.saw(ChangeKind::Grant, first, under_way, at, NOW);
            late += at.as_secs_f64() - takes;
            total += takes;
            operations += 1.0;
        }
        (questions / operations, late / total)
    }

    #[test]
    fn operations_that_take_the_same_cost_few_questions_each() {
        for takes in [2.0, 5.0, 30.0, 200.0] {
            let mut durations = Durations::default();
            follow(&mut durations, std::iter::repeat_n(takes, 50), true);
            let (questions, late) = follow(&mut durations, std::iter::repeat_n(takes, 1000), true);
            assert!(
                questions < 2.0 && late < 0.1,
                "{takes} s: {questions} questions, late by {late}"
            );
            let (questions, late) = follow(&mut durations, std::iter::repeat_n(takes, 1000), false);
            assert!(
                questions < 1.8 && late < 0.25,
                "{takes} s: {questions} questions, late by {late}"
            );
        }
    }

    #[test]
    fn an_aws_that_becomes_faster_or_slower_is_followed() {
        let mut durations = Durations::default();
        for takes in [20.0, 4.0, 60.0, 2.0] {
            follow(&mut durations, std::iter::repeat_n(takes, 200), true);
            let mean = durations.mean().unwrap().as_secs_f64();
            assert!((mean / takes - 1.0).abs() < 0.1, "{mean} for {takes}");
        }
    }

    #[test]
    fn after_a_quiet_hour_slow_operations_of_before_make_nobody_wait() {
        let mut durations = Durations::default();
        follow(&mut durations, std::iter::repeat_n(200.0, 50), false);
        let mut later = NOW;
        for _ in 0..5 {
            later += SignedDuration::from_hours(2);
            let first = durations.first_look(ChangeKind::Grant, false, later);
            assert!(first.after <= Duration::from_secs(30), "{first:?}");
            let next = durations.next_look(ChangeKind::Grant, first, first.after, false);
            assert!(next <= Duration::from_secs(30), "{next:?}");
            durations.saw(ChangeKind::Grant, first, None, first.after, later);
        }
        assert!(
            durations.mean().unwrap() < SignedDuration::from_secs(30),
            "{:?}",
            durations.mean()
        );
    }

    #[test]
    fn operations_of_seconds_to_minutes_are_seen_soon_after_their_end() {
        // Evenly on a logarithmic scale from 2 to 120 seconds, in an order without a pattern.
        let spread = || (0..3000_u32).map(|n| 2.0 * 60_f64.powf(f64::from(n * 7919 % 3000) / 3000.0));
        let (questions, late) = follow(&mut Durations::default(), spread(), true);
        assert!(questions < 25.0 && late < 0.07, "{questions} questions, late by {late}");
        let (questions, late) = follow(&mut Durations::default(), spread(), false);
        assert!(questions < 4.0 && late < 0.35, "{questions} questions, late by {late}");
    }
}
