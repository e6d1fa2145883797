//! `review`: gathers what owners should look at; reads the world and writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::config::Config;
use crate::desired::Timeline;
use crate::identity_center::{Read, Resolution};
use crate::ledger::{Ledger, LedgerError, StoredSnapshots};
use crate::model::{Interval, Person};
use crate::policy::Policy;
use crate::poll::{self, Sources};
use crate::review::{Inputs, Review, review};
use crate::survey::{KnownPeople, known_people, not_looked_up, resolve_people};
use crate::text::instant;

/// How far ahead somebody's next turn may lie and still count as being in the rotation.
const AHEAD: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Reads schedules over the period and ahead, the identity store and the record. What could not be looked at is in the
/// returned lines.
///
/// # Errors
/// [`LedgerError`].
pub async fn look(
    config: &Config,
    policy: &Policy,
    sources: &Sources,
    reader: &Arc<dyn Read>,
    ledger: Option<&Ledger>,
    period: Interval,
) -> Result<(Review, Vec<String>), LedgerError> {
    let now = period.end();
    let mut notes = Vec::new();
    let ahead = Interval::new(now, now.saturating_add(AHEAD).unwrap_or(Timestamp::MAX)).unwrap_or(period);
    let window = poll::window(period.start(), period.start().duration_until(ahead.end()), None);
    let mut stored = match ledger {
        Some(ledger) => ledger.load_snapshots().await?,
        None => StoredSnapshots::default(),
    };
    let known = known_people(ledger, &stored, config, now).await?;
    stored = StoredSnapshots::default();
    let unread = poll::read_into(&mut stored, sources, &policy.schedules(), window, now).await;
    notes.extend(
        unread
            .into_iter()
            .map(|why| format!("{why}; who was on call there is not known")),
    );
    let snapshots = stored.newest(&policy.schedules());
    let timeline = |range| Timeline::build(policy, &snapshots, &config.identities, range);
    let (mut rows, mut drift) = (Vec::new(), Vec::new());
    match ledger {
        Some(ledger) => {
            rows = ledger.access_in(period).await?;
            match ledger.board().await? {
                Some(board) => drift = board.drift,
                None => notes.push("no pass has been made yet, so what others granted is not known".to_owned()),
            }
            let first = rows.iter().map(|row| row.granted_at).min();
            if first.is_none_or(|first| period.start() < first) {
                let from = first.map_or_else(|| "this time".to_owned(), instant);
                notes.push(format!("the record of access held begins at {from}"));
            }
        }
        None => notes.push("there is no ledger, so what was held and what others granted is not known".to_owned()),
    }
    let gone = gone(config, policy, reader, &known, &mut notes).await;
    notes.sort();
    let found = review(&Inputs {
        policy,
        period,
        past: &timeline(period),
        ahead: &timeline(ahead),
        rows: &rows,
        drift: &drift,
        gone: &gone,
    });
    Ok((found, notes))
}

/// People of the policy whom the identity store does not know or has disabled.
async fn gone(
    config: &Config,
    policy: &Policy,
    reader: &Arc<dyn Read>,
    known: &KnownPeople,
    notes: &mut Vec<String>,
) -> BTreeMap<Person, String> {
    if let Err(error) = reader.instance().await {
        notes.push(format!(
            "Identity Center could not be asked, so nobody who left it is shown: {error}"
        ));
        return BTreeMap::new();
    }
    let mut people = BTreeSet::new();
    for project in policy.projects.values() {
        people.extend(project.owners.iter().cloned());
        for member in project.members.values() {
            people.insert(member.person.clone());
            people.extend(member.entry.added_by.clone());
        }
    }
    let mut gone = BTreeMap::new();
    let people = resolve_people(reader, config, people, known, None).await;
    let failed = not_looked_up(&people).into_iter();
    notes.extend(failed.map(|why| format!("{why}; whether they have left is not known")));
    for (person, found) in people {
        match found {
            Ok(Resolution::Unknown) => {
                gone.insert(person, "has no user in Identity Center".to_owned());
            }
            Ok(Resolution::Disabled(_)) => {
                gone.insert(person, "is disabled in Identity Center".to_owned());
            }
            Ok(Resolution::Found(_) | Resolution::Ambiguous(_)) | Err(_) => {}
        }
    }
    gone
}
