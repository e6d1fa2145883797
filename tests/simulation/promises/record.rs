//! The record at the end against the world's own history: intervals, hours held, hours on duty.

use std::collections::{BTreeMap, BTreeSet};

use dutybound::accounting::account;
use dutybound::ledger::AccessRow;
use dutybound::model::Interval;
use jiff::{SignedDuration, Timestamp};

use super::Promises;
use crate::org::{hours, overlap};
use crate::world::{By, Key, State};

impl Promises {
    /// The ledger's intervals are the world's, and the accounting's figures with them.
    ///
    /// AWS's own word comes with the poll of an operation, up to 5 s after it took effect, and the call itself takes part of
    /// a second. Where a reply was lost, the process died or the operation outlasted its time limit, the record is settled
    /// when somebody looks again: it may then begin as early as the call and end as late as that look.
    pub(crate) fn judge_record(&mut self, state: &mut State, rows: &[AccessRow], period: Interval) {
        let mut recorded: BTreeMap<Key, Vec<(Timestamp, Timestamp)>> = BTreeMap::new();
        for row in rows {
            let until = row.revoked_at.unwrap_or(state.now);
            let key = (row.target.clone(), row.principal.clone());
            recorded.entry(key).or_default().push((row.granted_at, until));
        }
        let figures = account(rows, period, state.now);
        let mut faults = Vec::new();
        let keys: BTreeSet<Key> = recorded.keys().chain(state.history.keys()).cloned().collect();
        for key in keys {
            let ours = state.history.get(&key).into_iter().flatten().filter(|a| a.by == By::Us);
            let rows = recorded.get(&key).cloned().unwrap_or_default();
            let mut truth = Vec::new();
            let mut allowed = SignedDuration::ZERO;
            for access in ours {
                let until = access.until.unwrap_or(state.now);
                truth.push((access.since, until));
                allowed += if access.unheard {
                    hours(1)
                } else {
                    SignedDuration::from_secs(20) + state.largest_offset * 2
                };
                if access.ended_by == Some(By::Stranger) {
                    let bounds = self.excuses.bounds();
                    allowed += bounds.audit + bounds.poll * 2 + hours(1);
                }
            }
            let difference = measure(&truth, &rows) + measure(&rows, &truth);
            if allowed < difference {
                faults.push(format!(
                    "the record of {} {} differs from the world by {difference:#}: {rows:?} instead of {truth:?}",
                    key.0, key.1
                ));
            }
            let Some(cell) = state.cell(&key) else { continue };
            let named = figures.grouped(|entitlement, person| {
                let e = &state.org.policy.entitlements[cell.0];
                entitlement.project.0 == format!("project{}", e.project)
                    && entitlement.name == e.name
                    && person.as_str() == crate::org::email(cell.1)
            });
            let counted = named.get(&true).copied().unwrap_or_default();
            let held = truth.iter().map(|(from, to)| from.duration_until(*to));
            let held = held.fold(SignedDuration::ZERO, |sum, span| sum + span);
            if allowed < (counted.held() - held).abs() {
                faults.push(format!(
                    "accounting says {} {} was held for {:#}, the world {held:#}",
                    key.0,
                    key.1,
                    counted.held()
                ));
            }
            let (duty, excused) = self.duty.get(&cell).copied().unwrap_or_default();
            if allowed + excused < (counted.duty() - duty).abs() {
                faults.push(format!(
                    "accounting says {} {} was on duty for {:#}, the world {duty:#}, of which {excused:#} are excused",
                    key.0,
                    key.1,
                    counted.duty()
                ));
            }
        }
        for fault in faults {
            state.fault(fault);
        }
    }
}

/// How much of `these` is not in `those`.
fn measure(these: &[(Timestamp, Timestamp)], those: &[(Timestamp, Timestamp)]) -> SignedDuration {
    let parts = these
        .iter()
        .map(|span| span.0.duration_until(span.1) - overlap(those, *span));
    parts.fold(SignedDuration::ZERO, |sum, part| sum + part)
}
