//! Who is on duty and does not hold what it earns, and what is known about why.

use std::collections::BTreeSet;
use std::sync::Arc;

use foldhash::HashMap;
use jiff::Timestamp;
use smol_str::{SmolStr, format_smolstr};

use super::Record;
use crate::desired::Desired;
use crate::guard::{Guard, Verdict};
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
    let mut on_duty = Vec::new();
    for (entitlement, holders) in desired.entitlements() {
        let without = holders.filter(|(person, _)| !held.contains(&(entitlement, *person)));
        let duties = without.filter_map(|(person, causes)| Some((entitlement, person, duty_at(causes, at)?)));
        on_duty.extend(duties);
    }
    // As a rule there is nobody, and then nothing is to be looked for.
    if on_duty.is_empty() {
        return Vec::new();
    }
    let reasons = Reasons::new(record, verdict, problems, at);
    let of_one = |(entitlement, person, duty): (&EntitlementId, &Person, Interval)| OnDuty {
        entitlement: entitlement.clone(),
        person: person.clone(),
        duty,
        why: reasons.why(entitlement, person),
    };
    on_duty.into_iter().map(of_one).collect()
}

fn duty_at(causes: &[Arc<Cause>], at: Timestamp) -> Option<Interval> {
    let duties = causes.iter().filter(|cause| cause.duty.contains(at));
    let ends = duties
        .clone()
        .map(|c| if c.end_known { c.duty.end() } else { Timestamp::MAX });
    Interval::new(duties.map(|c| c.duty.start()).min()?, ends.max()?)
}

/// What is known about why, found for each without going through all: while a large organisation is only observed, a
/// hundred thousand are on duty without access, and as many changes are held.
struct Reasons<'a> {
    record: &'a Record,
    held: HashMap<(&'a EntitlementId, &'a Person), Guard>,
    problems: HashMap<&'a EntitlementId, Vec<&'a Problem>>,
}

impl<'a> Reasons<'a> {
    fn new(record: &'a Record, verdict: &'a Verdict, problems: &'a [Problem], at: Timestamp) -> Self {
        let mut held = HashMap::default();
        for hold in verdict.held.iter().filter(|held| held.change.kind == ChangeKind::Grant) {
            if let Some(person) = &hold.change.person {
                held.entry((&hold.change.entitlement, person)).or_insert(hold.guard);
            }
        }
        let tells = |p: &&Problem| {
            let of_a_change = matches!(
                p.kind,
                ProblemKind::TargetUnresolved | ProblemKind::ChangeFailed | ProblemKind::ChangeUnsettled
            );
            (p.kind.keeps_from_duty() || of_a_change) && p.holds_at(at)
        };
        let mut of_entitlement: HashMap<&EntitlementId, Vec<&Problem>> = HashMap::default();
        for problem in problems.iter().filter(tells) {
            if let Some(entitlement) = &problem.entitlement {
                of_entitlement.entry(entitlement).or_default().push(problem);
            }
        }
        Self {
            record,
            held,
            problems: of_entitlement,
        }
    }

    /// One of a few words: `barred`, `held_by_` and a guard, a kind of problem, or `granting`.
    fn why(&self, entitlement: &EntitlementId, person: &Person) -> SmolStr {
        if self.record.bars.iter().any(|bar| bar.concerns(person)) {
            return ProblemKind::Barred.as_str().into();
        }
        let mut problems = self.problems.get(entitlement).into_iter().flatten();
        let theirs = |p: &&&Problem| p.person.as_ref().is_none_or(|of| of == person);
        match (self.held.get(&(entitlement, person)), problems.find(theirs)) {
            (Some(guard), _) => format_smolstr!("held_by_{}", guard.as_str()),
            (None, Some(problem)) => problem.kind.as_str().into(),
            (None, None) => "granting".into(),
        }
    }
}
