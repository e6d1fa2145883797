//! What the daemon says about its passes: each thing once when it begins and once when it ends, nothing when idle; of more
//! than a hundred of one sort at once the first hundred, and how many more.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use foldhash::HashSet;
use jiff::Timestamp;

use crate::guard::{Guard, Held};
use crate::problem::Problem;
use crate::reconcile::{Pass, PassError};
use crate::text;

/// So many of one sort are told one by one in a pass. After ten thousand lines in half a minute journald drops what comes,
/// however grave it is (`RateLimitBurst=` in journald.conf(5)).
const ONE_BY_ONE: usize = 100;

/// Remembers what was said.
#[derive(Debug, Default)]
pub(super) struct Journal {
    problems: Vec<Problem>,
    /// Names of what was held. A hundred thousand may be, and no text is kept of each.
    held: HashSet<u64>,
    last_error: Option<String>,
    standing: usize,
    next_boundary: Option<Timestamp>,
}

impl Journal {
    pub(super) fn pass(&mut self, look: &Pass) {
        if self.last_error.take().is_some() {
            tracing::info!("passes succeed again");
        }
        let survey = &look.survey;
        let problems = survey.problems.clone();
        let before: BTreeSet<_> = self.problems.iter().map(Problem::subject).collect();
        let now: BTreeSet<_> = problems.iter().map(Problem::subject).collect();
        let mut told = Told::default();
        for problem in problems.iter().filter(|p| !before.contains(&p.subject())) {
            if told.is_one_more(problem.kind) {
                tracing::warn!(problem = problem.kind.as_str(), detail = %text::clean(&problem.to_string()), "problem");
            }
        }
        for (kind, more) in told.not_told() {
            tracing::warn!(
                problem = kind.as_str(),
                more,
                "more problems of this sort; `dutybound status` tells all"
            );
        }
        let mut told = Told::default();
        for problem in self.problems.iter().filter(|p| !now.contains(&p.subject())) {
            if told.is_one_more(problem.kind) {
                tracing::info!(problem = problem.kind.as_str(), detail = %text::clean(&problem.to_string()), "problem is gone");
            }
        }
        for (kind, more) in told.not_told() {
            tracing::info!(problem = kind.as_str(), more, "more problems of this sort are gone");
        }
        let (mut held, mut told) = (HashSet::default(), Told::default());
        for hold in &survey.verdict.held {
            let subject = name_of(hold);
            let is_new = !self.held.contains(&subject) && hold.guard != Guard::MakeBeforeBreak;
            if is_new && told.is_one_more(hold.guard) {
                tracing::warn!(
                    change = crate::apply::kind_word(hold.change.kind), entitlement = %hold.change.entitlement,
                    principal = %hold.change.principal, guard = hold.guard.as_str(), reason = %text::clean(&hold.reason), release = %text::clean(&hold.release),
                    "held"
                );
            }
            held.insert(subject);
        }
        for (guard, more) in told.not_told() {
            tracing::warn!(
                guard = guard.as_str(),
                more,
                "more are held by this guard; `dutybound status` tells all"
            );
        }
        held.shrink_to_fit();
        self.problems = problems;
        self.held = held;
        self.standing = survey.plan.unchanged;
        self.next_boundary = survey.next_boundary;
    }

    pub(super) fn failed(&mut self, error: &PassError) {
        let message = crate::chain(error);
        if self.last_error.as_ref() != Some(&message) {
            tracing::error!(reason = %text::clean(&message), "the pass failed; it is tried again");
        }
        self.last_error = Some(message);
    }

    pub(super) fn status_line(&self, now: Timestamp) -> String {
        if let Some(error) = &self.last_error {
            return text::clean(&format!("failing: {error}")).chars().take(200).collect();
        }
        let next = self.next_boundary.map_or_else(
            || "no boundary known ahead".to_owned(),
            |t| format!("next boundary in {}", text::span(now.duration_until(t))),
        );
        format!(
            "{} grants standing, {} held, {} problems, {next}",
            self.standing,
            self.held.len(),
            self.problems.len()
        )
    }
}

/// How many of each sort there were to tell in a pass.
struct Told<S>(BTreeMap<S, usize>);

impl<S> Default for Told<S> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<S: Ord> Told<S> {
    /// Counts one more, and says whether it is to be told.
    fn is_one_more(&mut self, sort: S) -> bool {
        let count = self.0.entry(sort).or_default();
        *count += 1;
        *count <= ONE_BY_ONE
    }

    /// The sorts of which not all were told, with how many were not.
    fn not_told(self) -> impl Iterator<Item = (S, usize)> {
        let more = self.0.into_iter().filter(|(_, count)| ONE_BY_ONE < *count);
        more.map(|(sort, count)| (sort, count - ONE_BY_ONE))
    }
}

/// Tells what is held apart from anything else that is. Should two have the same name, one of them is neither said nor counted.
fn name_of(hold: &Held) -> u64 {
    let (change, mut hasher) = (&hold.change, DefaultHasher::new());
    (change.kind, &change.entitlement, change.who(), hold.guard).hash(&mut hasher);
    hasher.finish()
}
