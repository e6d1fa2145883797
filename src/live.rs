//! Keeps the live state between complete reads and reads it anew where it matters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use foldhash::{HashMap, HashSet};
use jiff::{SignedDuration, Timestamp};
use tokio::task::{Id, JoinError, JoinSet};

use crate::identity_center::{AwsError, AwsErrorKind, ChangeKind, Holders, Read};
use crate::model::{PrincipalId, ResolvedTarget};
use crate::plan::Key;

/// How long after AWS confirmed a change a read that does not show it is taken to be AWS's lag and not somebody's edit.
pub const CONSISTENCY_GRACE: SignedDuration = SignedDuration::from_secs(60);

/// Which targets are read although nothing is planned for them.
#[derive(Debug, Clone, Copy)]
pub struct Audit {
    /// How many in one pass.
    pub at_most: usize,
    /// Those last read longer ago than this.
    pub older_than: SignedDuration,
    /// Whether nothing is going to be changed: then what is planned needs no newer look than for an audit, after the first.
    pub of_plans: bool,
}

/// How many targets that nothing is planned for are read in one pass, so that a look for drift never keeps a hand-off
/// waiting for long.
pub const AUDIT: usize = 40;

/// How long a daemon's pass waits for AWS to answer anything at all about the live state before it goes on without what
/// is missing: one account that hangs must not make every other hand-off late.
pub const SILENCE: Duration = Duration::from_secs(5);

/// How long what was read of a target counts for the passes after, while changes of it are planned, wait for their turn or
/// are under way. The pass that plans the first of them has always read it itself. A change that waits for another one is
/// begun on a look as old as AWS takes for that one, so that less than this would make calls and not be more exact.
const READ_FOR: SignedDuration = SignedDuration::from_secs(30);

/// A read that has ended: of what, begun when, and what it said.
type Ended = (ResolvedTarget, Timestamp, Result<Holders, AwsError>);

/// The live state of managed targets, each with the instant of its last complete read.
#[derive(Debug, Default)]
pub struct LiveCache {
    targets: HashMap<ResolvedTarget, (Timestamp, Arc<Holders>)>,
    /// Targets whose last read failed, with when it was begun and why it failed.
    failed: BTreeMap<ResolvedTarget, (Timestamp, AwsError)>,
    /// How long nothing may be answered before a pass goes on; `None` waits for every read.
    silence: Option<Duration>,
    reads: JoinSet<Ended>,
    /// What the reads under way are about.
    under_way: HashMap<Id, ResolvedTarget>,
    /// What a pass went on without. It is read beside the passes until it answers again.
    slow: BTreeSet<ResolvedTarget>,
    /// Targets whose holders are not what they were, or not known any more, since somebody last asked.
    changed: BTreeSet<ResolvedTarget>,
    /// The suspects of the last refresh, each read when it became one.
    suspected: BTreeSet<ResolvedTarget>,
}

impl LiveCache {
    /// A cache for passes that go on without targets when AWS answers nothing for `silence`.
    #[must_use]
    pub fn going_on_after(silence: Duration) -> Self {
        Self {
            silence: Some(silence),
            ..Self::default()
        }
    }

    /// How long nothing may be answered before a pass goes on; `None` waits for every answer.
    #[must_use]
    pub fn silence(&self) -> Option<Duration> {
        self.silence
    }

    /// Reads every target in `suspects`, except those that it suspected in the refresh before and read less than half a
    /// minute ago, and those others of `wanted` that the audit calls for and that were looked at longest ago, in vain or not;
    /// drops those not wanted any more. Where the audit is of plans as well, it reads of the suspects those that were never
    /// read, and as many of the others as the audit may. A target that could not be read is in [`Self::failures`] and not in
    /// [`Self::holders`] until it can. What AWS `confirmed` lately is taken as done, whatever a lagging read says.
    pub async fn refresh(
        &mut self,
        reader: &Arc<dyn Read>,
        wanted: &HashSet<&ResolvedTarget>,
        suspects: &BTreeSet<ResolvedTarget>,
        confirmed: &BTreeMap<Key, ChangeKind>,
        audit: Audit,
        at: Timestamp,
    ) {
        let mut answered = BTreeSet::new();
        while let Some(ended) = self.reads.try_join_next_with_id() {
            answered.extend(self.take(ended, confirmed));
        }
        self.targets.retain(|target, _| wanted.contains(target));
        self.failed.retain(|target, _| wanted.contains(target));
        self.slow.retain(|target| wanted.contains(target));
        let audited = self.due_for_audit(wanted, suspects, audit, at);
        let was_just_read = |target: &ResolvedTarget| {
            let age = self.read_at(target).map(|read_at| read_at.duration_until(at));
            let is_young = age.is_some_and(|age| (SignedDuration::ZERO..READ_FOR).contains(&age));
            is_young && self.suspected.contains(target)
        };
        let in_doubt = suspects
            .iter()
            .filter(|target| wanted.contains(target) && !was_just_read(target));
        let mut in_doubt: Vec<&ResolvedTarget> = in_doubt.collect();
        if audit.of_plans {
            in_doubt.sort_by_key(|target| self.read_at(target));
            let unread = in_doubt.partition_point(|target| self.read_at(target).is_none());
            in_doubt.truncate(unread.saturating_add(audit.at_most));
        }
        let due = in_doubt
            .into_iter()
            .chain(audited)
            .filter(|target| !answered.contains(*target));
        let due: Vec<ResolvedTarget> = due.cloned().collect();
        self.suspected.clone_from(suspects);
        self.read(reader, due, wanted, confirmed, at).await;
    }

    fn read_at(&self, target: &ResolvedTarget) -> Option<Timestamp> {
        self.targets.get(target).map(|(read_at, _)| *read_at)
    }

    /// What is to be read although nothing is planned for it: what was looked at longest ago, and what could not be read.
    fn due_for_audit<'a>(
        &self,
        wanted: &HashSet<&'a ResolvedTarget>,
        suspects: &BTreeSet<ResolvedTarget>,
        audit: Audit,
        at: Timestamp,
    ) -> impl Iterator<Item = &'a ResolvedTarget> + use<'a> {
        let asked: HashSet<&ResolvedTarget> = self.under_way.values().collect();
        let (mut old, mut failing) = (Vec::new(), Vec::new());
        for target in wanted.iter().copied() {
            if suspects.contains(target) || asked.contains(target) {
                continue;
            }
            let read_at = self.read_at(target);
            if let Some((tried_at, _)) = self.failed.get(target) {
                failing.push((Some((*tried_at).min(at)), target));
            } else if read_at.is_none_or(|read_at| audit.older_than <= read_at.duration_until(at)) {
                old.push((read_at, target));
            }
        }
        old.sort_unstable();
        failing.sort_unstable();
        // Where AWS hangs, no more is asked of it than two passes may ask.
        let most = audit
            .at_most
            .saturating_mul(2)
            .saturating_sub(asked.len())
            .min(audit.at_most);
        // What cannot be read is tried again soon, and never takes the place of all that was not looked at yet.
        let again = (most / 2).max(most.saturating_sub(old.len()));
        failing.truncate(again);
        let first = most.saturating_sub(failing.len());
        old.into_iter().take(first).chain(failing).map(|(_, target)| target)
    }

    /// Reads what has come under suspicion since the refresh before began.
    pub async fn refresh_also(
        &mut self,
        reader: &Arc<dyn Read>,
        wanted: &HashSet<&ResolvedTarget>,
        suspects: &BTreeSet<ResolvedTarget>,
        confirmed: &BTreeMap<Key, ChangeKind>,
        at: Timestamp,
    ) {
        self.suspected.extend(suspects.iter().cloned());
        let due = suspects.iter().cloned().collect();
        self.read(reader, due, wanted, confirmed, at).await;
    }

    /// Reads these targets, and takes in what is under way besides, until nothing is answered for too long.
    async fn read(
        &mut self,
        reader: &Arc<dyn Read>,
        due: Vec<ResolvedTarget>,
        wanted: &HashSet<&ResolvedTarget>,
        confirmed: &BTreeMap<Key, ChangeKind>,
        at: Timestamp,
    ) {
        let asked_before: HashSet<ResolvedTarget> = self.under_way.values().cloned().collect();
        for target in due.into_iter().filter(|target| !asked_before.contains(target)) {
            let (reader, asked) = (Arc::clone(reader), target.clone());
            let read = self.reads.spawn(async move {
                let holders = reader.holders(&asked).await;
                (asked, at, holders)
            });
            self.under_way.insert(read.id(), target);
        }
        while self.under_way.values().any(|target| !self.slow.contains(target)) {
            let next = self.reads.join_next_with_id();
            let ended = match self.silence {
                Some(silence) => tokio::time::timeout(silence, next).await,
                None => Ok(next.await),
            };
            match ended {
                Ok(Some(ended)) => drop(self.take(ended, confirmed)),
                Ok(None) => break,
                Err(_elapsed) => self.slow.extend(self.under_way.values().cloned()),
            }
        }
        for target in self.under_way.values().filter(|target| wanted.contains(*target)) {
            self.targets.remove(target);
            self.changed.insert(target.clone());
            self.failed.insert(target.clone(), (at, unanswered()));
        }
    }

    /// Takes in a read that has ended and tells of what. One of an earlier pass speaks of the time when it was begun.
    fn take(
        &mut self,
        ended: Result<(Id, Ended), JoinError>,
        confirmed: &BTreeMap<Key, ChangeKind>,
    ) -> Option<ResolvedTarget> {
        match ended {
            Ok((id, (target, begun, Ok(mut holders)))) => {
                self.under_way.remove(&id);
                self.slow.remove(&target);
                self.failed.remove(&target);
                let first = (target.clone(), PrincipalId::default());
                let here = confirmed.range(first..).take_while(|((t, _), _)| *t == target);
                for ((_, principal), kind) in here {
                    overlay(&mut holders, principal, *kind);
                }
                let before = self.targets.insert(target.clone(), (begun, Arc::new(holders)));
                let now = self.targets.get(&target).map(|(_, holders)| holders);
                if before.is_none_or(|(_, before)| now != Some(&before)) {
                    self.changed.insert(target.clone());
                }
                Some(target)
            }
            Ok((id, (target, begun, Err(error)))) => {
                self.under_way.remove(&id);
                self.targets.remove(&target);
                self.changed.insert(target.clone());
                self.failed.insert(target.clone(), (begun, error));
                Some(target)
            }
            // A reader that panicked leaves its target as it was, and old targets are read again in the next pass.
            Err(error) => {
                let target = self.under_way.remove(&error.id());
                tracing::error!(%error, "a read of the live state broke off");
                target
            }
        }
    }

    /// The live state of those targets of which it is known.
    #[must_use]
    pub fn holders<'a>(
        &self,
        targets: impl IntoIterator<Item = &'a ResolvedTarget>,
    ) -> BTreeMap<ResolvedTarget, Arc<Holders>> {
        let known = |target: &ResolvedTarget| Some((target.clone(), Arc::clone(&self.targets.get(target)?.1)));
        targets.into_iter().filter_map(known).collect()
    }

    /// Why those of these targets cannot be told whose last read failed.
    #[must_use]
    pub fn failures(&self, targets: &BTreeSet<ResolvedTarget>) -> BTreeMap<ResolvedTarget, AwsError> {
        let here = self.failed.iter().filter(|(target, _)| targets.contains(*target));
        here.map(|(target, (_, error))| (target.clone(), error.clone()))
            .collect()
    }

    /// The live state of one target, if it is known.
    #[must_use]
    pub fn of(&self, target: &ResolvedTarget) -> Option<&Holders> {
        self.targets.get(target).map(|(_, holders)| &**holders)
    }

    /// Takes it that the holders of a target are what they were.
    pub fn count_as_unchanged(&mut self, target: &ResolvedTarget) {
        self.changed.remove(target);
    }

    /// Targets whose holders are not what they were, or not known any more, since [`Self::take_changed`].
    #[must_use]
    pub fn changed(&self) -> &BTreeSet<ResolvedTarget> {
        &self.changed
    }

    /// Targets whose holders are not what they were, or not known any more, since this was last asked.
    #[must_use]
    pub fn take_changed(&mut self) -> BTreeSet<ResolvedTarget> {
        std::mem::take(&mut self.changed)
    }

    /// Takes in a change that AWS confirmed.
    pub fn note(&mut self, key: &Key, kind: ChangeKind) {
        if let Some((_, holders)) = self.targets.get_mut(&key.0) {
            overlay(Arc::make_mut(holders), &key.1, kind);
            self.changed.insert(key.0.clone());
        }
    }
}

fn unanswered() -> AwsError {
    AwsError {
        operation: "read of the live state",
        kind: AwsErrorKind::Unreachable,
        message: "AWS has not answered yet; it is asked beside the passes, which go on without it".to_owned(),
        outcome_unknown: false,
    }
}

fn overlay(holders: &mut Holders, principal: &PrincipalId, kind: ChangeKind) {
    match kind {
        ChangeKind::Grant => {
            holders.users.insert(principal.clone());
        }
        ChangeKind::Revoke => {
            holders.users.remove(principal);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::identity_center::{Instance, Operation, Progress, Resolution, UserPin};
    use crate::model::{Person, Target};

    /// Says of everything that nobody holds it, and remembers what it was asked.
    #[derive(Default)]
    struct Nobody(Mutex<Vec<ResolvedTarget>>);

    #[async_trait]
    impl Read for Nobody {
        async fn holders(&self, target: &ResolvedTarget) -> Result<Holders, AwsError> {
            self.0.lock().unwrap().push(target.clone());
            Ok(Holders::default())
        }

        async fn instance(&self) -> Result<Instance, AwsError> {
            unreachable!()
        }

        async fn resolve_target(&self, _: &Target) -> Result<ResolvedTarget, AwsError> {
            unreachable!()
        }

        async fn resolve_person(&self, _: &Person, _: Option<&UserPin>) -> Result<Resolution, AwsError> {
            unreachable!()
        }

        async fn operation(&self, _: &Operation) -> Result<Progress, AwsError> {
            unreachable!()
        }
    }

    /// A large organisation that is only observed plans everything in every pass, and changes nothing: each pass read all of
    /// it again, which took all that AWS allows, for ever.
    #[tokio::test]
    async fn while_nothing_is_changed_plans_are_looked_at_no_faster_than_an_audit_does() {
        let group = |n: usize| ResolvedTarget::Group {
            group_id: format!("g-{n:03}").into(),
        };
        let all: BTreeSet<ResolvedTarget> = (0..100).map(group).collect();
        let wanted: HashSet<&ResolvedTarget> = all.iter().collect();
        for (of_plans, expected) in [(true, [100, 40, 40, 40]), (false, [100, 100, 100, 100])] {
            let nobody = Arc::new(Nobody::default());
            let reader: Arc<dyn Read> = nobody.clone();
            let audit = Audit {
                at_most: 40,
                older_than: SignedDuration::from_mins(10),
                of_plans,
            };
            let mut live = LiveCache::default();
            let mut asked = Vec::new();
            for pass in 0..4 {
                let at = Timestamp::UNIX_EPOCH + SignedDuration::from_mins(pass);
                live.refresh(&reader, &wanted, &all, &BTreeMap::new(), audit, at).await;
                asked.push(std::mem::take(&mut *nobody.0.lock().unwrap()));
            }
            let counts: Vec<usize> = asked.iter().map(Vec::len).collect();
            assert_eq!(counts, expected, "{of_plans}");
            // Those that were read longest ago go first, so that all have their turn.
            let again: BTreeSet<_> = asked[1..].iter().flatten().cloned().collect();
            assert_eq!(again, all);
        }
    }
}
