//! Who holds what the statements of owners and operator speak about, as far as the live state and the record tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::Record;
use crate::guard::Verdict;
use crate::identity_center::{ChangeKind, Holders, Resolution};
use crate::invariant::{Condition, Ground, Holder, Past, broken};
use crate::ledger::{Ledger, LedgerError};
use crate::model::{EntitlementId, Interval, Person, PrincipalId, ResolvedTarget, spans::merged};
use crate::plan::Plan;
use crate::policy::Policy;
use crate::problem::Problem;

/// What of the past matters to statements about the length of access: nothing is read where there is none.
///
/// # Errors
/// [`LedgerError`].
pub(crate) async fn past(policy: &Policy, ledger: &Ledger, at: Timestamp) -> Result<Past, LedgerError> {
    let reach = policy
        .invariants
        .iter()
        .filter_map(|invariant| match invariant.condition {
            Condition::LongestAccess { longest, rest } => Some(longest.saturating_add(rest)),
            _ => None,
        });
    let Some(reach) = reach.max() else {
        return Ok(Past::new());
    };
    let since = at
        .checked_sub(reach.saturating_add(SignedDuration::from_secs(1)))
        .unwrap_or(Timestamp::MIN);
    let mut past = Past::new();
    for (entitlement, person, from, to) in ledger.held_since(since).await? {
        // What has begun within this very instant has not lasted yet.
        if policy
            .invariants
            .iter()
            .any(|invariant| invariant.is_about(&entitlement))
        {
            let spans: &mut Vec<Interval> = past.entry((entitlement, person)).or_default();
            spans.extend(Interval::new(from, to.unwrap_or(at).min(at)));
        }
    }
    for spans in past.values_mut() {
        *spans = merged(std::mem::take(spans));
    }
    Ok(past)
}

/// Everybody who holds something that a statement speaks about. A target that could not be read is held by whom the record
/// says.
pub(super) fn ground<'a>(
    policy: &'a Policy,
    targets: &BTreeMap<EntitlementId, Result<ResolvedTarget, String>>,
    live: &BTreeMap<ResolvedTarget, Arc<Holders>>,
    people: &BTreeMap<Person, Result<Resolution, String>>,
    plan: &Plan,
    record: &Record,
) -> Ground<'a> {
    let mut ground = Ground {
        invariants: &policy.invariants,
        held: BTreeSet::new(),
        past: record.past.clone(),
    };
    if policy.invariants.is_empty() {
        return ground;
    }
    let mut persons: BTreeMap<&PrincipalId, &Person> = BTreeMap::new();
    for (person, found) in people {
        if let Ok(Resolution::Found(principal) | Resolution::Disabled(principal)) = found {
            persons.insert(principal, person);
        }
    }
    persons.extend(
        record
            .owned
            .iter()
            .map(|((_, principal), owned)| (principal, &owned.person)),
    );
    let planned = plan.changes.iter();
    persons.extend(planned.filter_map(|change| Some((&change.principal, change.person.as_ref()?))));
    let ids: BTreeSet<&EntitlementId> = policy
        .invariants
        .iter()
        .flat_map(|invariant| &invariant.covers)
        .collect();
    let mut by_target: BTreeMap<&ResolvedTarget, &EntitlementId> = BTreeMap::new();
    for id in ids {
        if let Some(Ok(target)) = targets.get(id) {
            by_target.insert(target, id);
        }
    }
    let of_record = record.owned.keys().filter(|(target, _)| !live.contains_key(target));
    let seen = by_target
        .keys()
        .filter_map(|target| Some((*target, live.get(*target)?)))
        .flat_map(|(target, holders)| holders.users.iter().map(move |principal| (target, principal)));
    let known = of_record
        .chain(record.in_flight.keys())
        .map(|(target, principal)| (target, principal));
    for (target, principal) in seen.chain(known) {
        if let Some(id) = by_target.get(target) {
            let holder = Holder {
                principal: principal.clone(),
                person: persons.get(principal).map(|person| (*person).clone()),
            };
            ground.held.insert(((*id).clone(), holder));
        }
    }
    ground
}

/// What stands and breaks a statement, besides what is being taken back.
pub(super) fn standing_problems(
    ground: &Ground<'_>,
    verdict: &Verdict,
    record: &Record,
    at: Timestamp,
) -> Vec<Problem> {
    let mut leaving: BTreeSet<(&EntitlementId, &PrincipalId)> = BTreeSet::new();
    let approved = verdict.approved.steps().iter().map(|step| &step.change);
    for change in approved.filter(|change| change.kind == ChangeKind::Revoke) {
        leaving.insert((&change.entitlement, &change.principal));
    }
    let under_way = record.in_flight.iter().filter(|(_, kind)| **kind == ChangeKind::Revoke);
    let under_way = under_way.filter_map(|(key, _)| Some((&record.owned.get(key)?.entitlement, &key.1)));
    leaving.extend(under_way);
    broken(ground, |id, holder| leaving.contains(&(id, &holder.principal)), at)
}
