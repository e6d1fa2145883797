//! Who changed a schedule, in words.

use jiff::Timestamp;

use crate::model::{Attribution, Authorship, Interval, ScheduleChange};
use crate::text::instant;

/// What was found out about a sighting, for the log.
pub(super) fn found(found: &Attribution) -> String {
    let sighting = &found.sighting;
    let mut people: Vec<&str> = sighting.turns.iter().map(|turn| turn.user_id.as_str()).collect();
    people.sort_unstable();
    people.dedup();
    format!("{} newly on duty: {}", people.join(", "), author(found, None, &people))
}

/// What is known of who put this user on duty, a sentence for each change of the schedule by which it was done; through
/// that override where one is named.
#[must_use]
pub fn of_turn(known: &[&Attribution], user_id: &str, duty: Interval, via_override: Option<&str>) -> Vec<String> {
    let about = |a: &&&Attribution| {
        let mut turns = a.sighting.turns.iter();
        turns.any(|turn| turn.user_id == user_id && turn.duty.intersect(&duty).is_some())
    };
    let known = known.iter().filter(about);
    known.map(|a| author(a, via_override, &[user_id])).collect()
}

fn author(found: &Attribution, via_override: Option<&str>, people: &[&str]) -> String {
    let sighting = &found.sighting;
    let between = format!(
        "between the reads of {} and {}",
        instant(sighting.unseen_at),
        instant(sighting.seen_at)
    );
    let (latest, more) = match &found.author {
        Authorship::Unknown(why) => return format!("by whom is not known: it came {between}, and {why}"),
        Authorship::Changes { latest, more } => (latest, *more),
    };
    let names_it = |change: &&ScheduleChange| {
        let mut named = change.names.iter();
        via_override.is_some_and(|id| named.any(|name| name == id))
    };
    if let Some(change) = latest.iter().find(names_it) {
        return format!("made {} (PagerDuty audit record {})", by(change, people), change.record);
    }
    let others: Vec<String> = latest.iter().map(|change| by(change, people)).collect();
    let records = if latest.len() + more == 1 { "record" } else { "records" };
    let ids: Vec<&str> = latest.iter().map(|change| change.record.as_str()).collect();
    let more = if 0 < more {
        format!(", and {more} times more")
    } else {
        String::new()
    };
    let only = if latest.len() == 1 && more.is_empty() {
        "the only change"
    } else {
        "the changes"
    };
    format!(
        "the schedule was changed {}{more}, {only} {between} (PagerDuty audit {records} {})",
        others.join(", "),
        ids.join(", ")
    )
}

/// `by Mira Stone (PMIRA01) at 2026-11-21T13:00:00Z`.
fn by(change: &ScheduleChange, people: &[&str]) -> String {
    let at: Timestamp = change.at;
    let mut who: Vec<String> = change
        .by
        .iter()
        .map(|actor| {
            let themselves = if people.contains(&actor.id.as_str()) {
                ", for themselves"
            } else {
                ""
            };
            match &actor.name {
                Some(name) => format!("{name} ({}{themselves})", actor.id),
                None => format!("{}{themselves}", actor.id),
            }
        })
        .collect();
    if who.is_empty() {
        who.push(match (change.method.as_str(), &change.key) {
            ("api_token", Some(key)) => format!("an API key that ends in {key}"),
            ("api_token", None) => "an API key".to_owned(),
            (method, _) => format!("nobody named (method {method})"),
        });
    }
    format!("by {} at {}", who.join(" and "), instant(at))
}
