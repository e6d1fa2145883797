//! Gathers from the record what `status` and the status page show.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use super::{Status, schedule_status};
use crate::commands::forecast::About;
use crate::config::Identity;
use crate::desired::{Snapshots, Timeline};
use crate::ledger::{AccessRow, LastReads, Ledger, LedgerError};
use crate::model::{EntitlementId, Interval, Person, ScheduleKey};
use crate::plan::Key;
use crate::policy::{Policy, Project, Rule};
use crate::problem::{Problem, ProblemKind};
use crate::reconcile::UNKNOWN_IS_OURS;
use crate::unfinished::{self, Unsettled};

/// What an installation is made of, as far as its status goes.
#[derive(Debug, Clone, Copy)]
pub struct Installation<'a> {
    /// The record.
    pub ledger: &'a Ledger,
    /// The record's file.
    pub ledger_path: &'a Path,
    /// The policy in force.
    pub policy: &'a Policy,
    /// The operator's mapping of people.
    pub identities: &'a [Identity],
    /// How long a stored schedule stands in for a source that cannot be read.
    pub max_staleness: SignedDuration,
}

/// Reads what access stands at `now`, all of it or what is `about` something. Of a large organisation all is a hundred
/// thousand grants.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn access(ledger: &Ledger, about: Option<&About>, now: Timestamp) -> Result<Vec<AccessRow>, LedgerError> {
    match about {
        None => ledger.access_in(around(now)).await,
        Some(About::Person(person)) => ledger.access_of_person(person, around(now)).await,
        Some(about) => {
            let standing = ledger.standing_counts().await?.into_keys();
            let of_these = standing.filter(|id| about.concerns(id)).collect();
            ledger.standing_access_to(&of_these).await
        }
    }
}

/// Reads the status at `now` beside that `access`, all of it or what is `about` something.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn read(
    here: &Installation<'_>,
    reads: &LastReads,
    about: Option<&About>,
    access: Vec<AccessRow>,
    now: Timestamp,
) -> Result<Status, LedgerError> {
    let ledger = here.ledger;
    let mut schedules = here.policy.schedules();
    let snapshots = reads.of(&schedules);
    let rules = about.map(|about| rules_of(about, here.policy, &access));
    if let Some(rules) = &rules {
        let of_these: HashSet<&ScheduleKey> = rules.iter().filter_map(|rule| rule.schedule()).collect();
        schedules.retain(|key| of_these.contains(key));
    }
    let unfinished = not_in_force(ledger, here.identities, here.policy, &snapshots, now).await?;
    let mut board = ledger.board().await?;
    if let Some(older) = ledger.older_copy(here.ledger_path, now).await? {
        let problem = Problem::new(ProblemKind::LedgerRestored, older);
        board.get_or_insert_default().problems.insert(0, problem);
    }
    let status = Status::new(
        now,
        access,
        unfinished,
        ledger.bars().await?,
        ledger.holds().await?,
        schedule_status(&snapshots, reads.failures(), &schedules, here.max_staleness),
        board,
    );
    Ok(match about.zip(rules) {
        Some((about, rules)) => status.only(about, &rules),
        None => status,
    })
}

/// The rules for what was asked about; of a person, for what they hold and those of their projects.
fn rules_of<'a>(about: &About, policy: &'a Policy, access: &[AccessRow]) -> Vec<&'a Rule> {
    let held: HashSet<&EntitlementId> = access.iter().map(|row| &row.entitlement).collect();
    let theirs = |project: &Project| project.members.keys().any(|member| about.is(member));
    let projects = policy.projects.values().map(|project| (theirs(project), project));
    let rules = projects.flat_map(|(theirs, project)| project.rules.iter().map(move |rule| (theirs, rule)));
    rules
        .filter(|(theirs, rule)| *theirs || held.contains(&rule.entitlement) || about.concerns(&rule.entitlement))
        .map(|(_, rule)| rule)
        .collect()
}

/// What the record knows to be asked for and not in force now.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn not_in_force(
    ledger: &Ledger,
    identities: &[Identity],
    policy: &Policy,
    snapshots: &Snapshots,
    now: Timestamp,
) -> Result<Vec<Problem>, LedgerError> {
    let open: Vec<_> = ledger.open_intents().await?.into_iter().map(Unsettled::from).collect();
    let tries = ledger
        .failed_tries(now.checked_sub(UNKNOWN_IS_OURS).unwrap_or(Timestamp::MIN))
        .await?;
    let bars = ledger.bars().await?;
    // Nothing is tried in vain as a rule, and then nothing is to be worked out.
    let tried: BTreeSet<&EntitlementId> = open
        .iter()
        .map(|open| &open.intent.change.entitlement)
        .chain(tries.iter().map(|tried| &tried.change.entitlement))
        .collect();
    if tried.is_empty() {
        return Ok(Vec::new());
    }
    let of_these = |id: &EntitlementId| tried.contains(id);
    let desired = Timeline::of_some(policy, snapshots, identities, around(now), of_these).at(now);
    let keys: Vec<Key> = tries.iter().map(|tried| tried.change.key()).collect();
    let stands = ledger.standing_of(&keys).await?;
    let wanted = |id: &EntitlementId, person: &Person| {
        desired.calls_for(id, person) && !bars.iter().any(|bar| bar.concerns(person))
    };
    Ok(unfinished::from_record(
        &open,
        &tries,
        wanted,
        |key| stands.contains(key),
        now,
    ))
}

/// The instant, as the shortest interval that the ledger can tell apart.
#[must_use]
pub fn around(t: Timestamp) -> Interval {
    let end = t
        .saturating_add(SignedDuration::from_millis(1))
        .unwrap_or(Timestamp::MAX);
    Interval::new(t, end).unwrap_or(Interval::ALWAYS)
}
