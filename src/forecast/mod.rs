//! Who will hold what over the coming days, and the gaps in it that can be repaired in daylight. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::config::Identity;
use crate::desired::{Snapshots, Timeline};
use crate::identity_center::Resolution;
use crate::model::{Basis, Cause, EntitlementId, Interval, Person, ScheduleKey};
use crate::plan::principal_of;
use crate::policy::Policy;
use crate::problem::{Problem, ProblemKind};
use crate::text::{instant, span};

mod coverage;
pub mod page;
mod stated;
#[cfg(test)]
mod tests;

pub use coverage::{short_of_holders, uncovered};

/// What is known of each person in the identity store; `None` when it was not asked, so that nobody is doubted.
pub type People = Option<BTreeMap<Person, Result<Resolution, String>>>;

/// The coming days.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Forecast {
    /// The time looked at.
    pub period: Interval,
    /// Sorted by entitlement, then start, then person.
    pub holdings: Vec<Holding>,
    /// In the order in which they begin.
    pub gaps: Vec<Gap>,
}

/// One unbroken time for which one person is to hold one entitlement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holding {
    /// What.
    pub entitlement: EntitlementId,
    /// Who.
    pub person: Person,
    /// From when until when, lead and linger included, cut to the period.
    pub held: Interval,
    /// Whether `held.end()` is when it ends rather than as far as is looked or known.
    pub end_known: bool,
    /// Every cause, the earliest first.
    pub causes: Vec<Arc<Cause>>,
    /// What would keep the person from it; the gap says more.
    pub kept_from: Option<ProblemKind>,
}

impl Holding {
    /// What earns it, in few words.
    #[must_use]
    pub fn earned_by(&self) -> String {
        let words: BTreeSet<String> = self
            .causes
            .iter()
            .map(|cause| match &cause.right.basis {
                Basis::OnCall { schedule, .. } => format!("on call in {schedule}"),
                Basis::Window => "window".to_owned(),
                Basis::Membership => "membership".to_owned(),
            })
            .collect();
        words.into_iter().collect::<Vec<_>>().join(", ")
    }
}

/// Sorts of gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GapKind {
    /// A schedule was never read, or not as far ahead as is looked.
    NotRead,
    /// Nobody is on call.
    NobodyOnCall,
    /// Somebody is on call and will not get what the duty earns.
    NotQualified,
    /// Somebody's membership ends while they are on call.
    MembershipEnds,
    /// Identity Center does not know, or has disabled, somebody who is to hold something.
    PersonUnknown,
    /// Fewer people will hold an entitlement than its owner demands.
    MinHolders,
    /// A statement of an owner or the operator will hold a grant back, or be broken by access that stands.
    Invariant,
}

/// Something to repair before it matters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// What sort.
    pub kind: GapKind,
    /// When it is first so; the whole period where it is so from now on until mended.
    pub during: Interval,
    /// How many further times the same is so within the period.
    pub more: usize,
    /// What nobody or somebody will not hold.
    pub entitlements: BTreeSet<EntitlementId>,
    /// On which schedule.
    pub schedule: Option<ScheduleKey>,
    /// Who is concerned.
    pub person: Option<Person>,
    /// What is missing, and who can mend it how.
    pub message: String,
}

/// Looks ahead.
#[must_use]
pub fn forecast(
    policy: &Policy,
    snapshots: &Snapshots,
    identities: &[Identity],
    people: &People,
    period: Interval,
) -> Forecast {
    let timeline = Timeline::build(policy, snapshots, identities, period);
    let mut gaps: Vec<Gap> = timeline.problems.iter().flat_map(|p| gap_of(p, period)).collect();
    let mut holdings = merge(&timeline.causes, period);
    let doubts = doubts(&holdings, people);
    for holding in &mut holdings {
        let doubt = doubts.get(&(holding.entitlement.clone(), holding.person.clone()));
        holding.kept_from = doubt.map(|(problem, _)| problem.kind);
    }
    gaps.extend(doubts.into_values().map(|(problem, during)| Gap {
        kind: GapKind::PersonUnknown,
        during,
        more: 0,
        entitlements: problem.entitlement.into_iter().collect(),
        schedule: problem.schedule,
        person: problem.person,
        message: problem.message,
    }));
    gaps.extend(stated::held_back(policy, &mut holdings, period));
    gaps.extend(uncovered(policy, snapshots, period));
    gaps.extend(short_of_holders(policy, &holdings, period));
    gaps.sort_by(|a, b| {
        let order = |g: &Gap| (g.during.start(), g.kind, g.entitlements.clone(), g.message.clone());
        order(a).cmp(&order(b))
    });
    Forecast { period, holdings, gaps }
}

/// Everybody who is to hold something in the period: whom the identity store should be asked about.
#[must_use]
pub fn people_of(
    policy: &Policy,
    snapshots: &Snapshots,
    identities: &[Identity],
    period: Interval,
) -> BTreeSet<Person> {
    let timeline = Timeline::build(policy, snapshots, identities, period);
    timeline.causes.iter().map(|cause| cause.person.clone()).collect()
}

/// What the timeline found, as far as it is a gap: that a clock is wrong or a read notable is for `status`.
fn gap_of(problem: &Problem, period: Interval) -> Option<Gap> {
    let kind = match problem.kind {
        ProblemKind::ScheduleUnread => GapKind::NotRead,
        ProblemKind::MembershipEnds => GapKind::MembershipEnds,
        ProblemKind::NotAMember
        | ProblemKind::MissingTraining
        | ProblemKind::NoEmail
        | ProblemKind::AmbiguousUser
        | ProblemKind::PinnedElsewhere
        | ProblemKind::UserDeleted
        | ProblemKind::UserBlocked
        | ProblemKind::PermanentNotAllowed => GapKind::NotQualified,
        _ => return None,
    };
    Some(Gap {
        kind,
        during: problem.during.and_then(|d| d.intersect(&period)).unwrap_or(period),
        more: problem.more,
        entitlements: problem.entitlement.iter().cloned().collect(),
        schedule: problem.schedule.clone(),
        person: problem.person.clone(),
        message: problem.message.clone(),
    })
}

/// Makes one holding of causes that touch or overlap. They are in a timeline's order: by entitlement, person and time.
fn merge(causes: &[Arc<Cause>], period: Interval) -> Vec<Holding> {
    let mut holdings: Vec<Holding> = Vec::with_capacity(causes.len());
    let is_one = |a: &Arc<Cause>, b: &Arc<Cause>| a.person == b.person && a.right.entitlement == b.right.entitlement;
    for of_one in causes.chunk_by(is_one) {
        let mut runs: Vec<(Interval, bool, Vec<Arc<Cause>>)> = Vec::new();
        for cause in of_one {
            match runs.last_mut() {
                Some((held, end_known, run)) if cause.held.start() <= held.end() => {
                    if held.end() < cause.held.end() {
                        *held = Interval::new(held.start(), cause.held.end()).unwrap_or(*held);
                        *end_known = cause.end_known;
                    } else if held.end() == cause.held.end() {
                        *end_known &= cause.end_known;
                    }
                    run.push(Arc::clone(cause));
                }
                _ => runs.push((cause.held, cause.end_known, vec![Arc::clone(cause)])),
            }
        }
        for (held, end_known, causes) in runs {
            if let (Some(inside), Some(first)) = (held.intersect(&period), causes.first()) {
                holdings.push(Holding {
                    entitlement: first.right.entitlement.clone(),
                    person: first.person.clone(),
                    held: inside,
                    end_known: end_known && held.end() <= period.end(),
                    causes,
                    kept_from: None,
                });
            }
        }
    }
    holdings.sort_unstable_by(|a, b| {
        (&a.entitlement, a.held.start(), &a.person, a.held.end()).cmp(&(
            &b.entitlement,
            b.held.start(),
            &b.person,
            b.held.end(),
        ))
    });
    holdings
}

/// Whom the identity store keeps from an entitlement, and from when on that matters. Whoever was not looked up is not
/// doubted.
fn doubts(holdings: &[Holding], people: &People) -> BTreeMap<(EntitlementId, Person), (Problem, Interval)> {
    let mut doubts = BTreeMap::new();
    let Some(people) = people else { return doubts };
    for holding in holdings {
        let Some(found @ Ok(_)) = people.get(&holding.person) else {
            continue;
        };
        if let Err(problem) = principal_of(Some(found), &holding.entitlement, &holding.person) {
            doubts
                .entry((holding.entitlement.clone(), holding.person.clone()))
                .or_insert((*problem, holding.held));
        }
    }
    doubts
}

/// From when until when, and how long that is, for people.
#[must_use]
pub fn when(during: Interval) -> String {
    let long = span(during.start().duration_until(during.end()));
    format!("from {} to {} ({long})", instant(during.start()), instant(during.end()))
}

/// The period of so many days from `from`.
#[must_use]
pub fn days_from(from: Timestamp, days: u16) -> Option<Interval> {
    let length = SignedDuration::from_hours(24 * i64::from(days));
    Interval::new(from, from.checked_add(length).ok()?)
}
