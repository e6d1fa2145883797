//! Gathers from the record what an answer is made from.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{About, Explanation, Question, Sources};
use crate::commands::status;
use crate::config::Config;
use crate::desired::Snapshots;
use crate::ledger::{Board, Ledger, LedgerError};
use crate::policy::Policy;
use crate::problem::Problem;
use crate::reconcile::UNKNOWN_IS_OURS;

/// What an installation is made of, as far as answers need it.
#[derive(Debug, Clone, Copy)]
pub struct Installation<'a> {
    /// The record; `None` where there is none yet.
    pub ledger: Option<&'a Ledger>,
    /// The configuration.
    pub config: &'a Config,
    /// The policy in force.
    pub policy: &'a Policy,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// The ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Nothing of the name is known; what it may have meant, in words.
    #[error("{0}")]
    Unknown(String),
}

/// Answers a question as of `at`, or as of `now` where that is `None`.
///
/// # Errors
/// When the ledger cannot be read, or neither policy nor record know the entitlement.
pub async fn read(
    here: &Installation<'_>,
    about: About,
    at: Option<Timestamp>,
    now: Timestamp,
) -> Result<Explanation, Unanswered> {
    let (config, policy) = (here.config, here.policy);
    let (asked, at) = (at, at.unwrap_or(now));
    let mut snapshots = Snapshots::default();
    let (mut access, mut holds, mut board) = (Vec::new(), Vec::new(), Board::default());
    let (mut restorations, mut record_begins, mut policy_then) = (Vec::new(), None, None);
    let (mut tries, mut unheld) = (Vec::new(), Vec::new());
    if let Some(ledger) = here.ledger {
        snapshots = ledger.load_snapshots().await?.newest(&policy.schedules());
        access = ledger.access_in(status::around(at)).await?;
        holds = match asked {
            Some(at) if at < now => ledger.holds_at(at).await?,
            Some(_) => Vec::new(),
            None => ledger.holds().await?,
        };
        board = ledger.board().await?.unwrap_or_default();
        if at <= now {
            unheld = ledger.unheld_in(status::around(at)).await?;
            tries = ledger
                .tries_at(at, at.checked_sub(UNKNOWN_IS_OURS).unwrap_or(Timestamp::MIN))
                .await?;
        }
        policy_then = ledger.policy_at(at).await?.filter(|_| at <= now);
        restorations = ledger.restorations().await?;
        record_begins = Some(ledger.begins().await?);
        if asked.is_none() {
            let unfinished = status::not_in_force(ledger, &config.identities, policy, &snapshots, &access, now).await?;
            let newer: Vec<_> = unfinished.iter().map(Problem::subject).collect();
            board.problems.retain(|p| !newer.contains(&p.subject()));
            board.problems.extend(unfinished);
        }
    }
    let sources = Sources {
        config,
        policy,
        snapshots: &snapshots,
        access: &access,
        holds: &holds,
        tries: &tries,
        unheld: &unheld,
        problems: &board.problems,
        restorations: &restorations,
        record_begins,
        policy_then,
        now,
    };
    let question = Question::new(&sources, about, at);
    if let Some(unknown) = question.unknown_entitlement() {
        return Err(Unanswered::Unknown(unknown));
    }
    let mut neighbours = BTreeMap::new();
    if let Some(ledger) = here.ledger {
        for (entitlement, person) in question.concerned() {
            let found = ledger.neighbours(entitlement, person, at).await?;
            neighbours.insert((entitlement.clone(), person.clone()), found);
        }
    }
    Ok(question.answer(neighbours))
}
