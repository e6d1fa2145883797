//! Shows a guarded plan as text and as JSON.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::convergence::{Convergence, Speed};
use super::{Change, Drift, Foresight};
use crate::guard::{Guard, Held};
use crate::identity_center::ChangeKind;
use crate::layout::{group, list, wrap};
use crate::model::EntitlementId;
use crate::policy::Policy;
use crate::problem::{Problem, ProblemKind};
use crate::survey::{Survey, UNANSWERED};
use crate::text::{cause, clean, former_cause, instant, span};

/// More schedules than these are told in one line, as far as there is nothing to say about them.
const MOST_SCHEDULES: usize = 8;

/// How a schedule was read, for the head of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceLine {
    /// The schedule.
    pub schedule: String,
    /// When the snapshot planned from was read.
    pub read_at: Option<jiff::Timestamp>,
    /// Why the last read failed, if it did.
    pub failure: Option<String>,
    /// Since when reads fail.
    pub failing_since: Option<jiff::Timestamp>,
}

/// Everything that is shown of a plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct View {
    /// The instant it speaks of.
    pub at: jiff::Timestamp,
    /// Names exactly these changes.
    pub digest: String,
    /// What may be written.
    pub mode: &'static str,
    /// Content hash of the policy.
    pub policy: String,
    /// The instance that was read.
    pub instance: String,
    /// How current the schedules are.
    pub schedules: Vec<SourceLine>,
    /// What would be done at once.
    pub changes: Vec<Arc<Change>>,
    /// What guards hold.
    pub held: Vec<Held>,
    /// What is there and not ours.
    pub drift: Vec<Drift>,
    /// What people should look at.
    pub problems: Vec<Problem>,
    /// How many grants stay as they are.
    pub unchanged: usize,
    /// How many changes of earlier passes AWS has not ended.
    pub unsettled: usize,
    /// About how long AWS will take to confirm the changes.
    pub converges_in_seconds: i64,
    /// The same with what it is made of, and what AWS's limits allow at best.
    pub convergence: Convergence,
}

impl View {
    /// Gathers what is to be shown. In mode `observe` and the like, what only the mode holds is shown as a change.
    #[must_use]
    pub fn new(survey: &Survey, mode: &'static str, policy: &Policy, schedules: Vec<SourceLine>, speed: Speed) -> Self {
        let (by_mode, held): (Vec<_>, Vec<_>) = survey
            .verdict
            .held
            .iter()
            .cloned()
            .partition(|h| h.guard == Guard::Mode);
        let approved = survey.verdict.approved.steps().iter().map(|step| &step.change);
        let allowed = approved.chain(by_mode.iter().map(|h| &h.change));
        let allowed: HashSet<_> = allowed.map(|change| (&change.target, &change.principal)).collect();
        let changes = survey.plan.changes.iter();
        let changes: Vec<Arc<Change>> = changes
            .filter(|change| allowed.contains(&(&change.target, &change.principal)))
            .cloned()
            .collect();
        let convergence = Convergence::of(changes.iter().map(AsRef::as_ref), speed, survey.at);
        Self {
            at: survey.at,
            converges_in_seconds: convergence.about().as_secs(),
            convergence,
            digest: survey.plan.digest.clone(),
            mode,
            policy: policy.revision.clone(),
            instance: survey.instance.arn.clone(),
            schedules,
            changes,
            held,
            drift: survey.plan.drift.clone(),
            problems: survey.problems.clone(),
            unchanged: survey.plan.unchanged,
            unsettled: survey
                .problems
                .iter()
                .filter(|p| p.kind == ProblemKind::ChangeUnsettled)
                .map(|p| 1 + p.more)
                .sum(),
        }
    }

    /// As text, styled; the caller's stream drops the styles where they do not belong. `width` is the terminal's.
    #[must_use]
    pub fn text(&self, policy: &Policy, width: Option<usize>) -> String {
        let mut out = String::new();
        self.write(&mut out, policy, width).unwrap_or_default();
        wrap(&out, width)
    }

    fn write(&self, out: &mut String, policy: &Policy, width: Option<usize>) -> std::fmt::Result {
        writeln!(out, "Plan {}   mode {}   {}", self.digest, self.mode, instant(self.at))?;
        let fine = |line: &&SourceLine| line.failing_since.is_none() && line.read_at.is_some();
        let fine: Vec<_> = self.schedules.iter().filter(fine).collect();
        let in_one_line = MOST_SCHEDULES < fine.len();
        if in_one_line {
            let ages = || {
                fine.iter()
                    .filter_map(|line| line.read_at)
                    .map(|t| t.duration_until(self.at))
            };
            let (least, most) = (ages().min().unwrap_or_default(), ages().max().unwrap_or_default());
            let (least, most) = (span(least), span(most));
            let age = if least == most {
                most
            } else {
                format!("{least} to {most}")
            };
            writeln!(out, "  {} schedules  read {age} before", fine.len())?;
        }
        for line in &self.schedules {
            if in_one_line && line.failing_since.is_none() && line.read_at.is_some() {
                continue;
            }
            let age = line.read_at.map_or_else(
                || "never read".to_owned(),
                |t| format!("read {} before", span(t.duration_until(self.at))),
            );
            // Why it fails stands among the problems.
            let failed = line
                .failing_since
                .map(|t| styled(RED, &format!("FAILED since {}", instant(t))) + "; ");
            writeln!(out, "  {}  {}{age}", line.schedule, failed.unwrap_or_default())?;
        }
        let mut blocks: BTreeMap<&EntitlementId, Vec<String>> = BTreeMap::new();
        let changes = self.changes.iter().map(|change| {
            let key = (&change.entitlement, change.kind, change_details(change, self.at));
            (key, clean(&change.who()))
        });
        for ((entitlement, kind, details), who) in group(changes) {
            let lines = change_lines(kind, &who, &details, width);
            blocks.entry(entitlement).or_default().push(lines);
        }
        let held = self.held.iter().map(|held| {
            let key = (
                &held.change.entitlement,
                held.change.kind,
                held.guard,
                &held.reason,
                &held.release,
            );
            (key, clean(&held.change.who()))
        });
        for ((entitlement, kind, guard, reason, release), who) in group(held) {
            let kind = word(kind);
            let head = match &who[..] {
                [one] => styled(YELLOW, &format!("  = {one}  HELD ({guard}): {kind} waits")),
                many => format!(
                    "{}\n      {}",
                    styled(YELLOW, &format!("  = HELD ({guard}): {} {kind}s wait", many.len())),
                    list(many, 6, width)
                ),
            };
            let lines = format!("{head}\n      {}\n      released by {}", clean(reason), clean(release));
            blocks.entry(entitlement).or_default().push(lines);
        }
        for drift in &self.drift {
            let who = drift
                .person
                .as_ref()
                .map_or_else(|| clean(&drift.holder), ToString::to_string);
            let why = if drift.desired {
                "holds it already, not through dutybound, which will not revoke it when duty ends"
            } else {
                "holds it, not through dutybound; left alone"
            };
            blocks
                .entry(&drift.entitlement)
                .or_default()
                .push(format!("  ! {who}  {why}"));
        }
        for (id, lines) in blocks {
            let target = policy
                .entitlement(id)
                .map(|e| format!("   {}", clean(&e.target.to_string())))
                .unwrap_or_default();
            writeln!(out, "\n{}{target}", styled(BOLD, &id.to_string()))?;
            if let Some(context) = policy.projects.get(&id.project).and_then(|p| p.context.as_ref()) {
                writeln!(out, "  context: {}", clean(context.trim()))?;
            }
            for line in lines {
                writeln!(out, "{line}")?;
            }
        }
        if !self.problems.is_empty() {
            writeln!(out, "\n{}", styled(BOLD, "Problems"))?;
            let line = |kind: ProblemKind| styled(YELLOW, kind.as_str());
            out.push_str(&problem_lines(self.problems.iter(), line, width));
        }
        let count = |kind| self.changes.iter().filter(|c| c.kind == kind).count();
        writeln!(
            out,
            "\nPlan: {} to grant, {} to revoke, {} held, {} not ours, {} unchanged{}.",
            count(ChangeKind::Grant),
            count(ChangeKind::Revoke),
            self.held.len(),
            self.drift.len(),
            self.unchanged,
            match self.unsettled {
                0 => String::new(),
                open => format!(", {open} not confirmed by AWS"),
            }
        )?;
        if !self.changes.is_empty() {
            writeln!(out, "{}", self.convergence.line())?;
        }
        Ok(())
    }
}

const RED: AnsiColor = AnsiColor::Red;
const YELLOW: AnsiColor = AnsiColor::Yellow;
const BOLD: Style = Style::new().bold();

fn styled(style: impl Into<Emphasis>, text: &str) -> String {
    let Emphasis(style) = style.into();
    format!("{style}{text}{style:#}")
}

struct Emphasis(Style);

impl From<Style> for Emphasis {
    fn from(style: Style) -> Self {
        Self(style)
    }
}

impl From<AnsiColor> for Emphasis {
    fn from(color: AnsiColor) -> Self {
        Self(color.on_default())
    }
}

fn word(kind: ChangeKind) -> &'static str {
    crate::apply::kind_word(kind)
}

fn change_lines(kind: ChangeKind, who: &[String], details: &[String], width: Option<usize>) -> String {
    let (sign, color) = match kind {
        ChangeKind::Grant => ('+', AnsiColor::Green),
        ChangeKind::Revoke => ('-', AnsiColor::Red),
    };
    let mut lines = styled(color, &format!("  {sign} {}", list(who, 4, width)));
    for detail in details {
        lines.push_str("\n      ");
        lines.push_str(detail);
    }
    lines
}

/// Why, one line each.
fn change_details(change: &Change, at: jiff::Timestamp) -> Vec<String> {
    let why = |c| match change.kind {
        ChangeKind::Grant => cause(c),
        ChangeKind::Revoke => former_cause(c, at),
    };
    let mut details: Vec<String> = change.causes.iter().map(|cause| why(cause)).collect();
    if details.is_empty() {
        details.push("no cause on record".to_owned());
    }
    match &change.foresight {
        Foresight::Predicted => {}
        Foresight::Disentitled => details.push("the policy no longer allows it".to_owned()),
        Foresight::Surprising(why) => details.push(format!("surprising: {}", clean(why))),
        Foresight::Ordered(why) => details.push(format!("ordered: {}", clean(why))),
    }
    details
}

/// More entitlements than this that wait for the same are counted and not listed.
const FEW: usize = 3;

/// What passes by itself when everything has been read once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wait {
    Schedule,
    Aws,
}

impl Wait {
    fn of(problem: &Problem) -> Option<Self> {
        match problem.kind {
            ProblemKind::ScheduleUnread => Some(Self::Schedule),
            ProblemKind::TargetUnresolved if problem.message.ends_with(UNANSWERED) => Some(Self::Aws),
            _ => None,
        }
    }
}

/// Problems, one line each; those that say the same of several people become one, with the people below it.
pub fn problem_lines<'a>(
    problems: impl Iterator<Item = &'a Problem>,
    kind: impl Fn(ProblemKind) -> String,
    width: Option<usize>,
) -> String {
    let problems: Vec<&Problem> = problems.collect();
    let mut out = String::new();
    let mut told = BTreeSet::new();
    for (wait, words) in [
        (
            Wait::Schedule,
            "wait for schedules that have not been read completely yet",
        ),
        (Wait::Aws, "are still being looked up in AWS"),
    ] {
        let waiting = problems.iter().filter(|p| Wait::of(p) == Some(wait));
        let entitlements: BTreeSet<_> = waiting.clone().map(|p| &p.entitlement).collect();
        if let (Some(first), true) = (waiting.clone().next(), FEW < entitlements.len()) {
            told.insert(wait);
            let since = waiting.filter_map(|p| p.since).min();
            let since = since.map_or_else(String::new, |since| format!(" (since {})", instant(since)));
            out.push_str(&format!(
                "  {}: {} entitlements {words}; nothing changes for them until then{since}\n",
                kind(first.kind),
                entitlements.len()
            ));
        }
    }
    let rest = problems.into_iter();
    let rest = rest.filter(|p| Wait::of(p).is_none_or(|wait| !told.contains(&wait)));
    let said = rest.map(|problem| {
        let person = problem.person.as_ref().map(|p| clean(p.as_str()));
        let text = clean(&problem.to_string());
        // A message that does not name its person stands for itself alone.
        let nameless = person.as_ref().map(|who| text.replace(who, "…")).filter(|n| *n != text);
        let key = (problem.kind, nameless.unwrap_or_else(|| text.clone()));
        (key, (person, text))
    });
    for ((of, nameless), each) in group(said) {
        let many: Vec<String> = each.iter().filter_map(|(person, _)| person.clone()).collect();
        if 1 < many.len() && many.len() == each.len() {
            let people = list(&many, 6, width);
            out.push_str(&format!(
                "  {} ({} people): {nameless}\n      {people}\n",
                kind(of),
                many.len()
            ));
        } else {
            for (_, text) in each {
                out.push_str(&format!("  {}: {text}\n", kind(of)));
            }
        }
    }
    out
}
