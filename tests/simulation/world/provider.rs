//! The two on-call providers: what they answer, how they misbehave, and what they have truly told.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use dutybound::clock::Clock;
use dutybound::model::{Interval, ScheduleKey, ScheduleKind, Shift, Snapshot, SourceName, SourceUser, SourceUserState};
use dutybound::schedule::{ReadError, ReadErrorKind, Source};
use jiff::{SignedDuration, Timestamp};

use super::{State, World};
use crate::org::{SOURCES, Turn, email};
use crate::rng::hash;

/// How a provider misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outage {
    Down,
    Slow,
    Unauthorized,
    Malformed,
    /// 200 and nobody on call.
    Empty,
}

/// What an outage concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    Source(usize),
    Schedule(usize),
}

/// What a provider last said truly about a schedule.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) read_at: Timestamp,
    pub(crate) learnt_at: Timestamp,
    pub(crate) version: u64,
    pub(crate) turns: Vec<Turn>,
}

#[derive(Default)]
pub(crate) struct Providers {
    pub(crate) outages: BTreeMap<Scope, Outage>,
    /// By schedule: what the last true and complete read said.
    pub(crate) known: BTreeMap<usize, Known>,
    /// By schedule: the first and the last read in a row that falsely said that nobody is on call.
    pub(crate) lies: BTreeMap<usize, (Timestamp, Timestamp)>,
    /// By schedule: whom the edits concern that nobody has read yet.
    pub(crate) unread: BTreeMap<usize, BTreeSet<usize>>,
    /// By schedule: whom what was learnt since the last look at it concerns.
    pub(crate) learnt: BTreeMap<usize, BTreeSet<usize>>,
}

/// One provider.
pub(crate) struct Provider {
    pub(crate) world: World,
    pub(crate) name: SourceName,
    pub(crate) index: usize,
}

#[async_trait]
impl Source for Provider {
    fn name(&self) -> &SourceName {
        &self.name
    }

    async fn read(&self, schedule: &ScheduleKey, window: Interval) -> Result<Snapshot, ReadError> {
        let began = self.world.now();
        let (mut rng, index, outage) = {
            let state = self.world.state();
            let index = (0..state.org.schedules.len()).find(|n| state.schedule_key(*n) == *schedule);
            let rng = hash(state.seed, &schedule.to_string(), state.now.as_microsecond());
            (rng, index, index.and_then(|index| state.outage(index)))
        };
        self.world.travel(&mut rng).await;
        if outage == Some(Outage::Slow) {
            self.world.wait(SignedDuration::from_secs(rng.range(5, 120))).await;
        }
        let mut state = self.world.state();
        let fail = |kind, message: &str| {
            Err(ReadError {
                schedule: schedule.clone(),
                kind,
                message: message.to_owned(),
            })
        };
        match outage {
            Some(Outage::Down) => return fail(ReadErrorKind::Unreachable, "no connection"),
            Some(Outage::Unauthorized) => return fail(ReadErrorKind::Unauthorized, "401"),
            Some(Outage::Malformed) => return fail(ReadErrorKind::Malformed, "half a page of HTML"),
            Some(Outage::Slow | Outage::Empty) | None => {}
        }
        match index.filter(|index| state.org.schedules[*index].source == self.index) {
            Some(index) => Ok(state.snapshot(index, window, began, outage == Some(Outage::Empty))),
            None => fail(ReadErrorKind::NotFound, "404"),
        }
    }
}

impl State {
    /// What is wrong with reads of this schedule, if anything: its own trouble before its provider's.
    pub(crate) fn outage(&self, schedule: usize) -> Option<Outage> {
        let outages = &self.providers.outages;
        let source = Scope::Source(self.org.schedules[schedule].source);
        outages
            .get(&Scope::Schedule(schedule))
            .or_else(|| outages.get(&source))
            .copied()
    }

    /// Who is on duty in truth.
    pub(crate) fn true_turns(&self, schedule: usize) -> &[Turn] {
        &self.org.schedules[schedule].turns
    }

    /// Who is on duty by what was last read.
    pub(crate) fn known_turns(&self, schedule: usize) -> &[Turn] {
        self.providers.known.get(&schedule).map_or(&[], |known| &known.turns)
    }

    fn snapshot(&mut self, index: usize, window: Interval, began: Timestamp, empty: bool) -> Snapshot {
        let turns = &self.org.schedules[index].turns;
        let running = turns
            .iter()
            .filter(|t| t.start < window.start() && window.start() < t.end);
        let start = running.map(|t| t.start).min().unwrap_or(window.start());
        let window = Interval::new(start, window.end()).unwrap();
        let mut merged: Vec<Turn> = Vec::new();
        for turn in turns
            .iter()
            .filter(|t| !empty && t.start < window.end() && window.start() < t.end)
        {
            match merged
                .iter_mut()
                .rev()
                .find(|m| m.level == turn.level && m.person == turn.person && m.end == turn.start)
            {
                Some(before) => before.end = turn.end,
                None => merged.push(turn.clone()),
            }
        }
        let mut shifts: Vec<Shift> = merged
            .into_iter()
            .map(|turn| Shift {
                interval: Interval::new(turn.start.max(window.start()), turn.end.min(window.end())).unwrap(),
                start_known: window.start() <= turn.start,
                end_known: turn.end <= window.end(),
                user: SourceUser {
                    id: format!("U{}", turn.person).into(),
                    name: None,
                    email: Some(email(turn.person)),
                    state: SourceUserState::Active,
                }
                .into(),
                level: (0 < turn.level).then_some(turn.level),
                permanent: false,
                via_override: turn.via.map(Into::into),
            })
            .collect();
        shifts.sort();
        let schedule = self.schedule_key(index);
        self.learn(index, empty);
        Snapshot {
            schedule,
            read_at: began,
            window,
            shifts,
            notices: Vec::new(),
            clock_offset_ms: Some(i64::try_from((-self.offset).as_millis()).unwrap()),
        }
    }

    fn learn(&mut self, index: usize, empty: bool) {
        let now = self.now;
        let providers = &mut self.providers;
        if empty {
            providers.lies.entry(index).or_insert((now, now)).1 = now;
            return;
        }
        if providers.lies.remove(&index).is_some() {
            let everybody = providers.learnt.entry(index).or_default();
            everybody.extend(0..self.org.people);
            // The truth is news after a lie, although it is what it was before.
            if let Some(known) = providers.known.get_mut(&index) {
                known.learnt_at = now;
            }
        }
        if let Some(people) = providers.unread.remove(&index) {
            providers.learnt.entry(index).or_default().extend(people);
        }
        let schedule = &self.org.schedules[index];
        match providers.known.get_mut(&index) {
            Some(known) if known.version == schedule.version => known.read_at = now,
            _ => {
                let (version, turns) = (schedule.version, schedule.turns.clone());
                let known = Known {
                    read_at: now,
                    learnt_at: now,
                    version,
                    turns,
                };
                providers.known.insert(index, known);
            }
        }
    }

    pub(crate) fn schedule_key(&self, index: usize) -> ScheduleKey {
        let schedule = &self.org.schedules[index];
        let kind = if 0 < schedule.levels {
            ScheduleKind::EscalationPolicy
        } else {
            ScheduleKind::Schedule
        };
        ScheduleKey {
            source: SourceName(SOURCES[schedule.source].into()),
            kind,
            id: schedule.id.clone().into(),
        }
    }
}
