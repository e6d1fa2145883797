//! Who is on duty and does not hold what it earns, and what is known about why.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::Record;
use crate::desired::Desired;
use crate::guard::Verdict;
use crate::identity_center::ChangeKind;
use crate::ledger::OnDuty;
use crate::model::{Cause, EntitlementId, Interval, Person};
use crate::plan::Plan;
use crate::problem::{Problem, ProblemKind};

/// Everybody on duty at `at` without access, whoever may have granted it. Lead and linger are no duty.
pub(super) fn unheld(
    desired: &Desired,
    record: &Record,
    plan: &Plan,
    verdict: &Verdict,
    problems: &[Problem],
    at: Timestamp,
) -> Vec<OnDuty> {
    let lost: BTreeSet<_> = plan.lost.iter().collect();
    let ours = record.owned.iter().filter(|(key, _)| !lost.contains(key));
    let mut held: BTreeSet<(&EntitlementId, &Person)> = ours.map(|(_, o)| (&o.entitlement, &o.person)).collect();
    let strangers = plan.drift.iter().filter(|drift| drift.desired);
    held.extend(strangers.flat_map(|drift| Some((&drift.entitlement, drift.person.as_ref()?))));
    let mut found = Vec::new();
    for (entitlement, holders) in &desired.holders {
        for (person, causes) in holders
            .iter()
            .filter(|(person, _)| !held.contains(&(entitlement, *person)))
        {
            if let Some(duty) = duty_at(causes, at) {
                found.push(OnDuty {
                    entitlement: entitlement.clone(),
                    person: person.clone(),
                    duty,
                    why: why(entitlement, person, record, verdict, problems, at),
                });
            }
        }
    }
    found
}

fn duty_at(causes: &[Arc<Cause>], at: Timestamp) -> Option<Interval> {
    let duties = causes.iter().filter(|cause| cause.duty.contains(at));
    let ends = duties
        .clone()
        .map(|c| if c.end_known { c.duty.end() } else { Timestamp::MAX });
    Interval::new(duties.map(|c| c.duty.start()).min()?, ends.max()?)
}

/// One of a few words: `barred`, `held_by_` and a guard, a kind of problem, or `granting`.
fn why(
    entitlement: &EntitlementId,
    person: &Person,
    record: &Record,
    verdict: &Verdict,
    problems: &[Problem],
    at: Timestamp,
) -> String {
    if record.bars.iter().any(|bar| bar.concerns(person)) {
        return ProblemKind::Barred.as_str().to_owned();
    }
    let theirs = |p: &&Problem| {
        p.entitlement.as_ref() == Some(entitlement) && p.person.as_ref().is_none_or(|of| of == person) && p.holds_at(at)
    };
    let tells = |p: &&Problem| {
        p.kind.keeps_from_duty()
            || matches!(
                p.kind,
                ProblemKind::TargetUnresolved | ProblemKind::ChangeFailed | ProblemKind::ChangeUnsettled
            )
    };
    let held = verdict.held.iter().find(|held| {
        held.change.kind == ChangeKind::Grant
            && held.change.entitlement == *entitlement
            && held.change.person.as_ref() == Some(person)
    });
    match (held, problems.iter().filter(theirs).find(tells)) {
        (Some(held), _) => format!("held_by_{}", held.guard.as_str()),
        (None, Some(problem)) => problem.kind.as_str().to_owned(),
        (None, None) => "granting".to_owned(),
    }
}
