//! The world outside of the daemon: true time, providers, Identity Center, and a history of everything.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use dutybound::clock::Clock;
use dutybound::identity_center::{
    AwsError, AwsErrorKind, ChangeKind, Holders, Instance, Operation, Progress, Read, Resolution, Started, UserPin,
    Write,
};
use dutybound::model::{
    GroupRef, Interval, PermissionSetRef, Person, PrincipalId, ResolvedTarget, ScheduleKey, ScheduleKind, Shift,
    Snapshot, SourceName, SourceUser, SourceUserState, Target,
};
use dutybound::schedule::{ReadError, ReadErrorKind, Source};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;

use crate::org::{self, Org, SOURCES, Turn, email};
use crate::rng::{Rng, hash};

/// What is held: an entitlement's target by a user.
pub(crate) type Key = (ResolvedTarget, PrincipalId);

/// Who caused a change of what is live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Us,
    Stranger,
}

/// One interval of access as AWS had it.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub(crate) since: Timestamp,
    pub(crate) until: Option<Timestamp>,
    pub(crate) by: By,
    /// Who ended it.
    pub(crate) ended_by: Option<By>,
    /// A lost reply, a crash or an overlong operation stood at its beginning or its end.
    pub(crate) unheard: bool,
}

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

/// How AWS misbehaves, in calls of a hundred.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Trouble {
    pub(crate) throttled: u64,
    pub(crate) failed: u64,
    pub(crate) lost: u64,
    pub(crate) slow: u64,
    pub(crate) lag: i64,
    pub(crate) reads_fail: u64,
}

#[derive(Debug)]
struct Change {
    kind: ChangeKind,
    key: Key,
    done_at: Timestamp,
    done: bool,
    fails: bool,
    life: u32,
    started_at: Timestamp,
    unheard: bool,
}

/// What a provider last said truly about a schedule.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) read_at: Timestamp,
    pub(crate) learnt_at: Timestamp,
    pub(crate) version: u64,
    pub(crate) turns: Vec<Turn>,
}

/// Crash at this many calls from now, before or after AWS has done its part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CrashAt {
    pub(crate) calls: u32,
    pub(crate) after: bool,
}

pub(crate) struct State {
    pub(crate) seed: u64,
    pub(crate) now: Timestamp,
    /// Our clock minus the true time.
    pub(crate) offset: SignedDuration,
    pub(crate) largest_offset: SignedDuration,
    pub(crate) org: Org,
    sleepers: Vec<(Timestamp, u64, oneshot::Sender<()>)>,
    tickets: u64,
    pub(crate) life: u32,
    pub(crate) crash_at: Option<CrashAt>,
    pub(crate) crashed: bool,
    pub(crate) outages: BTreeMap<usize, Outage>,
    pub(crate) trouble: Trouble,
    pub(crate) disabled: BTreeSet<usize>,
    pub(crate) history: BTreeMap<Key, Vec<Access>>,
    operations: BTreeMap<String, Change>,
    pub(crate) journal: Vec<String>,
    pub(crate) faults: Vec<String>,
    /// By schedule: what the last true and complete read said.
    pub(crate) known: BTreeMap<usize, Known>,
    /// By schedule: the first and the last read in a row that falsely said that nobody is on call.
    pub(crate) lies: BTreeMap<usize, (Timestamp, Timestamp)>,
    pub(crate) operation_timeout: SignedDuration,
    /// The last instant at which AWS did something unusual.
    pub(crate) aws_unwell: Timestamp,
    pub(crate) calls: u64,
    /// Revokes that were asked for and have not been judged yet.
    pub(crate) revokes: Vec<(Timestamp, Key)>,
}

/// Shared by everything that is simulated.
#[derive(Clone)]
pub(crate) struct World(Arc<Mutex<State>>);

impl World {
    pub(crate) fn new(seed: u64, org: Org, now: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(State {
            seed,
            now,
            offset: SignedDuration::ZERO,
            largest_offset: SignedDuration::ZERO,
            org,
            sleepers: Vec::new(),
            tickets: 0,
            life: 0,
            crash_at: None,
            crashed: false,
            outages: BTreeMap::new(),
            trouble: Trouble::default(),
            disabled: BTreeSet::new(),
            history: BTreeMap::new(),
            operations: BTreeMap::new(),
            journal: Vec::new(),
            faults: Vec::new(),
            known: BTreeMap::new(),
            lies: BTreeMap::new(),
            operation_timeout: SignedDuration::from_mins(3),
            aws_unwell: Timestamp::MIN,
            calls: 0,
            revokes: Vec::new(),
        })))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Waits in true time. Registers at once and not at the first poll, so that no order of polls matters.
    fn wait(&self, span: SignedDuration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        let (at, ticket) = (state.now + span, state.tickets);
        state.tickets += 1;
        state.sleepers.push((at, ticket, sender));
        drop(state);
        Box::pin(async move {
            if receiver.await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }

    async fn call(&self, rng: &mut Rng) {
        let milliseconds = rng.range(40, 400) * 1000 + rng.range(0, 999);
        self.state().calls += 1;
        self.wait(SignedDuration::from_micros(milliseconds)).await;
    }

    /// Never returns where the daemon is to crash.
    async fn crash_point(&self, after: bool) {
        let dies = self.state().dies(after);
        if dies {
            std::future::pending::<()>().await;
        }
    }
}

impl State {
    /// Counts down to the crash.
    fn dies(&mut self, after: bool) -> bool {
        let Some(at) = self.crash_at.as_mut().filter(|at| at.after == after) else {
            return false;
        };
        if 0 < at.calls {
            at.calls -= 1;
            return false;
        }
        self.crashed = true;
        self.crash_at = None;
        true
    }

    pub(crate) fn say(&mut self, what: &str) {
        let line = format!("{} {what}", self.now);
        self.journal.push(line);
    }

    pub(crate) fn fault(&mut self, what: String) {
        self.say(&format!("BROKEN PROMISE: {what}"));
        self.faults.push(format!("{} {what}", self.now));
    }

    pub(crate) fn host(&self) -> Timestamp {
        self.now + self.offset
    }

    /// The next instant at which something in here happens by itself.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        let asleep = self.sleepers.iter().map(|(at, ..)| *at);
        let operations = self.operations.values().filter(|o| !o.done).map(|o| o.done_at);
        asleep.chain(operations).min()
    }

    /// Forgets those who sleep: the process is gone.
    pub(crate) fn forget_sleepers(&mut self) {
        self.sleepers.clear();
    }

    /// Finishes one operation or wakes one sleeper whose time has come.
    pub(crate) fn turn(&mut self) -> bool {
        let now = self.now;
        let due = self.operations.iter().filter(|(_, o)| !o.done && o.done_at <= now);
        if let Some(id) = due
            .min_by_key(|(id, o)| (o.done_at, (*id).clone()))
            .map(|(id, _)| id.clone())
        {
            let operation = self.operations.get_mut(&id).unwrap();
            operation.done = true;
            let (kind, key, unheard, fails) = (
                operation.kind,
                operation.key.clone(),
                operation.unheard,
                operation.fails,
            );
            if fails {
                self.say(&format!("AWS refuses {kind:?} {} {}", key.0, key.1));
            } else {
                self.carry_out(kind, &key, By::Us, unheard);
            }
            return true;
        }
        let first = self.sleepers.iter().enumerate().filter(|(_, (at, ..))| *at <= now);
        if let Some(n) = first.min_by_key(|(_, (at, ticket, _))| (*at, *ticket)).map(|(n, _)| n) {
            // A sleeper that was dropped meanwhile is not there to be woken.
            let (.., sender) = self.sleepers.remove(n);
            let _woken = sender.send(()).is_ok();
            return true;
        }
        false
    }

    pub(crate) fn holds(&self, key: &Key) -> Option<By> {
        self.history
            .get(key)?
            .last()
            .filter(|a| a.until.is_none())
            .map(|a| a.by)
    }

    pub(crate) fn carry_out(&mut self, kind: ChangeKind, key: &Key, by: By, unheard: bool) {
        let now = self.now;
        self.say(&format!("{by:?} {kind:?} {} {}", key.0, key.1));
        let accesses = self.history.entry(key.clone()).or_default();
        let open = accesses.last_mut().filter(|a| a.until.is_none());
        match (kind, open) {
            (ChangeKind::Grant, None) => accesses.push(Access {
                since: now,
                until: None,
                by,
                ended_by: None,
                unheard,
            }),
            (ChangeKind::Revoke, Some(access)) => {
                access.until = Some(now);
                access.ended_by = Some(by);
                access.unheard |= unheard;
            }
            (ChangeKind::Grant, Some(_)) | (ChangeKind::Revoke, None) => {}
        }
    }

    pub(crate) fn key(&self, entitlement: usize, person: usize) -> Key {
        (
            resolved(&self.org.policy.entitlements[entitlement].target),
            PrincipalId(principal(person)),
        )
    }

    /// Operations of one account, or of everything, that AWS works on for the process that lives.
    fn under_way(&self, account: Option<&str>, ours_only: bool) -> usize {
        let of = |target: &ResolvedTarget| match target {
            ResolvedTarget::Assignment { account: a, .. } => account.is_none_or(|account| a == account),
            ResolvedTarget::Group { .. } => false,
        };
        let counts = |o: &&Change| {
            !o.done
                && of(&o.key.0)
                && (!ours_only
                    || (o.life == self.life && !o.unheard && self.now < o.started_at + self.operation_timeout))
        };
        self.operations.values().filter(counts).count()
    }

    fn snapshot(&mut self, index: usize, window: Interval, began: Timestamp, empty: bool) -> Snapshot {
        let schedule = &self.org.schedules[index];
        let running = schedule
            .turns
            .iter()
            .filter(|t| t.start < window.start() && window.start() < t.end);
        let start = running.map(|t| t.start).min().unwrap_or(window.start());
        let window = Interval::new(start, window.end()).unwrap();
        let mut merged: Vec<Turn> = Vec::new();
        for turn in schedule
            .turns
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
                    id: format!("U{}", turn.person),
                    name: None,
                    email: Some(email(turn.person)),
                    state: SourceUserState::Active,
                },
                level: (0 < turn.level).then_some(turn.level),
                permanent: false,
                via_override: turn.via,
            })
            .collect();
        shifts.sort();
        let key = self.schedule_key(index);
        self.learn(index, empty);
        Snapshot {
            schedule: key,
            read_at: began,
            window,
            shifts,
            notices: Vec::new(),
            clock_offset_ms: Some(i64::try_from((-self.offset).as_millis()).unwrap()),
        }
    }

    fn learn(&mut self, index: usize, empty: bool) {
        let now = self.now;
        if empty {
            self.lies.entry(index).or_insert((now, now)).1 = now;
            return;
        }
        self.lies.remove(&index);
        let schedule = &self.org.schedules[index];
        match self.known.get_mut(&index) {
            Some(known) if known.version == schedule.version => known.read_at = now,
            _ => {
                let (version, turns) = (schedule.version, schedule.turns.clone());
                self.known.insert(
                    index,
                    Known {
                        read_at: now,
                        learnt_at: now,
                        version,
                        turns,
                    },
                );
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
            source: SourceName(SOURCES[schedule.source].to_owned()),
            kind,
            id: schedule.id.clone(),
        }
    }
}

pub(crate) fn principal(person: usize) -> String {
    format!("u-{person}")
}

pub(crate) fn resolved(target: &org::Target) -> ResolvedTarget {
    match target {
        org::Target::Assignment {
            account,
            permission_set,
        } => ResolvedTarget::Assignment {
            account: account.clone(),
            permission_set_arn: format!("arn:{permission_set}"),
        },
        org::Target::Group(group) => ResolvedTarget::Group {
            group_id: format!("g-{group}"),
        },
    }
}

#[async_trait]
impl Clock for World {
    fn now(&self) -> Timestamp {
        self.state().host()
    }

    async fn sleep(&self, duration: Duration) {
        self.wait(SignedDuration::try_from(duration).unwrap()).await;
    }
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
        let (mut rng, outage) = {
            let state = self.world.state();
            (
                hash(state.seed, &schedule.to_string(), state.now.as_microsecond()),
                state.outages.get(&self.index).copied(),
            )
        };
        self.world.call(&mut rng).await;
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
        match (0..state.org.schedules.len()).find(|n| state.schedule_key(*n) == *schedule) {
            Some(index) => Ok(state.snapshot(index, window, began, outage == Some(Outage::Empty))),
            None => fail(ReadErrorKind::NotFound, "404"),
        }
    }
}

fn error(kind: AwsErrorKind, outcome_unknown: bool) -> AwsError {
    AwsError {
        operation: "simulated call",
        kind,
        message: kind.as_str().to_owned(),
        outcome_unknown,
    }
}

#[async_trait]
impl Read for World {
    async fn instance(&self) -> Result<Instance, AwsError> {
        Ok(Instance {
            arn: "arn:instance".into(),
            identity_store_id: "d-1".into(),
            owner_account_id: "111122220000".into(),
        })
    }

    async fn resolve_target(&self, target: &Target) -> Result<ResolvedTarget, AwsError> {
        Ok(match target {
            Target::Assignment {
                account,
                permission_set: PermissionSetRef::Name(name),
            } => ResolvedTarget::Assignment {
                account: account.clone(),
                permission_set_arn: format!("arn:{name}"),
            },
            Target::Group(GroupRef::Name(name)) => ResolvedTarget::Group {
                group_id: format!("g-{name}"),
            },
            _ => return Err(error(AwsErrorKind::NotFound, false)),
        })
    }

    async fn resolve_person(&self, person: &Person, _: Option<&UserPin>) -> Result<Resolution, AwsError> {
        let state = self.state();
        let number = person
            .as_str()
            .trim_start_matches('p')
            .split('@')
            .next()
            .and_then(|n| n.parse::<usize>().ok());
        Ok(match number {
            Some(n) if state.disabled.contains(&n) => Resolution::Disabled(PrincipalId(principal(n))),
            Some(n) if n < state.org.people => Resolution::Found(PrincipalId(principal(n))),
            _ => Resolution::Unknown,
        })
    }

    async fn holders(&self, target: &ResolvedTarget) -> Result<Holders, AwsError> {
        let mut rng = {
            let state = self.state();
            hash(state.seed, &target.to_string(), state.now.as_microsecond())
        };
        self.call(&mut rng).await;
        let mut state = self.state();
        if rng.percent(state.trouble.reads_fail) {
            state.aws_unwell = state.now;
            return Err(error(AwsErrorKind::Server, false));
        }
        let seen = state.now
            - SignedDuration::from_secs(if state.trouble.lag == 0 {
                0
            } else {
                rng.range(0, state.trouble.lag)
            });
        let mut holders = Holders::default();
        for ((_, principal), accesses) in state.history.iter().filter(|((t, _), _)| t == target) {
            if accesses
                .iter()
                .any(|a| a.since <= seen && a.until.is_none_or(|end| seen < end))
            {
                let membership = matches!(target, ResolvedTarget::Group { .. }).then(|| format!("m-{principal}"));
                holders.users.insert(principal.clone(), membership);
            }
        }
        Ok(holders)
    }

    async fn operation(&self, operation: &Operation) -> Result<Progress, AwsError> {
        let mut rng = {
            let state = self.state();
            hash(state.seed, &operation.request_id, state.now.as_microsecond())
        };
        self.crash_point(false).await;
        self.call(&mut rng).await;
        let mut state = self.state();
        if rng.percent(state.trouble.reads_fail) {
            state.aws_unwell = state.now;
            return Err(error(AwsErrorKind::Server, false));
        }
        Ok(match state.operations.get(&operation.request_id) {
            None => Progress::Forgotten,
            Some(o) if !o.done => Progress::InProgress,
            Some(o) if o.fails => Progress::Failed("simulated failure".into()),
            Some(_) => Progress::Succeeded,
        })
    }
}

#[async_trait]
impl Write for World {
    async fn start(
        &self,
        kind: ChangeKind,
        target: &ResolvedTarget,
        principal: &PrincipalId,
    ) -> Result<Started, AwsError> {
        let key = (target.clone(), principal.clone());
        let name = format!("{kind:?} {target} {principal}");
        let mut rng = {
            let mut state = self.state();
            let now = state.now;
            if kind == ChangeKind::Revoke {
                state.revokes.push((now, key.clone()));
            }
            hash(state.seed, &name, now.as_microsecond())
        };
        self.crash_point(false).await;
        self.call(&mut rng).await;
        let result = {
            let mut state = self.state();
            state.begin(kind, &key, &name, &mut rng)
        };
        self.crash_point(true).await;
        result
    }
}

impl State {
    fn begin(&mut self, kind: ChangeKind, key: &Key, name: &str, rng: &mut Rng) -> Result<Started, AwsError> {
        let (now, trouble) = (self.now, self.trouble);
        if rng.percent(trouble.throttled) {
            self.aws_unwell = now;
            return Err(error(AwsErrorKind::Throttled, false));
        }
        let lost = rng.percent(trouble.lost);
        let dies = self.crash_at.is_some_and(|at| at.after && at.calls == 0);
        let fails = rng.percent(trouble.failed);
        let unheard = lost || dies;
        if unheard || fails {
            self.aws_unwell = now;
        }
        let ResolvedTarget::Assignment { account, .. } = &key.0 else {
            if fails {
                return Err(error(AwsErrorKind::Rejected, false));
            }
            self.carry_out(kind, key, By::Us, unheard);
            if lost {
                return Err(error(AwsErrorKind::Unreachable, true));
            }
            return Ok(Started::Done {
                reference: Some(format!("m-{}", key.1)),
            });
        };
        if 0 < self.under_way(Some(account), false) {
            if 0 < self.under_way(Some(account), true) {
                self.fault(format!("two operations at once in account {account}"));
            }
            self.aws_unwell = now;
            return Err(error(AwsErrorKind::Conflict, false));
        }
        if 8 <= self.under_way(None, true) {
            self.fault("more than 8 operations in flight".to_owned());
        }
        let slow = rng.percent(trouble.slow);
        let takes = if slow { rng.range(60, 600) } else { rng.range(1, 6) };
        if slow {
            self.aws_unwell = now + SignedDuration::from_secs(takes);
        }
        let id = format!("{name} {}", now.as_microsecond());
        self.operations
            .retain(|_, o| !o.done || now - SignedDuration::from_hours(48) < o.done_at);
        let change = Change {
            kind,
            key: key.clone(),
            done_at: now + SignedDuration::from_secs(takes) + SignedDuration::from_micros(rng.range(0, 999_999)),
            done: false,
            fails,
            life: self.life,
            started_at: now,
            unheard,
        };
        self.operations.insert(id.clone(), change);
        if lost {
            return Err(error(AwsErrorKind::Unreachable, true));
        }
        Ok(Started::Pending(Operation { kind, request_id: id }))
    }
}
