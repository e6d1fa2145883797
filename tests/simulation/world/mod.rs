//! The world outside of the daemon: true time and a history of everything. One lock around all of it.

pub(crate) mod aws;
pub(crate) mod provider;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use dutybound::clock::Clock;
use dutybound::identity_center::ChangeKind;
use dutybound::model::{PrincipalId, ResolvedTarget};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;

use crate::org::{self, Org};
use crate::rng::Rng;
use aws::Aws;
use provider::Providers;

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

/// When the process is killed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CrashAt {
    /// At this many calls to AWS from now, before or after AWS has done its part.
    Call { left: u32, after: bool },
    /// At this many looks at the clock from now: the daemon looks at it before and after every write to the ledger.
    Clock { left: u32 },
}

pub(crate) struct State {
    pub(crate) seed: u64,
    pub(crate) now: Timestamp,
    /// Our clock minus the true time.
    pub(crate) offset: SignedDuration,
    pub(crate) largest_offset: SignedDuration,
    pub(crate) org: Org,
    sleepers: BTreeMap<(Timestamp, u64), oneshot::Sender<()>>,
    tickets: u64,
    pub(crate) life: u32,
    pub(crate) crash_at: Option<CrashAt>,
    pub(crate) crashed: bool,
    pub(crate) providers: Providers,
    pub(crate) aws: Aws,
    pub(crate) disabled: BTreeSet<usize>,
    /// People whom an order bars from everything, and since when.
    pub(crate) barred: BTreeMap<usize, Timestamp>,
    /// Since when the pause file is there.
    pub(crate) paused: Option<Timestamp>,
    pub(crate) history: BTreeMap<Key, Vec<Access>>,
    pub(crate) journal: Vec<String>,
    pub(crate) faults: Vec<String>,
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
            sleepers: BTreeMap::new(),
            tickets: 0,
            life: 0,
            crash_at: None,
            crashed: false,
            providers: Providers::default(),
            aws: Aws::default(),
            disabled: BTreeSet::new(),
            barred: BTreeMap::new(),
            paused: None,
            history: BTreeMap::new(),
            journal: Vec::new(),
            faults: Vec::new(),
        })))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Waits in true time. Registers at once and not at the first poll, so that no order of polls matters.
    fn wait(&self, span: SignedDuration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        let at = (state.now + span, state.tickets);
        state.tickets += 1;
        state.sleepers.insert(at, sender);
        drop(state);
        Box::pin(async move {
            if receiver.await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }

    /// A call over the network takes a moment.
    async fn travel(&self, rng: &mut Rng) {
        let microseconds = rng.range(40, 400) * 1000 + rng.range(0, 999);
        self.wait(SignedDuration::from_micros(microseconds)).await;
    }
}

impl State {
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
    pub(crate) fn next(&mut self) -> Option<Timestamp> {
        // A sleeper that was dropped meanwhile is not there to be woken.
        while self.sleepers.first_entry().is_some_and(|first| first.get().is_closed()) {
            self.sleepers.pop_first();
        }
        let asleep = self.sleepers.first_key_value().map(|((at, _), _)| *at);
        asleep.into_iter().chain(self.aws.next()).min()
    }

    /// Forgets those who sleep: the process is gone.
    pub(crate) fn forget_sleepers(&mut self) {
        self.sleepers.clear();
    }

    /// Finishes one operation or wakes one sleeper whose time has come.
    pub(crate) fn turn(&mut self) -> bool {
        if self.finish_operation() {
            return true;
        }
        while let Some(first) = self.sleepers.first_entry() {
            if self.now < first.key().0 {
                return false;
            }
            if first.remove().send(()).is_ok() {
                return true;
            }
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

    /// How many hold this target.
    pub(crate) fn holders(&self, target: &ResolvedTarget) -> usize {
        let of_target = self.history.iter().filter(|((t, _), _)| t == target);
        of_target
            .filter(|(_, a)| a.last().is_some_and(|a| a.until.is_none()))
            .count()
    }

    pub(crate) fn carry_out(&mut self, kind: ChangeKind, key: &Key, by: By, unheard: bool) {
        let now = self.now;
        self.say(&format!("{by:?} {kind:?} {} {}", key.0, key.1));
        let accesses = self.history.entry(key.clone()).or_default();
        let open = accesses.last_mut().filter(|a| a.until.is_none());
        match (kind, open) {
            // What stands already becomes ours, on an exclusive entitlement or because we were asked at the same moment.
            (ChangeKind::Grant, Some(access)) if by == By::Us && access.by == By::Stranger => {
                access.until = Some(now);
                accesses.push(Access {
                    since: now,
                    until: None,
                    by,
                    ended_by: None,
                    unheard,
                });
            }
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
                if by == By::Us {
                    let left = self.holders(&key.0);
                    self.aws.taken.push((now, key.clone(), left));
                }
            }
            (ChangeKind::Grant, Some(_)) | (ChangeKind::Revoke, None) => {}
        }
    }

    pub(crate) fn key(&self, entitlement: usize, person: usize) -> Key {
        (
            resolved(&self.org.policy.entitlements[entitlement].target),
            PrincipalId(principal(person).into()),
        )
    }

    /// The entitlement and the person that a key stands for.
    pub(crate) fn cell(&self, key: &Key) -> Option<(usize, usize)> {
        let person = key.1.0.strip_prefix("u-")?.parse().ok()?;
        let mut entitlements = self.org.policy.entitlements.iter();
        let entitlement = entitlements.position(|e| resolved(&e.target) == key.0)?;
        Some((entitlement, person))
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
            account: account.clone().into(),
            permission_set_arn: format!("arn:{permission_set}").into(),
        },
        org::Target::Group(group) => ResolvedTarget::Group {
            group_id: format!("g-{group}").into(),
        },
    }
}

/// What a task of the daemon unwinds with when the process is killed there.
struct Killed;

#[async_trait]
impl Clock for World {
    fn now(&self) -> Timestamp {
        let mut state = self.state();
        if let Some(CrashAt::Clock { left }) = &mut state.crash_at {
            if 0 < *left {
                *left -= 1;
            } else {
                state.crashed = true;
                state.crash_at = None;
                drop(state);
                // Only the task ends here; the run sees it before anything else goes on, and ends everything.
                std::panic::resume_unwind(Box::new(Killed));
            }
        }
        state.host()
    }

    async fn sleep(&self, duration: Duration) {
        self.wait(SignedDuration::try_from(duration).unwrap()).await;
    }
}
