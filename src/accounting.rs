//! Access time from the record: who held what for how long, and how much of it was duty. Pure.
//!
//! Every instant of an interval of access is in exactly one [`Phase`], so figures add up over any split of a period,
//! over entitlements and over people. Where several causes cover an instant, the first of this list decides:
//!
//! 1. duty by a cause that was on record at the time: on call before window before membership,
//! 2. duty by a cause that came on record at most [`BACKDATE`] later, the earliest first: a hand-off is recorded by the
//!    pass after the boundary, an edit of the schedule by the next poll,
//! 3. lead or linger of any such cause,
//! 4. nothing: late, because the last cause had ended and the access had not.
//!
//! A cause counts until it left the record or its planned end came, whichever was first. What a later pass learns
//! therefore never takes duty away that was counted before, which lets counters be derived from the record.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use jiff::{SignedDuration, Timestamp};

use crate::ledger::AccessRow;
use crate::ledger::history::RecordedCause;
use crate::model::{Basis, EntitlementId, Interval, Person};

mod standing;

pub use standing::{length, standing};

/// How far back a cause counts that came on record later than it began.
pub const BACKDATE: SignedDuration = SignedDuration::from_mins(5);

/// What an instant of access was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Duty: truly on call.
    OnCall,
    /// Duty: a member inside a declared window.
    Window,
    /// Duty: a member, by a rule without windows.
    Membership,
    /// Overhang that a rule asks for: before or after duty.
    LeadLinger,
    /// Overhang that no rule asks for: held after the last cause had ended.
    Late,
}

impl Phase {
    /// In the order of precedence.
    pub const ALL: [Self; 5] = [
        Self::OnCall,
        Self::Window,
        Self::Membership,
        Self::LeadLinger,
        Self::Late,
    ];

    /// The values of the `basis` label, in the order of precedence.
    pub const BASES: [&'static str; 4] = ["on_call", "window", "membership", "overhang"];

    /// What the time counts as: a basis of duty, or overhang.
    #[must_use]
    pub fn basis(self) -> &'static str {
        match self {
            Self::OnCall => "on_call",
            Self::Window => "window",
            Self::Membership => "membership",
            Self::LeadLinger | Self::Late => "overhang",
        }
    }

    /// Whether it is held without being on duty.
    #[must_use]
    pub fn is_overhang(self) -> bool {
        matches!(self, Self::LeadLinger | Self::Late)
    }
}

impl From<&Basis> for Phase {
    fn from(basis: &Basis) -> Self {
        match basis {
            Basis::OnCall { .. } => Self::OnCall,
            Basis::Window => Self::Window,
            Basis::Membership => Self::Membership,
        }
    }
}

/// Access time by phase, exact to the nanosecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Figures {
    /// In the order of [`Phase::ALL`].
    phases: [SignedDuration; Phase::ALL.len()],
}

impl Figures {
    /// The time in one phase.
    #[must_use]
    pub fn of(&self, phase: Phase) -> SignedDuration {
        self.phases[phase as usize]
    }

    /// All time held.
    #[must_use]
    pub fn held(&self) -> SignedDuration {
        self.sum(|_| true)
    }

    /// Time held while on duty.
    #[must_use]
    pub fn duty(&self) -> SignedDuration {
        self.sum(|phase| !phase.is_overhang())
    }

    /// Time held while off duty: lead, linger, late revokes.
    #[must_use]
    pub fn overhang(&self) -> SignedDuration {
        self.sum(Phase::is_overhang)
    }

    /// The time under one value of the `basis` label.
    #[must_use]
    pub fn basis(&self, basis: &str) -> SignedDuration {
        self.sum(|phase| phase.basis() == basis)
    }

    fn sum(&self, wanted: impl Fn(Phase) -> bool) -> SignedDuration {
        let mut sum = SignedDuration::ZERO;
        for phase in Phase::ALL.into_iter().filter(|phase| wanted(*phase)) {
            sum = sum.saturating_add(self.of(phase));
        }
        sum
    }

    fn add(&mut self, phase: Phase, time: SignedDuration) {
        let slot = &mut self.phases[phase as usize];
        *slot = slot.saturating_add(time);
    }
}

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        for phase in Phase::ALL {
            self.add(phase, other.of(phase));
        }
    }
}

/// Access time of a period, by entitlement and person.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// Only those who held something in the period.
    pub cells: BTreeMap<(EntitlementId, Person), Figures>,
}

impl Account {
    /// Sums by whatever `key` makes of entitlement and person.
    pub fn grouped<K: Ord>(&self, key: impl Fn(&EntitlementId, &Person) -> K) -> BTreeMap<K, Figures> {
        let mut groups: BTreeMap<K, Figures> = BTreeMap::new();
        for ((entitlement, person), figures) in &self.cells {
            *groups.entry(key(entitlement, person)).or_default() += *figures;
        }
        groups
    }

    /// The sum of everything.
    #[must_use]
    pub fn total(&self) -> Figures {
        let mut total = Figures::default();
        for figures in self.cells.values() {
            total += *figures;
        }
        total
    }
}

/// Access time held in `period`. Access that still stands is counted to `now` and not beyond. Intervals of access in AWS
/// count one by one: somebody with two Identity Center users who holds an entitlement with both holds it twice.
#[must_use]
pub fn account(rows: &[AccessRow], period: Interval, now: Timestamp) -> Account {
    let mut account = Account::default();
    for row in rows {
        let figures = figures(row, period, now);
        if figures != Figures::default() {
            *account
                .cells
                .entry((row.entitlement.clone(), row.person.clone()))
                .or_default() += figures;
        }
    }
    account
}

fn figures(row: &AccessRow, period: Interval, now: Timestamp) -> Figures {
    let mut figures = Figures::default();
    for (span, phase) in phases(row, now) {
        if let Some(part) = span.intersect(&period) {
            figures.add(phase, part.duration());
        }
    }
    figures
}

/// The time up to `now` of access that still stands, given its [`phases`] as far as they are known, without what a later
/// record may change: overhang of the last [`BACKDATE`] waits, because it may turn out to have been duty. This is for
/// counters, which must never go backwards; once the access has ended, [`account`] says the same.
#[must_use]
pub fn settled(phases: &[(Interval, Phase)], now: Timestamp) -> Figures {
    let certain = now.checked_sub(BACKDATE).unwrap_or(Timestamp::MIN);
    let mut figures = Figures::default();
    for (span, phase) in phases {
        let end = if phase.is_overhang() { certain } else { now };
        if let Some(part) = Interval::new(span.start(), span.end().min(end)) {
            figures.add(*phase, part.duration());
        }
    }
    figures
}

/// Cuts one interval of access, up to `now`, into its phases: in order, touching, without a gap.
#[must_use]
pub fn phases(row: &AccessRow, now: Timestamp) -> Vec<(Interval, Phase)> {
    let end = row.revoked_at.map_or(now, |revoked| revoked.min(now));
    let Some(whole) = Interval::new(row.granted_at, end) else {
        return Vec::new();
    };
    let first_recorded = row.causes.iter().map(|c| c.recorded_at).min();
    let mut edges: Vec<(Timestamp, bool, Claim)> = vec![(whole.end(), true, Claim::Nothing)];
    for recorded in &row.causes {
        // The causes of the grant itself are recorded when AWS confirms it, which can be after it took effect.
        let on_record = if Some(recorded.recorded_at) == first_recorded {
            whole.start()
        } else {
            recorded.recorded_at
        };
        for (span, claim) in claims(recorded, on_record, whole) {
            edges.push((span.start(), true, claim));
            edges.push((span.end(), false, claim));
        }
    }
    edges.sort_unstable_by_key(|(at, ..)| *at);

    let mut cut: Vec<(Interval, Phase)> = Vec::new();
    let mut standing: BTreeMap<Claim, usize> = BTreeMap::new();
    let mut from = whole.start();
    for (at, begins, claim) in edges {
        if let Some(span) = Interval::new(from, at) {
            let phase = standing.keys().next().copied().unwrap_or(Claim::Nothing).phase();
            match cut.last_mut() {
                Some((last, same)) if *same == phase => {
                    *last = Interval::new(last.start(), span.end()).unwrap_or(*last);
                }
                _ => cut.push((span, phase)),
            }
            from = at;
        }
        let count = standing.entry(claim).or_default();
        if begins {
            *count += 1;
        } else {
            *count = count.saturating_sub(1);
        }
        if *count == 0 {
            standing.remove(&claim);
        }
    }
    cut
}

/// What a cause says about an instant; the smallest of all claims decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    Duty(Phase),
    DutyRecorded(Timestamp, Phase),
    LeadLinger,
    Nothing,
}

impl Claim {
    fn phase(self) -> Phase {
        match self {
            Self::Duty(phase) | Self::DutyRecorded(_, phase) => phase,
            Self::LeadLinger => Phase::LeadLinger,
            Self::Nothing => Phase::Late,
        }
    }
}

fn claims(recorded: &RecordedCause, on_record: Timestamp, whole: Interval) -> Vec<(Interval, Claim)> {
    let earliest = on_record.checked_sub(BACKDATE).unwrap_or(Timestamp::MIN);
    let latest = recorded.ended_at.unwrap_or(Timestamp::MAX);
    let held = Interval::new(earliest, latest)
        .and_then(|span| span.intersect(&recorded.cause.held))
        .and_then(|span| span.intersect(&whole));
    let Some(held) = held else { return Vec::new() };
    let mut claims = vec![(held, Claim::LeadLinger)];
    let phase = Phase::from(&recorded.cause.basis);
    if let Some(duty) = recorded.cause.duty.intersect(&held) {
        let before = Interval::new(duty.start(), duty.end().min(on_record));
        let after = Interval::new(duty.start().max(on_record), duty.end());
        claims.extend(before.map(|span| (span, Claim::DutyRecorded(on_record, phase))));
        claims.extend(after.map(|span| (span, Claim::Duty(phase))));
    }
    claims
}

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;
