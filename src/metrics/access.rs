//! Counters that derive from the ledger and never go backwards.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use jiff::{SignedDuration, Timestamp};

use crate::accounting::{
    BACKDATE, Figures, LONGEST_SESSION, Part, Phase, Sessions, Unheld, account, endings, length, phases, uncovered,
};
use crate::ledger::{AccessRow, Ledger, LedgerError, Moment, UnheldMark};
use crate::model::{EntitlementId, Interval, Person, PrincipalId, ResolvedTarget};
use crate::problem::ProblemKind;

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

/// What was read of the ledger before, so that a scrape reads only what is new and nothing where nothing changed. The first
/// one reads the sums that the ledger keeps, and what is in none of them.
#[derive(Debug, Default)]
pub(super) struct AccessTime {
    /// The last event of the chain that is taken in.
    seen: Option<i64>,
    /// The highest id of an interval that is.
    newest: i64,
    newest_unheld: i64,
    unheld_mark: Option<UnheldMark>,
    of: BTreeMap<Arc<EntitlementId>, Of>,
    /// What stands, as which entitlement and by whom.
    open: HashMap<i64, (Arc<EntitlementId>, Person)>,
    recent: Recent,
    /// The lowest id first.
    unheld: Vec<Unheld>,
    /// The highest values shown. A pass stamps what it records with the instant at which it began, and the host's clock
    /// may be set back: the record can say a moment less than the scrape before did.
    shown: BTreeMap<EntitlementId, Held>,
}

/// What is known of one entitlement.
#[derive(Debug, Default)]
struct Of {
    /// Ended intervals never change.
    ended: Figures,
    /// Tails that are over.
    tail: SignedDuration,
    /// Uncovered time that is over.
    uncovered: SignedDuration,
    /// Intervals that stand, as far as their future is known.
    open: BTreeMap<i64, Box<[(Interval, Phase)]>>,
    /// What it was when it was granted last.
    target: Option<ResolvedTarget>,
}

/// Ended intervals whose tail may still grow or be cut by a new grant, and such grants.
#[derive(Debug, Default)]
struct Recent {
    rows: BTreeMap<i64, AccessRow>,
    /// The keys of those that ended.
    keys: HashSet<(ResolvedTarget, PrincipalId)>,
    /// What follows from the rows; `None` once these are others.
    tails: Option<(Sessions, Vec<Tail>)>,
}

/// What is known of an entitlement, from now on if nothing was, and its name as it is kept.
fn entry<'a>(all: &'a mut BTreeMap<Arc<EntitlementId>, Of>, id: &EntitlementId) -> (Arc<EntitlementId>, &'a mut Of) {
    let known = all.get_key_value(id).map(|(id, _)| Arc::clone(id));
    let id = known.unwrap_or_else(|| Arc::new(id.clone()));
    (Arc::clone(&id), all.entry(id).or_default())
}

#[derive(Debug)]
struct Tail {
    access: i64,
    entitlement: EntitlementId,
    span: Option<Interval>,
    /// Nothing that is recorded after this instant changes it.
    over: Timestamp,
}

impl Recent {
    fn add(&mut self, row: AccessRow) {
        let key = (row.target.clone(), row.principal.clone());
        if row.revoked_at.is_some() {
            self.keys.insert(key);
        } else if !self.keys.contains(&key) {
            return;
        }
        self.rows.insert(row.id, row);
        self.tails = None;
    }

    fn remove(&mut self, over: &[i64]) {
        for id in over {
            self.rows.remove(id);
        }
        let ended = self.rows.values().filter(|row| row.revoked_at.is_some());
        self.keys = ended.map(|row| (row.target.clone(), row.principal.clone())).collect();
        let keys = &self.keys;
        self.rows
            .retain(|_, row| row.revoked_at.is_some() || keys.contains(&(row.target.clone(), row.principal.clone())));
        if let Some((_, tails)) = &mut self.tails {
            tails.retain(|tail| !over.contains(&tail.access));
        }
    }

    fn tails(&mut self, sessions: &Sessions) -> &[Tail] {
        let known = self.tails.take().filter(|(of, _)| of == sessions);
        let (_, tails) = self.tails.insert(known.unwrap_or_else(|| {
            let rows: Vec<&AccessRow> = self.rows.values().collect();
            let ended = rows.iter().filter(|row| row.revoked_at.is_some());
            let tail = |(row, ending): (&&AccessRow, crate::accounting::Ending)| {
                let span = ending.tail();
                // Where the duration is not known, none is longer than AWS allows.
                let longest = ending.revoked_at.checked_add(LONGEST_SESSION).unwrap_or(Timestamp::MAX);
                Tail {
                    access: row.id,
                    entitlement: ending.entitlement,
                    span,
                    over: span.map_or(longest, |tail| tail.end()),
                }
            };
            (
                sessions.clone(),
                ended.zip(endings(&rows, sessions)).map(tail).collect(),
            )
        }));
        tails
    }
}

impl AccessTime {
    /// Access time up to `now`. After an error the next call catches up.
    pub(super) async fn read(
        &mut self,
        ledger: &Ledger,
        now: Timestamp,
    ) -> Result<&BTreeMap<EntitlementId, Held>, LedgerError> {
        self.catch_up(ledger).await?;
        let certain = now.checked_sub(BACKDATE).unwrap_or(Timestamp::MIN);
        // Of what was asked for and not answered nobody knows yet whether it is held.
        let certain = certain.min(ledger.oldest_open_grant().await?.unwrap_or(Timestamp::MAX));
        let sessions = ledger.sessions().await?;
        let mut beside = self.tails(&sessions, certain);
        self.uncovered(&mut beside, certain);
        for (id, of) in &self.of {
            let mut figures = of.ended;
            for phases in of.open.values() {
                figures.settle(phases, now);
            }
            let held = match self.shown.get_mut(id) {
                Some(held) => held,
                None => self.shown.entry((**id).clone()).or_default(),
            };
            for (shown, basis) in held.bases.iter_mut().zip(Phase::BASES) {
                *shown = figures.basis(basis).max(*shown);
            }
            for (shown, part) in held.overhang.iter_mut().zip(Part::OVERHANG) {
                *shown = figures.part(part).max(*shown);
            }
            let (tail, uncovered) = beside.remove(id).unwrap_or_default();
            held.tail = of.tail.saturating_add(tail).max(held.tail);
            held.uncovered = of.uncovered.saturating_add(uncovered).max(held.uncovered);
            held.active = u32::try_from(of.open.len()).unwrap_or(u32::MAX);
            held.unheld = 0;
            held.session = match &of.target {
                Some(ResolvedTarget::Assignment { permission_set_arn, .. }) => sessions.newest(permission_set_arn),
                _ => None,
            };
        }
        for unheld in &self.unheld {
            let without = !uncovered(unheld, Timestamp::MAX).iter().all(|span| !span.contains(now));
            let held = self.shown.entry(unheld.entitlement.clone()).or_default();
            // Whoever a person's order keeps from it is not to be alarmed about.
            let ordered = unheld.why == ProblemKind::Barred.as_str();
            held.unheld += u32::from(without && !ordered && unheld.ended_at.is_none());
        }
        Ok(&self.shown)
    }

    /// Tails up to `certain`, which no later record changes, of those that are not over. What is over then is added to its
    /// entitlement and not looked at again.
    fn tails(
        &mut self,
        sessions: &Sessions,
        certain: Timestamp,
    ) -> BTreeMap<EntitlementId, (SignedDuration, SignedDuration)> {
        let mut sums: BTreeMap<EntitlementId, (SignedDuration, SignedDuration)> = BTreeMap::new();
        let mut over = Vec::new();
        let to_now = |span: Interval| Interval::new(span.start(), span.end().min(certain));
        for tail in self.recent.tails(sessions) {
            let time = tail.span.and_then(to_now);
            let time = time.map_or(SignedDuration::ZERO, |span| span.duration());
            if tail.over <= certain {
                over.push(tail.access);
                let (_, of) = entry(&mut self.of, &tail.entitlement);
                of.tail = of.tail.saturating_add(time);
            } else if !time.is_zero() {
                let sum = &mut sums.entry(tail.entitlement.clone()).or_default().0;
                *sum = sum.saturating_add(time);
            }
        }
        if !over.is_empty() {
            self.recent.remove(&over);
        }
        sums
    }

    /// The same for uncovered time.
    fn uncovered(&mut self, sums: &mut BTreeMap<EntitlementId, (SignedDuration, SignedDuration)>, certain: Timestamp) {
        for unheld in &self.unheld {
            let time = length(uncovered(unheld, certain));
            let (_, of) = entry(&mut self.of, &unheld.entitlement);
            let sum = if unheld.ended_at.is_some_and(|ended| ended <= certain) {
                &mut of.uncovered
            } else {
                &mut sums.entry(unheld.entitlement.clone()).or_default().1
            };
            *sum = sum.saturating_add(time);
        }
        self.unheld
            .retain(|unheld| unheld.ended_at.is_none_or(|ended| certain < ended));
        if self.unheld.len() < self.unheld.capacity() / 4 {
            self.unheld.shrink_to_fit();
        }
    }

    async fn catch_up(&mut self, ledger: &Ledger) -> Result<(), LedgerError> {
        // Whatever fails in between, the next call begins anew.
        if let Some(seen) = self.seen.take() {
            let mut changed = Vec::new();
            let mut moment = ledger.moment().await?;
            if let Some(last) = moment.access_after(seen, |row| changed.push(row)).await? {
                let mut changes_of = HashSet::default();
                for row in changed {
                    let was = self.open.get(&row.id);
                    changes_of.extend(was.map(|(id, person)| ((**id).clone(), person.clone())));
                    changes_of.insert((row.entitlement.clone(), row.person.clone()));
                    self.take(row);
                }
                self.unheld_since(&mut moment, &changes_of).await?;
                self.seen = Some(last);
                return Ok(());
            }
        }
        let mut shown = std::mem::take(&mut self.shown);
        for held in shown.values_mut() {
            (held.active, held.unheld) = (0, 0);
        }
        *self = Self {
            shown,
            ..Self::default()
        };
        let mark = ledger.moment().await?.unheld_mark().await?;
        let counted = ledger.counted(|row| self.take(row)).await?;
        for (id, total) in counted.totals {
            let (_, of) = entry(&mut self.of, &id);
            of.ended += total.held;
            of.tail = of.tail.saturating_add(total.tail);
            of.uncovered = of.uncovered.saturating_add(total.uncovered);
            of.target = of.target.take().or(total.target);
        }
        let newest = counted.unheld.last().map_or(0, |unheld| unheld.id);
        self.newest_unheld = newest.max(mark.newest());
        self.unheld = counted.unheld;
        self.newest = self.newest.max(counted.newest);
        self.unheld_mark = Some(mark);
        self.seen = Some(counted.seq);
        Ok(())
    }

    /// Takes in what of duty without access began or ended, and what of it was cut short or laid bare by changes of access.
    async fn unheld_since(
        &mut self,
        moment: &mut Moment,
        changes_of: &HashSet<(EntitlementId, Person)>,
    ) -> Result<(), LedgerError> {
        let mark = moment.unheld_mark().await?;
        let is_same = self.unheld_mark == Some(mark);
        if is_same && changes_of.is_empty() {
            return Ok(());
        }
        let open = if is_same {
            None
        } else {
            Some(moment.open_unheld().await?)
        };
        let changes_of: HashSet<(&EntitlementId, &Person)> = changes_of.iter().map(|(id, who)| (id, who)).collect();
        let may_differ = |unheld: &&Unheld| {
            let has_ended = unheld.ended_at.is_none() && open.as_ref().is_some_and(|open| !open.contains(&unheld.id));
            has_ended || changes_of.contains(&(&unheld.entitlement, &unheld.person))
        };
        let again: Vec<i64> = self.unheld.iter().filter(may_differ).map(|unheld| unheld.id).collect();
        for unheld in moment.unheld_since(self.newest_unheld, &again).await? {
            self.newest_unheld = self.newest_unheld.max(unheld.id);
            match self.unheld.binary_search_by_key(&unheld.id, |known| known.id) {
                Ok(place) => self.unheld[place] = unheld,
                Err(place) => self.unheld.insert(place, unheld),
            }
        }
        self.unheld_mark = Some(mark);
        Ok(())
    }

    /// Takes in an interval that is new, or that changed.
    fn take(&mut self, row: AccessRow) {
        let was = self.open.remove(&row.id);
        // An entitlement may have another name since.
        if let Some(of) = was.as_ref().and_then(|(id, _)| self.of.get_mut(id)) {
            of.open.remove(&row.id);
        }
        let is_new = self.newest < row.id;
        self.newest = self.newest.max(row.id);
        let (id, of) = entry(&mut self.of, &row.entitlement);
        of.target = Some(row.target.clone());
        if row.revoked_at.is_none() {
            of.open.insert(row.id, phases(&row, Timestamp::MAX).into());
            self.open.insert(row.id, (id, row.person.clone()));
        } else if is_new || was.is_some() {
            of.ended += account(std::slice::from_ref(&row), Interval::ALWAYS, Timestamp::MAX).total();
        } else {
            // It was counted when it ended.
            return;
        }
        self.recent.add(row);
    }
}
