//! Access time as counters that derive from the ledger and never go backwards.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::accounting::{Figures, Phase, account, phases, settled};
use crate::ledger::history::AccessMark;
use crate::ledger::{Ledger, LedgerError};
use crate::model::{EntitlementId, Interval};

/// Far less than anything is kept for: nothing that ended since is removed yet.
const AGES: SignedDuration = SignedDuration::from_hours(24);

/// What the counters of one entitlement show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Held {
    /// Access time so far, in the order of [`Phase::BASES`].
    pub(super) bases: [SignedDuration; Phase::BASES.len()],
    /// How many hold it now.
    pub(super) active: u32,
}

/// What was read of the ledger before, so that a scrape reads only what is new and nothing where nothing changed.
#[derive(Debug, Default)]
pub(super) struct AccessTime {
    mark: Option<AccessMark>,
    read_at: Option<Timestamp>,
    newest: i64,
    /// Ended intervals never change.
    ended: BTreeMap<EntitlementId, Figures>,
    open: BTreeMap<i64, Open>,
    /// The highest values shown. A pass stamps what it records with the instant at which it began, and the host's clock
    /// may be set back: the record can say a moment less than the scrape before did.
    shown: BTreeMap<EntitlementId, Held>,
}

/// An interval of access that stands, as far as its future is known.
#[derive(Debug)]
struct Open {
    entitlement: EntitlementId,
    phases: Vec<(Interval, Phase)>,
}

impl AccessTime {
    /// Access time up to `now`. After an error the next call catches up.
    pub(super) async fn read(
        &mut self,
        ledger: &Ledger,
        now: Timestamp,
    ) -> Result<&BTreeMap<EntitlementId, Held>, LedgerError> {
        let mark = ledger.access_mark().await?;
        let long_ago = self.read_at.is_none_or(|read| AGES < read.duration_until(now));
        if self
            .mark
            .is_none_or(|before| before.removed != mark.removed && long_ago)
        {
            // Intervals that were never looked at since they ended may be among the removed ones: everything is added up
            // anew. Others are in these sums, and stay.
            (self.newest, self.mark) = (0, None);
            self.open.clear();
            self.ended = ledger.removed_totals().await?.into_iter().collect();
        }
        if self.mark != Some(mark) {
            self.catch_up(ledger).await?;
            if self.mark.is_none() && ledger.access_mark().await?.removed != mark.removed {
                // Something was removed while this was being added up.
                return Ok(&self.shown);
            }
            self.mark = Some(mark);
        }
        self.read_at = Some(now);
        let mut sums = self.ended.clone();
        for held in self.shown.values_mut() {
            held.active = 0;
        }
        for open in self.open.values() {
            *sums.entry(open.entitlement.clone()).or_default() += settled(&open.phases, now);
            self.shown.entry(open.entitlement.clone()).or_default().active += 1;
        }
        for (id, figures) in sums {
            let held = self.shown.entry(id).or_default();
            for (shown, basis) in held.bases.iter_mut().zip(Phase::BASES) {
                *shown = figures.basis(basis).max(*shown);
            }
        }
        Ok(&self.shown)
    }

    async fn catch_up(&mut self, ledger: &Ledger) -> Result<(), LedgerError> {
        let open: BTreeSet<i64> = self.open.keys().copied().collect();
        for row in ledger.access_since(self.newest, &open).await? {
            self.newest = self.newest.max(row.id);
            if row.revoked_at.is_none() {
                let phases = phases(&row, Timestamp::MAX);
                let entitlement = row.entitlement;
                self.open.insert(row.id, Open { entitlement, phases });
            } else {
                self.open.remove(&row.id);
                let id = row.entitlement.clone();
                *self.ended.entry(id).or_default() += account(&[row], Interval::ALWAYS, Timestamp::MAX).total();
            }
        }
        Ok(())
    }
}
