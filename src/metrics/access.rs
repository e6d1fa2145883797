//! Access time as counters that derive from the ledger and never go backwards.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::accounting::{Figures, Phase, settled};
use crate::ledger::{Ledger, LedgerError};
use crate::model::EntitlementId;

/// What the counters of one entitlement show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Held {
    /// Access time so far, in the order of [`Phase::BASES`].
    pub(super) bases: [SignedDuration; Phase::BASES.len()],
    /// How many hold it now.
    pub(super) active: u32,
}

/// The sums over ended intervals, which never change, so that a scrape reads only what is open or new.
#[derive(Debug, Default)]
pub(super) struct AccessTime {
    newest: i64,
    open: BTreeSet<i64>,
    ended: BTreeMap<EntitlementId, Figures>,
    /// The highest values shown. A pass stamps what it records with the instant at which it began, and the host's clock
    /// may be set back: the record can say a moment less than the scrape before did.
    shown: BTreeMap<EntitlementId, Held>,
}

impl AccessTime {
    /// Brings the sums up to date. After an error the next call does it.
    pub(super) async fn read(
        &mut self,
        ledger: &Ledger,
        now: Timestamp,
    ) -> Result<&BTreeMap<EntitlementId, Held>, LedgerError> {
        let rows = ledger.access_since(self.newest, &self.open).await?;
        let mut standing: BTreeMap<EntitlementId, (Figures, u32)> = BTreeMap::new();
        for row in rows {
            self.newest = self.newest.max(row.id);
            if row.revoked_at.is_some() {
                self.open.remove(&row.id);
                *self.ended.entry(row.entitlement.clone()).or_default() += settled(&row, Timestamp::MAX);
            } else {
                self.open.insert(row.id);
                let (figures, active) = standing.entry(row.entitlement.clone()).or_default();
                *figures += settled(&row, now);
                *active += 1;
            }
        }
        for held in self.shown.values_mut() {
            held.active = 0;
        }
        let ids: BTreeSet<_> = self.ended.keys().chain(standing.keys()).cloned().collect();
        for id in ids {
            let mut figures = self.ended.get(&id).copied().unwrap_or_default();
            let (open, active) = standing.get(&id).copied().unwrap_or_default();
            figures += open;
            let held = self.shown.entry(id).or_default();
            held.active = active;
            for (shown, basis) in held.bases.iter_mut().zip(Phase::BASES) {
                *shown = figures.basis(basis).max(*shown);
            }
        }
        Ok(&self.shown)
    }
}
