//! Counters that derive from the ledger and never go backwards.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::accounting::{
    BACKDATE, Figures, LONGEST_SESSION, Part, Phase, Sessions, Unheld, account, endings, length, phases, settled,
    uncovered,
};
use crate::ledger::history::AccessMark;
use crate::ledger::{AccessRow, Ledger, LedgerError, UnheldMark};
use crate::model::{EntitlementId, Interval, ResolvedTarget};
use crate::problem::ProblemKind;

/// Far less than anything is kept for: nothing that ended since is removed yet.
const AGES: SignedDuration = SignedDuration::from_hours(24);

/// What the counters of one entitlement show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Held {
    /// Access time so far, in the order of [`Phase::BASES`].
    pub(super) bases: [SignedDuration; Phase::BASES.len()],
    /// Of it overhang, in the order of [`Part::OVERHANG`].
    pub(super) overhang: [SignedDuration; Part::OVERHANG.len()],
    /// After revokes, for how long sessions may have lived on.
    pub(super) tail: SignedDuration,
    /// On duty without access.
    pub(super) uncovered: SignedDuration,
    /// How many hold it now.
    pub(super) active: u32,
    /// How many are on duty now without it.
    pub(super) unheld: u32,
    /// How long a session begun now lives, where that is known.
    pub(super) session: Option<SignedDuration>,
}

/// What was read of the ledger before, so that a scrape reads only what is new and nothing where nothing changed.
#[derive(Debug, Default)]
pub(super) struct AccessTime {
    mark: Option<(AccessMark, UnheldMark)>,
    read_at: Option<Timestamp>,
    newest: i64,
    newest_unheld: i64,
    /// Ended intervals never change.
    ended: BTreeMap<EntitlementId, Figures>,
    /// Tails and uncovered time that are over.
    over: BTreeMap<EntitlementId, Beside>,
    open: BTreeMap<i64, Open>,
    /// Ended intervals whose tail may still grow or be cut by a new grant.
    tails: BTreeMap<i64, AccessRow>,
    unheld: BTreeMap<i64, Unheld>,
    /// What each entitlement was when it was granted last.
    targets: BTreeMap<EntitlementId, ResolvedTarget>,
    /// The highest values shown. A pass stamps what it records with the instant at which it began, and the host's clock
    /// may be set back: the record can say a moment less than the scrape before did.
    shown: BTreeMap<EntitlementId, Held>,
}

/// An interval of access that stands, as far as its future is known.
#[derive(Debug)]
struct Open {
    row: AccessRow,
    phases: Vec<(Interval, Phase)>,
}

/// What is counted beside access.
#[derive(Debug, Clone, Copy, Default)]
struct Beside {
    tail: SignedDuration,
    uncovered: SignedDuration,
}

impl AccessTime {
    /// Access time up to `now`. After an error the next call catches up.
    pub(super) async fn read(
        &mut self,
        ledger: &Ledger,
        now: Timestamp,
    ) -> Result<&BTreeMap<EntitlementId, Held>, LedgerError> {
        let mark = (ledger.access_mark().await?, ledger.unheld_mark().await?);
        let long_ago = self.read_at.is_none_or(|read| AGES < read.duration_until(now));
        if self
            .mark
            .is_none_or(|before| before.0.removed != mark.0.removed && long_ago)
        {
            // Intervals that were never looked at since they ended may be among the removed ones: everything is added up
            // anew. Others are in these sums, and stay.
            (self.newest, self.mark) = (0, None);
            self.open.clear();
            self.ended = ledger.removed_totals().await?.into_iter().collect();
        }
        if self.mark != Some(mark) {
            self.catch_up(ledger).await?;
            if self.mark.is_none() && ledger.access_mark().await?.removed != mark.0.removed {
                // Something was removed while this was being added up.
                return Ok(&self.shown);
            }
            self.mark = Some(mark);
        }
        self.read_at = Some(now);
        let certain = now.checked_sub(BACKDATE).unwrap_or(Timestamp::MIN);
        // Of what was asked for and not answered nobody knows yet whether it is held.
        let certain = certain.min(ledger.oldest_open_grant().await?.unwrap_or(Timestamp::MAX));
        let sessions = ledger.sessions().await?;
        let beside = self.beside(&sessions, certain);
        let mut sums = self.ended.clone();
        for held in self.shown.values_mut() {
            (held.active, held.unheld) = (0, 0);
        }
        for open in self.open.values() {
            let id = &open.row.entitlement;
            *sums.entry(id.clone()).or_default() += settled(&open.phases, now);
            self.shown.entry(id.clone()).or_default().active += 1;
        }
        for (id, target) in &self.targets {
            let newest = match target {
                ResolvedTarget::Assignment { permission_set_arn, .. } => sessions.newest(permission_set_arn),
                ResolvedTarget::Group { .. } => None,
            };
            self.shown.entry(id.clone()).or_default().session = newest;
        }
        for unheld in self.unheld.values() {
            let without = !uncovered(unheld, Timestamp::MAX).iter().all(|span| !span.contains(now));
            let held = self.shown.entry(unheld.entitlement.clone()).or_default();
            // Whoever a person's order keeps from it is not to be alarmed about.
            let ordered = unheld.why == ProblemKind::Barred.as_str();
            held.unheld += u32::from(without && !ordered && unheld.ended_at.is_none());
        }
        for (id, figures) in sums {
            let held = self.shown.entry(id).or_default();
            for (shown, basis) in held.bases.iter_mut().zip(Phase::BASES) {
                *shown = figures.basis(basis).max(*shown);
            }
            for (shown, part) in held.overhang.iter_mut().zip(Part::OVERHANG) {
                *shown = figures.part(part).max(*shown);
            }
        }
        for (id, beside) in beside {
            let held = self.shown.entry(id).or_default();
            held.tail = beside.tail.max(held.tail);
            held.uncovered = beside.uncovered.max(held.uncovered);
        }
        Ok(&self.shown)
    }

    /// Tails and uncovered time up to `certain`, which no later record changes. What is over then is not looked at again.
    fn beside(&mut self, sessions: &Sessions, certain: Timestamp) -> BTreeMap<EntitlementId, Beside> {
        let open = self.open.values().map(|open| &open.row);
        let rows: Vec<&AccessRow> = self.tails.values().chain(open).collect();
        let (mut sums, mut over) = (self.over.clone(), Vec::new());
        let to_now = |span: &Interval| Interval::new(span.start(), span.end().min(certain));
        let ended = rows.iter().filter(|row| row.revoked_at.is_some());
        for (row, ending) in ended.zip(endings(&rows, sessions)) {
            let tail = ending.tail();
            let time = tail
                .and_then(|tail| to_now(&tail))
                .map_or(SignedDuration::ZERO, |span| span.duration());
            sums.entry(row.entitlement.clone()).or_default().tail += time;
            // Where the duration is not known, none is longer than AWS allows.
            let longest = ending.revoked_at.checked_add(LONGEST_SESSION).unwrap_or(Timestamp::MAX);
            if tail.map_or(longest, |tail| tail.end()) <= certain {
                self.over.entry(row.entitlement.clone()).or_default().tail += time;
                over.push(row.id);
            }
        }
        for id in over {
            self.tails.remove(&id);
        }
        for unheld in self.unheld.values() {
            let time = length(uncovered(unheld, certain));
            sums.entry(unheld.entitlement.clone()).or_default().uncovered += time;
            if unheld.ended_at.is_some_and(|ended| ended <= certain) {
                self.over.entry(unheld.entitlement.clone()).or_default().uncovered += time;
            }
        }
        self.unheld
            .retain(|_, unheld| unheld.ended_at.is_none_or(|ended| certain < ended));
        sums
    }

    async fn catch_up(&mut self, ledger: &Ledger) -> Result<(), LedgerError> {
        let open: BTreeSet<i64> = self.open.keys().copied().collect();
        for row in ledger.access_since(self.newest, &open).await? {
            self.newest = self.newest.max(row.id);
            self.targets.insert(row.entitlement.clone(), row.target.clone());
            if row.revoked_at.is_none() {
                let phases = phases(&row, Timestamp::MAX);
                self.open.insert(row.id, Open { row, phases });
            } else {
                self.open.remove(&row.id);
                let id = row.entitlement.clone();
                let figures = account(std::slice::from_ref(&row), Interval::ALWAYS, Timestamp::MAX).total();
                *self.ended.entry(id).or_default() += figures;
                self.tails.insert(row.id, row);
            }
        }
        let open: BTreeSet<i64> = self.unheld.keys().copied().collect();
        for unheld in ledger.unheld_since(self.newest_unheld, &open).await? {
            self.newest_unheld = self.newest_unheld.max(unheld.id);
            self.unheld.insert(unheld.id, unheld);
        }
        Ok(())
    }
}
