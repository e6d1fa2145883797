//! How long AWS takes for an assignment operation, by what was seen, and when to ask how one stands. Pure.
//!
//! Every question costs a request of a budget that creates and deletes need, and every moment that an ended operation goes
//! unnoticed keeps a place taken. So the first question comes about when the operation should have ended, and further ones
//! at distances in proportion to what operations take.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::SignedDuration;

use crate::identity_center::ChangeKind;

/// How many operations of a kind are remembered: enough for a mean, few enough to follow AWS's mood of the day.
const REMEMBERED: usize = 32;

/// Every so many operations the first question comes early, at half its time. Without that, an AWS that has become much
/// faster would not be noticed: an operation that has ended by the first question says only that it did not take longer.
const PROBE_EVERY: u32 = 8;

/// What an operation is taken to have lasted that had ended by the first question, as a share of what was expected; so a
/// guess that is too long shrinks.
const SHRINK: f64 = 0.98;

/// The same where the last early question found its operation ended, too.
const SHRINK_FAST: f64 = 0.5;

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
}

/// Others wait for the place: a late question delays everything behind it.
const CONTENDED: Haste = Haste {
    first: 0.02,
    first_least: 0.1,
    further: 0.04,
    further_least: 0.4,
};

/// Nobody waits for the place.
const ALONE: Haste = Haste {
    first: 0.10,
    first_least: 0.25,
    further: 0.25,
    further_least: 1.0,
};

/// The longest distance of questions, in seconds.
const MOST: f64 = 30.0;

/// When an operation is first asked about.
#[derive(Debug, Clone, Copy)]
pub(super) struct FirstLook {
    /// How long after its begin.
    pub(super) after: Duration,
    is_probe: bool,
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
        self.own(kind).remember(took.as_secs_f64());
    }

    /// An operation was seen ended after `ended`; when it was last seen under way, after `under_way`, it was not.
    pub(super) fn saw(&mut self, kind: ChangeKind, first: FirstLook, under_way: Option<Duration>, ended: Duration) {
        self.own(kind).saw(first, under_way, ended.as_secs_f64());
    }

    fn own(&mut self, kind: ChangeKind) -> &mut Seen {
        match kind {
            ChangeKind::Grant => &mut self.grants,
            ChangeKind::Revoke => &mut self.revokes,
        }
    }

    /// The mean of both kinds; `None` while nothing was seen.
    pub(super) fn mean(&self) -> Option<SignedDuration> {
        let all: Vec<f64> = self.grants.last.iter().chain(&self.revokes.last).copied().collect();
        SignedDuration::try_from_secs_f64(mean(&all)?).ok()
    }

    /// When to ask first. While none of the kind was seen, the other one stands in.
    pub(super) fn first_look(&mut self, kind: ChangeKind, contended: bool) -> FirstLook {
        let expected = self.expect(kind, contended);
        let own = self.own(kind);
        own.looks = own.looks.wrapping_add(1);
        let Some(expected) = expected else {
            return FirstLook {
                after: Duration::from_secs(1),
                is_probe: false,
            };
        };
        let is_probe = own.looks.is_multiple_of(PROBE_EVERY);
        FirstLook {
            after: seconds(if is_probe { expected.first / 2.0 } else { expected.first }),
            is_probe,
        }
    }

    /// How long to wait after a question at `elapsed` that found the operation under way.
    pub(super) fn next_look(&self, kind: ChangeKind, elapsed: Duration, contended: bool) -> Duration {
        let elapsed = elapsed.as_secs_f64();
        seconds(match self.expect(kind, contended) {
            Some(expected) => {
                let haste = haste(contended);
                let distance = (haste.further * expected.mean.max(elapsed / 2.0)).clamp(haste.further_least, MOST);
                distance.max(expected.first - elapsed)
            }
            None => (elapsed / 2.0).clamp(1.0, 5.0),
        })
    }

    fn expect(&self, kind: ChangeKind, contended: bool) -> Option<Expected> {
        let (own, other) = match kind {
            ChangeKind::Grant => (&self.grants, &self.revokes),
            ChangeKind::Revoke => (&self.revokes, &self.grants),
        };
        own.expect(contended).or_else(|| other.expect(contended))
    }
}

/// Operations of one kind.
#[derive(Debug, Default)]
struct Seen {
    /// What the last ones took, in seconds.
    last: VecDeque<f64>,
    /// How many were asked about.
    looks: u32,
    /// Whether the last early question found its operation ended.
    is_fast: bool,
}

/// What is to be expected of an operation, in seconds.
struct Expected {
    mean: f64,
    /// When to ask first.
    first: f64,
    /// How late that is on average.
    late: f64,
}

impl Seen {
    fn remember(&mut self, seconds: f64) {
        if self.last.len() == REMEMBERED {
            self.last.pop_front();
        }
        self.last.push_back(seconds.max(0.0));
    }

    fn saw(&mut self, first: FirstLook, under_way: Option<Duration>, ended: f64) {
        if first.is_probe {
            self.is_fast = under_way.is_none();
        }
        let took = match (under_way, self.expect(true)) {
            (Some(under_way), _) => f64::midpoint(under_way.as_secs_f64(), ended),
            (None, Some(expected)) => {
                let shrink = if self.is_fast { SHRINK_FAST } else { SHRINK };
                shrink * ended.min(expected.first - expected.late)
            }
            (None, None) => ended,
        };
        self.remember(took);
    }

    fn expect(&self, contended: bool) -> Option<Expected> {
        let mut seen: Vec<f64> = self.last.iter().copied().collect();
        seen.sort_by(f64::total_cmp);
        let mean = mean(&seen)?;
        let haste = haste(contended);
        let late = (haste.first * mean).max(haste.first_least);
        let first = latest_look(&seen, late);
        Some(Expected { mean, first, late })
    }
}

fn haste(contended: bool) -> Haste {
    if contended { CONTENDED } else { ALONE }
}

/// The latest instant at which a look is late by no more than `late` on average, where operations end as those `seen` did,
/// shortest first.
fn latest_look(seen: &[f64], late: f64) -> f64 {
    let allowed = late * count(seen.len());
    let (mut ended, mut sum) = (0.0, 0.0);
    for (number, took) in seen.iter().enumerate() {
        // With `number` operations ended, their lateness at an instant t is number * t - sum.
        if allowed < count(number) * took - sum {
            break;
        }
        sum += took;
        ended = count(number + 1);
    }
    if ended == 0.0 { 0.0 } else { (allowed + sum) / ended }
}

fn mean(seen: &[f64]) -> Option<f64> {
    (!seen.is_empty()).then(|| seen.iter().sum::<f64>() / count(seen.len()))
}

fn count(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::from(u32::MAX), f64::from)
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Follows operations that take what `takes` says: questions for each, and the mean lateness as a share of the mean
    /// duration.
    fn follow(durations: &mut Durations, takes: impl Iterator<Item = f64>, contended: bool) -> (f64, f64) {
        let (mut questions, mut late, mut total, mut operations) = (0.0, 0.0, 0.0, 0.0);
        for takes in takes {
            let first = durations.first_look(ChangeKind::Grant, contended);
            let (mut at, mut under_way) = (first.after, None);
            questions += 1.0;
            while at.as_secs_f64() < takes {
                under_way = Some(at);
                at += durations.next_look(ChangeKind::Grant, at, contended);
                questions += 1.0;
            }
            durations.saw(ChangeKind::Grant, first, under_way, at);
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
    fn operations_of_seconds_to_minutes_are_seen_soon_after_their_end() {
        // Evenly on a logarithmic scale from 2 to 120 seconds, in an order without a pattern.
        let spread = || (0..3000_u32).map(|n| 2.0 * 60_f64.powf(f64::from(n * 7919 % 3000) / 3000.0));
        let (questions, late) = follow(&mut Durations::default(), spread(), true);
        assert!(questions < 25.0 && late < 0.07, "{questions} questions, late by {late}");
        let (questions, late) = follow(&mut Durations::default(), spread(), false);
        assert!(questions < 4.5 && late < 0.35, "{questions} questions, late by {late}");
    }
}
