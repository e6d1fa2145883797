//! Identity Center: who holds what, operations that take their time, AWS's moods, and its limits.

use std::collections::{BTreeMap, VecDeque};

use async_trait::async_trait;
use dutybound::identity_center::limiter::{Limiter, Priority};
use dutybound::identity_center::{
    AwsError, AwsErrorKind, ChangeKind, Holders, Instance, Operation, Progress, Read, Resolution, Started, UserPin,
    Write,
};
use dutybound::model::{GroupRef, PermissionSetRef, Person, PrincipalId, ResolvedTarget, Target};
use jiff::{SignedDuration, Timestamp};

use super::{By, CrashAt, Key, State, World, principal};
use crate::rng::{Rng, hash};

/// What AWS allows.
const CALLS_A_SECOND: usize = 20;
/// What we allow ourselves of AWS's ten.
pub(crate) const IN_FLIGHT: u32 = 8;

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
    /// Whether it was said that it is done.
    told: bool,
}

#[derive(Default)]
pub(crate) struct Aws {
    pub(crate) trouble: Trouble,
    operations: BTreeMap<String, Change>,
    /// By account or group: the last instant at which AWS did something unusual there.
    unwell: BTreeMap<String, Timestamp>,
    /// The last instant at which lists may have lagged.
    pub(crate) lagged: Option<Timestamp>,
    pub(crate) calls: u64,
    last_second: VecDeque<Timestamp>,
    /// Changes that were asked for and have not been judged yet.
    pub(crate) asked: Vec<(Timestamp, ChangeKind, Key)>,
    /// What we took away, how many still held it then, and what has not been judged yet.
    pub(crate) taken: Vec<(Timestamp, Key, usize)>,
    pub(crate) operation_timeout: SignedDuration,
}

impl Aws {
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.operations.values().filter(|o| !o.done).map(|o| o.done_at).min()
    }

    /// The last instant at which AWS did something unusual that may have concerned this target.
    pub(crate) fn unwell(&self, target: &ResolvedTarget) -> Option<Timestamp> {
        self.unwell.get(place(target)).copied().max(self.lagged)
    }

    fn ail(&mut self, target: &ResolvedTarget, at: Timestamp) {
        let until = self.unwell.entry(place(target).to_owned()).or_insert(at);
        *until = at.max(*until);
    }

    /// Operations of one account, or of everything, that AWS works on; `life` counts those of one process only, as far as
    /// it knows of them.
    fn under_way(&self, account: Option<&str>, life: Option<u32>, now: Timestamp) -> usize {
        let of = |target: &ResolvedTarget| match target {
            ResolvedTarget::Assignment { account: a, .. } => account.is_none_or(|account| a == account),
            ResolvedTarget::Group { .. } => false,
        };
        let heard = |o: &Change| !o.unheard && now < o.started_at + self.operation_timeout;
        let counts = |o: &&Change| !o.done && of(&o.key.0) && life.is_none_or(|life| o.life == life && heard(o));
        self.operations.values().filter(counts).count()
    }
}

/// What shares trouble: changes of one account queue for each other.
fn place(target: &ResolvedTarget) -> &str {
    match target {
        ResolvedTarget::Assignment { account, .. } => account,
        ResolvedTarget::Group { group_id } => group_id,
    }
}

/// One process's connection, with the limiter that the product has there.
pub(crate) struct Connection {
    pub(crate) world: World,
    pub(crate) limiter: Limiter,
}

impl Connection {
    async fn call(&self, priority: Priority, rng: &mut Rng) {
        self.limiter.acquire(priority).await;
        {
            let mut state = self.world.state();
            let now = state.now;
            let aws = &mut state.aws;
            aws.calls += 1;
            aws.last_second.push_back(now);
            while aws
                .last_second
                .front()
                .is_some_and(|t| *t <= now - SignedDuration::from_secs(1))
            {
                aws.last_second.pop_front();
            }
            let calls = aws.last_second.len();
            if CALLS_A_SECOND < calls {
                state.fault(format!("{calls} calls to AWS in one second"));
            }
        }
        self.world.travel(rng).await;
    }

    /// Never returns where the daemon is to be killed.
    async fn crash_point(&self, after: bool) {
        let dies = self.world.state().dies(after);
        if dies {
            std::future::pending::<()>().await;
        }
    }

    fn numbers(&self, what: &str) -> Rng {
        let state = self.world.state();
        hash(state.seed, what, state.now.as_microsecond())
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
impl Read for Connection {
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
                account: account.clone().into(),
                permission_set_arn: format!("arn:{name}").into(),
            },
            Target::Group(GroupRef::Name(name)) => ResolvedTarget::Group {
                group_id: format!("g-{name}").into(),
            },
            _ => return Err(error(AwsErrorKind::NotFound, false)),
        })
    }

    async fn resolve_person(&self, person: &Person, _: Option<&UserPin>) -> Result<Resolution, AwsError> {
        let state = self.world.state();
        let local = person.as_str().trim_start_matches('p').split('@').next();
        Ok(match local.and_then(|n| n.parse::<usize>().ok()) {
            Some(n) if state.disabled.contains(&n) => Resolution::Disabled(PrincipalId(principal(n).into())),
            Some(n) if n < state.org.people => Resolution::Found(PrincipalId(principal(n).into())),
            _ => Resolution::Unknown,
        })
    }

    async fn holders(&self, target: &ResolvedTarget) -> Result<Holders, AwsError> {
        let mut rng = self.numbers(&target.to_string());
        self.call(Priority::Look, &mut rng).await;
        let mut state = self.world.state();
        let now = state.now;
        if rng.percent(state.aws.trouble.reads_fail) {
            state.aws.ail(target, now);
            return Err(error(AwsErrorKind::Server, false));
        }
        let lag = state.aws.trouble.lag;
        let seen = now - SignedDuration::from_secs(if lag == 0 { 0 } else { rng.range(0, lag) });
        let mut holders = Holders::default();
        for ((_, principal), accesses) in state.history.iter().filter(|((t, _), _)| t == target) {
            let had = |a: &super::Access| a.since <= seen && a.until.is_none_or(|end| seen < end);
            if accesses.iter().rev().any(had) {
                holders.users.insert(principal.clone());
            }
        }
        Ok(holders)
    }

    async fn operation(&self, operation: &Operation) -> Result<Progress, AwsError> {
        let mut rng = self.numbers(&operation.request_id);
        self.crash_point(false).await;
        self.call(Priority::Poll, &mut rng).await;
        let mut state = self.world.state();
        let (now, fails) = (state.now, rng.percent(state.aws.trouble.reads_fail));
        let Some(change) = state.aws.operations.get_mut(&operation.request_id) else {
            return Ok(Progress::Forgotten);
        };
        if fails {
            let target = change.key.0.clone();
            state.aws.ail(&target, now);
            return Err(error(AwsErrorKind::Server, false));
        }
        change.told = change.done;
        Ok(match change {
            o if !o.done => Progress::InProgress,
            o if o.fails => Progress::Failed("simulated failure".into()),
            _ => Progress::Succeeded,
        })
    }
}

#[async_trait]
impl Write for Connection {
    async fn start(
        &self,
        kind: ChangeKind,
        target: &ResolvedTarget,
        principal: &PrincipalId,
    ) -> Result<Started, AwsError> {
        let key = (target.clone(), principal.clone());
        let name = format!("{kind:?} {target} {principal}");
        let mut rng = self.numbers(&name);
        {
            let mut state = self.world.state();
            let now = state.now;
            state.aws.asked.push((now, kind, key.clone()));
        }
        self.crash_point(false).await;
        self.call(Priority::Change, &mut rng).await;
        let result = self.world.state().begin(kind, &key, &name, &mut rng);
        self.crash_point(true).await;
        result
    }
}

impl State {
    /// Counts down to the crash.
    fn dies(&mut self, after: bool) -> bool {
        let Some(CrashAt::Call { left, .. }) = self.crash_at.as_mut().filter(|at| at.is_at_call(after)) else {
            return false;
        };
        if 0 < *left {
            *left -= 1;
            return false;
        }
        self.crashed = true;
        self.crash_at = None;
        true
    }

    fn begin(&mut self, kind: ChangeKind, key: &Key, name: &str, rng: &mut Rng) -> Result<Started, AwsError> {
        let (now, trouble) = (self.now, self.aws.trouble);
        if rng.percent(trouble.throttled) {
            self.aws.ail(&key.0, now);
            return Err(error(AwsErrorKind::Throttled, false));
        }
        let lost = rng.percent(trouble.lost);
        let dies = matches!(self.crash_at, Some(CrashAt::Call { left: 0, after: true }));
        let fails = rng.percent(trouble.failed);
        let unheard = lost || dies;
        if unheard || fails {
            self.aws.ail(&key.0, now);
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
        if 0 < self.aws.under_way(Some(account), None, now) {
            if 0 < self.aws.under_way(Some(account), Some(self.life), now) {
                self.fault(format!("two operations at once in account {account}"));
            }
            self.aws.ail(&key.0, now);
            return Err(error(AwsErrorKind::Conflict, false));
        }
        if IN_FLIGHT as usize <= self.aws.under_way(None, Some(self.life), now) {
            self.fault(format!("more than {IN_FLIGHT} operations in flight"));
        }
        let slow = rng.percent(trouble.slow);
        let takes = SignedDuration::from_secs(if slow { rng.range(60, 600) } else { rng.range(1, 6) });
        if slow {
            self.aws.ail(&key.0, now + takes);
        }
        let id = format!("{name} {}", now.as_microsecond());
        let long_ago = now - SignedDuration::from_hours(48);
        self.aws.operations.retain(|_, o| !o.done || long_ago < o.done_at);
        let change = Change {
            kind,
            key: key.clone(),
            done_at: now + takes + SignedDuration::from_micros(rng.range(0, 999_999)),
            done: false,
            fails,
            life: self.life,
            started_at: now,
            unheard,
            told: false,
        };
        self.aws.operations.insert(id.clone(), change);
        if lost {
            return Err(error(AwsErrorKind::Unreachable, true));
        }
        Ok(Started::Pending(Operation { kind, request_id: id }))
    }

    /// What is done and was not told to the process that dies it will only find out when it is back.
    pub(crate) fn leave_untold(&mut self) {
        let untold = |o: &&Change| o.done && !o.told && o.life == self.life;
        let keys: Vec<Key> = self
            .aws
            .operations
            .values()
            .filter(untold)
            .map(|o| o.key.clone())
            .collect();
        for key in keys {
            let accesses = self.history.entry(key).or_default();
            accesses.last_mut().into_iter().for_each(|access| access.unheard = true);
        }
    }

    /// Time goes on to `back` while no process of ours is there.
    pub(crate) fn pass_without_us(&mut self, back: Timestamp) {
        while let Some(at) = self.aws.next().filter(|at| *at <= back) {
            self.now = self.now.max(at);
            self.finish_operation();
        }
        self.now = back;
    }

    /// Finishes the operation whose time came first, if one's has come.
    pub(super) fn finish_operation(&mut self) -> bool {
        let now = self.now;
        let due = self
            .aws
            .operations
            .iter_mut()
            .filter(|(_, o)| !o.done && o.done_at <= now);
        let Some((_, operation)) = due.min_by(|(a, x), (b, y)| (x.done_at, a).cmp(&(y.done_at, b))) else {
            return false;
        };
        operation.done = true;
        // Whoever asked has given up on one that outlasts the time limit, or is not there any more.
        let alone = operation.life != self.life || operation.started_at + self.aws.operation_timeout < now;
        let (kind, key, fails) = (operation.kind, operation.key.clone(), operation.fails);
        let unheard = operation.unheard || alone;
        if fails {
            self.say(&format!("AWS refuses {kind:?} {} {}", key.0, key.1));
        } else {
            self.carry_out(kind, &key, By::Us, unheard);
        }
        true
    }
}

impl CrashAt {
    fn is_at_call(self, wanted: bool) -> bool {
        matches!(self, Self::Call { after, .. } if after == wanted)
    }
}
