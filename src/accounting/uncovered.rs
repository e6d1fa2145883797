//! Uncovered time: on duty without the access that it earns.

use jiff::Timestamp;
use smol_str::SmolStr;

use crate::model::{
    EntitlementId, Interval, Person,
    spans::{merged, without},
};

/// What the record says of somebody who was on duty and did not hold what it earns when a pass looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unheld {
    /// The ledger's row.
    pub id: i64,
    /// What should have been held.
    pub entitlement: EntitlementId,
    /// By whom.
    pub person: Person,
    /// The duty: from the instant from which it is to be counted to its planned end.
    pub duty: Interval,
    /// What was known about why, as a stable word.
    pub why: SmolStr,
    /// When a pass found that it was so no longer.
    pub ended_at: Option<Timestamp>,
    /// When it was held nevertheless.
    pub held: Vec<Interval>,
}

/// The time up to `now` on duty without access, by one entry of the record. Entries of one person and one entitlement do
/// not overlap.
#[must_use]
pub fn uncovered(unheld: &Unheld, now: Timestamp) -> Vec<Interval> {
    let end = unheld.ended_at.unwrap_or(Timestamp::MAX).min(now);
    let duty = Interval::new(unheld.duty.start(), unheld.duty.end().min(end));
    let duty: Vec<Interval> = duty.into_iter().collect();
    if unheld.held.is_empty() {
        return duty;
    }
    without(&duty, &merged(unheld.held.clone()))
}
