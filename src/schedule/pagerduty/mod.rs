//! Reads PagerDuty: layer-based and shift-based schedules, and escalation policies.

mod audit;
pub mod oncalls;
mod policies;
#[cfg(test)]
mod tests;
pub mod users;
pub mod v2;
pub mod v3;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use jiff::{RoundMode, SignedDuration, Timestamp, TimestampRound, Unit};

use self::users::Reference;
use super::http::{Call, Failure, Reading, Transport};
use super::normalise::{Turn, normalise};
use super::users::UserCache;
use super::{ReadError, ReadErrorKind, Source};
use crate::model::{
    Interval, ScheduleChange, ScheduleKey, ScheduleKind, Snapshot, SourceName, SourceUser, SourceUserState,
};

/// Overrides the API version that the key is bound to.
pub(super) const ACCEPT: &str = "application/vnd.pagerduty+json;version=2";
/// How much earlier than asked we ask, so that a running shift shows where it began. Longer than any usual shift.
const LOOK_BACK: SignedDuration = SignedDuration::from_hours(35 * 24);

/// The two kinds of schedules. An upgrade keeps the id and changes the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// Layer-based, at `/schedules`.
    V2,
    /// Shift-based, at `/v3/schedules`.
    V3,
}

/// What the answer to a schedule turns out to be.
#[derive(Debug)]
pub enum Reply {
    /// The final schedule.
    Final(Final),
    /// A schedule of the other generation, which has to be asked for elsewhere.
    Other(Generation),
}

/// A final schedule as decoded.
#[derive(Debug, Default)]
pub struct Final {
    /// Everybody's turns, as listed.
    pub turns: Vec<Turn>,
    /// What the answer itself says about the people in it.
    pub users: Vec<Reference>,
    /// Whether it says that no escalation policy uses the schedule.
    pub unused: bool,
}

/// One PagerDuty account.
pub(super) struct PagerDuty {
    name: SourceName,
    transport: Transport,
    /// For audit records, which nothing may wait for.
    audit: Transport,
    users: UserCache,
    /// By schedule id, what worked last, so that a steady poll costs one request.
    generations: Mutex<HashMap<String, Generation>>,
    policies: policies::Existing,
}

impl PagerDuty {
    pub(super) fn new(name: SourceName, transport: Transport) -> Self {
        Self {
            name,
            audit: transport.aside(audit::SCOPE, audit::PER_MINUTE),
            transport,
            users: UserCache::default(),
            generations: Mutex::default(),
            policies: policies::Existing::default(),
        }
    }

    async fn read_schedule(&self, reading: &mut Reading, id: &str, queried: Interval) -> Result<Final, Failure> {
        let remembered = self.remembered(id);
        let first = remembered.unwrap_or(Generation::V3);
        let second = match first {
            Generation::V2 => Generation::V3,
            Generation::V3 => Generation::V2,
        };
        let refused = match self.ask(reading, id, queried, first).await {
            Ok(Reply::Final(found)) => {
                self.remember(id, first);
                return Ok(found);
            }
            Ok(Reply::Other(_)) => None,
            // 400 is what v3 says about a layer-based id. The others are tried too, because a schedule that was
            // just upgraded is gone from its old place, and a plan or key without v3 may still read v2.
            Err(failure) if matches!(failure.status, Some(400 | 403 | 404)) => Some(failure),
            Err(failure) => return Err(failure),
        };
        match (self.ask(reading, id, queried, second).await, refused) {
            (Ok(Reply::Final(found)), _) => {
                self.remember(id, second);
                Ok(found)
            }
            (Ok(Reply::Other(_)), Some(refused)) => Err(refused),
            (Ok(Reply::Other(_)), None) => Err(Failure::new(
                ReadErrorKind::Malformed,
                "PagerDuty calls the schedule layer-based in one place and shift-based in the other",
            )),
            // Of two refusals the one that says more: not allowed, then not there, then the later one.
            (Err(failure), Some(refused)) if telling(&refused) > telling(&failure) => Err(refused),
            (Err(failure), _) => Err(failure),
        }
    }

    async fn ask(
        &self,
        reading: &mut Reading,
        id: &str,
        queried: Interval,
        generation: Generation,
    ) -> Result<Reply, Failure> {
        let (since, until) = (queried.start().to_string(), queried.end().to_string());
        let mut query = vec![
            ("since", since.as_str()),
            ("until", until.as_str()),
            ("time_zone", "UTC"),
            ("overflow", "true"),
        ];
        match generation {
            Generation::V2 => {
                let call = Call {
                    operation: "GET /schedules/{id}",
                    path: &["schedules", id],
                    query: &query,
                };
                self.transport.get(reading, &call, |body| v2::decode(body, id)).await
            }
            Generation::V3 => {
                query.push(("include[]", "final_schedule"));
                let call = Call {
                    operation: "GET /v3/schedules/{id}",
                    path: &["v3", "schedules", id],
                    query: &query,
                };
                self.transport.get(reading, &call, |body| v3::decode(body, id)).await
            }
        }
    }

    /// The user, from what the answer says, from memory, or by asking.
    ///
    /// One who is not found is a deleted user, whatever else the read gives; any other failure fails the read.
    async fn user(&self, reading: &mut Reading, id: &str, said: Option<&Reference>) -> Result<SourceUser, Failure> {
        if let Some(user) = said.and_then(Reference::settled) {
            return Ok(user);
        }
        let now = self.transport.now();
        if let Some(user) = self.users.get(id, now) {
            return Ok(user);
        }
        let call = Call {
            operation: "GET /users/{id}",
            path: &["users", id],
            query: &[],
        };
        let found = self
            .transport
            .get_unless_gone(reading, &call, |body| users::decode(body, id));
        let user = match found.await {
            Ok(user) => user,
            Err(failure) if failure.status == Some(404) => said.map_or_else(
                || SourceUser {
                    id: id.into(),
                    name: None,
                    email: None,
                    state: SourceUserState::Deleted,
                },
                Reference::gone,
            ),
            Err(failure) => return Err(failure.hint("without it nobody can tell who is on call")),
        };
        self.users.put(id, user.clone(), now);
        Ok(user)
    }

    async fn snapshot(&self, schedule: &ScheduleKey, asked: Interval) -> Result<Snapshot, Failure> {
        let mut reading = Reading::default();
        let read_at = self.transport.now();
        let queried = query_window(asked);
        let (found, queried) = match schedule.kind {
            ScheduleKind::Schedule => (self.read_schedule(&mut reading, &schedule.id, queried).await?, queried),
            ScheduleKind::EscalationPolicy => {
                let queried = oncalls::within_limit(queried, read_at)?;
                (self.read_policy(&mut reading, &schedule.id, queried).await?, queried)
            }
        };
        if found.unused {
            reading.notice("no escalation policy uses this schedule".to_owned());
        }
        let normalised = normalise(&found.turns, asked, queried).ok_or_else(|| {
            Failure::new(
                ReadErrorKind::Rejected,
                format!(
                    "PagerDuty shows on-call only until {}, before {asked} begins",
                    queried.end()
                ),
            )
        })?;
        let mut said: HashMap<&str, &Reference> = HashMap::new();
        for user in &found.users {
            let known = said.entry(user.id.0.as_str()).or_insert(user);
            if user.settled().is_some() {
                *known = user;
            }
        }
        let mut users = BTreeMap::new();
        for id in normalised.user_ids() {
            let user = self.user(&mut reading, id, said.get(id).copied()).await?;
            users.insert(id.to_owned(), Arc::new(user));
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

    fn remembered(&self, id: &str) -> Option<Generation> {
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.get(id).copied()
    }

    fn remember(&self, id: &str, generation: Generation) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.insert(id.to_owned(), generation);
    }
}

#[async_trait]
impl Source for PagerDuty {
    fn name(&self) -> &SourceName {
        &self.name
    }

    async fn read(&self, schedule: &ScheduleKey, window: Interval) -> Result<Snapshot, ReadError> {
        let snapshot = self.snapshot(schedule, window).await;
        snapshot.map_err(|failure| failure.of(schedule))
    }

    async fn changes(&self, schedule: &ScheduleKey, span: Interval) -> Result<Option<Vec<ScheduleChange>>, ReadError> {
        match schedule.kind {
            ScheduleKind::Schedule => {
                let found = self.changes_of(&schedule.id, span).await;
                found.map(Some).map_err(|failure| failure.of(schedule))
            }
            // Who is on call by a policy is decided by the schedules that it names, whose records are their own.
            ScheduleKind::EscalationPolicy => Ok(None),
        }
    }
}

fn telling(failure: &Failure) -> u8 {
    match failure.kind {
        ReadErrorKind::Rejected => 0,
        ReadErrorKind::NotFound => 1,
        _ => 2,
    }
}

/// What to ask for in order to learn about `asked`: earlier, and in whole seconds, because windows of microseconds
/// have come back empty (<https://github.com/PagerDuty/api-schema/issues/479>).
fn query_window(asked: Interval) -> Interval {
    whole_seconds(asked.widen(LOOK_BACK, SignedDuration::ZERO))
}

fn whole_seconds(span: Interval) -> Interval {
    let round = |time: Timestamp, mode| {
        time.round(TimestampRound::new().smallest(Unit::Second).mode(mode))
            .unwrap_or(time)
    };
    Interval::new(
        round(span.start(), RoundMode::Floor),
        round(span.end(), RoundMode::Ceil),
    )
    .unwrap_or(span)
}
