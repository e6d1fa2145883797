//! The baseline: what standing access would be, under the policy alone.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::config::Identity;
use crate::desired::{Snapshots, Timeline};
use crate::model::{EntitlementId, Interval, Origin, Person, spans::merged};
use crate::policy::{Policy, Rule, Trigger};

/// Time of standing access: what everybody would have held in `period` who could ever earn an entitlement under the
/// policy, had they held it all the time.
///
/// For a rule that demands membership, as every membership rule and by default every on-call rule does, these are all
/// members of the rule's project, whatever trainings, windows or shifts they would need besides; for an on-call rule
/// without that demand all people whom the snapshots show on its schedule at the levels that count. Standing access
/// begins and ends with the membership and ends with the rule, where these have such dates. A person whom several rules
/// name counts once.
#[must_use]
pub fn standing(
    policy: &Policy,
    snapshots: &Snapshots,
    identities: &[Identity],
    period: Interval,
) -> BTreeMap<(EntitlementId, Person), SignedDuration> {
    standing_spans(policy, snapshots, identities, period)
        .into_iter()
        .map(|(cell, spans)| (cell, length(spans)))
        .collect()
}

/// When each would have held it; see [`standing`]. Spans may overlap.
#[must_use]
pub fn standing_spans(
    policy: &Policy,
    snapshots: &Snapshots,
    identities: &[Identity],
    period: Interval,
) -> BTreeMap<(EntitlementId, Person), Vec<Interval>> {
    standing_spans_of(policy, snapshots, identities, period, |_| true)
}

/// The same for some people.
#[must_use]
pub fn standing_spans_of(
    policy: &Policy,
    snapshots: &Snapshots,
    identities: &[Identity],
    period: Interval,
    whom: impl Fn(&Person) -> bool,
) -> BTreeMap<(EntitlementId, Person), Vec<Interval>> {
    let mut could: BTreeMap<(EntitlementId, Person), Vec<Interval>> = BTreeMap::new();
    let mut add = |entitlement: &EntitlementId, person: &Person, valid: Option<Interval>, until: Option<Timestamp>| {
        if !whom(person) {
            return;
        }
        let spans = could.entry((entitlement.clone(), person.clone())).or_default();
        let rule = Interval::new(
            period.start(),
            until.map_or(period.end(), |until| until.min(period.end())),
        );
        spans.extend(valid.zip(rule).and_then(|(valid, rule)| valid.intersect(&rule)));
    };
    for project in policy.projects.values() {
        for rule in project.rules.iter().filter(|rule| needs_member(rule)) {
            for member in project.members.values() {
                add(&rule.entitlement, &member.person, member.valid(), rule.until);
            }
        }
    }
    for (entitlement, person, until) in seen_on_call(policy, snapshots, identities) {
        add(&entitlement, &person, Some(Interval::ALWAYS), until);
    }
    could
}

/// How long at least one of the spans lasts.
#[must_use]
pub fn length(spans: Vec<Interval>) -> SignedDuration {
    let durations = merged(spans).into_iter().map(|span| span.duration());
    durations.fold(SignedDuration::ZERO, SignedDuration::saturating_add)
}

fn needs_member(rule: &Rule) -> bool {
    rule.member || !rule.trainings.is_empty() || matches!(rule.trigger, Trigger::Members { .. })
}

/// Who is on the schedules of rules that do not demand membership, with the end of the rule. The timeline says who people
/// are, so that the baseline knows nobody whom a grant would not.
fn seen_on_call(
    policy: &Policy,
    snapshots: &Snapshots,
    identities: &[Identity],
) -> BTreeSet<(EntitlementId, Person, Option<Timestamp>)> {
    let mut rules = policy.projects.values().flat_map(|project| &project.rules);
    if rules.all(needs_member) {
        return BTreeSet::new();
    }
    let mut open_to_all = policy.clone();
    let mut ends: BTreeMap<Origin, Option<Timestamp>> = BTreeMap::new();
    for project in open_to_all.projects.values_mut() {
        project.rules.retain(|rule| !needs_member(rule));
        for rule in &mut project.rules {
            ends.insert(rule.origin.clone(), rule.until.take());
        }
    }
    Timeline::build(&open_to_all, snapshots, identities, Interval::ALWAYS)
        .causes
        .into_iter()
        .map(|cause| {
            let until = ends.get(&cause.right.rule).copied().flatten();
            (cause.right.entitlement.clone(), cause.person.clone(), until)
        })
        .collect()
}
