//! Access time from the record: who held what for how long, and how much of it was duty. Pure.
//!
//! Every instant of an interval of access is in exactly one [`Phase`], so figures add up over any split of a period,
//! over entitlements and over people. Where several causes cover an instant, the first of this list decides:
//!
//! 1. duty by a cause that was on record at the time: on call before window before membership,
//! 2. duty by a cause that came on record at most [`BACKDATE`] later, the earliest first: a hand-off is recorded by the
//!    pass after the boundary, an edit of the schedule by the next poll,
//! 3. lead of any such cause, then linger,
//! 4. nothing: late, because the last cause had ended and the access had not.
//!
//! A cause counts until it left the record or its planned end came, whichever was first. What a later pass learns
//! therefore never takes duty away that was counted before, which lets counters be derived from the record.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::ledger::AccessRow;
use crate::ledger::history::RecordedCause;
use crate::model::{Basis, EntitlementId, Interval, Person};

mod measure;
mod standing;
mod tail;
mod uncovered;

pub use measure::{Measure, Record, Running, Sums, measure};
pub use standing::{length, standing, standing_spans, standing_spans_of};
pub use tail::{Ending, LONGEST_SESSION, Outlasted, Sessions, endings, outlasted, tail_of};
pub use uncovered::{Unheld, uncovered};

/// How far back a cause counts that came on record later than it began.
pub const BACKDATE: SignedDuration = SignedDuration::from_mins(5);

/// What earned access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Being on call.
    OnCall,
    /// Being a member inside a declared window.
    Window,
    /// Being a member, by a rule without windows.
    Membership,
}

impl Kind {
    /// In the order of precedence.
    pub const ALL: [Self; 3] = [Self::OnCall, Self::Window, Self::Membership];

    /// A stable word for labels and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnCall => "on_call",
            Self::Window => "window",
            Self::Membership => "membership",
        }
    }
}

impl From<&Basis> for Kind {
    fn from(basis: &Basis) -> Self {
        match basis {
            Basis::OnCall { .. } => Self::OnCall,
            Basis::Window => Self::Window,
            Basis::Membership => Self::Membership,
        }
    }
}

/// Duty, or which sort of overhang.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Truly on call, in the window, or a member.
    Duty,
    /// Overhang that a rule asks for: before duty.
    Lead,
    /// Overhang that a rule asks for: after duty.
    Linger,
    /// Overhang that no rule asks for: held after the last cause had ended.
    Late,
}

impl Part {
    /// In the order of precedence.
    pub const ALL: [Self; 4] = [Self::Duty, Self::Lead, Self::Linger, Self::Late];
    /// What is held without being on duty.
    pub const OVERHANG: [Self; 3] = [Self::Lead, Self::Linger, Self::Late];

    /// A stable word for labels and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Duty => "duty",
            Self::Lead => "lead",
            Self::Linger => "linger",
            Self::Late => "late",
        }
    }
}

/// What an instant of access was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Phase {
    /// What earned it; for late access, what earned it last.
    pub kind: Kind,
    /// What part of it.
    pub part: Part,
}

impl Phase {
    /// The values of the `basis` label, in the order of precedence.
    pub const BASES: [&'static str; 4] = ["on_call", "window", "membership", "overhang"];

    fn slot(self) -> usize {
        self.kind as usize * Part::ALL.len() + self.part as usize
    }
}

/// Access time by phase, exact to the nanosecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Figures {
    /// By [`Kind`], and within it by [`Part`].
    phases: [SignedDuration; Kind::ALL.len() * Part::ALL.len()],
}

impl Figures {
    /// The time in one phase.
    #[must_use]
    pub fn of(&self, kind: Kind, part: Part) -> SignedDuration {
        self.phases[Phase { kind, part }.slot()]
    }

    /// All time held.
    #[must_use]
    pub fn held(&self) -> SignedDuration {
        self.sum(|_| true)
    }

    /// Time held while on duty.
    #[must_use]
    pub fn duty(&self) -> SignedDuration {
        self.part(Part::Duty)
    }

    /// Time held while off duty: lead, linger, late revokes.
    #[must_use]
    pub fn overhang(&self) -> SignedDuration {
        self.sum(|phase| phase.part != Part::Duty)
    }

    /// The time in one part, whatever earned it.
    #[must_use]
    pub fn part(&self, part: Part) -> SignedDuration {
        self.sum(|phase| phase.part == part)
    }

    /// The time that one kind of cause earned, overhang included.
    #[must_use]
    pub fn kind(&self, kind: Kind) -> SignedDuration {
        self.sum(|phase| phase.kind == kind)
    }

    /// Only what one kind of cause earned.
    #[must_use]
    pub fn only(&self, kind: Kind) -> Self {
        let mut only = Self::default();
        for part in Part::ALL {
            only.add(Phase { kind, part }, self.of(kind, part));
        }
        only
    }

    /// The time under one value of the `basis` label: duty by what earned it, or overhang.
    #[must_use]
    pub fn basis(&self, basis: &str) -> SignedDuration {
        match Kind::ALL.into_iter().find(|kind| kind.as_str() == basis) {
            Some(kind) => self.of(kind, Part::Duty),
            None => self.overhang(),
        }
    }

    /// Adds the time up to `now` of access that still stands, given its [`phases`] as far as they are known, without what a
    /// later record may change: overhang of the last [`BACKDATE`] waits, because it may turn out to have been duty. This is
    /// for counters, which must never go backwards; once the access has ended, [`account`] says the same.
    pub fn settle(&mut self, phases: &[(Interval, Phase)], now: Timestamp) {
        let certain = now.checked_sub(BACKDATE).unwrap_or(Timestamp::MIN);
        for (span, phase) in phases {
            let end = if phase.part == Part::Duty { now } else { certain };
            if let Some(part) = Interval::new(span.start(), span.end().min(end)) {
                self.add(*phase, part.duration());
            }
        }
    }

    fn sum(&self, wanted: impl Fn(Phase) -> bool) -> SignedDuration {
        let mut sum = SignedDuration::ZERO;
        for phase in all_phases().filter(|phase| wanted(*phase)) {
            sum = sum.saturating_add(self.phases[phase.slot()]);
        }
        sum
    }

    fn add(&mut self, phase: Phase, time: SignedDuration) {
        let slot = &mut self.phases[phase.slot()];
        *slot = slot.saturating_add(time);
    }
}

fn all_phases() -> impl Iterator<Item = Phase> {
    let of_kind = |kind| Part::ALL.into_iter().map(move |part| Phase { kind, part });
    Kind::ALL.into_iter().flat_map(of_kind)
}

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        for phase in all_phases() {
            self.add(phase, other.phases[phase.slot()]);
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
    within(&phases(row, now), period)
}

/// The part of some [`phases`] that lies in `period`.
fn within(phases: &[(Interval, Phase)], period: Interval) -> Figures {
    let mut figures = Figures::default();
    for (span, phase) in phases {
        if let Some(part) = span.intersect(&period) {
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
    let first = row.causes.iter().min_by_key(|c| (c.recorded_at, &c.cause));
    let mut edges: Vec<(Timestamp, bool, Claim)> = vec![(whole.end(), true, Claim::Nothing)];
    for recorded in &row.causes {
        // The causes of the grant itself are recorded when AWS confirms it, which can be after it took effect.
        let on_record = if first.is_some_and(|first| first.recorded_at == recorded.recorded_at) {
            whole.start()
        } else {
            recorded.recorded_at
        };
        for (span, claim) in claims(recorded, on_record, whole) {
            edges.push((span.start(), true, claim));
            edges.push((span.end(), false, claim));
        }
    }
    edges.sort_unstable();

    let mut cut: Vec<(Interval, Phase)> = Vec::new();
    let mut standing: BTreeMap<Claim, usize> = BTreeMap::new();
    let mut from = whole.start();
    let mut last = first.map_or(Kind::OnCall, |first| Kind::from(&first.cause.right.basis));
    for (at, begins, claim) in edges {
        if let Some(span) = Interval::new(from, at) {
            let phase = standing.keys().next().copied().unwrap_or(Claim::Nothing).phase(last);
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
            last = claim.phase(last).kind;
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
    Duty(Kind),
    DutyRecorded(Timestamp, Kind),
    Lead(Kind),
    Linger(Kind),
    Nothing,
}

impl Claim {
    /// `last` is what earned access before nothing did.
    fn phase(self, last: Kind) -> Phase {
        let (kind, part) = match self {
            Self::Duty(kind) | Self::DutyRecorded(_, kind) => (kind, Part::Duty),
            Self::Lead(kind) => (kind, Part::Lead),
            Self::Linger(kind) => (kind, Part::Linger),
            Self::Nothing => (last, Part::Late),
        };
        Phase { kind, part }
    }
}

/// When a cause stopped counting, if it did before its planned end.
fn lapsed(recorded: &RecordedCause) -> Timestamp {
    recorded.ended_at.unwrap_or(Timestamp::MAX)
}

fn claims(recorded: &RecordedCause, on_record: Timestamp, whole: Interval) -> Vec<(Interval, Claim)> {
    let earliest = on_record.checked_sub(BACKDATE).unwrap_or(Timestamp::MIN);
    let (held, duty) = (recorded.cause.held, recorded.cause.duty);
    let counted = Interval::new(earliest, lapsed(recorded))
        .and_then(|span| span.intersect(&held))
        .and_then(|span| span.intersect(&whole));
    let Some(counted) = counted else { return Vec::new() };
    let kind = Kind::from(&recorded.cause.right.basis);
    let mut claims = Vec::with_capacity(4);
    let mut claim = |from, to, claim| {
        let span = Interval::new(from, to).and_then(|span| span.intersect(&counted));
        claims.extend(span.map(|span| (span, claim)));
    };
    claim(held.start(), duty.start(), Claim::Lead(kind));
    claim(
        duty.start(),
        duty.end().min(on_record),
        Claim::DutyRecorded(on_record, kind),
    );
    claim(duty.start().max(on_record), duty.end(), Claim::Duty(kind));
    claim(duty.end(), held.end(), Claim::Linger(kind));
    claims
}

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;
