//! Decides which changes of a plan may happen now; the only maker of an [`ApprovedPlan`]. Pure.
//!
//! Every guard looks at the whole plan before the first write. A change that is refused is *held*: it is shown with
//! the guard's name, the reason and what would release it, and it is decided anew in the next pass.

mod limits;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::config::{Limits, Mode};
use crate::desired::{Snapshots, Timeline};
use crate::identity_center::ChangeKind;
use crate::invariant::{self, Ground, Holder, Obstacle};
use crate::model::{Cause, PrincipalId, ResolvedTarget, ScheduleKey, Snapshot, Texts};
use crate::plan::{Change, Foresight, Key, Plan};
use crate::text::instant;
use limits::Limited;

/// The state of the world that guards look at besides the plan.
#[derive(Debug)]
pub struct Conditions<'a> {
    /// What may be written at all.
    pub mode: Mode,
    /// Whether the pause file exists.
    pub paused: bool,
    /// For entitlements with a floor: how many hold it now, and how many must.
    pub floors: &'a BTreeMap<ResolvedTarget, Floor>,
    /// The statements of owners and operator, and who holds what they speak about.
    pub ground: &'a Ground<'a>,
    /// How many surprises pass without a person.
    pub limits: &'a Limits,
    /// How long an outgoing grant waits for the incoming one.
    pub patience: SignedDuration,
    /// How old a snapshot may be.
    pub max_staleness: SignedDuration,
    /// By how much clocks may differ.
    pub max_clock_skew: SignedDuration,
    /// What is to come: for how long a decision holds, and what was granted before the clock was set back.
    pub timeline: &'a Timeline,
    /// The snapshots planned from.
    pub snapshots: &'a Snapshots,
    /// Schedules that hold nobody, now or at any time to come, although they were known to hold somebody.
    pub emptied: &'a BTreeSet<ScheduleKey>,
    /// Schedules that say now this and now that.
    pub unsteady: &'a BTreeSet<ScheduleKey>,
    /// Said when a provider's clock and ours disagree too much.
    pub clock_skew: Option<String>,
    /// What somebody on duty should hold whom the provider's answers do not identify, or a schedule never read decides on.
    pub unidentified: &'a BTreeSet<ResolvedTarget>,
    /// What somebody should hold who could not be looked up in the identity store just now.
    pub unresolved: &'a BTreeSet<ResolvedTarget>,
    /// How many grants the ledger owns.
    pub owned: usize,
    /// The digest that a person approved.
    pub approved_digest: Option<&'a str>,
    /// Changes of a plan that a person approved before, which are still to be made.
    pub released: &'a BTreeMap<Key, ChangeKind>,
}

/// Who holds an entitlement and how many must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Floor {
    /// Live holders, whoever granted it to them.
    pub holders: BTreeSet<PrincipalId>,
    /// Its `min_holders`.
    pub min: u32,
}

/// A plan whose every change passed every guard. `apply` takes nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovedPlan {
    steps: Vec<Step>,
    /// Grants that a statement holds back in favour of those of this plan. One of an earlier plan that has begun since the
    /// look takes their place.
    instead_of: BTreeSet<Key>,
    /// The changes under way at the look.
    in_flight: BTreeSet<Key>,
}

impl ApprovedPlan {
    /// The changes in order.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The part that a person ordered.
    #[must_use]
    pub fn ordered(self) -> Self {
        let steps = self.steps.into_iter().filter(|step| step.change.is_ordered()).collect();
        Self { steps, ..self }
    }

    /// Whether a statement holds back the grant of which `begun` knows that it has begun all the same, by an earlier plan:
    /// then the grants of this one may be one too many.
    #[must_use]
    pub fn is_overtaken(&self, begun: impl Fn(&Key) -> bool) -> bool {
        self.instead_of.iter().any(begun)
    }

    /// What of the given revokes that have begun the plan neither saw begin nor asks for itself: it counts on access that
    /// is being taken away, and its own revokes there may be one too many.
    #[must_use]
    pub fn surprised_by<'a>(&self, revokes: impl Iterator<Item = &'a Key>) -> BTreeSet<ResolvedTarget> {
        let mut unknown: BTreeSet<Key> = revokes.filter(|key| !self.in_flight.contains(key)).cloned().collect();
        if !unknown.is_empty() {
            let asked = self.steps.iter().filter(|step| step.change.kind == ChangeKind::Revoke);
            asked.for_each(|step| {
                unknown.remove(&step.change.key());
            });
        }
        unknown.into_iter().map(|(target, _)| target).collect()
    }

    /// Hands the changes over to be carried out.
    #[must_use]
    pub fn into_steps(self) -> Vec<Step> {
        self.steps
    }
}

/// One approved change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What to do.
    pub change: Arc<Change>,
    /// Make before break: these grants of the same pass must be confirmed first …
    pub waits_for: Vec<Key>,
    /// … unless this instant has passed.
    pub patience_ends: Timestamp,
    /// From this instant on the opposite is right: the turn has ended, or the next one has begun. A step that has waited
    /// until then must not begin any more.
    pub lapses_at: Timestamp,
}

/// A change that a guard refuses for now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    /// What would have been done.
    pub change: Arc<Change>,
    /// Which guard.
    pub guard: Guard,
    /// Why, with the arithmetic.
    pub reason: SmolStr,
    /// What would release it.
    pub release: SmolStr,
}

/// The guards, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    /// `mode` does not allow this kind of change.
    Mode,
    /// The pause file exists.
    Pause,
    /// The person is never revoked by us.
    Protected,
    /// The entitlement would be left with fewer holders than its owner demands.
    MinHolders,
    /// A statement of an owner or the operator would be broken.
    Invariant,
    /// The clocks disagree.
    ClockSkew,
    /// The schedule has not been read for longer than `max_staleness`.
    StaleSource,
    /// It is not known who should hold the entitlement.
    NotKnowing,
    /// The schedule suddenly holds nobody.
    EmptySchedule,
    /// The schedule goes back and forth between different answers.
    UnsteadySchedule,
    /// More surprises than the limits allow.
    Limit,
    /// The incoming grant is not confirmed yet.
    MakeBeforeBreak,
}

impl Guard {
    /// Every guard, for metrics that start at zero.
    pub const ALL: [Self; 12] = [
        Self::Mode,
        Self::Pause,
        Self::Protected,
        Self::MinHolders,
        Self::Invariant,
        Self::ClockSkew,
        Self::StaleSource,
        Self::NotKnowing,
        Self::EmptySchedule,
        Self::UnsteadySchedule,
        Self::Limit,
        Self::MakeBeforeBreak,
    ];

    /// A stable word for labels and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mode => "mode",
            Self::Pause => "pause",
            Self::Protected => "protected",
            Self::MinHolders => "min_holders",
            Self::Invariant => "invariant",
            Self::ClockSkew => "clock_skew",
            Self::StaleSource => "stale_source",
            Self::NotKnowing => "not_knowing",
            Self::EmptySchedule => "empty_schedule",
            Self::UnsteadySchedule => "unsteady_schedule",
            Self::Limit => "limit",
            Self::MakeBeforeBreak => "make_before_break",
        }
    }

    /// Whether it holds a change because what the change follows from may not be true.
    fn doubts(self) -> bool {
        match self {
            Self::ClockSkew
            | Self::StaleSource
            | Self::NotKnowing
            | Self::EmptySchedule
            | Self::UnsteadySchedule
            | Self::Limit => true,
            Self::Mode | Self::Pause | Self::Protected | Self::MinHolders | Self::Invariant | Self::MakeBeforeBreak => {
                false
            }
        }
    }

    /// Whether a read of a schedule may release what it holds although it shows the same as before: by how old the last one
    /// is, by the clock that came with it, or because it confirms the one before.
    fn waits_for_reads(self) -> bool {
        matches!(
            self,
            Self::ClockSkew | Self::StaleSource | Self::EmptySchedule | Self::UnsteadySchedule
        )
    }

    /// Whether a person's approval of the plan's digest overrules it.
    fn yields_to_approval(self) -> bool {
        !matches!(
            self,
            Self::Mode | Self::Pause | Self::Protected | Self::MinHolders | Self::Invariant
        )
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The guards' decision about a whole plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What may happen.
    pub approved: ApprovedPlan,
    /// What may not, in the plan's order.
    pub held: Vec<Held>,
}

impl Verdict {
    /// Whether a read of a schedule may release something that is held, although it shows the same as before.
    #[must_use]
    pub fn waits_for_reads(&self) -> bool {
        self.held.iter().any(|held| held.guard.waits_for_reads())
    }

    /// The changes whose reason may not be true.
    #[must_use]
    pub fn doubted(&self) -> BTreeSet<Key> {
        let doubted = self.held.iter().filter(|held| held.guard.doubts());
        doubted.map(|held| held.change.key()).collect()
    }
}

/// Schedules on which nobody is at `at` by the newest snapshot although somebody is by the settled one.
#[must_use]
pub fn emptied(newest: &Snapshots, settled: &Snapshots, at: Timestamp) -> BTreeSet<ScheduleKey> {
    let anybody = |snapshot: &Snapshot| snapshot.shifts.iter().any(|shift| shift.interval.contains(at));
    newest
        .iter()
        .filter(|(key, snapshot)| !anybody(snapshot) && settled.get(*key).is_some_and(|known| anybody(known)))
        .map(|(key, _)| key)
        .cloned()
        .collect()
}

/// Schedules that by the newest snapshot have nobody from `at` on, for as far as it reaches, although somebody was to be
/// on call by the settled one, if that is not older than `max_staleness`. A gap is an edit; a schedule without any future
/// is more likely an answer that lost its content.
#[must_use]
pub fn vanished(
    newest: &Snapshots,
    settled: &Snapshots,
    at: Timestamp,
    max_staleness: SignedDuration,
) -> BTreeSet<ScheduleKey> {
    let ahead = |snapshot: &Snapshot| snapshot.shifts.iter().any(|shift| at < shift.interval.end());
    newest
        .iter()
        .filter(|(_, snapshot)| !ahead(snapshot))
        .filter_map(|(key, _)| settled.get_key_value(key))
        .filter(|(_, known)| ahead(known) && known.read_at.duration_until(at) <= max_staleness)
        .map(|(key, _)| key.clone())
        .collect()
}

/// Asks every guard about every change.
#[must_use]
pub fn guard(plan: &Plan, conditions: &Conditions<'_>) -> Verdict {
    let plan_is_approved = conditions.approved_digest == Some(plan.digest.as_str());
    let approved_by_person =
        |change: &Change| plan_is_approved || conditions.released.get(&change.key()) == Some(&change.kind);
    let over = Limited::count(plan, conditions);
    let mut floors = conditions.floors.clone();
    let reasoned =
        |change: &Change| refuse_for_a_reason(change, plan, conditions, &over).filter(|_| !approved_by_person(change));
    // What is held for another reason takes nobody's place.
    let may_come = plan.changes.iter().filter(|change| reasoned(change).is_none());
    let obstacles = invariant::hold_back(
        conditions.ground,
        may_come.map(AsRef::as_ref),
        conditions.timeline,
        plan.at,
    );
    let (mut passed, mut held, mut texts) = (Vec::new(), Vec::new(), Texts::default());
    for change in &plan.changes {
        let refusal = reasoned(change)
            .or_else(|| refuse_by_statement(change, &obstacles, plan))
            .or_else(|| refuse_absolutely(change, conditions))
            .or_else(|| refuse_below_floor(change, &mut floors));
        match refusal {
            Some(refusal) => held.push(refusal.hold(change, plan, &mut texts)),
            None => passed.push(Arc::clone(change)),
        }
    }
    let steps = order(passed, &mut held, &mut texts, plan, conditions, approved_by_person);
    held.shrink_to_fit();
    let by_statement = held.iter().filter(|h| h.guard == Guard::Invariant);
    let instead_of = by_statement.map(|h| h.change.key()).collect();
    Verdict {
        approved: ApprovedPlan {
            steps,
            instead_of,
            in_flight: plan.in_flight.clone(),
        },
        held,
    }
}

struct Refusal {
    guard: Guard,
    reason: String,
    release: Option<String>,
}

impl Refusal {
    fn new(guard: Guard, reason: String) -> Option<Self> {
        Some(Self {
            guard,
            reason,
            release: None,
        })
    }

    fn until(self, release: String) -> Self {
        Self {
            release: Some(release),
            ..self
        }
    }

    /// The `texts` are shared with what else is held: while all is only observed, a hundred thousand are the same.
    fn hold(self, change: &Arc<Change>, plan: &Plan, texts: &mut Texts) -> Held {
        let approve = format!("`dutybound apply --approve {}`", plan.digest);
        let release = match (self.release, self.guard.yields_to_approval()) {
            (Some(release), true) => format!("{release}, or {approve}"),
            (Some(release), false) => release,
            (None, _) => approve,
        };
        let (mut reason, mut release) = (SmolStr::from(self.reason), SmolStr::from(release));
        texts.share(&mut reason);
        texts.share(&mut release);
        Held {
            change: Arc::clone(change),
            guard: self.guard,
            reason,
            release,
        }
    }
}

/// The guards that a person's approval overrules come first, so that observing or a pause shows what would be held for
/// a better reason; what a person approved has still to pass the others.
fn refuse_for_a_reason(change: &Change, plan: &Plan, c: &Conditions<'_>, over: &Limited) -> Option<Refusal> {
    if change.is_ordered() {
        return None;
    }
    match change.kind {
        ChangeKind::Grant => refuse_grant(change, plan, c, over),
        ChangeKind::Revoke => refuse_revoke(change, plan, c, over),
    }
}

/// Nothing but an edit of the statement or the world lets it go: neither time, nor foresight, nor an approval.
fn refuse_by_statement(change: &Change, obstacles: &BTreeMap<Key, Obstacle<'_>>, plan: &Plan) -> Option<Refusal> {
    if change.kind == ChangeKind::Revoke {
        return None;
    }
    let Obstacle {
        invariant,
        why,
        release,
        holders,
    } = obstacles.get(&change.key())?;
    let due = if change.due == Timestamp::MIN {
        String::new()
    } else {
        format!("; due since {}", instant(change.due))
    };
    let revoked = |change: &&Arc<Change>| {
        let here = |(holder, id): &(Holder, _)| change.principal == holder.principal && change.entitlement == *id;
        change.kind == ChangeKind::Revoke && holders.iter().any(here)
    };
    let leaving: BTreeSet<String> = plan.changes.iter().filter(revoked).map(|change| change.who()).collect();
    let under_way = if leaving.is_empty() {
        String::new()
    } else {
        let names: Vec<String> = leaving.into_iter().collect();
        format!(" (this plan revokes that of {})", names.join(", "))
    };
    let reason = format!("{}: {why}{due}", invariant.label());
    let release = format!(
        "{release}{under_way}, or an edit of the statement at {}; no approval releases it",
        invariant.origin
    );
    Refusal::new(Guard::Invariant, reason).map(|refusal| refusal.until(release))
}

/// What no approval overrules: protection and the mode are the operator's decisions, which only the configuration
/// changes, and the pause is taken back by removing the file.
fn refuse_absolutely(change: &Change, c: &Conditions<'_>) -> Option<Refusal> {
    if change.is_ordered() {
        return None;
    }
    let protected = change.person.as_ref().filter(|p| c.limits.protected.contains(p));
    if let (ChangeKind::Revoke, Some(person)) = (change.kind, protected) {
        return Refusal::new(Guard::Protected, format!("{person} is listed under `protected`"))
            .map(|r| r.until("remove them from `protected`".to_owned()));
    }
    if c.paused {
        return Refusal::new(Guard::Pause, "the pause file exists".to_owned())
            .map(|r| r.until("removing it".to_owned()));
    }
    let allowed = match change.kind {
        ChangeKind::Grant => matches!(c.mode, Mode::Sync | Mode::GrantOnly),
        ChangeKind::Revoke => matches!(c.mode, Mode::Sync | Mode::RevokeOnly),
    };
    if allowed {
        return None;
    }
    Refusal::new(Guard::Mode, format!("mode is {:?}", c.mode.as_str()))
        .map(|r| r.until("set `mode = \"sync\"` in the configuration".to_owned()))
}

/// Counts down the holders of a target with every revoke that passes. A grant counts once AWS has confirmed it.
fn refuse_below_floor(change: &Change, floors: &mut BTreeMap<ResolvedTarget, Floor>) -> Option<Refusal> {
    if change.kind == ChangeKind::Grant || change.is_ordered() {
        return None;
    }
    let floor = floors.get_mut(&change.target)?;
    // Whoever does not hold it is missed by nobody: the revoke of what is gone already closes the record.
    if !floor.holders.contains(&change.principal) {
        return None;
    }
    if floor.holders.len() <= usize::try_from(floor.min).unwrap_or(usize::MAX) {
        let reason = format!(
            "{} would be held by fewer than its min_holders, {}",
            change.entitlement, floor.min
        );
        return Refusal::new(Guard::MinHolders, reason).map(|r| r.until("another holder".to_owned()));
    }
    floor.holders.remove(&change.principal);
    None
}

fn refuse_grant(change: &Change, plan: &Plan, c: &Conditions<'_>, over: &Limited) -> Option<Refusal> {
    if let Some(skew) = &c.clock_skew {
        return Refusal::new(Guard::ClockSkew, skew.clone()).map(|r| r.until("correct the clock".to_owned()));
    }
    if !change.rests_on.is_empty() && change.rests_on.iter().all(|key| stale(key, plan.at, c)) {
        return Refusal::new(Guard::StaleSource, stale_reason(change.rests_on.iter(), c))
            .map(|r| r.until("a complete read of the schedule".to_owned()));
    }
    over.refusal(change)
}

fn refuse_revoke(change: &Change, plan: &Plan, c: &Conditions<'_>, over: &Limited) -> Option<Refusal> {
    // An end that was on record before it came is obeyed whatever the provider's health: hand-offs survive outages.
    let known_end = !change.causes.is_empty() && change.causes.iter().all(|cause| cause.has_ended_as_known(plan.at));
    if known_end {
        return over.refusal(change);
    }
    // It was granted when its time had come, which therefore cannot be still to come.
    let to_come = |cause: &&Arc<Cause>| {
        let ahead = plan.at.duration_until(cause.held.start());
        let is_soon = SignedDuration::ZERO < ahead && ahead <= c.max_clock_skew;
        is_soon && c.timeline.causes.binary_search(cause).is_ok()
    };
    if let Some(cause) = change.causes.iter().find(to_come) {
        let start = instant(cause.held.start());
        let reason = format!("the clock was set back: it was granted for what begins at {start}, and still does");
        return Refusal::new(Guard::ClockSkew, reason).map(|r| r.until(format!("{start} by the clock")));
    }
    let not_knowing = |why: &str| {
        Refusal::new(
            Guard::NotKnowing,
            format!("{why} for {}, and may be {}", change.entitlement, change.who()),
        )
        .map(|r| r.until("mend the problem shown for this entitlement".to_owned()))
    };
    if c.unresolved.contains(&change.target) {
        return not_knowing("somebody could not be looked up in Identity Center");
    }
    if change.foresight == Foresight::Disentitled {
        return None;
    }
    let mut uncertain = change.rests_on.iter().filter(|key| stale(key, plan.at, c)).peekable();
    if uncertain.peek().is_some() {
        return Refusal::new(Guard::StaleSource, stale_reason(uncertain, c))
            .map(|r| r.until("a complete read of the schedule".to_owned()));
    }
    if c.unidentified.contains(&change.target) {
        return not_knowing("somebody on duty could not be identified");
    }
    if let Some(key) = change.rests_on.iter().find(|key| c.emptied.contains(*key)) {
        return Refusal::new(Guard::EmptySchedule, format!("{key} suddenly has nobody on call"))
            .map(|r| r.until("the schedule still saying so after the notice period".to_owned()));
    }
    if let Some(key) = change.rests_on.iter().find(|key| c.unsteady.contains(*key)) {
        let reason = format!("{key} goes back and forth between different answers, and one of them earns it");
        return Refusal::new(Guard::UnsteadySchedule, reason)
            .map(|r| r.until("the schedule saying the same for the notice period".to_owned()));
    }
    over.refusal(change)
}

fn stale(key: &ScheduleKey, at: Timestamp, c: &Conditions<'_>) -> bool {
    c.snapshots
        .get(key)
        .is_none_or(|s| c.max_staleness < s.read_at.duration_until(at) || !s.window.contains(at))
}

fn stale_reason<'a>(keys: impl Iterator<Item = &'a ScheduleKey>, c: &Conditions<'_>) -> String {
    let names = keys.map(|key| match c.snapshots.get(key) {
        Some(snapshot) => format!(
            "{key} was last read completely at {}",
            snapshot.read_at.round(jiff::Unit::Second).unwrap_or(snapshot.read_at)
        ),
        None => format!("{key} was never read completely"),
    });
    names.collect::<Vec<_>>().join("; ")
}

/// Make before break: a revoke waits for the grants of its target, and is held while one of them cannot come.
fn order(
    passed: Vec<Arc<Change>>,
    held: &mut Vec<Held>,
    texts: &mut Texts,
    plan: &Plan,
    c: &Conditions<'_>,
    approved_by_person: impl Fn(&Change) -> bool,
) -> Vec<Step> {
    let mut coming: BTreeMap<ResolvedTarget, Vec<Key>> = BTreeMap::new();
    for change in passed.iter().filter(|change| change.kind == ChangeKind::Grant) {
        coming.entry(change.target.clone()).or_default().push(change.key());
    }
    // Grants that the mode rules out will never come, and one that a statement holds back may wait for this very revoke;
    // waiting for them would leave access standing.
    let mut stuck: BTreeMap<ResolvedTarget, String> = BTreeMap::new();
    for hold in held
        .iter()
        .filter(|h| h.change.kind == ChangeKind::Grant && !matches!(h.guard, Guard::Mode | Guard::Invariant))
    {
        stuck.insert(
            hold.change.target.clone(),
            format!("the grant to {} is held ({})", hold.change.who(), hold.guard),
        );
    }
    for (target, person) in &plan.awaited {
        stuck.insert(
            target.clone(),
            format!("AWS has not yet confirmed a change of {person}'s access"),
        );
    }
    let mut steps = Vec::new();
    for change in passed {
        let patience_ends = change.due.checked_add(c.patience).unwrap_or(Timestamp::MAX);
        let waiting = change.kind == ChangeKind::Revoke && plan.at < patience_ends && !change.is_ordered();
        let obstacle = stuck.get(&change.target).cloned().or_else(|| {
            // Somebody who is a member and cannot be granted is not part of any hand-off; an on-caller is.
            let unidentified = plan.problems.iter().any(|p| {
                p.kind.keeps_from_duty() && p.schedule.is_some() && p.entitlement.as_ref() == Some(&change.entitlement)
            });
            unidentified.then(|| "somebody who should hold it now could not be identified".to_owned())
        });
        match obstacle.filter(|_| waiting && !approved_by_person(&change)) {
            Some(obstacle) => {
                let refusal = Refusal {
                    guard: Guard::MakeBeforeBreak,
                    reason: obstacle,
                    release: Some(format!("the incoming grant, or {patience_ends} whatever happens")),
                };
                held.push(refusal.hold(&change, plan, texts));
            }
            None => {
                let waits_for = if waiting {
                    coming.get(&change.target).cloned().unwrap_or_default()
                } else {
                    Vec::new()
                };
                let lapses_at = match &change.person {
                    Some(person) if !change.is_ordered() => {
                        c.timeline.holds_until(&change.entitlement, person, plan.at)
                    }
                    _ => Timestamp::MAX,
                };
                steps.push(Step {
                    change,
                    waits_for,
                    patience_ends,
                    lapses_at,
                });
            }
        }
    }
    steps
}
