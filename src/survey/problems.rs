//! What people should look at besides the plan: targets, late changes, schedules, clocks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::{SignedDuration, Timestamp, Unit};

use super::Record;
use crate::along::Along;
use crate::config::Config;
use crate::desired::Snapshots;
use crate::identity_center::{AwsError, ChangeKind};
use crate::ledger::StoredSnapshots;
use crate::model::{EntitlementId, ResolvedTarget, ScheduleKey, Snapshot, SourceName};
use crate::plan::{Foresight, Plan};
use crate::problem::{Problem, ProblemKind};
use crate::unfinished;

pub(super) fn target_problems(
    targets: &BTreeMap<EntitlementId, Result<ResolvedTarget, String>>,
    errors: &BTreeMap<ResolvedTarget, AwsError>,
) -> Vec<Problem> {
    let unresolved = targets.iter().filter_map(|(id, target)| {
        let message = target.as_ref().err()?.clone();
        Some((Some(id.clone()), message))
    });
    let unread = errors.iter().map(|(target, error)| {
        let entitlement = entitlement_of(targets, target);
        let name = entitlement
            .as_ref()
            .map_or_else(|| target.to_string(), |id| format!("{id} ({target})"));
        (
            entitlement,
            format!("who holds {name} could not be read, so it is left alone: {error}"),
        )
    });
    unresolved
        .chain(unread)
        .map(|(entitlement, message)| Problem {
            entitlement,
            ..Problem::new(ProblemKind::TargetUnresolved, message)
        })
        .collect()
}

/// Changes that should have been in force a while ago, and duty that nobody could foresee.
pub(super) fn change_problems(plan: &Plan, record: &Record, at: Timestamp) -> Vec<Problem> {
    let mut problems = Vec::new();
    for change in &plan.changes {
        let planned = record.planned_since.of(&change.key(), change.kind);
        problems.extend(unfinished::overdue(change, planned, at));
        if let Some((kind, last)) = record.failures.get(&change.key())
            && *kind == change.kind
            && unfinished::is_of_this_turn(change, last)
        {
            problems.push(unfinished::failed(change, last));
        }
        if let (ChangeKind::Grant, Foresight::Surprising(why)) = (change.kind, &change.foresight) {
            let message = format!(
                "{} comes on duty for {} out of the blue: {why}",
                change.who(),
                change.entitlement
            );
            let is_given_back = plan.lost.contains(&change.key());
            let schedule = change.causes.iter().find_map(|cause| cause.schedule());
            problems.push(Problem {
                schedule: schedule.filter(|_| !is_given_back).cloned(),
                ..unfinished::about(change, ProblemKind::SurprisingDuty, message)
            });
        }
    }
    problems
}

fn entitlement_of(
    targets: &BTreeMap<EntitlementId, Result<ResolvedTarget, String>>,
    target: &ResolvedTarget,
) -> Option<EntitlementId> {
    targets
        .iter()
        .find(|(_, t)| t.as_ref() == Ok(target))
        .map(|(id, _)| id.clone())
}

/// What is wrong with the sources: failing, stale, worth a notice, or with another idea of the time.
pub(super) fn source_problems(
    config: &Config,
    schedules: &BTreeSet<ScheduleKey>,
    stored: &StoredSnapshots,
    newest: &Snapshots,
    at: Timestamp,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let about = |key: &ScheduleKey, kind, message| Problem {
        schedule: Some(key.clone()),
        ..Problem::new(kind, message)
    };
    let mut read = Along::new(newest);
    for key in schedules {
        let snapshot = read.find(key);
        if let Some(failure) = stored.failures().get(key) {
            let standing_in = snapshot.map_or_else(
                || "nothing is stored to stand in for it".to_owned(),
                |s| stands_in(s.read_at, config.timing.max_staleness, at),
            );
            problems.push(about(
                key,
                ProblemKind::ScheduleFailing,
                format!(
                    "{key} cannot be read since {}: {}; {standing_in}",
                    seconds(failure.since),
                    failure.message
                ),
            ));
        }
        let Some(snapshot) = snapshot else { continue };
        if config.timing.max_staleness < snapshot.read_at.duration_until(at) {
            problems.push(about(key, ProblemKind::ScheduleStale, format!(
                "{key} was last read completely at {}, longer ago than max_staleness; its grants are held as they are", seconds(snapshot.read_at)
            )));
        }
        for notice in &snapshot.notices {
            problems.push(about(key, ProblemKind::ScheduleNotice, format!("{key}: {notice}")));
        }
    }
    if let Some(skew) = clock_skew(config, newest, at) {
        problems.push(Problem::new(ProblemKind::ClockSkew, skew.to_string()));
    }
    problems
}

/// For how long the last complete read of a schedule serves in place of newer ones.
fn stands_in(read_at: Timestamp, max_staleness: SignedDuration, at: Timestamp) -> String {
    let until = read_at.saturating_add(max_staleness).unwrap_or(Timestamp::MAX);
    let (read_at, verb) = (seconds(read_at), if until < at { "stood" } else { "stands" });
    format!("the snapshot read at {read_at} {verb} in until {}", seconds(until))
}

/// A source's clock that differs from ours by more than is allowed.
pub(super) struct Skew {
    source: SourceName,
    offset: SignedDuration,
    /// A source whose clock agrees with ours: then it is the other's that is wrong, and a shift's times do not depend on it.
    agreeing: Option<SourceName>,
}

impl Skew {
    /// Whether it may be our clock that is wrong, in words.
    pub(super) fn of_ours(&self) -> Option<String> {
        self.agreeing.is_none().then(|| self.to_string())
    }
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, offset, .. } = self;
        write!(
            f,
            "the clock of {source} differs from this host's by {offset:#}, more than max_clock_skew; "
        )?;
        match &self.agreeing {
            Some(other) => write!(f, "that of {other} agrees with this host's, so grants go on"),
            None => f.write_str("new grants wait"),
        }
    }
}

/// The worst difference between a source's clock and ours, by the source's last read, if that is recent: an offset
/// measured before the clock was corrected says nothing.
pub(super) fn clock_skew(config: &Config, newest: &Snapshots, at: Timestamp) -> Option<Skew> {
    let recent = config.timing.poll.saturating_mul(3).max(SignedDuration::from_mins(5));
    let mut last: BTreeMap<&SourceName, &Snapshot> = BTreeMap::new();
    for snapshot in newest.values() {
        let entry = last.entry(&snapshot.schedule.source).or_insert(snapshot);
        if entry.read_at < snapshot.read_at {
            *entry = snapshot;
        }
    }
    let current = last.into_iter().filter(|(_, s)| s.read_at.duration_until(at) <= recent);
    let offsets: Vec<_> = current
        .filter_map(|(source, s)| Some((source, SignedDuration::from_millis(s.clock_offset_ms?))))
        .collect();
    let (wrong, right): (Vec<_>, Vec<_>) = offsets
        .into_iter()
        .partition(|(_, offset)| config.timing.max_clock_skew < offset.abs());
    let (source, offset) = wrong.into_iter().max_by_key(|(_, offset)| offset.abs())?;
    Some(Skew {
        source: source.clone(),
        offset,
        agreeing: right.first().map(|(source, _)| (*source).clone()),
    })
}

fn seconds(t: Timestamp) -> Timestamp {
    t.round(Unit::Second).unwrap_or(t)
}
