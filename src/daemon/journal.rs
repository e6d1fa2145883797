//! What the daemon says about its passes: each thing once when it begins and once when it ends, nothing when idle.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use foldhash::HashSet;
use jiff::Timestamp;

use crate::guard::{Guard, Held};
use crate::problem::Problem;
use crate::reconcile::{Pass, PassError};
use crate::text;

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
        for problem in problems.iter().filter(|p| !before.contains(&p.subject())) {
            tracing::warn!(problem = problem.kind.as_str(), detail = %text::clean(&problem.to_string()), "problem");
        }
        for problem in self.problems.iter().filter(|p| !now.contains(&p.subject())) {
            tracing::info!(problem = problem.kind.as_str(), detail = %text::clean(&problem.to_string()), "problem is gone");
        }
        let mut held = HashSet::default();
        for hold in &survey.verdict.held {
            let subject = name_of(hold);
            if !self.held.contains(&subject) && hold.guard != Guard::MakeBeforeBreak {
                tracing::warn!(
                    change = crate::apply::kind_word(hold.change.kind), entitlement = %hold.change.entitlement,
                    principal = %hold.change.principal, guard = hold.guard.as_str(), reason = %text::clean(&hold.reason), release = %text::clean(&hold.release),
                    "held"
                );
            }
            held.insert(subject);
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

/// Tells what is held apart from anything else that is. Should two have the same name, one of them is neither said nor counted.
fn name_of(hold: &Held) -> u64 {
    let (change, mut hasher) = (&hold.change, DefaultHasher::new());
    (change.kind, &change.entitlement, change.who(), hold.guard).hash(&mut hasher);
    hasher.finish()
}
