//! Every change that is asked of AWS, judged at the moment in which it is asked.

use dutybound::identity_center::ChangeKind;
use jiff::Timestamp;

use super::Promises;
use crate::org::{Cell, Turn, minutes};
use crate::world::{By, Key, State};

impl Promises {
    /// Nothing unowned is revoked, nor anybody who is on duty; nothing is granted to anybody who is not.
    pub(super) fn judge_asked(&self, state: &mut State) {
        for (at, kind, key) in std::mem::take(&mut state.aws.asked) {
            let Some(cell) = state.cell(&key) else {
                state.fault(format!("we ask for {kind:?} {} {}, which nobody knows", key.0, key.1));
                continue;
            };
            let mut faults: Vec<String> = self.out_of_bounds(state, at, kind, &key, cell).into_iter().collect();
            match kind {
                ChangeKind::Grant => faults.extend(self.wrong_grant(state, at, &key, cell)),
                ChangeKind::Revoke => faults.extend(self.wrong_revokes(state, at, &key, cell)),
            }
            for fault in faults {
                state.fault(fault);
            }
        }
    }

    /// What we took away left as many holders as its owner demands.
    pub(super) fn judge_floors(&self, state: &mut State) {
        for (at, key, left) in std::mem::take(&mut state.aws.taken) {
            let Some(cell) = state.cell(&key) else { continue };
            let least = state.org.policy.entitlements[cell.0].min_holders;
            let excused = at <= self.excuses.of(state, cell, &key) || self.excuses.target_touched(&key, at);
            if left < least && !state.barred.contains_key(&cell.1) && !excused {
                let (target, user) = &key;
                state.fault(format!(
                    "we left {target} with {left} holders of {least}, without {user}"
                ));
            }
        }
    }

    /// What neither schedule nor policy decides: pauses, orders, protection.
    fn out_of_bounds(&self, state: &State, at: Timestamp, kind: ChangeKind, key: &Key, cell: Cell) -> Option<String> {
        let barred = state.barred.get(&cell.1);
        let seen = self.excuses.bounds().poll + minutes(3);
        if barred.is_none() && state.paused.is_some_and(|since| since + seen < at) {
            return Some(format!("we {kind:?} {} {} during a pause", key.0, key.1));
        }
        if kind == ChangeKind::Grant && barred.is_some_and(|since| *since + minutes(1) < at) {
            return Some(format!("we grant {} to {}, who is barred", key.0, key.1));
        }
        let protected = state.org.protected == Some(cell.1) && barred.is_none();
        if kind == ChangeKind::Revoke && protected && self.excuses.knows(state, cell, at) {
            return Some(format!("we revoke {} of {}, who is protected", key.0, key.1));
        }
        None
    }

    fn wrong_grant(&self, state: &State, at: Timestamp, key: &Key, cell: Cell) -> Option<String> {
        let sure = self.excuses.knows(state, cell, at) && !state.barred.contains_key(&cell.1);
        let truly = earned_at(state, at, cell, |s| state.true_turns(s));
        let known = earned_at(state, at, cell, |s| state.known_turns(s));
        (sure && !truly && !known).then(|| {
            format!(
                "we grant {} to {}, who earns it neither in truth nor by what was read",
                key.0, key.1
            )
        })
    }

    fn wrong_revokes(&self, state: &State, at: Timestamp, key: &Key, cell: Cell) -> Vec<String> {
        let mut faults = Vec::new();
        let exclusive = state.org.policy.entitlements[cell.0].exclusive;
        // Taken away in this moment by hand and by us at once is no contradiction.
        let recently = self.excuses.target_touched(key, at);
        let accesses = state.history.get(key).map_or(&[][..], Vec::as_slice);
        let mut then = accesses.iter().rev();
        let owner = then
            .find(|a| a.since <= at && a.until.is_none_or(|end| at < end))
            .map(|a| a.by);
        if owner == Some(By::Stranger) && !exclusive && !recently {
            faults.push(format!("we revoke {} of {}, which a stranger granted", key.0, key.1));
        }
        let sure = self.excuses.knows(state, cell, at) && !state.barred.contains_key(&cell.1);
        // Our clock may be ahead of the true time by as much as is tolerated.
        let late = at + state.offset.abs();
        let (policy, lasts) = (&state.org.policy, |span: (Timestamp, Timestamp)| late < span.1);
        let truly = policy.earned(|s| state.true_turns(s), cell, at).is_some_and(lasts);
        let known = policy.earned(|s| state.known_turns(s), cell, at).is_some_and(lasts);
        if sure && truly && known {
            faults.push(format!(
                "we revoke {} of {}, who is on duty by what was last read and in truth",
                key.0, key.1
            ));
        }
        faults
    }
}

/// Whether it is earned at `at`, by true time or by ours.
fn earned_at<'a>(state: &State, at: Timestamp, cell: Cell, turns: impl Fn(usize) -> &'a [Turn]) -> bool {
    let off = state.offset.abs();
    [at - off, at, at + off].into_iter().any(|t| {
        let span = state.org.policy.earned(&turns, cell, t);
        span.is_some_and(|(_, until)| t < until)
    })
}
