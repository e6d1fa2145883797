//! Gathers from the record what an answer is made from.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{About, Explanation, Question, Sources};
use crate::commands::status;
use crate::config::Config;
use crate::desired::Snapshots;
use crate::ledger::{AccessRow, Board, LastReads, Ledger, LedgerError};
use crate::model::{EntitlementId, Person, ScheduleKey, SourceName, Target};
use crate::policy::{Policy, Trigger};
use crate::problem::Problem;
use crate::reconcile::UNKNOWN_IS_OURS;

/// How long before a duty the schedule may have shown it: longer than the longest horizon.
const KNOWN_AHEAD: SignedDuration = SignedDuration::from_hours(100 * 24);

/// What an installation is made of, as far as answers need it.
#[derive(Debug, Clone, Copy)]
pub struct Installation<'a> {
    /// The record, and what schedules were last read to say by it; `None` where there is none yet.
    pub record: Option<(&'a Ledger, &'a LastReads)>,
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
    let (mut tries, mut unheld, mut attributions) = (Vec::new(), Vec::new(), Vec::new());
    let mut concern;
    if let Some((ledger, reads)) = here.record {
        snapshots = reads.of(&policy.schedules());
        if at <= now {
            unheld = ledger.unheld_in(status::around(at)).await?;
        }
        concern = scope(here, &snapshots, &about);
        concern.extend(on_record(ledger, &about, at).await?);
        if let About::Person { person, only: None } = &about {
            let theirs = unheld.iter().filter(|unheld| unheld.person == *person);
            concern.extend(theirs.map(|unheld| unheld.entitlement.clone()));
        }
        access = ledger.access_to(&concern, status::around(at)).await?;
        access.sort_by_key(|row| (row.granted_at, row.id));
        holds = match asked {
            Some(at) if at < now => ledger.holds_at(at).await?,
            Some(_) => Vec::new(),
            None => ledger.holds().await?,
        };
        board = ledger.board().await?.unwrap_or_default();
        if at <= now {
            tries = ledger
                .tries_at(at, at.checked_sub(UNKNOWN_IS_OURS).unwrap_or(Timestamp::MIN))
                .await?;
        }
        let schedules = policy.schedules().into_iter().chain(recorded_schedules(&access));
        let shown_since = at.checked_sub(KNOWN_AHEAD).unwrap_or(Timestamp::MIN);
        attributions = ledger.attributions(&schedules.collect(), shown_since).await?;
        policy_then = ledger.policy_at(at).await?.filter(|_| at <= now);
        restorations = ledger.restorations().await?;
        record_begins = Some(ledger.begins().await?);
        if asked.is_none() {
            let unfinished = status::not_in_force(ledger, &config.identities, policy, &snapshots, now).await?;
            let newer: Vec<_> = unfinished.iter().map(Problem::subject).collect();
            board.problems.retain(|p| !newer.contains(&p.subject()));
            board.problems.extend(unfinished);
        }
    } else {
        concern = scope(here, &snapshots, &about);
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
        drift: &board.drift,
        attributions: &attributions,
        restorations: &restorations,
        record_begins,
        policy_then,
        now,
    };
    let question = Question::new(&sources, about, &concern, at);
    if let Some(unknown) = question.unknown_entitlement() {
        return Err(Unanswered::Unknown(unknown));
    }
    let mut neighbours = BTreeMap::new();
    if let Some((ledger, _)) = here.record {
        for (entitlement, person) in question.concerned() {
            let found = ledger.neighbours(entitlement, person, at).await?;
            neighbours.insert((entitlement.clone(), person.clone()), found);
        }
    }
    Ok(question.answer(neighbours))
}

/// The schedules by which access was earned, also those that no rule names any more.
fn recorded_schedules(access: &[AccessRow]) -> BTreeSet<ScheduleKey> {
    let causes = access.iter().flat_map(|access| &access.causes);
    causes.flat_map(|recorded| recorded.cause.schedule().cloned()).collect()
}

/// The entitlements that an answer can be about, and no fewer, by the policy and the schedules: everything else is left
/// alone, so that an answer does not cost more in a larger organisation.
fn scope(here: &Installation<'_>, snapshots: &Snapshots, about: &About) -> BTreeSet<EntitlementId> {
    let policy = here.policy;
    match about {
        About::Entitlement(id) | About::Person { only: Some(id), .. } => BTreeSet::from([id.clone()]),
        About::Account(wanted) => {
            let there = |target: &Target| matches!(target, Target::Assignment { account, .. } if account == wanted);
            let entitlements = policy.entitlements().filter(|e| there(&e.target));
            entitlements.map(|e| e.id.clone()).collect()
        }
        About::Person { person, only: None } => {
            let on_schedule = |trigger: &Trigger| match trigger {
                Trigger::OnCall(on_call) => snapshots.get(&on_call.schedule).is_some_and(|snapshot| {
                    let mut users = snapshot.shifts.iter().map(|shift| &shift.user);
                    users.any(|user| {
                        let source = &on_call.schedule.source;
                        may_be(here, person, source, [Some(user.id.as_str()), user.email.as_deref()])
                    })
                }),
                Trigger::Members { .. } => false,
            };
            let projects = policy.projects.values();
            let rules = projects.flat_map(|project| {
                let is_member = project.members.contains_key(person);
                project.rules.iter().map(move |rule| (is_member, rule))
            });
            let theirs = rules.filter(|(is_member, rule)| *is_member || on_schedule(&rule.trigger));
            theirs.map(|(_, rule)| rule.entitlement.clone()).collect()
        }
    }
}

/// Whether a provider's user may turn out to be this person, by mapping or by e-mail.
fn may_be(here: &Installation<'_>, person: &Person, source: &SourceName, user: [Option<&str>; 2]) -> bool {
    let [_, email] = user;
    let mapped = here
        .config
        .identities
        .iter()
        .filter(|identity| identity.person == *person);
    let mut pins = mapped.filter_map(|identity| identity.sources.get(source));
    pins.any(|pin| user.contains(&Some(pin.as_str())))
        || email.is_some_and(|email| Person::parse(email).is_ok_and(|user| user == *person))
}

/// What the record of that instant adds.
async fn on_record(ledger: &Ledger, about: &About, at: Timestamp) -> Result<BTreeSet<EntitlementId>, LedgerError> {
    let moment = status::around(at);
    match about {
        About::Entitlement(_) | About::Person { only: Some(_), .. } => Ok(BTreeSet::new()),
        About::Account(account) => ledger.entitlements_in_account(account, moment).await,
        About::Person { person, only: None } => {
            let rows = ledger.access_of_person(person, moment).await?;
            Ok(rows.into_iter().map(|row| row.entitlement).collect())
        }
    }
}
