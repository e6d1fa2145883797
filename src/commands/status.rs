//! `status`: who holds what now, why and until when, what is held, and the health of every source.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::commands::forecast::About;
use crate::desired::Snapshots;
use crate::layout::{group, list, wrap};
use crate::ledger::{AccessRow, Bar, Board, Failures, HoldRow};
use crate::model::{EntitlementId, Person, ScheduleKey};
use crate::plan::render::problem_lines;
use crate::policy::Rule;
use crate::problem::{Problem, ProblemKind};
use crate::text::{cause, clean, instant, span};

mod read;

pub use read::{Installation, access, around, not_in_force, read};

/// What `status` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Now.
    pub at: Timestamp,
    /// Grants of ours that stand, by entitlement and person.
    pub access: Vec<AccessRow>,
    /// What was asked of AWS and is not in force.
    pub not_in_force: Vec<Problem>,
    /// Who holds nothing by a person's order.
    pub bars: Vec<Bar>,
    /// What guards hold.
    pub held: Vec<HoldRow>,
    /// How current every schedule is.
    pub schedules: Vec<ScheduleStatus>,
    /// What the last pass saw; `None` before the first one.
    pub last_pass: Option<Board>,
}

/// How current one schedule is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ScheduleStatus {
    /// Which.
    pub schedule: String,
    /// The last complete read.
    pub read_at: Option<Timestamp>,
    /// Since when it cannot be read.
    pub failing_since: Option<Timestamp>,
    /// Why not.
    pub failure: Option<String>,
    /// How long the last complete read serves in place of newer ones: `max_staleness` after it.
    pub stands_in_until: Option<Timestamp>,
}

impl Status {
    /// Gathers it from the record.
    #[must_use]
    pub fn new(
        at: Timestamp,
        mut access: Vec<AccessRow>,
        mut not_in_force: Vec<Problem>,
        bars: Vec<Bar>,
        held: Vec<HoldRow>,
        schedules: Vec<ScheduleStatus>,
        mut last_pass: Option<Board>,
    ) -> Self {
        access.retain(|a| a.revoked_at.is_none());
        if let Some(board) = &mut last_pass {
            // The record is newer than what the last pass saw, and nothing is told twice.
            let failing = schedules.iter().filter(|s| s.failure.is_some());
            let failing: HashSet<&str> = failing.map(|s| s.schedule.as_str()).collect();
            let is_told = |p: &Problem| {
                let schedule = p.schedule.as_ref().filter(|_| p.kind == ProblemKind::ScheduleFailing);
                schedule.is_some_and(|schedule| failing.contains(schedule.to_string().as_str()))
            };
            board.problems.retain(|p| !is_told(p));
            let newer: BTreeSet<_> = not_in_force.iter().map(Problem::subject).collect();
            board.problems.retain(|p| !newer.contains(&p.subject()));
            // The record tells of what is under way, and of how the try before it ended. Of strangers nothing tells who is
            // who.
            let under_way: HashSet<_> = not_in_force
                .iter()
                .filter(|p| p.kind == ProblemKind::ChangeUnsettled)
                .map(|p| (&p.entitlement, &p.person))
                .collect();
            board.problems.retain(|p| match p.kind {
                ProblemKind::ChangeUnsettled => false,
                ProblemKind::ChangeFailed => p.person.is_none() || !under_way.contains(&(&p.entitlement, &p.person)),
                _ => true,
            });
            // What waits for another change was not asked of AWS, so only the pass knows of it.
            let waits = |p: &mut Problem| p.kind == ProblemKind::ChangeFailed;
            not_in_force.extend(board.problems.extract_if(.., waits));
        }
        access.sort_by(|a, b| (&a.entitlement, &a.person).cmp(&(&b.entitlement, &b.person)));
        Self {
            at,
            access,
            not_in_force,
            bars,
            held,
            schedules,
            last_pass,
        }
    }

    /// The part of it that is about this, to which those rules belong. What concerns everybody stays.
    #[must_use]
    pub(crate) fn only(mut self, about: &About, rules: &[&Rule]) -> Self {
        let concerns = |entitlement: &EntitlementId, who: &str| {
            about.concerns(entitlement) || Person::parse(who).is_ok_and(|person| about.is(&person))
        };
        let told = |problem: &Problem| match (&problem.entitlement, &problem.person, &problem.schedule) {
            (Some(entitlement), _, _) if about.concerns(entitlement) => true,
            (_, Some(person), _) => about.is(person),
            (Some(entitlement), None, _) => rules.iter().any(|rule| rule.entitlement == *entitlement),
            (None, None, Some(schedule)) => rules.iter().any(|rule| rule.schedule() == Some(schedule)),
            (None, None, None) => true,
        };
        if let About::Person(person) = about {
            self.bars.retain(|bar| bar.concerns(person));
        }
        self.not_in_force.retain(told);
        self.held.retain(|row| concerns(&row.held.entitlement, &row.held.who));
        if let Some(board) = &mut self.last_pass {
            board.problems.retain(told);
            board.drift.retain(|drift| concerns(&drift.entitlement, &drift.holder));
        }
        self
    }

    /// As text for a terminal of that width.
    #[must_use]
    pub fn text(&self, width: Option<usize>) -> String {
        let mut out = String::new();
        self.write(&mut out, width).unwrap_or_default();
        wrap(&out, width)
    }

    fn write(&self, out: &mut String, width: Option<usize>) -> std::fmt::Result {
        let mode = self.last_pass.as_ref().map_or("unknown", |b| b.mode.as_str());
        writeln!(out, "Status at {}   mode {mode}", instant(self.at))?;
        let last_seen = self.last_pass.iter().flat_map(|board| &board.problems);
        for problem in last_seen.filter(|p| is_out_of_sight(p)) {
            let text = clean(&problem.to_string());
            writeln!(out, "{}: {text}; what follows is as last seen", problem.kind.as_str())?;
        }
        writeln!(out, "\nHeld now ({})", self.access.len())?;
        let mut entitlement = None;
        for access in &self.access {
            if entitlement != Some(&access.entitlement) {
                writeln!(out, "  {}", access.entitlement)?;
                entitlement = Some(&access.entitlement);
            }
            writeln!(
                out,
                "    {}  since {} ({})",
                access.person,
                instant(access.granted_at),
                span(access.granted_at.duration_until(self.at))
            )?;
            let mut open = access.causes.iter().filter(|c| c.ended_at.is_none()).peekable();
            if open.peek().is_none() {
                writeln!(out, "      no cause any more; due to be revoked")?;
            }
            for recorded in open {
                writeln!(out, "      {}", cause(&recorded.cause))?;
            }
        }
        write_problems(out, "Not in force", self.not_in_force.iter(), width)?;
        if !self.bars.is_empty() {
            writeln!(out, "\nHolding nothing by order ({})", self.bars.len())?;
            for bar in &self.bars {
                let whom = bar.person.as_ref().map_or("everybody", |p| p.as_str());
                writeln!(
                    out,
                    "  {whom}  since {} by {}: {}",
                    instant(bar.since),
                    clean(&bar.ordered_by),
                    clean(&bar.reason)
                )?;
            }
        }
        if !self.held.is_empty() {
            writeln!(out, "\nHeld back by guards ({})", self.held.len())?;
            let held = self.held.iter().map(|HoldRow { since, held }| {
                let since = instant(*since);
                let key = (
                    &held.entitlement,
                    held.kind,
                    held.guard,
                    since,
                    &held.reason,
                    &held.release,
                );
                (key, clean(&held.who))
            });
            for ((entitlement, kind, guard, since, reason, release), who) in group(held) {
                let kind = crate::apply::kind_word(kind);
                match &who[..] {
                    [one] => writeln!(out, "  {one} {kind} of {entitlement} ({guard}, since {since})")?,
                    many => writeln!(
                        out,
                        "  {} {kind}s of {entitlement} ({guard}, since {since})\n    {}",
                        many.len(),
                        list(many, 4, width)
                    )?,
                }
                writeln!(out, "    {}\n    released by {}", clean(reason), clean(release))?;
            }
        }
        self.write_schedules(out)?;
        let Some(board) = &self.last_pass else {
            return writeln!(out, "\nNo pass has been made yet.");
        };
        if !board.drift.is_empty() {
            writeln!(out, "\nNot ours ({})", board.drift.len())?;
            for drift in &board.drift {
                writeln!(out, "  {} holds {}", clean(&drift.holder), drift.entitlement)?;
            }
        }
        write_problems(
            out,
            "Problems",
            board.problems.iter().filter(|p| !is_out_of_sight(p)),
            width,
        )?;
        match board.next_boundary {
            Some(next) => writeln!(
                out,
                "\nNext boundary at {} (in {}).",
                instant(next),
                span(self.at.duration_until(next))
            ),
            None => writeln!(out, "\nNo boundary is known ahead."),
        }
    }

    /// Those that are well in one line, the others one by one.
    fn write_schedules(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\nSchedules ({})", self.schedules.len())?;
        let age = |t: Timestamp| span(t.duration_until(self.at));
        let mut unread: Vec<&str> = Vec::new();
        let mut well: Vec<(Timestamp, &str)> = Vec::new();
        for schedule in &self.schedules {
            let name = schedule.schedule.as_str();
            match (&schedule.failure, schedule.failing_since, schedule.read_at) {
                (Some(why), Some(since), read_at) => {
                    let stored = match (read_at, schedule.stands_in_until) {
                        (Some(read_at), Some(until)) => format!(
                            "the snapshot read at {} {} in until {}",
                            instant(read_at),
                            if until < self.at { "stood" } else { "stands" },
                            instant(until)
                        ),
                        _ => "it was never read, and nothing stands in".to_owned(),
                    };
                    let (since, why) = (instant(since), clean(why));
                    writeln!(out, "  {name}  FAILING since {since}: {why}; {stored}")?;
                }
                (_, _, None) => unread.push(name),
                (_, _, Some(read_at)) if schedule.stands_in_until.is_some_and(|until| until < self.at) => {
                    let age = age(read_at);
                    writeln!(
                        out,
                        "  {name}  STALE: read {age} ago, longer than max_staleness; is the daemon running?"
                    )?;
                }
                (_, _, Some(read_at)) => well.push((read_at, name)),
            }
        }
        match &unread[..] {
            [] => {}
            [one] => writeln!(out, "  {one}  not read yet")?,
            many => writeln!(out, "  {} not read yet", many.len())?,
        }
        match (well.iter().max(), well.iter().min()) {
            (Some((newest, name)), Some(_)) if well.len() == 1 => {
                writeln!(out, "  {name}  ok, read {} ago", age(*newest))
            }
            (Some((newest, _)), Some((oldest, _))) => {
                writeln!(
                    out,
                    "  {} ok, read {} to {} ago",
                    well.len(),
                    age(*newest),
                    age(*oldest)
                )
            }
            _ => Ok(()),
        }
    }
}

/// Everything below is as last seen, so this is said above it.
fn is_out_of_sight(problem: &Problem) -> bool {
    problem.kind == ProblemKind::AwsUnavailable
}

fn write_problems<'a>(
    out: &mut String,
    title: &str,
    problems: impl Iterator<Item = &'a Problem> + Clone,
    width: Option<usize>,
) -> std::fmt::Result {
    let count = problems.clone().count();
    if 0 < count {
        writeln!(out, "\n{title} ({count})")?;
    }
    out.push_str(&problem_lines(problems, |kind| kind.as_str().to_owned(), width));
    Ok(())
}

/// How current each of these schedules is.
#[must_use]
pub fn schedule_status(
    newest: &Snapshots,
    failures: &Failures,
    schedules: &BTreeSet<ScheduleKey>,
    max_staleness: SignedDuration,
) -> Vec<ScheduleStatus> {
    let status = |key: &ScheduleKey| {
        let failure = failures.get(key);
        ScheduleStatus {
            schedule: key.to_string(),
            read_at: newest.get(key).map(|s| s.read_at),
            failing_since: failure.map(|f| f.since),
            failure: failure.map(|f| f.message.clone()),
            stands_in_until: newest
                .get(key)
                .and_then(|s| s.read_at.saturating_add(max_staleness).ok()),
        }
    };
    schedules.iter().map(status).collect()
}
