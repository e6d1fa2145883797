//! Reads Opsgenie: the final timeline of a schedule, with groups flattened to people.
//!
//! Opsgenie ends on 5 April 2027. From then on its answers, whatever they are, fail the read like any other.

pub mod flatten;
#[cfg(test)]
mod tests;
pub mod timeline;
pub mod users;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use self::timeline::{Timeline, Who};
use self::users::Recipient;
use super::http::{Call, Failure, Reading, Transport};
use super::normalise::{Turn, normalise};
use super::users::UserCache;
use super::wire::{self, DecodeError};
use super::{ReadError, ReadErrorKind, Source};
use crate::model::{Interval, ScheduleKey, ScheduleKind, Snapshot, SourceName, SourceUser, SourceUserState};

pub(super) const ACCEPT: &str = "application/json";
/// How much earlier than asked we ask, so that a running shift shows where it began.
const LOOK_BACK: SignedDuration = SignedDuration::from_hours(35 * 24);
const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How long a key that may not read users is not asked to.
const FORBIDDEN_FOR: SignedDuration = SignedDuration::from_mins(10);

/// One Opsgenie account.
pub(super) struct Opsgenie {
    name: SourceName,
    transport: Transport,
    users: UserCache,
    /// When the key was last refused the reading of users.
    users_forbidden: Mutex<Option<Timestamp>>,
}

impl Opsgenie {
    pub(super) fn new(name: SourceName, transport: Transport) -> Self {
        Self {
            name,
            transport,
            users: UserCache::default(),
            users_forbidden: Mutex::default(),
        }
    }

    async fn snapshot(&self, schedule: &ScheduleKey, asked: Interval) -> Result<Snapshot, Failure> {
        if schedule.kind == ScheduleKind::EscalationPolicy {
            let message = "Opsgenie has no escalation policies to read; name the schedule instead";
            return Err(Failure::new(ReadErrorKind::Rejected, message));
        }
        let mut reading = Reading::default();
        let read_at = self.transport.now();
        let id = schedule.id.as_str();
        let timeline = self.timeline(&mut reading, id, asked).await.map_err(with_hint)?;
        let enabled = match timeline.enabled {
            Some(enabled) => enabled,
            None => self.enabled(&mut reading, id).await.map_err(with_hint)?,
        };
        let mut found = People::default();
        let mut queried = timeline.covered;
        if enabled {
            found.name(&timeline);
            let window = asked.intersect(&timeline.covered);
            if let Some(window) = window
                && timeline.has_groups()
            {
                // Groups are looked up for what was asked only, so nothing is said about what lies before.
                queried = window;
                self.flatten(&mut reading, id, &timeline, window, read_at, &mut found)
                    .await?;
            }
        } else {
            reading.notice("the schedule is disabled, so nobody is on call".to_owned());
        }
        if timeline.nameless > 0 {
            reading.notice(format!("{} periods name nobody", timeline.nameless));
        }
        let normalised = normalise(&found.turns, asked, queried).ok_or_else(|| {
            Failure::new(
                ReadErrorKind::Incomplete,
                format!("Opsgenie's timeline covers {} and nothing of {asked}", timeline.covered),
            )
        })?;
        let mut users = BTreeMap::new();
        for key in normalised.user_ids() {
            let user = self.user(&mut reading, key, found.said.get(key)).await?;
            users.insert(key.to_owned(), Arc::new(user));
        }
        if let Some(notice) = normalised.notice() {
            reading.notice(notice);
        }
        Ok(Snapshot {
            schedule: schedule.clone(),
            read_at,
            window: normalised.window,
            shifts: normalised.shifts(&users),
            clock_offset_ms: reading.clock_offset_ms(),
            notices: reading.notices,
        })
    }

    /// The timeline from well before the window to past its end. Opsgenie begins it at the start of a week in the
    /// schedule's own zone, so that one week more is asked for than seems needed.
    async fn timeline(&self, reading: &mut Reading, id: &str, asked: Interval) -> Result<Timeline, Failure> {
        let date = asked.widen(LOOK_BACK, SignedDuration::ZERO).start();
        let weeks = date.duration_until(asked.end()).as_secs() / WEEK.as_secs() + 3;
        let (date, weeks) = (whole_seconds(date), weeks.to_string());
        let call = Call {
            operation: "GET /v2/schedules/{id}/timeline",
            path: &["v2", "schedules", id, "timeline"],
            query: &[
                ("identifierType", "id"),
                ("interval", &weeks),
                ("intervalUnit", "weeks"),
                ("date", &date),
                ("expand", "base,forwarding,override"),
            ],
        };
        self.transport
            .get(reading, &call, |body| timeline::decode(body, id))
            .await
    }

    /// Whether the schedule is enabled, for timelines that do not say.
    async fn enabled(&self, reading: &mut Reading, id: &str) -> Result<bool, Failure> {
        let call = Call {
            operation: "GET /v2/schedules/{id}",
            path: &["v2", "schedules", id],
            query: &[("identifierType", "id")],
        };
        self.transport.get(reading, &call, decode_enabled).await
    }

    /// Adds the people behind the timeline's groups.
    async fn flatten(
        &self,
        reading: &mut Reading,
        id: &str,
        timeline: &Timeline,
        window: Interval,
        now: Timestamp,
        found: &mut People,
    ) -> Result<(), Failure> {
        let Some(pieces) = flatten::pieces(timeline, window, now) else {
            let message = format!(
                "teams or escalations take turns too often in {window}: people are looked up at {} instants at \
                 most; name users in the rotation, or shorten the horizon",
                flatten::MOST_SAMPLES
            );
            return Err(Failure::new(ReadErrorKind::Incomplete, message));
        };
        let samples: BTreeSet<Timestamp> = pieces.iter().map(|piece| piece.sample).collect();
        for at in samples {
            let people = self.on_call_at(reading, id, at).await.map_err(|failure| {
                let groups = pieces
                    .iter()
                    .filter(|piece| piece.sample == at)
                    .map(|piece| piece.group.shown());
                let groups = groups.collect::<Vec<_>>().join(" and ");
                with_hint(failure).hint(&format!("so the people of {groups} are not known"))
            })?;
            for piece in pieces.iter().filter(|piece| piece.sample == at) {
                let (start, end) = (piece.interval.start(), piece.interval.end());
                for person in &people {
                    found.add(person, start, end, piece.via_override.as_deref());
                }
            }
        }
        Ok(())
    }

    async fn on_call_at(&self, reading: &mut Reading, id: &str, at: Timestamp) -> Result<Vec<Recipient>, Failure> {
        let date = at.to_string();
        let call = Call {
            operation: "GET /v2/schedules/{id}/on-calls",
            path: &["v2", "schedules", id, "on-calls"],
            query: &[("scheduleIdentifierType", "id"), ("flat", "true"), ("date", &date)],
        };
        self.transport.get(reading, &call, flatten::decode).await
    }

    /// The user, from memory or by asking. A key that may not read users leaves blocked users unnoticed, which a
    /// notice says.
    async fn user(&self, reading: &mut Reading, key: &str, said: Option<&Recipient>) -> Result<SourceUser, Failure> {
        let now = self.transport.now();
        if let Some(user) = self.users.get(key, now) {
            return Ok(user);
        }
        let as_said = |state| {
            let mut user = said.map_or_else(
                || Recipient::named(key.to_owned()).as_user(key),
                |said| said.as_user(key),
            );
            user.state = state;
            user
        };
        let forbidden = *self.users_forbidden.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |at: Timestamp| (SignedDuration::ZERO..FORBIDDEN_FOR).contains(&at.duration_until(now));
        if !forbidden.is_some_and(is_recent) {
            let call = Call {
                operation: "GET /v2/users/{id}",
                path: &["v2", "users", key],
                query: &[],
            };
            let found = self
                .transport
                .get_unless_gone(reading, &call, |body| users::decode(body, key));
            let user = match found.await {
                Ok(user) => Some(user),
                Err(failure) if failure.status == Some(404) => Some(as_said(SourceUserState::Deleted)),
                Err(failure) if failure.kind == ReadErrorKind::Forbidden => None,
                Err(failure) => return Err(failure.hint("without it nobody can tell who is blocked")),
            };
            if let Some(user) = user {
                self.users.put(key, user.clone(), now);
                return Ok(user);
            }
            *self.users_forbidden.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        }
        reading.notice("the key may not read users, so blocked users go unnoticed".to_owned());
        Ok(as_said(SourceUserState::Active))
    }
}

#[async_trait]
impl Source for Opsgenie {
    fn name(&self) -> &SourceName {
        &self.name
    }

    async fn read(&self, schedule: &ScheduleKey, window: Interval) -> Result<Snapshot, ReadError> {
        let snapshot = self.snapshot(schedule, window).await;
        snapshot.map_err(|failure| failure.of(schedule))
    }
}

/// Turns with what was said about the people in them.
#[derive(Default)]
struct People {
    turns: Vec<Turn>,
    said: BTreeMap<String, Recipient>,
}

impl People {
    /// Adds the people whom the timeline itself names.
    fn name(&mut self, timeline: &Timeline) {
        for period in &timeline.periods {
            if let Who::People(people) = &period.who {
                for person in people {
                    self.add(person, period.start.0, period.end.0, period.via_override.as_deref());
                }
            }
        }
    }

    fn add(&mut self, person: &Recipient, start: Timestamp, end: Timestamp, via_override: Option<&str>) {
        // The decoders refuse users without a key.
        let Some(key) = person.key() else { return };
        self.turns.push(Turn {
            user_id: key.clone(),
            start: Some(start),
            end: Some(end),
            level: None,
            permanent: false,
            via_override: via_override.map(str::to_owned),
        });
        self.said.entry(key).or_insert_with(|| person.clone());
    }
}

/// Opsgenie answers 403 both to a key without rights and, it seems, about a schedule that was deleted.
fn with_hint(failure: Failure) -> Failure {
    match failure.kind {
        ReadErrorKind::Forbidden => failure.hint(
            "the schedule may have been deleted, or the key belongs to a team that does not own it or may not read \
             the configuration",
        ),
        _ => failure,
    }
}

fn whole_seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

#[derive(Deserialize)]
struct Body {
    data: Meta,
}

#[derive(Deserialize)]
struct Meta {
    enabled: Option<bool>,
}

fn decode_enabled(body: &[u8]) -> Result<bool, DecodeError> {
    let Body { data } = wire::json(body)?;
    Ok(data.enabled.unwrap_or(true))
}
