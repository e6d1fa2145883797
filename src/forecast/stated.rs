//! Grants to come that a statement of an owner or the operator would hold back.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Gap, GapKind, Holding};
use crate::invariant::{Condition, Holder, Invariant, Obstacle, Tally, stretch};
use crate::model::{
    EntitlementId, Interval, Person, PrincipalId,
    spans::{gaps, merged},
};
use crate::policy::Policy;
use crate::problem::ProblemKind;
use crate::text::instant;

/// Plays the period as if AWS did everything at once and nobody held anything besides: at each instant what ends goes
/// first, then what is due comes, in the order in which turns began. Marks holdings that never come.
pub(super) fn held_back(policy: &Policy, holdings: &mut [Holding], period: Interval) -> Vec<Gap> {
    let mut tally = Tally::new(&policy.invariants);
    let concerned = |h: &Holding| h.kept_from.is_none() && tally.speaks_about(&h.entitlement);
    let mut order: Vec<usize> = (0..holdings.len()).filter(|n| concerned(&holdings[*n])).collect();
    if order.is_empty() {
        return Vec::new();
    }
    order.sort_by_key(|n| {
        let h = &holdings[*n];
        (h.held.start(), due(h), h.person.clone(), h.entitlement.clone())
    });
    let mut moments: BTreeSet<Timestamp> = order
        .iter()
        .flat_map(|n| [holdings[*n].held.start(), holdings[*n].held.end()])
        .collect();
    moments.extend(moments_of(policy, &moments));
    let mut play = Play::default();
    let mut coming = order.into_iter().peekable();
    for at in moments.into_iter().filter(|at| *at < period.end()) {
        play.end(&mut tally, holdings, at);
        while let Some(n) = coming.next_if(|n| holdings[*n].held.start() <= at) {
            play.waiting.push((n, None));
        }
        play.begin(&mut tally, holdings, at);
    }
    for (n, first) in std::mem::take(&mut play.waiting) {
        play.never(n, first, holdings);
    }
    let mut gaps = play.gaps(holdings, period);
    gaps.extend(untrained(policy, holdings, &play.granted));
    gaps
}

fn due(holding: &Holding) -> Timestamp {
    holding
        .causes
        .iter()
        .map(|cause| cause.held.start())
        .min()
        .unwrap_or(holding.held.start())
}

fn holder(person: &Person) -> Holder {
    Holder {
        principal: PrincipalId(person.to_string().into()),
        person: Some(person.clone()),
    }
}

/// The whole turn, as far as it is known, beyond the period too.
fn turn(holding: &Holding) -> Interval {
    let causes = merged(holding.causes.iter().map(|cause| cause.held).collect());
    let whole = causes
        .first()
        .zip(causes.last())
        .and_then(|(first, last)| Interval::new(first.start(), last.end()));
    whole.unwrap_or(holding.held)
}

/// Instants at which a statement may let go by itself: a training counts, or a break has lasted.
fn moments_of(policy: &Policy, edges: &BTreeSet<Timestamp>) -> Vec<Timestamp> {
    let mut moments = Vec::new();
    for invariant in &policy.invariants {
        match &invariant.condition {
            Condition::Requires(_) => moments.extend(invariant.trained.values().flatten().map(Interval::start)),
            Condition::LongestAccess { rest, .. } => {
                moments.extend(edges.iter().filter_map(|edge| edge.checked_add(*rest).ok()));
            }
            Condition::MaxHolders(_) | Condition::NeverTogether | Condition::Domains(_) => {}
        }
    }
    let bounds = edges.first().copied().zip(edges.last().copied());
    moments.retain(|at| bounds.is_some_and(|(first, last)| first <= *at && *at <= last));
    moments
}

/// What is first in the way of a holding, and from when on.
type First<'a> = Option<(Timestamp, Obstacle<'a>)>;

#[derive(Default)]
struct Play<'a> {
    /// Those that are held, by their end.
    standing: BTreeSet<(Timestamp, usize)>,
    waiting: Vec<(usize, First<'a>)>,
    /// When each came.
    granted: BTreeMap<usize, Timestamp>,
    past: BTreeMap<(EntitlementId, Person), Vec<Interval>>,
    held: Vec<(usize, Interval, Obstacle<'a>)>,
}

impl<'a> Play<'a> {
    fn end(&mut self, tally: &mut Tally<'a>, holdings: &mut [Holding], at: Timestamp) {
        while let Some((end, n)) = self.standing.first().copied().filter(|(end, _)| *end <= at) {
            self.standing.remove(&(end, n));
            let holding = &holdings[n];
            tally.release(&holding.entitlement, &holder(&holding.person));
            let since = self.granted.get(&n).copied().unwrap_or(end);
            let cell = (holding.entitlement.clone(), holding.person.clone());
            self.past.entry(cell).or_default().extend(Interval::new(since, end));
        }
        let (over, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(n, _)| holdings[*n].held.end() <= at);
        self.waiting = waiting;
        for (n, first) in over {
            self.never(n, first, holdings);
        }
    }

    fn begin(&mut self, tally: &mut Tally<'a>, holdings: &[Holding], at: Timestamp) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.sort_by_key(|(n, _)| (due(&holdings[*n]), &holdings[*n].person, &holdings[*n].entitlement));
        for (n, first) in waiting {
            let holding = &holdings[n];
            let (id, who) = (&holding.entitlement, holder(&holding.person));
            let past = self.past.get(&(id.clone(), holding.person.clone()));
            let past = past.map(Vec::as_slice).unwrap_or_default();
            match tally.obstacle(id, &who, at, |rest| stretch(past, turn(holding), at, rest)) {
                Some(obstacle) => self.waiting.push((n, first.or(Some((at, obstacle))))),
                None => {
                    tally.hold(id, &who);
                    self.standing.insert((holding.held.end(), n));
                    self.granted.insert(n, at);
                    if let Some((since, obstacle)) = first {
                        self.held
                            .extend(Interval::new(since, at).map(|during| (n, during, obstacle)));
                    }
                }
            }
        }
    }

    fn never(&mut self, n: usize, first: First<'a>, holdings: &mut [Holding]) {
        if let Some((since, obstacle)) = first {
            holdings[n].kept_from = Some(ProblemKind::InvariantBroken);
            let during = Interval::new(since, holdings[n].held.end());
            self.held.extend(during.map(|during| (n, during, obstacle)));
        }
    }

    /// The first of those that concern the same person, entitlement and statement, with how many follow.
    fn gaps(&mut self, holdings: &[Holding], period: Interval) -> Vec<Gap> {
        self.held.sort_by_key(|(_, during, _)| *during);
        let mut gaps: BTreeMap<(EntitlementId, Person, String), Gap> = BTreeMap::new();
        for (n, during, obstacle) in &self.held {
            let (id, person) = (&holdings[*n].entitlement, &holdings[*n].person);
            let key = (id.clone(), person.clone(), obstacle.invariant.id());
            let Some(during) = during.intersect(&period) else {
                continue;
            };
            let gap = Gap {
                kind: GapKind::Invariant,
                during,
                more: 0,
                entitlements: BTreeSet::from([id.clone()]),
                schedule: holdings[*n].causes.iter().find_map(|cause| cause.schedule().cloned()),
                person: Some(person.clone()),
                message: format!(
                    "{person} will be held from {id} by the statement {}: {}; what lets it go is {}, or an edit of the statement",
                    obstacle.invariant.label(),
                    obstacle.why,
                    obstacle.release
                ),
            };
            gaps.entry(key).and_modify(|first| first.more += 1).or_insert(gap);
        }
        gaps.into_values().collect()
    }
}

/// Access that will stand although a training that a statement demands no longer counts.
fn untrained(policy: &Policy, holdings: &[Holding], granted: &BTreeMap<usize, Timestamp>) -> Vec<Gap> {
    let demanding = |invariant: &&Invariant| matches!(invariant.condition, Condition::Requires(_));
    let mut found = Vec::new();
    for invariant in policy.invariants.iter().filter(demanding) {
        for (n, since) in granted {
            let holding = &holdings[*n];
            if !invariant.is_about(&holding.entitlement) {
                continue;
            }
            let trained = invariant
                .trained
                .get(&holding.person)
                .map(Vec::as_slice)
                .unwrap_or_default();
            let held = Interval::new(*since, holding.held.end());
            let Some(during) = held.and_then(|held| gaps(held, trained).first().copied()) else {
                continue;
            };
            found.push(Gap {
                kind: GapKind::Invariant,
                during,
                more: 0,
                entitlements: BTreeSet::from([holding.entitlement.clone()]),
                schedule: None,
                person: Some(holding.person.clone()),
                message: format!(
                    "{} will hold {} beyond {}, when a training that the statement {} demands no longer counts; nothing is \
                     revoked for it",
                    holding.person,
                    holding.entitlement,
                    instant(during.start()),
                    invariant.label()
                ),
            });
        }
    }
    found
}
