//! The look at a target before a change of it begins that has waited for its turn: what the plan was made on may be minutes
//! old by then, and somebody else may have given or taken the access meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::OnceCell;

use super::dispatch::is_over;
use super::queue::Queued;
use super::{Applier, End};
use crate::identity_center::{AwsError, ChangeKind, Holders};
use crate::live::{CONSISTENCY_GRACE, Ended, Look, is_young, overlay};
use crate::model::{PrincipalId, ResolvedTarget};
use crate::plan::Key;

/// The looks of the last half minute, each shared by the changes of its target.
#[derive(Debug, Default)]
pub(super) struct Looks {
    latest: BTreeMap<ResolvedTarget, Arc<Asked>>,
    /// What was answered and no pass has taken in yet.
    answered: Vec<Ended>,
}

/// One look, once it has been answered.
#[derive(Debug)]
struct Asked {
    at: Timestamp,
    said: OnceCell<Result<Arc<Holders>, AwsError>>,
}

impl Looks {
    /// The look at `target` that counts at `now`, or a new one.
    fn at(&mut self, target: &ResolvedTarget, now: Timestamp) -> Arc<Asked> {
        if let Some(asked) = self.latest.get(target).filter(|asked| is_young(asked.at, now)) {
            return Arc::clone(asked);
        }
        let asked = Arc::new(Asked {
            at: now,
            said: OnceCell::new(),
        });
        self.latest.insert(target.clone(), Arc::clone(&asked));
        asked
    }

    /// What was answered since the last call, with what AWS `confirmed` so shortly before that a read may lag, or since.
    pub(super) fn take(&mut self, confirmed: &BTreeMap<Key, (ChangeKind, Timestamp)>, now: Timestamp) -> Vec<Ended> {
        self.latest.retain(|_, asked| is_young(asked.at, now));
        let mut answered = std::mem::take(&mut self.answered);
        for (target, at, said) in &mut answered {
            let Ok(holders) = said else { continue };
            let since = lag_since(*at);
            let first = (target.clone(), PrincipalId::default());
            let here = confirmed.range(first..).take_while(|((t, _), _)| *t == *target);
            for ((_, principal), (kind, _)) in here.filter(|(_, (_, at))| since <= *at) {
                overlay(holders, principal, *kind);
            }
        }
        answered
    }
}

/// Since when AWS may have confirmed what a look at `at` does not show yet.
fn lag_since(at: Timestamp) -> Timestamp {
    at.checked_sub(CONSISTENCY_GRACE).unwrap_or(Timestamp::MIN)
}

impl Applier {
    /// Looks at the target of a change whose turn has come, unless the plan's own look is young or a person ordered it. Gives
    /// how the change ends if it must not begin.
    pub(super) async fn look_again(&self, queued: &Queued) -> Option<End> {
        let change = &queued.step.change;
        let planned_on = queued.look.as_ref()?;
        let now = self.clock.now();
        if change.is_ordered() || is_young(planned_on.read_at, now) {
            return None;
        }
        let asked = self.state().looks.at(&change.target, now);
        let look = || async {
            let said = self.reader.holders_before_change(&change.target).await.map(Arc::new);
            let ended = (change.target.clone(), asked.at, said.clone());
            self.state().looks.answered.push(ended);
            said
        };
        match asked.said.get_or_init(look).await {
            Ok(holders) => {
                let is_as_planned = self.is_as_planned(&queued.step.change.key(), planned_on, holders, asked.at);
                (!is_as_planned
                    || self.stop.is_cancelled()
                    || is_over(&queued.step, self.clock.now(), self.is_paused()))
                .then_some(End::Overtaken)
            }
            Err(error) => Some(End::Failed(format!("who holds it could not be read before: {error}"))),
        }
    }

    /// Whether AWS shows what the plan of this change was made on, but for what we changed ourselves or are changing. A read
    /// may lag behind that for a while.
    fn is_as_planned(&self, key: &Key, planned_on: &Look, holders: &Holders, at: Timestamp) -> bool {
        let state = self.state();
        let since = lag_since(at);
        let is_ours = |principal: &PrincipalId| {
            let other = (key.0.clone(), principal.clone());
            let confirmed = state.confirmed.get(&other).is_some_and(|(_, at)| since <= *at);
            *principal != key.1 && (confirmed || state.is_news(&other))
        };
        let mut differing = planned_on.holders.users.symmetric_difference(&holders.users);
        differing.all(is_ours)
    }
}
