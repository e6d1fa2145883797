//! The one owner of the queue: lets the next step begin when a place is free, and takes in how steps end.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::queue::{Lane, Queued};
use super::{Applier, End, end};
use crate::guard::Step;
use crate::identity_center::ChangeKind;
use crate::plan::Change;
use crate::text::instant;

/// Group memberships changed at once. They take AWS a moment each, so a few keep the limiter busy; more would only keep
/// the operations of accounts waiting at it.
const GROUP_CHANGES: usize = 6;

/// When the first revoke stops to wait for its grants, and the sleep until then.
type Alarm = (Timestamp, Pin<Box<dyn Future<Output = ()> + Send>>);

impl Applier {
    /// Runs until [`Applier::stop`].
    pub(super) async fn dispatch(self: Arc<Self>) {
        let _place = Dispatching(Arc::clone(&self));
        let mut alarm: Option<Alarm> = None;
        loop {
            let patience_ends = self.begin_what_can();
            if alarm.as_ref().map(|(at, _)| *at) != patience_ends {
                alarm = patience_ends.map(|at| {
                    let left = self.clock.now().duration_until(at).max(SignedDuration::ZERO);
                    let clock = Arc::clone(&self.clock);
                    let sleep = async move { clock.sleep(left.unsigned_abs()).await };
                    (at, Box::pin(sleep) as Pin<Box<dyn Future<Output = ()> + Send>>)
                });
            }
            let patience = async {
                match &mut alarm {
                    Some((_, sleep)) => sleep.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    self.supersede();
                    return;
                }
                () = self.wake.notified() => {}
                () = patience => alarm = None,
            }
        }
    }

    /// Lets begin what has a place. Returns when the first revoke stops to wait for its grants.
    fn begin_what_can(self: &Arc<Self>) -> Option<Timestamp> {
        if self.stop.is_cancelled() || self.state().queue.is_empty() {
            return None;
        }
        let (now, paused) = (self.clock.now(), self.is_paused());
        let mut over = Vec::new();
        let mut state = self.state();
        state.queue.end_patience(now);
        loop {
            let next = state.next(self.assignments_in_flight);
            let Some(queued) = next else { break };
            if is_over(&queued.step, now, paused) {
                over.push(queued.step.change);
                continue;
            }
            state.begin(&queued);
            let applier = Arc::clone(self);
            self.tasks.spawn(async move { applier.carry_out(queued).await });
        }
        let patience_ends = state.queue.patience_ends();
        drop(state);
        if over.is_empty() {
            return patience_ends;
        }
        for change in over {
            self.finish(change, End::Superseded);
        }
        self.begin_what_can()
    }

    /// Takes in how a step has ended, and what that means for the revokes behind it.
    pub(super) fn finish(&self, change: Arc<Change>, end: End) {
        let now = self.clock.now();
        end::say(&change, &end);
        // All of it at once: who waits until everything has ended must not find the revokes neither queued nor ended.
        let mut state = self.state();
        let stay = match change.kind {
            ChangeKind::Grant => state.queue.grant_ended(&change.key(), end == End::Confirmed, now),
            ChangeKind::Revoke => Vec::new(),
        };
        let (begun, overtaken) = (end != End::Superseded, end == End::Overtaken);
        let mut call = false;
        if begun {
            state.note(change, end.clone(), now);
            call = state.is_pass_due(&end, now);
        }
        let later = begun || !stay.is_empty();
        for step in stay {
            // Where the grant was left to the next pass, so is what waits for it.
            if overtaken {
                end::say(&step.change, &End::Superseded);
                continue;
            }
            let deferred = End::Deferred(format!(
                "the incoming grant was not confirmed; the access stays until it is, or until {} at most",
                instant(step.patience_ends)
            ));
            end::say(&step.change, &deferred);
            state.note(step.change, deferred.clone(), now);
            call |= state.is_pass_due(&deferred, now);
        }
        drop(state);
        self.ended.notify_waiters();
        if call {
            self.news.notify_one();
        } else if later {
            self.later.notify_one();
        }
        self.wake.notify_one();
    }
}

/// What has waited for longer than it was right, or until a pause was ordered, is for the next pass to decide. Like the
/// guard, what a person ordered is let through a pause.
pub(super) fn is_over(step: &Step, now: Timestamp, paused: bool) -> bool {
    step.lapses_at <= now || paused && !step.change.is_ordered()
}

/// The one place of a dispatcher. Should it ever break off, the next plan starts another one.
struct Dispatching(Arc<Applier>);

impl Drop for Dispatching {
    fn drop(&mut self) {
        self.0.state().is_dispatching = false;
    }
}

impl super::State {
    fn next(&mut self, in_flight: usize) -> Option<Queued> {
        let places = &self.places;
        let groups = places.get(&Lane::Groups).copied().unwrap_or_default();
        if groups < GROUP_CHANGES
            && let Some(membership) = self.queue.next_membership()
        {
            return Some(membership);
        }
        // Every account has one operation at most.
        if in_flight <= places.len() - usize::from(0 < groups) {
            return None;
        }
        self.queue.next_assignment(|lane| !places.contains_key(lane))
    }

    fn begin(&mut self, queued: &Queued) {
        let change = &queued.step.change;
        *self.places.entry(Lane::of(change)).or_default() += 1;
        self.in_flight.insert(change.key(), change.kind);
    }
}
