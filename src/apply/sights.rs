//! What durations are to be expected, where each was only seen to lie between two questions. Pure.
//!
//! An operation that was under way at one question and had ended at the next took something in between; one that had ended
//! by the first question took anything up to then. Such sights are interval-censored, and the most likely distribution
//! behind them is Turnbull's (B. W. Turnbull, "The empirical distribution function with arbitrarily grouped, censored and
//! truncated data", 1976): all weight lies in the innermost intervals, and is shared out among them by repetition.

use std::collections::VecDeque;

/// How many sights are remembered: enough for a mean, few enough to follow AWS's mood of the day.
const REMEMBERED: usize = 32;

/// How often the weights are shared out anew. They have settled long before, to the precision that matters here.
const ROUNDS: usize = 24;

/// Of less weight than this, what is left of an expectation says nothing.
const NOTHING: f64 = 0.01;

/// What was seen of one operation, in seconds since its begin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight {
    /// When it was last seen under way; 0 if never.
    pub(super) under_way: f64,
    /// When it was first seen ended.
    pub(super) ended: f64,
}

/// The sights of late.
#[derive(Debug, Default)]
pub(super) struct Sights {
    of_late: VecDeque<Sight>,
    expectation: Option<Expectation>,
}

impl Sights {
    pub(super) fn add(&mut self, sight: Sight) {
        if self.of_late.len() == REMEMBERED {
            self.of_late.pop_front();
        }
        self.of_late.push_back(sight);
        self.expectation = self.most_likely();
    }

    /// Forgets operations that were still under way after so many seconds.
    pub(super) fn forget_from(&mut self, seconds: f64) {
        self.of_late.retain(|sight| sight.under_way < seconds);
        self.expectation = self.most_likely();
    }

    pub(super) fn len(&self) -> f64 {
        u32::try_from(self.of_late.len()).map_or(f64::from(u32::MAX), f64::from)
    }

    /// `None` while there are no sights.
    pub(super) fn expectation(&self) -> Option<&Expectation> {
        self.expectation.as_ref()
    }

    fn most_likely(&self) -> Option<Expectation> {
        let innermost = self.innermost();
        // Every sight contains at least one innermost interval.
        let inside: Vec<Vec<usize>> = self
            .of_late
            .iter()
            .map(|sight| {
                let within = |(from, to): &(f64, f64)| sight.under_way <= *from && *to <= sight.ended;
                innermost
                    .iter()
                    .enumerate()
                    .filter(|(_, one)| within(one))
                    .map(|(n, _)| n)
                    .collect()
            })
            .collect();
        let mut weights = vec![1.0; innermost.len()];
        for _ in 0..ROUNDS {
            let mut next = vec![0.0; innermost.len()];
            for inside in &inside {
                let sum: f64 = inside.iter().map(|n| weights[*n]).sum();
                for n in inside {
                    next[*n] += weights[*n] / sum;
                }
            }
            weights = next;
        }
        let points: Vec<(f64, f64)> = innermost
            .iter()
            .zip(weights)
            .map(|((from, to), weight)| (f64::midpoint(*from, *to), weight / self.len()))
            .collect();
        (!points.is_empty()).then_some(Expectation(points))
    }

    /// The begins of sights directly followed by an end, in order.
    fn innermost(&self) -> Vec<(f64, f64)> {
        // At the same instant ends come first: an operation seen under way then had not ended.
        let mut bounds: Vec<(f64, bool)> = Vec::new();
        for sight in &self.of_late {
            bounds.extend([(sight.ended, false), (sight.under_way, true)]);
        }
        bounds.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        bounds
            .windows(2)
            .filter(|pair| pair[0].1 && !pair[1].1)
            .map(|pair| (pair[0].0, pair[1].0))
            .collect()
    }
}

/// Durations in seconds, shortest first, each with its probability.
#[derive(Debug)]
pub(super) struct Expectation(Vec<(f64, f64)>);

impl Expectation {
    pub(super) fn mean(&self) -> f64 {
        self.0.iter().map(|(took, weight)| took * weight).sum()
    }

    /// The share that takes no longer than this.
    pub(super) fn ended_by(&self, seconds: f64) -> f64 {
        let ended = self.0.iter().filter(|(took, _)| *took <= seconds);
        ended.map(|(_, weight)| weight).sum()
    }

    /// What is to be expected of an operation that is under way after `elapsed`; `None` where none took so long.
    pub(super) fn beyond(&self, elapsed: f64) -> Option<Self> {
        let rest = || self.0.iter().filter(|(took, _)| elapsed < *took);
        let all: f64 = rest().map(|(_, weight)| weight).sum();
        (NOTHING < all).then(|| Self(rest().map(|(took, weight)| (*took, weight / all)).collect()))
    }

    /// The latest instant at which a look is late by no more than `late` on average.
    pub(super) fn latest_look(&self, late: f64) -> f64 {
        let (mut ended, mut sum) = (0.0, 0.0);
        for (took, weight) in &self.0 {
            // The lateness at an instant t is ended * t - sum.
            if late < ended * took - sum {
                break;
            }
            sum += weight * took;
            ended += weight;
        }
        if ended == 0.0 { 0.0 } else { (late + sum) / ended }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sights(of: &[(f64, f64)]) -> Sights {
        let mut sights = Sights::default();
        for (under_way, ended) in of {
            sights.add(Sight {
                under_way: *under_way,
                ended: *ended,
            });
        }
        sights
    }

    #[test]
    fn what_two_questions_and_another_s_single_one_say_together_is_narrower_than_either() {
        let sights = sights(&[(7.0, 11.0), (0.0, 9.0)]);
        let expected = sights.expectation().unwrap();
        assert!((expected.mean() - 8.0).abs() < 0.1, "{expected:?}");
    }

    #[test]
    fn weight_lies_where_sights_agree() {
        // Three of four took about 5, one about 30; the first two alone cannot tell.
        let sights = sights(&[(0.0, 40.0), (0.0, 6.0), (4.0, 6.0), (29.0, 31.0)]);
        let expected = sights.expectation().unwrap();
        assert!((expected.latest_look(0.0) - 5.0).abs() < 1e-9, "{expected:?}");
        assert!((10.0..20.0).contains(&expected.mean()), "{expected:?}");
        let rest = expected.beyond(10.0).unwrap();
        assert!((rest.mean() - 30.0).abs() < 1e-9);
        assert!(expected.beyond(30.0).is_none());
    }

    #[test]
    fn a_look_is_late_by_what_was_asked_for() {
        let spread: Vec<(f64, f64)> = (1..=20).map(|n| (f64::from(n) - 0.5, f64::from(n) + 0.5)).collect();
        let sights = sights(&spread);
        let expected = sights.expectation().unwrap();
        let look = expected.latest_look(1.0);
        let late: f64 = (1..=20).map(|n| (look - f64::from(n)).max(0.0) / 20.0).sum();
        assert!((late - 1.0).abs() < 0.01, "{look} is late by {late}");
    }
}
