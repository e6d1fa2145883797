//! What somebody other than dutybound is the reason for, up to when, and for whom.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::org::{Cell, Trigger, minutes};
use crate::world::provider::Outage;
use crate::world::{Key, State};

/// After AWS was unwell: the longest pause between tries (320 s) and patience for the incoming grant (10 min).
const AFTER_AWS: SignedDuration = SignedDuration::from_mins(17);

/// How long the daemon may take to notice and do what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) poll: SignedDuration,
    pub(crate) audit: SignedDuration,
    pub(crate) notice: SignedDuration,
    pub(crate) patience: SignedDuration,
    pub(crate) max_staleness: SignedDuration,
}

impl Bounds {
    /// What was just learnt from a provider may count as a surprise until it has been found again after the notice
    /// period; then a pass decides, and an outgoing grant waits for the incoming one.
    fn after_news(&self) -> SignedDuration {
        self.notice.max(self.poll) + self.poll + self.patience
    }

    /// What somebody did by hand in AWS is seen by the second pass after the audit is due, which reads half of all targets
    /// at a time, and counts as a surprise.
    fn after_touch(&self) -> SignedDuration {
        self.audit + self.poll * 2 + self.notice + minutes(2)
    }
}

/// Instants up to which something was not dutybound's doing.
pub(crate) struct Excuses {
    bounds: Bounds,
    /// No process was there, or it has just come back.
    pub(crate) down: Timestamp,
    /// A pause or a wrong clock keeps everybody waiting.
    pub(crate) everybody: Timestamp,
    /// What is right for the cell has changed by a decision of people: policy, orders, the identity store.
    decided: BTreeMap<Cell, Timestamp>,
    /// By key: the last instant at which somebody else touched it in AWS.
    touched: BTreeMap<Key, Timestamp>,
    /// By schedule and person: up to when the daemon could not know the truth.
    behind: BTreeMap<(usize, usize), Timestamp>,
    /// The entitlement was at its floor, so that whoever holds it keeps it.
    floored: BTreeMap<usize, Timestamp>,
}

impl Excuses {
    pub(crate) fn new(bounds: Bounds, start: Timestamp) -> Self {
        Self {
            bounds,
            down: start + minutes(2),
            everybody: Timestamp::MIN,
            decided: BTreeMap::new(),
            touched: BTreeMap::new(),
            behind: BTreeMap::new(),
            floored: BTreeMap::new(),
        }
    }

    /// People decided something about a cell that the daemon may not notice before `until`.
    pub(crate) fn decide(&mut self, cell: Cell, until: Timestamp) {
        let t = self.decided.entry(cell).or_insert(until);
        *t = until.max(*t);
    }

    /// Somebody changed this in AWS by hand.
    pub(crate) fn touch(&mut self, key: Key, now: Timestamp) {
        self.touched.insert(key, now);
    }

    pub(crate) fn last_touch(&self, key: &Key) -> Option<Timestamp> {
        self.touched.get(key).copied()
    }

    /// Takes in what the daemon cannot know at this moment, and what it has just learnt.
    pub(crate) fn note_knowledge(&mut self, state: &mut State) {
        let now = state.now;
        for (schedule, people) in std::mem::take(&mut state.providers.learnt) {
            for person in people {
                self.behind.insert((schedule, person), now);
            }
        }
        for schedule in 0..state.org.schedules.len() {
            let lies = state.outage(schedule) == Some(Outage::Empty) || state.providers.lies.contains_key(&schedule);
            let known = state.providers.known.get(&schedule);
            let stale = known.is_none_or(|k| k.read_at + self.bounds.max_staleness <= now);
            let concerned: Vec<usize> = if lies || stale {
                (0..state.org.people).collect()
            } else {
                let unread = state.providers.unread.get(&schedule);
                unread.into_iter().flatten().copied().collect()
            };
            for person in concerned {
                self.behind.insert((schedule, person), now);
            }
        }
        if state.paused.is_some() {
            self.everybody = self.everybody.max(now);
        }
        for (index, entitlement) in state.org.policy.entitlements.iter().enumerate() {
            if 0 < entitlement.min_holders {
                let holders = state.holders(&crate::world::resolved(&entitlement.target));
                if holders <= entitlement.min_holders {
                    self.floored.insert(index, now);
                }
            }
        }
    }

    /// Up to when a wrong state of this cell is not dutybound's doing.
    pub(crate) fn of(&self, state: &State, cell: Cell, key: &Key) -> Timestamp {
        let decided = self.decided.get(&cell).copied();
        let aws = state.aws.unwell(&key.0).map(|t| after(t, AFTER_AWS));
        if state.barred.contains_key(&cell.1) {
            // An order waits for nothing but AWS.
            return [Some(self.down), decided, aws].into_iter().flatten().max().unwrap();
        }
        let touched = self.touched.get(key).map(|t| after(*t, self.bounds.after_touch()));
        let behind = self.behind_for(state, cell);
        [Some(self.down), Some(self.everybody), decided, aws, touched, behind]
            .into_iter()
            .flatten()
            .max()
            .unwrap()
    }

    /// The same for somebody who holds too long: others at the same entitlement may be the reason, for as long as an
    /// outgoing grant waits for an incoming one, and its floor for as long as it lasts.
    pub(crate) fn of_holding(&self, state: &State, cell: Cell, key: &Key) -> Timestamp {
        let own = self.of(state, cell, key);
        if state.barred.contains_key(&cell.1) {
            return own;
        }
        let floored = self.floored.get(&cell.0).map(|t| after(*t, self.bounds.patience));
        let has_floor = 0 < state.org.policy.entitlements[cell.0].min_holders;
        let strangers = self
            .touched
            .iter()
            .filter(|((target, _), _)| has_floor && *target == key.0);
        let touched = strangers.map(|(_, t)| after(*t, self.bounds.after_touch())).max();
        own.max(floored.unwrap_or(own)).max(touched.unwrap_or(own))
    }

    /// Whether an incoming grant of somebody else may be stuck, so that an outgoing one of this entitlement waits.
    pub(crate) fn hand_off_may_be_stuck(&self, state: &State, entitlement: usize, now: Timestamp) -> bool {
        let turns = |schedule| state.true_turns(schedule);
        let lately = now - self.bounds.patience - minutes(5);
        (0..state.org.people).any(|person| {
            let cell = (entitlement, person);
            let key = state.key(entitlement, person);
            let earns = || {
                let span = state.org.policy.earned(turns, cell, now);
                span.is_some_and(|(_, until)| lately < until)
            };
            (state.disabled.contains(&person) && earns()) || now < self.of(state, cell, &key)
        })
    }

    fn behind_for(&self, state: &State, cell: Cell) -> Option<Timestamp> {
        let rules = state.org.policy.rules.iter().filter(|r| r.entitlement == cell.0);
        let behind = rules.filter_map(|r| match &r.trigger {
            Trigger::OnCall { schedule, .. } => self.behind.get(&(*schedule, cell.1)),
            Trigger::Members | Trigger::OfficeHours => None,
        });
        behind.max().map(|t| after(*t, self.bounds.after_news()))
    }

    /// Whether the daemon knows for sure, and has for a minute, what is right for this cell.
    pub(crate) fn knows(&self, state: &State, cell: Cell, at: Timestamp) -> bool {
        let a_minute_ago = at - minutes(1);
        let decided = self.decided.get(&cell).is_none_or(|t| *t < a_minute_ago);
        let everybody = self.down.max(self.everybody) < at;
        let schedules = state.org.policy.rules.iter().filter(|r| r.entitlement == cell.0);
        let settled = schedules.into_iter().all(|r| match &r.trigger {
            Trigger::OnCall { schedule, .. } => {
                let known = state.providers.known.get(schedule);
                let lies = state.providers.lies.get(schedule);
                // What a provider says for as long as the notice period is obeyed, false as it is.
                known.is_some_and(|k| k.learnt_at < a_minute_ago)
                    && lies.is_none_or(|(first, last)| first.duration_until(*last) < self.bounds.notice)
            }
            Trigger::Members | Trigger::OfficeHours => true,
        });
        decided && everybody && settled
    }

    /// Whether somebody touched this target by hand so lately that it may not be known.
    pub(crate) fn target_touched(&self, key: &Key, at: Timestamp) -> bool {
        let mut same = self.touched.iter().filter(|((target, _), _)| *target == key.0);
        same.any(|(_, t)| at < after(*t, self.bounds.after_touch()))
    }

    pub(crate) fn bounds(&self) -> &Bounds {
        &self.bounds
    }
}

fn after(t: Timestamp, span: SignedDuration) -> Timestamp {
    t.saturating_add(span).unwrap()
}
