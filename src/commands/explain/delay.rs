//! Why access did not follow duty: held beyond it, or not held during it; since when, and what ends that.

use jiff::Timestamp;

use super::{Sources, held_at};
use crate::accounting::Unheld;
use crate::apply::kind_word;
use crate::desired::Timeline;
use crate::identity_center::ChangeKind;
use crate::ledger::{AccessRow, HoldRow, LastTry, RecordedCause, TryThen};
use crate::model::{EntitlementId, Person};
use crate::text::{instant, span};

/// Since when nothing calls for access that stands at `at`: by the causes on record, else by the revoke that a guard held or
/// that AWS was asked for.
pub(super) fn outlived(sources: &Sources<'_>, access: &AccessRow, at: Timestamp) -> Option<Timestamp> {
    let over = |recorded: &RecordedCause| {
        let planned = recorded.cause.end_known.then(|| recorded.cause.held.end());
        recorded.ended_at.into_iter().chain(planned).min()
    };
    let ends: Option<Vec<Timestamp>> = access.causes.iter().map(over).collect();
    let by_causes = ends.and_then(|ends| ends.into_iter().max()).filter(|end| *end <= at);
    let (person, id) = (&access.person, &access.entitlement);
    let held = holds_of(sources, ChangeKind::Revoke, person, id).map(|hold| hold.since);
    let asked = tries_of(sources, ChangeKind::Revoke, person, id).map(|t| t.asked_at);
    by_causes.or_else(|| held.chain(asked).min())
}

fn holds_of<'a>(
    sources: &Sources<'a>,
    kind: ChangeKind,
    person: &Person,
    id: &EntitlementId,
) -> impl Iterator<Item = &'a HoldRow> {
    let theirs = move |h: &&HoldRow| h.held.kind == kind && h.held.entitlement == *id && h.held.who == person.as_str();
    sources.holds.iter().filter(theirs)
}

fn tries_of<'a>(
    sources: &Sources<'a>,
    kind: ChangeKind,
    person: &Person,
    id: &EntitlementId,
) -> impl Iterator<Item = &'a TryThen> {
    let theirs = move |t: &&TryThen| {
        let change = &t.change;
        change.kind == kind && change.entitlement == *id && change.person.as_ref() == Some(person)
    };
    sources.tries.iter().filter(theirs)
}

/// What guards held of this person's change of that kind, by whom since when, and what releases it.
pub(super) fn held(sources: &Sources<'_>, kind: ChangeKind, person: &Person, id: &EntitlementId) -> Vec<String> {
    let words = |hold: &HoldRow| {
        let what = match kind {
            ChangeKind::Grant => "held",
            ChangeKind::Revoke => "the revoke is held",
        };
        format!(
            "{what} by guard {} since {}: {}; released by {}",
            hold.held.guard,
            instant(hold.since),
            hold.held.reason,
            hold.held.release
        )
    };
    holds_of(sources, kind, person, id).map(words).collect()
}

/// What had been asked of AWS by then and was not in force.
pub(super) fn tried(sources: &Sources<'_>, kind: ChangeKind, person: &Person, id: &EntitlementId) -> Vec<String> {
    let words = |t: &TryThen| {
        let (word, asked) = (kind_word(t.change.kind), instant(t.asked_at));
        match &t.ended {
            Some(LastTry { at: ended, why }) => format!(
                "AWS was asked for the {word} at {asked} in vain, by {}: {why}",
                instant(*ended)
            ),
            None => {
                let request = t.reference.as_ref().map(|id| format!(" (request id {id})"));
                format!(
                    "AWS was asked for the {word} at {asked}{} and had not ended it",
                    request.unwrap_or_default()
                )
            }
        }
    };
    tries_of(sources, kind, person, id).map(words).collect()
}

/// Why access still stands at `at` although nothing calls for it since `since`. `more` is what else is known.
pub(super) fn why_it_stands(
    sources: &Sources<'_>,
    timeline: &Timeline,
    access: &AccessRow,
    since: Timestamp,
    at: Timestamp,
    present: bool,
    more: Vec<String>,
) -> Vec<String> {
    let (person, id) = (&access.person, &access.entitlement);
    let mut why = held(sources, ChangeKind::Revoke, person, id);
    if !present {
        why.extend(tried(sources, ChangeKind::Revoke, person, id));
    }
    why.extend(more);
    // Make before break.
    let patience = since
        .saturating_add(sources.config.timing.patience)
        .unwrap_or(Timestamp::MAX);
    let holds = |who: &Person| {
        let mut theirs = sources
            .access
            .iter()
            .filter(|a| a.person == *who && a.entitlement == *id);
        theirs.any(|a| held_at(a, at))
    };
    let mut incoming = timeline
        .causes
        .iter()
        .filter(|c| c.right.entitlement == *id && c.person != *person && c.held.contains(at) && !holds(&c.person));
    if let (true, true, Some(next)) = (why.is_empty(), at < patience, incoming.next()) {
        why.push(format!(
            "the revoke waits until {} holds it, but no longer than until {} (`timing.patience`)",
            next.person,
            instant(patience)
        ));
    }
    if why.is_empty() {
        why.push(match access.revoked_at {
            Some(end) => format!(
                "the revoke was under way: it was in force at {}, {} after nothing had called for it any more",
                instant(end),
                span(since.duration_until(end))
            ),
            None => "the daemon's next pass revokes it (is it running?)".to_owned(),
        });
    }
    why
}

/// What the record says of duty at `at` without access.
pub(super) fn without_access(sources: &Sources<'_>, person: &Person, id: &EntitlementId, at: Timestamp) -> Vec<String> {
    let theirs = |u: &&Unheld| u.person == *person && u.entitlement == *id && lasted_at(u, at);
    let words = |unheld: &Unheld| {
        let end = match unheld.ended_at.map(|ended| ended.min(unheld.duty.end())) {
            Some(end) if end <= sources.now => format!(" until {}", instant(end)),
            _ => String::new(),
        };
        format!(
            "on duty without access since {}{end}, by the record: {}",
            instant(unheld.duty.start()),
            why_without(&unheld.why)
        )
    };
    sources.unheld.iter().filter(theirs).map(words).collect()
}

/// Whether duty without access lasted at `at`.
pub(super) fn lasted_at(unheld: &Unheld, at: Timestamp) -> bool {
    unheld.duty.contains(at) && unheld.ended_at.is_none_or(|end| at < end)
}

/// The recorded word, for people.
fn why_without(why: &str) -> String {
    if let Some(guard) = why.strip_prefix("held_by_") {
        return format!("the grant was held by guard {guard}");
    }
    match why {
        "granting" => "the grant was on its way".to_owned(),
        "barred" => "by a person's order they were to hold nothing".to_owned(),
        "change_failed" => "AWS refused the grant".to_owned(),
        "change_unsettled" => "AWS had not ended the grant".to_owned(),
        "target_unresolved" => "what it is in AWS could not be found out".to_owned(),
        "person_unknown" => "Identity Center had no user for them".to_owned(),
        "person_disabled" => "their user in Identity Center was disabled".to_owned(),
        "person_ambiguous" => "several users in Identity Center matched them".to_owned(),
        "person_unresolved" => "they could not be looked up in Identity Center".to_owned(),
        other => other.replace('_', " "),
    }
}
