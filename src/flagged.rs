//! Who came on duty out of the blue stays flagged for as long as they hold what it earned, with who put them there once the
//! provider has told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::authors;
use crate::identity_center::ChangeKind;
use crate::ledger::{Ledger, LedgerError, OwnedIndex};
use crate::model::{Attribution, Basis, Cause};
use crate::plan::Key;
use crate::problem::{Problem, ProblemKind};
use crate::survey::Survey;

/// For so long after a surprise its author may still be written down.
const LATEST_AUTHOR: SignedDuration = SignedDuration::from_hours(4 * 24);

/// The flags of the pass before.
#[derive(Debug, Default)]
pub struct Flagged {
    /// `None` until the record was asked what an earlier process flagged.
    before: Option<Vec<Flag>>,
}

#[derive(Debug)]
struct Flag {
    problem: Problem,
    /// What is to be granted, and why; not known of what an earlier process flagged.
    key: Option<Key>,
    causes: Vec<Arc<Cause>>,
}

impl Flagged {
    /// Adds to what a pass saw what was flagged before and still stands or is under way, and to each flag its author.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub(crate) async fn keep(
        &mut self,
        survey: &mut Survey,
        owned: &OwnedIndex,
        in_flight: &BTreeMap<Key, ChangeKind>,
        ledger: &Ledger,
    ) -> Result<(), LedgerError> {
        let before = match self.before.take() {
            Some(before) => before,
            None => of_earlier_process(ledger).await?,
        };
        let mut flags = raised(survey);
        for mut flag in before {
            let here = flag.problem.entitlement.as_ref().zip(flag.problem.person.as_ref());
            let standing = here.and_then(|(entitlement, person)| owned.of_person(entitlement, person));
            if let Some(standing) = standing {
                flag.causes.clone_from(&standing.causes);
            }
            let is_under_way = match &flag.key {
                Some(key) => in_flight.contains_key(key),
                None => !in_flight.is_empty(),
            };
            let is_leaving = survey.plan.changes.iter().any(|change| {
                change.kind == ChangeKind::Revoke
                    && flag.problem.person == change.person
                    && flag.problem.entitlement.as_ref() == Some(&change.entitlement)
            });
            let is_new = flags.iter().any(|new| new.problem.subject() == flag.problem.subject());
            if !is_new && !is_leaving && (standing.is_some() || is_under_way) {
                flags.push(flag);
            }
        }
        let schedules: BTreeSet<_> = flags.iter().filter_map(|flag| flag.problem.schedule.clone()).collect();
        if !schedules.is_empty() {
            let since = survey.at.checked_sub(LATEST_AUTHOR).unwrap_or(Timestamp::MIN);
            let known = ledger.attributions(&schedules, since).await?;
            flags.iter_mut().for_each(|flag| flag.name_authors(&known));
        }
        survey.problems.retain(|problem| !is_flag(problem));
        survey.problems.extend(flags.iter().map(|flag| flag.problem.clone()));
        self.before = Some(flags);
        Ok(())
    }
}

impl Flag {
    fn name_authors(&mut self, known: &[Attribution]) {
        for cause in &self.causes {
            if let Basis::OnCall {
                schedule,
                user_id,
                via_override,
                ..
            } = &cause.right.basis
                && self.problem.schedule.as_ref() == Some(schedule)
            {
                let here: Vec<_> = known.iter().filter(|a| a.sighting.schedule == *schedule).collect();
                for author in authors::of_turn(&here, user_id, cause.duty, via_override.as_deref()) {
                    if !self.problem.message.contains(&author) {
                        self.problem.message.push_str("; ");
                        self.problem.message.push_str(&author);
                    }
                }
            }
        }
    }
}

/// Somebody's surprise by a schedule. What somebody took away by hand and we gave back is none.
fn is_flag(problem: &Problem) -> bool {
    problem.kind == ProblemKind::SurprisingDuty && problem.schedule.is_some()
}

fn raised(survey: &Survey) -> Vec<Flag> {
    let problems = survey.problems.iter().filter(|problem| is_flag(problem));
    let grant = |problem: &Problem| {
        let mut changes = survey.plan.changes.iter();
        changes.find(|change| {
            change.kind == ChangeKind::Grant
                && problem.entitlement.as_ref() == Some(&change.entitlement)
                && problem.person == change.person
        })
    };
    let flag = |problem: &Problem| {
        let grant = grant(problem);
        Flag {
            problem: problem.clone(),
            key: grant.map(|change| change.key()),
            causes: grant.map(|change| change.causes.clone()).unwrap_or_default(),
        }
    };
    problems.map(flag).collect()
}

async fn of_earlier_process(ledger: &Ledger) -> Result<Vec<Flag>, LedgerError> {
    let board = ledger.board().await?.unwrap_or_default();
    let flags = board.problems.into_iter().filter(is_flag);
    let flag = |problem| Flag {
        problem,
        key: None,
        causes: Vec::new(),
    };
    Ok(flags.map(flag).collect())
}
