//! Approved steps that have not begun, and which of them goes next. Pure.
//!
//! What matters comes first: what a person ordered, then grants whose duty has begun, then revokes, then grants that a
//! `lead` lets begin early; within each, the entitlement's `priority`. AWS works on one operation per account at a time,
//! so among equals the account with the longest queue goes first: its last operation decides when everything is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::guard::Step;
use crate::identity_center::ChangeKind;
use crate::live::Look;
use crate::model::ResolvedTarget;
use crate::plan::{Change, Key};

/// What matters first; the order of the variants is the order of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// A person ordered it.
    Ordered,
    /// Somebody is on duty and has no access yet.
    DutyBegun,
    /// Access whose time is over.
    Overdue,
    /// A grant before its duty begins: nobody misses it yet.
    Ahead,
}

/// Less comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Importance {
    class: Class,
    priority: u8,
}

impl Importance {
    fn of(change: &Change, priority: u8, now: Timestamp) -> Self {
        let begun = change.causes.is_empty() || change.causes.iter().any(|cause| cause.duty.start() <= now);
        let class = match change.kind {
            _ if change.is_ordered() => Class::Ordered,
            ChangeKind::Grant if begun => Class::DutyBegun,
            ChangeKind::Revoke => Class::Overdue,
            ChangeKind::Grant => Class::Ahead,
        };
        Self { class, priority }
    }
}

/// Where a step needs a place. AWS works on one operation per account at a time; memberships are no operations.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    Account(String),
    Groups,
}

impl Lane {
    pub(super) fn of(change: &Change) -> Self {
        match &change.target {
            ResolvedTarget::Assignment { account, .. } => Self::Account(account.to_string()),
            ResolvedTarget::Group { .. } => Self::Groups,
        }
    }
}

/// A step that waits for its turn.
#[derive(Debug, Clone)]
pub(super) struct Queued {
    pub(super) step: Step,
    /// The policy that the plan was made by.
    pub(super) revision: Arc<str>,
    /// What the plan knew of the target, if it did.
    pub(super) look: Option<Look>,
    importance: Importance,
    /// Earlier comes first among equals; kept while plans repeat the step.
    ticket: u64,
    /// Grants that must be confirmed before.
    waits_for: BTreeSet<Key>,
}

impl Queued {
    fn turn(&self) -> Turn {
        (self.importance, self.step.change.due, self.ticket)
    }
}

/// The order within a lane: importance, then what is due longest, then first come.
type Turn = (Importance, Timestamp, u64);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Queue {
    steps: BTreeMap<Key, Queued>,
    /// Steps that wait for nothing but a place.
    ready: BTreeMap<Lane, BTreeMap<Turn, Key>>,
    /// Steps by lane, ready or not: how much work is left there.
    lengths: BTreeMap<Lane, usize>,
    /// Revokes by a grant that they wait for.
    behind: BTreeMap<Key, BTreeSet<Key>>,
    /// Revokes that wait, by when they wait no longer.
    patience: BTreeSet<(Timestamp, Key)>,
    last_ticket: u64,
    /// Assignments taken so far.
    taken: usize,
}

/// Every so many assignments the shortest queue of the same importance goes first, so that one hand-off does not wait
/// until hundreds of other accounts' are as few.
const SHORTEST_EVERY: usize = 16;

impl Queue {
    /// Puts the steps of a new plan in place of those of the plan before, which decides nothing any more. Gives back what
    /// the new plan does not repeat.
    pub(super) fn replace(
        &mut self,
        steps: Vec<Step>,
        revision: &str,
        priority: impl Fn(&Step) -> u8,
        look: impl Fn(&ResolvedTarget) -> Option<Look>,
        now: Timestamp,
    ) -> Vec<Arc<Change>> {
        let mut before = std::mem::take(self);
        self.last_ticket = before.last_ticket;
        let revision: Arc<str> = revision.into();
        for step in steps {
            let key = step.change.key();
            let known = before
                .steps
                .remove(&key)
                .filter(|q| q.step.change.kind == step.change.kind);
            let ticket = known.map_or_else(
                || {
                    self.last_ticket += 1;
                    self.last_ticket
                },
                |known| known.ticket,
            );
            let waits = now < step.patience_ends;
            let queued = Queued {
                importance: Importance::of(&step.change, priority(&step), now),
                waits_for: step.waits_for.iter().filter(|_| waits).cloned().collect(),
                revision: Arc::clone(&revision),
                look: look(&step.change.target),
                ticket,
                step,
            };
            *self.lengths.entry(Lane::of(&queued.step.change)).or_default() += 1;
            if queued.waits_for.is_empty() {
                self.make_ready(&key, &queued);
            } else {
                for grant in &queued.waits_for {
                    self.behind.entry(grant.clone()).or_default().insert(key.clone());
                }
                self.patience.insert((queued.step.patience_ends, key.clone()));
            }
            self.steps.insert(key, queued);
        }
        before.steps.into_values().map(|queued| queued.step.change).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    pub(super) fn targets(&self) -> BTreeSet<ResolvedTarget> {
        self.steps.keys().map(|(target, _)| target.clone()).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether an account assignment waits for a place or for a grant, so that an end that is seen late costs time.
    pub(super) fn is_contended(&self) -> bool {
        !self.behind.is_empty() || self.ready.keys().any(|lane| *lane != Lane::Groups)
    }

    /// When the first revoke stops to wait for its grants.
    pub(super) fn patience_ends(&self) -> Option<Timestamp> {
        self.patience.first().map(|(at, _)| *at)
    }

    /// Takes the most important assignment of an account that is free.
    pub(super) fn next_assignment(&mut self, is_free: impl Fn(&Lane) -> bool) -> Option<Queued> {
        let heads = self
            .ready
            .iter()
            .filter(|(lane, _)| **lane != Lane::Groups && is_free(lane));
        let shortest = self.taken % SHORTEST_EVERY == SHORTEST_EVERY - 1;
        let first = heads.filter_map(|(lane, turns)| {
            let ((importance, due, ticket), key) = turns.first_key_value()?;
            let length = self.lengths.get(lane).copied().unwrap_or_default();
            let rest = if shortest { length } else { usize::MAX - length };
            Some(((*importance, rest, *due, *ticket), key))
        });
        let key = first.min_by_key(|(order, _)| *order)?.1.clone();
        self.taken += 1;
        self.take(&key)
    }

    /// Takes the most important group membership.
    pub(super) fn next_membership(&mut self) -> Option<Queued> {
        let key = self.ready.get(&Lane::Groups)?.first_key_value()?.1.clone();
        self.take(&key)
    }

    /// A grant has ended: revokes behind it wait for it no longer. Where it was not confirmed, those that still have
    /// patience are taken out and given back: the access stays for now.
    pub(super) fn grant_ended(&mut self, grant: &Key, confirmed: bool, now: Timestamp) -> Vec<Step> {
        let mut stay = Vec::new();
        for revoke in self.behind.remove(grant).unwrap_or_default() {
            let Some(queued) = self.steps.get_mut(&revoke) else {
                continue;
            };
            if !confirmed && now < queued.step.patience_ends {
                stay.extend(self.take(&revoke).map(|queued| queued.step));
                continue;
            }
            queued.waits_for.remove(grant);
            if queued.waits_for.is_empty() {
                self.stop_waiting(&revoke);
            }
        }
        stay
    }

    /// Revokes whose patience is over wait for no grant.
    pub(super) fn end_patience(&mut self, now: Timestamp) {
        while let Some((_, key)) = self.patience.first().filter(|(at, _)| *at <= now).cloned() {
            self.stop_waiting(&key);
        }
    }

    fn stop_waiting(&mut self, key: &Key) {
        let Some(mut queued) = self.steps.remove(key) else {
            return;
        };
        self.patience.remove(&(queued.step.patience_ends, key.clone()));
        for grant in std::mem::take(&mut queued.waits_for) {
            self.leave(&grant, key);
        }
        self.make_ready(key, &queued);
        self.steps.insert(key.clone(), queued);
    }

    fn make_ready(&mut self, key: &Key, queued: &Queued) {
        let lane = self.ready.entry(Lane::of(&queued.step.change)).or_default();
        lane.insert(queued.turn(), key.clone());
    }

    fn leave(&mut self, grant: &Key, revoke: &Key) {
        if let Some(behind) = self.behind.get_mut(grant) {
            behind.remove(revoke);
            if behind.is_empty() {
                self.behind.remove(grant);
            }
        }
    }

    fn take(&mut self, key: &Key) -> Option<Queued> {
        let queued = self.steps.remove(key)?;
        let lane = Lane::of(&queued.step.change);
        if let Some(turns) = self.ready.get_mut(&lane) {
            turns.remove(&queued.turn());
            if turns.is_empty() {
                self.ready.remove(&lane);
            }
        }
        self.patience.remove(&(queued.step.patience_ends, key.clone()));
        for grant in &queued.waits_for {
            self.leave(grant, key);
        }
        if let Some(length) = self.lengths.get_mut(&lane) {
            *length -= 1;
            if *length == 0 {
                self.lengths.remove(&lane);
            }
        }
        Some(queued)
    }
}

#[cfg(test)]
mod tests;
