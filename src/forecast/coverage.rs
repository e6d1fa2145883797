//! Where too few people are on call, or hold what they should, to be of use.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Gap, GapKind, Holding};
use crate::desired::Snapshots;
use crate::model::{
    EntitlementId, Interval, Person, ScheduleKey,
    spans::{self, merged},
};
use crate::policy::{Policy, Trigger};
use crate::text::clean;

/// Times at which a schedule that earns something has nobody on call, and those of which the snapshots say nothing.
#[must_use]
pub fn uncovered(policy: &Policy, snapshots: &Snapshots, period: Interval) -> Vec<Gap> {
    type Condition<'a> = (&'a ScheduleKey, Option<&'a BTreeSet<u32>>, bool);
    let mut earned: BTreeMap<Condition<'_>, BTreeSet<EntitlementId>> = BTreeMap::new();
    for rule in policy.projects.values().flat_map(|p| &p.rules) {
        if let Trigger::OnCall(on_call) = &rule.trigger {
            let condition = (&on_call.schedule, on_call.levels.as_ref(), on_call.permanent);
            earned.entry(condition).or_default().insert(rule.entitlement.clone());
        }
    }
    let mut gaps = Vec::new();
    for ((schedule, levels, permanent), entitlements) in earned {
        let Some(snapshot) = snapshots.get(schedule) else {
            continue;
        };
        let gap = |kind, during, more, message| Gap {
            kind,
            during,
            more,
            entitlements: entitlements.clone(),
            schedule: Some(schedule.clone()),
            person: None,
            message,
        };
        let known_to = snapshot.window.end();
        if let Some(unknown) = Interval::new(known_to.max(period.start()), period.end()) {
            let message = format!(
                "{schedule} is known only until {}; the provider shows no further, or the last read is old",
                crate::text::instant(known_to)
            );
            gaps.push(gap(GapKind::NotRead, unknown, 0, message));
        }
        let Some(known) = snapshot.window.intersect(&period) else {
            continue;
        };
        let counts = |level: Option<u32>| levels.is_none_or(|levels| level.is_some_and(|l| levels.contains(&l)));
        let turns = snapshot
            .shifts
            .iter()
            .filter(|shift| counts(shift.level) && (permanent || !shift.permanent))
            .map(|shift| shift.interval);
        let bare = spans::gaps(known, &merged(turns.collect()));
        if let Some(first) = bare.first() {
            let at = levels.map(|levels| {
                let levels: Vec<String> = levels.iter().map(ToString::to_string).collect();
                format!(" at level {}", levels.join(" or "))
            });
            let message = format!(
                "nobody is on call in {schedule}{}; whoever keeps the schedule can fill it, or an override can",
                at.unwrap_or_default()
            );
            gaps.push(gap(GapKind::NobodyOnCall, *first, bare.len() - 1, message));
        }
    }
    gaps
}

/// Times at which fewer people are due to hold an entitlement than its `min_holders`, access that others gave not counted.
/// `holdings` are in the order of a forecast.
#[must_use]
pub fn short_of_holders(policy: &Policy, holdings: &[Holding], period: Interval) -> Vec<Gap> {
    let mut gaps = Vec::new();
    let by_entitlement = holdings.chunk_by(|a, b| a.entitlement == b.entitlement);
    let by_entitlement: BTreeMap<_, _> = by_entitlement.map(|of| (&of[0].entitlement, of)).collect();
    for entitlement in policy.entitlements().filter(|e| 0 < e.min_holders) {
        let least = usize::try_from(entitlement.min_holders).unwrap_or(usize::MAX);
        let mine = by_entitlement.get(&entitlement.id).copied().unwrap_or_default();
        let mine: Vec<&Holding> = mine.iter().filter(|h| h.kept_from.is_none()).collect();
        let mut edges: BTreeSet<Timestamp> = mine.iter().flat_map(|h| [h.held.start(), h.held.end()]).collect();
        edges.extend([period.start(), period.end()]);
        let edges: Vec<Timestamp> = edges.into_iter().collect();
        let mut short: Vec<(Interval, usize)> = Vec::new();
        for span in edges.windows(2).filter_map(|pair| Interval::new(pair[0], pair[1])) {
            let holders: BTreeSet<&Person> = mine
                .iter()
                .filter(|h| h.held.contains(span.start()))
                .map(|h| &h.person)
                .collect();
            if least <= holders.len() {
                continue;
            }
            match short.last_mut() {
                Some((last, fewest)) if last.end() == span.start() => {
                    *last = Interval::new(last.start(), span.end()).unwrap_or(*last);
                    *fewest = (*fewest).min(holders.len());
                }
                _ => short.push((span, holders.len())),
            }
        }
        if let Some((first, fewest)) = short.first() {
            gaps.push(Gap {
                kind: GapKind::MinHolders,
                during: *first,
                more: short.len() - 1,
                entitlements: BTreeSet::from([entitlement.id.clone()]),
                schedule: None,
                person: None,
                message: format!(
                    "{} is due to be held by {fewest} people and its min_holders is {least} ({}); the last ones stay beyond \
                     their duty, because no revoke goes below it",
                    entitlement.id,
                    clean(&entitlement.origin.to_string())
                ),
            });
        }
    }
    gaps
}
