//! All figures of a period together, so that every screen says the same.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use foldhash::HashMap;
use jiff::{SignedDuration, Timestamp};

use super::tail::ending_of;
use super::{Ending, Figures, Kind, Sessions, Unheld, account, endings, phases, uncovered, within};
use crate::ledger::AccessRow;
use crate::model::{EntitlementId, Interval, Person, PrincipalId, ResolvedTarget};

/// What the ledger says about a period.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Intervals of access that overlap the period or ended at most [`super::LONGEST_SESSION`] before it.
    pub rows: &'a [AccessRow],
    /// Duty without access that overlaps the period.
    pub unheld: &'a [Unheld],
    /// How long role sessions live.
    pub sessions: &'a Sessions,
}

/// The figures of one person's entitlement, or a sum of such.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sums {
    /// Access held in AWS.
    pub held: Figures,
    /// After revokes: for how long role sessions may have lived on, at the most. Not part of what was held.
    pub tail: SignedDuration,
    /// How many revokes there were in the period.
    pub revokes: u32,
    /// Of how many of them the tail is not known.
    pub revokes_without_tail: u32,
    /// On duty without access, by what is known about why.
    pub uncovered_why: BTreeMap<String, SignedDuration>,
}

impl Sums {
    /// On duty without access.
    #[must_use]
    pub fn uncovered(&self) -> SignedDuration {
        let times = self.uncovered_why.values();
        times.fold(SignedDuration::ZERO, |sum, time| sum.saturating_add(*time))
    }

    /// The baseline of duty: on duty, with access and without.
    #[must_use]
    pub fn duty(&self) -> SignedDuration {
        self.held.duty().saturating_add(self.uncovered())
    }

    /// Only what one kind of cause earned. Tails and uncovered time are not told apart by cause.
    #[must_use]
    pub fn only(&self, kind: Kind) -> Self {
        Self {
            held: self.held.only(kind),
            ..Self::default()
        }
    }
}

impl AddAssign<&Self> for Sums {
    fn add_assign(&mut self, other: &Self) {
        self.held += other.held;
        self.tail = self.tail.saturating_add(other.tail);
        self.revokes += other.revokes;
        self.revokes_without_tail += other.revokes_without_tail;
        for (why, time) in &other.uncovered_why {
            let sum = self.uncovered_why.entry(why.clone()).or_default();
            *sum = sum.saturating_add(*time);
        }
    }
}

/// The figures of a period, by entitlement and person.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Measure {
    /// Only those of whom there is anything to say.
    pub cells: BTreeMap<(EntitlementId, Person), Sums>,
}

impl Measure {
    /// Sums by whatever `key` makes of entitlement and person.
    pub fn grouped<K: Ord>(&self, key: impl Fn(&EntitlementId, &Person) -> K) -> BTreeMap<K, Sums> {
        let mut groups: BTreeMap<K, Sums> = BTreeMap::new();
        for ((entitlement, person), sums) in &self.cells {
            *groups.entry(key(entitlement, person)).or_default() += sums;
        }
        groups
    }

    /// The sum of everything.
    #[must_use]
    pub fn total(&self) -> Sums {
        let mut total = Sums::default();
        for sums in self.cells.values() {
            total += sums;
        }
        total
    }
}

/// What the end of one interval adds to `period`; `None` where that is nothing.
fn after(ending: &Ending, period: Interval, now: Timestamp) -> Option<Sums> {
    let in_period = period.contains(ending.revoked_at) && ending.revoked_at <= now;
    let to_now = Interval::new(Timestamp::MIN, now).and_then(|past| past.intersect(&period));
    let tail = ending.tail().zip(to_now).and_then(|(tail, span)| tail.intersect(&span));
    if !in_period && tail.is_none() {
        return None;
    }
    Some(Sums {
        revokes: u32::from(in_period),
        revokes_without_tail: u32::from(in_period && ending.effective_until.is_none()),
        tail: tail.map_or(SignedDuration::ZERO, |tail| tail.duration()),
        ..Sums::default()
    })
}

/// Works out several periods at once from intervals of access that are given one after the other, in the order of their
/// ids, so that few of them are in memory at any time. What [`measure`] says of access in each of the periods, this adds up
/// to; it says nothing of duty without access.
#[derive(Debug)]
pub struct Running<'a> {
    periods: &'a [Interval],
    sessions: &'a Sessions,
    now: Timestamp,
    /// What ended and may have been granted again, by what it is in AWS and whose.
    ended: HashMap<(ResolvedTarget, PrincipalId), Vec<Ending>>,
}

impl<'a> Running<'a> {
    /// Nothing yet; what is given is counted to `now`.
    #[must_use]
    pub fn new(periods: &'a [Interval], sessions: &'a Sessions, now: Timestamp) -> Self {
        Self {
            periods,
            sessions,
            now,
            ended: HashMap::default(),
        }
    }

    /// Takes in an interval. `add` is told what that adds to which of the periods.
    pub fn take(&mut self, row: &AccessRow, add: &mut impl FnMut(usize, &EntitlementId, &Person, &Sums)) {
        let phases = phases(row, self.now);
        let whole = Interval::new(row.granted_at, row.revoked_at.unwrap_or(self.now).min(self.now));
        for (place, period) in self.periods.iter().enumerate() {
            if whole.is_none_or(|whole| whole.intersect(period).is_none()) {
                continue;
            }
            let held = within(&phases, *period);
            if held != Figures::default() {
                let sums = Sums {
                    held,
                    ..Sums::default()
                };
                add(place, &row.entitlement, &row.person, &sums);
            }
        }
        let key = (row.target.clone(), row.principal.clone());
        if let Some(waiting) = self.ended.get_mut(&key) {
            let again = |ending: &mut Ending| ending.revoked_at <= row.granted_at;
            let again: Vec<Ending> = waiting.extract_if(.., again).collect();
            for ending in again {
                let ending = Ending {
                    granted_again: Some(row.granted_at),
                    ..ending
                };
                self.tell(&ending, add);
            }
        }
        if let Some(ending) = ending_of(row, None, self.sessions) {
            self.ended.entry(key).or_default().push(ending);
        }
    }

    /// Tells what is left: of intervals that were not granted again.
    pub fn end(mut self, add: &mut impl FnMut(usize, &EntitlementId, &Person, &Sums)) {
        for ending in std::mem::take(&mut self.ended).into_values().flatten() {
            self.tell(&ending, add);
        }
    }

    fn tell(&self, ending: &Ending, add: &mut impl FnMut(usize, &EntitlementId, &Person, &Sums)) {
        for (place, period) in self.periods.iter().enumerate() {
            if let Some(sums) = after(ending, *period, self.now) {
                add(place, &ending.entitlement, &ending.person, &sums);
            }
        }
    }
}

/// Works out all figures of `period`, counted to `now` and not beyond. They add up over any split of the period.
#[must_use]
pub fn measure(record: Record<'_>, period: Interval, now: Timestamp) -> Measure {
    let mut measure = Measure::default();
    for (cell, held) in account(record.rows, period, now).cells {
        measure.cells.entry(cell).or_default().held = held;
    }
    let rows: Vec<&AccessRow> = record.rows.iter().collect();
    for ending in endings(&rows, record.sessions) {
        if let Some(sums) = after(&ending, period, now) {
            *measure.cells.entry((ending.entitlement, ending.person)).or_default() += &sums;
        }
    }
    for unheld in record.unheld {
        for span in uncovered(unheld, now).iter().filter_map(|span| span.intersect(&period)) {
            let cell = (unheld.entitlement.clone(), unheld.person.clone());
            let whys = &mut measure.cells.entry(cell).or_default().uncovered_why;
            let sum = whys.entry(unheld.why.to_string()).or_default();
            *sum = sum.saturating_add(span.duration());
        }
    }
    measure
}
