//! Holds a plan against the statements. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{Condition, Holder, Invariant, Obstacle, Tally, stretch};
use crate::desired::Timeline;
use crate::identity_center::ChangeKind;
use crate::model::{EntitlementId, Interval, Person, spans::merged};
use crate::plan::{Change, Key};
use crate::problem::{Problem, ProblemKind};
use crate::text::{instant, span};

/// When somebody held something through us, as far back as statements about the length of access look; in order, with
/// what still stands until the instant looked at.
pub type Past = BTreeMap<(EntitlementId, Person), Vec<Interval>>;

/// What statements are asked about besides the plan.
#[derive(Debug, Clone, Default)]
pub struct Ground<'a> {
    /// Every statement of the policy in force.
    pub invariants: &'a [Invariant],
    /// Who holds what, whoever granted it, what is under way included: a grant counts from when it was asked for, and a
    /// revoke only once it is confirmed.
    pub held: BTreeSet<(EntitlementId, Holder)>,
    /// How long it has been so.
    pub past: Past,
}

impl<'a> Ground<'a> {
    fn tally(&self) -> Tally<'a> {
        let mut tally = Tally::new(self.invariants);
        for (id, holder) in &self.held {
            tally.hold(id, holder);
        }
        tally
    }

    fn past(&self, id: &EntitlementId, person: Option<&Person>) -> &[Interval] {
        let key = person.map(|person| (id.clone(), person.clone()));
        let past = key.and_then(|key| self.past.get(&key));
        past.map(Vec::as_slice).unwrap_or_default()
    }
}

impl Ground<'_> {
    /// The next instant after `at` at which the clock alone changes what a statement says of somebody who holds something
    /// or is `waiting` for it: a training begins or ends to count, a break has lasted, or access has grown too long.
    #[must_use]
    pub fn next_change<'c>(&'c self, waiting: impl Iterator<Item = &'c Person>, at: Timestamp) -> Option<Timestamp> {
        let holding = self.held.iter().filter_map(|(_, holder)| holder.person.as_ref());
        let people: BTreeSet<&Person> = holding.chain(waiting).collect();
        let mut moments = Vec::new();
        for invariant in self.invariants {
            match invariant.condition {
                Condition::Requires(_) => {
                    let spans = people
                        .iter()
                        .filter_map(|person| invariant.trained.get(*person))
                        .flatten();
                    moments.extend(spans.flat_map(|span| [span.start(), span.end()]));
                }
                Condition::LongestAccess { longest, rest } => {
                    let past = self.past.iter().filter(|((id, _), _)| invariant.is_about(id));
                    for (spans, last) in past.filter_map(|(_, spans)| Some((spans, spans.last()?))) {
                        moments.extend(if last.end() < at {
                            last.end().checked_add(rest)
                        } else {
                            // At exactly the longest it is not longer yet.
                            let beyond = longest.saturating_add(SignedDuration::from_secs(1));
                            stretch(spans, *last, at, rest).start().checked_add(beyond)
                        });
                    }
                }
                Condition::MaxHolders(_) | Condition::NeverTogether | Condition::Domains(_) => {}
            }
        }
        moments
            .into_iter()
            .filter(|moment| at < *moment && *moment < Timestamp::MAX)
            .min()
    }
}

/// Which of the grants would break a statement, each with the first that it would. Those whose turn began earlier are let
/// through first, then by person and entitlement; what is let through counts for those that come after it.
pub fn hold_back<'a, 'c>(
    ground: &Ground<'a>,
    grants: impl IntoIterator<Item = &'c Change>,
    timeline: &Timeline,
    at: Timestamp,
) -> BTreeMap<Key, Obstacle<'a>> {
    let mut held = BTreeMap::new();
    if ground.invariants.is_empty() {
        return held;
    }
    let mut tally = ground.tally();
    let concerned = |change: &&Change| change.kind == ChangeKind::Grant && tally.speaks_about(&change.entitlement);
    let mut grants: Vec<&Change> = grants.into_iter().filter(concerned).collect();
    grants.sort_by_cached_key(|change| {
        (
            change.due,
            change.person.clone(),
            change.entitlement.clone(),
            change.key(),
        )
    });
    for change in grants {
        let holder = Holder {
            principal: change.principal.clone(),
            person: change.person.clone(),
        };
        let turn = turn(timeline, change, at);
        let past = ground.past(&change.entitlement, change.person.as_ref());
        match tally.obstacle(&change.entitlement, &holder, at, |rest| stretch(past, turn, at, rest)) {
            Some(obstacle) => {
                held.insert(change.key(), obstacle);
            }
            None => tally.hold(&change.entitlement, &holder),
        }
    }
    held
}

/// The whole time around `at` for which causes call for what is to be granted.
fn turn(timeline: &Timeline, change: &Change, at: Timestamp) -> Interval {
    let own = change.causes.iter().map(|cause| cause.held);
    let known = change
        .person
        .iter()
        .flat_map(|person| timeline.of(&change.entitlement, person));
    turn_of(known.map(|cause| cause.held).chain(own), at)
        .or_else(|| Interval::new(at, Timestamp::MAX))
        .unwrap_or(Interval::ALWAYS)
}

/// The time around `at` that spans cover without a break.
pub fn turn_of(spans: impl IntoIterator<Item = Interval>, at: Timestamp) -> Option<Interval> {
    let spans = merged(spans.into_iter().collect());
    spans.into_iter().find(|span| span.contains(at))
}

/// Access that stands and breaks a statement, `leaving` left out because it is being taken back. Nothing is revoked by it.
#[must_use]
pub fn broken(ground: &Ground<'_>, leaving: impl Fn(&EntitlementId, &Holder) -> bool, at: Timestamp) -> Vec<Problem> {
    let mut tally = Tally::new(ground.invariants);
    let staying = |(id, holder): &&(EntitlementId, Holder)| !leaving(id, holder);
    for (id, holder) in ground.held.iter().filter(staying) {
        tally.hold(id, holder);
    }
    let mut broken = tally.broken(at);
    for invariant in ground.invariants {
        let Condition::LongestAccess { longest, rest } = invariant.condition else {
            continue;
        };
        let about = |(id, _): &&(EntitlementId, Holder)| invariant.is_about(id);
        for (id, holder) in ground.held.iter().filter(about).filter(staying) {
            let past = ground.past(id, holder.person.as_ref());
            let Some(now) = past.last().filter(|last| at <= last.end()) else {
                continue;
            };
            let whole = stretch(past, *now, at, rest);
            if longest < whole.duration() {
                let why = format!(
                    "{} is allowed, and {holder} has held {id} for {} since {}",
                    invariant.condition,
                    span(whole.duration()),
                    instant(whole.start())
                );
                broken.push((invariant, holder.person.clone(), why));
            }
        }
    }
    broken
        .into_iter()
        .map(|(invariant, person, why)| Problem {
            entitlement: invariant
                .covers
                .first()
                .filter(|_| invariant.covers.len() == 1)
                .cloned(),
            person,
            invariant: Some(invariant.id()),
            ..Problem::new(
                ProblemKind::InvariantBroken,
                format!(
                    "{} is broken by access that stands: {why}; nothing is revoked for it",
                    invariant.label()
                ),
            )
        })
        .collect()
}
