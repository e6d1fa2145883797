//! The state behind the ports: world, journal, faults, clock and rate limits, with one lock and one bell.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::faults::Fault;
use crate::journal::{Call, Service};
use crate::request::{Answer, Incoming};
use crate::world::World;
use crate::{aws, opsgenie, pagerduty};

/// Everything that the simulated services know.
pub(crate) struct State {
    pub(crate) world: World,
    pub(crate) journal: Vec<Call>,
    pub(crate) faults: Vec<(u64, Fault)>,
    pub(crate) clock: Option<Timestamp>,
    pub(crate) buckets: HashMap<String, Bucket>,
    /// Fixed windows: when each began and how many calls it has had.
    pub(crate) windows: HashMap<String, (Instant, u32)>,
    sequence: u64,
    calls: u64,
}

/// A token bucket in real time: limits protect a service from real load, so a frozen clock must not starve callers.
pub(crate) struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    /// Takes one token from a bucket of `capacity` that refills at `per_second`; false when there is none.
    pub(crate) fn take(&mut self, capacity: f64, per_second: f64, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + elapsed * per_second).min(capacity);
        self.filled = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

/// What a predicate of [`Sandbox::wait_for`](crate::Sandbox::wait_for) looks at.
pub struct View<'a> {
    /// The world as it is now, with asynchronous operations settled up to now.
    pub world: &'a World,
    /// The journal so far.
    pub journal: &'a [Call],
    /// The simulator's clock.
    pub now: Timestamp,
}

/// The predicate did not hold in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedOut {
    /// How long was waited.
    pub after: Duration,
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the awaited state of the sandbox did not come within {:?}",
            self.after
        )
    }
}

impl std::error::Error for TimedOut {}

impl State {
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.unwrap_or_else(Timestamp::now)
    }

    /// A number never used before, for ids.
    pub(crate) fn next(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// A fresh id in the shape of a UUID.
    pub(crate) fn uuid(&mut self) -> String {
        let number = self.next();
        format!("5a4dbb0c-0000-4000-8000-{number:012x}")
    }

    /// The bucket of that name, full when it is new.
    pub(crate) fn bucket(&mut self, name: &str, capacity: f64) -> &mut Bucket {
        self.buckets.entry(name.to_owned()).or_insert_with(|| Bucket {
            tokens: capacity,
            filled: Instant::now(),
        })
    }

    /// Writes the arrival into the journal and picks the fault that meets the call.
    pub(crate) fn arrive(&mut self, request: &Incoming) -> (u64, Option<(u64, Fault)>) {
        self.calls += 1;
        let seq = self.calls;
        let operation = request.operation();
        // Every matching fault counts the call, so that `after` means the same whatever stands before it.
        let met: Vec<(u64, Fault)> = self
            .faults
            .iter_mut()
            .filter_map(|(id, fault)| fault.meets(request, &operation).then(|| (*id, fault.clone())))
            .collect();
        let fault = met.into_iter().next();
        self.journal.push(Call {
            seq,
            at: self.now(),
            service: request.service,
            operation,
            path: request.path_and_query.clone(),
            body: request.body_summary(),
            credential: request.credential_summary(),
            status: None,
            error: None,
            fault: fault.as_ref().map(|(_, fault)| fault.label()),
            performed: false,
            bytes: 0,
        });
        (seq, fault)
    }

    /// Lets the service perform the request.
    pub(crate) fn perform(&mut self, request: &Incoming) -> Answer {
        match request.service {
            Service::PagerDuty => pagerduty::answer(self, request),
            Service::Opsgenie => opsgenie::answer(self, request),
            Service::Aws => aws::answer(self, request),
        }
    }

    /// Notes in the journal whether the operation was performed.
    pub(crate) fn mark(&mut self, seq: u64, performed: bool) {
        if let Some(call) = self.call(seq) {
            call.performed = performed;
        }
    }

    /// Notes in the journal what was answered.
    pub(crate) fn leave(&mut self, seq: u64, answer: Option<&Answer>) {
        if let Some(call) = self.call(seq) {
            call.status = answer.map(|answer| answer.status);
            call.error = answer.and_then(|answer| answer.error.clone());
            call.bytes = answer.map_or(0, Answer::size);
        }
    }

    fn call(&mut self, seq: u64) -> Option<&mut Call> {
        self.journal.iter_mut().rev().find(|call| call.seq == seq)
    }
}

/// The state, its lock and the bell that rings on every change.
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

impl Shared {
    pub(crate) fn new(world: World) -> Self {
        Self {
            state: Mutex::new(State {
                world,
                journal: Vec::new(),
                faults: Vec::new(),
                clock: None,
                buckets: HashMap::new(),
                windows: HashMap::new(),
                sequence: 0,
                calls: 0,
            }),
            changed: Notify::new(),
        }
    }

    /// Looks without ringing the bell.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes something and rings the bell.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = self.look(change);
        self.changed.notify_waiters();
        result
    }

    /// Waits until `ready` gives a value; asynchronous operations that fall due by themselves count as changes.
    pub(crate) async fn until<R>(&self, mut ready: impl FnMut(&mut State) -> Option<R>) -> R {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (result, due) = self.look(|state| {
                let now = state.now();
                state.world.aws.settle(now);
                let due = match state.clock {
                    Some(_) => None,
                    None => state.world.aws.next_due().map(|due| due.duration_since(now)),
                };
                (ready(state), due)
            });
            if let Some(result) = result {
                return result;
            }
            match due.map(|due| Duration::try_from(due).unwrap_or_default()) {
                None => changed.await,
                Some(due) => {
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep(due) => {}
                    }
                }
            }
        }
    }
}
