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

/// Which targets are read that were read before.
#[derive(Debug, Clone, Copy)]
pub struct Audit<'a> {
    /// How many in one pass of those that were last read longest ago …
    pub at_most: usize,
    /// … if that was longer ago than this.
    pub older_than: SignedDuration,
    /// How many besides, in one pass, of those that something is planned for.
    pub of_plans: usize,
    /// What need not be read for a plan, because changes of it wait for their turn: each is preceded by a look.
    pub queued: &'a BTreeSet<ResolvedTarget>,
}

/// How many targets that nothing is planned for are read in one pass, so that a look for drift never keeps a hand-off
/// waiting for long.
pub const AUDIT: usize = 40;

/// How many targets that something is planned for, and that were read before, are read in one pass: as many as can begin at
/// once. Whatever begins later is looked at then, and nobody waits for a look at thousands of others.
pub const PLANNED: usize = 16;

/// How long a daemon's pass waits for AWS to answer anything at all about the live state before it goes on without what
/// is missing: one account that hangs must not make every other hand-off late.
pub const SILENCE: Duration = Duration::from_secs(5);

/// How long what was read of a target counts, for the passes after and for a change of it that begins. A change that waits
/// for another one is begun on a look as old as AWS takes for that one, so that less than this would make calls and not be
/// more exact.
const READ_FOR: SignedDuration = SignedDuration::from_secs(30);

/// A read that has ended: of what, begun when, and what it said.
pub type Ended = (ResolvedTarget, Timestamp, Result<Arc<Holders>, AwsError>);

/// What AWS said of a target, and when it was asked, with what was done and confirmed since.
#[derive(Debug, Clone)]
pub struct Look {
    /// When it was asked.
    pub read_at: Timestamp,
    /// Who held it.
    pub holders: Arc<Holders>,
}

/// Whether what was read at `read_at` still counts at `now`.
#[must_use]
pub fn is_young(read_at: Timestamp, now: Timestamp) -> bool {
    (SignedDuration::ZERO..READ_FOR).contains(&read_at.duration_until(now))
}

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

    /// Reads of the targets in `suspects` those of which nothing is known, and of the others as many as the audit allows, those
    /// that were read longest ago first, except what is queued and what it suspected in the refresh before and read less than
    /// half a minute ago; and those others of `wanted` that the audit calls for and that were looked at longest ago, in vain or
    /// not. Drops those not wanted any more. A target that could not be read is in [`Self::failures`] and not in
    /// [`Self::holders`] until it can. What AWS `confirmed` lately is taken as done, whatever a lagging read says.
    pub async fn refresh(
        &mut self,
        reader: &Arc<dyn Read>,
        wanted: &HashSet<&ResolvedTarget>,
        suspects: &BTreeSet<ResolvedTarget>,
        confirmed: &BTreeMap<Key, ChangeKind>,
        audit: Audit<'_>,
        at: Timestamp,
    ) {
        let mut answered = BTreeSet::new();
        while let Some(ended) = self.reads.try_join_next_with_id() {
            answered.extend(self.take(ended, confirmed));
        }
        self.targets.retain(|target, _| wanted.contains(target));
        self.failed.retain(|target, _| wanted.contains(target));
        self.slow.retain(|target| wanted.contains(target));
        let in_doubt = self.in_doubt(wanted, suspects, audit, at);
        let audited = self.due_for_audit(wanted, &in_doubt, audit, at);
        let due = in_doubt.into_iter().chain(audited);
        let due: Vec<ResolvedTarget> = due.filter(|target| !answered.contains(*target)).cloned().collect();
        self.suspected.clone_from(suspects);
        self.read(reader, due, wanted, confirmed, at).await;
    }

    /// What of the suspects is to be read. What is not is planned by what is known, and looked at before a change of it
    /// begins: nobody is to wait for a look at thousands of others.
    fn in_doubt<'a>(
        &self,
        wanted: &HashSet<&ResolvedTarget>,
        suspects: &'a BTreeSet<ResolvedTarget>,
        audit: Audit<'_>,
        at: Timestamp,
    ) -> Vec<&'a ResolvedTarget> {
        let is_known = |target: &ResolvedTarget, read_at| {
            let was_suspected = self.suspected.contains(target) && is_young(read_at, at);
            was_suspected || audit.queued.contains(target)
        };
        let in_doubt = suspects
            .iter()
            .filter(|target| wanted.contains(target))
            .filter(|target| !self.read_at(target).is_some_and(|read_at| is_known(target, read_at)));
        let mut in_doubt: Vec<&ResolvedTarget> = in_doubt.collect();
        // After a clock was set back, what was read later by the old one is no newer than now.
        in_doubt.sort_by_key(|target| self.read_at(target).map(|read_at| read_at.min(at)));
        let unread = in_doubt.partition_point(|target| self.read_at(target).is_none());
        in_doubt.truncate(unread.saturating_add(audit.of_plans));
        in_doubt
    }

    fn read_at(&self, target: &ResolvedTarget) -> Option<Timestamp> {
        self.targets.get(target).map(|(read_at, _)| *read_at)
    }

    /// What is to be read besides what is `in_doubt`: what was looked at longest ago, and what could not be read.
    fn due_for_audit<'a>(
        &self,
        wanted: &HashSet<&'a ResolvedTarget>,
        in_doubt: &[&ResolvedTarget],
        audit: Audit<'_>,
        at: Timestamp,
    ) -> impl Iterator<Item = &'a ResolvedTarget> + use<'a> {
        let asked: HashSet<&ResolvedTarget> = self.under_way.values().collect();
        let in_doubt: HashSet<&ResolvedTarget> = in_doubt.iter().copied().collect();
        let (mut old, mut failing) = (Vec::new(), Vec::new());
        for target in wanted.iter().copied() {
            if in_doubt.contains(target) || asked.contains(target) || audit.queued.contains(target) {
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

    /// Reads likewise what has come under suspicion since the refresh before began.
    pub async fn refresh_also(
        &mut self,
        reader: &Arc<dyn Read>,
        wanted: &HashSet<&ResolvedTarget>,
        suspects: &BTreeSet<ResolvedTarget>,
        confirmed: &BTreeMap<Key, ChangeKind>,
        audit: Audit<'_>,
        at: Timestamp,
    ) {
        let due = self
            .in_doubt(wanted, suspects, audit, at)
            .into_iter()
            .cloned()
            .collect();
        self.suspected.extend(suspects.iter().cloned());
        self.read(reader, due, wanted, confirmed, at).await;
    }

    /// Takes in what was looked at beside the passes.
    pub fn take_looks(&mut self, looks: Vec<Ended>, confirmed: &BTreeMap<Key, ChangeKind>, now: Timestamp) {
        for (target, begun, said) in looks {
            // What is not kept is wanted by nobody, and a read that was begun later knows better, unless that is only what a
            // clock said that was set back since.
            let is_newest = |read_at| read_at <= begun || now < read_at;
            if self.read_at(&target).is_some_and(is_newest) {
                self.learn(target, begun, said, confirmed);
            }
        }
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
                (asked, at, holders.map(Arc::new))
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
            Ok((id, (target, begun, said))) => {
                self.under_way.remove(&id);
                if said.is_ok() {
                    self.slow.remove(&target);
                }
                self.learn(target.clone(), begun, said, confirmed);
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

    /// Takes in what AWS said of a target when it was asked at `begun`.
    fn learn(
        &mut self,
        target: ResolvedTarget,
        begun: Timestamp,
        said: Result<Arc<Holders>, AwsError>,
        confirmed: &BTreeMap<Key, ChangeKind>,
    ) {
        match said {
            Ok(mut holders) => {
                self.failed.remove(&target);
                let first = (target.clone(), PrincipalId::default());
                let here = confirmed.range(first..).take_while(|((t, _), _)| *t == target);
                for ((_, principal), kind) in here {
                    overlay(&mut holders, principal, *kind);
                }
                let before = self.targets.insert(target.clone(), (begun, holders));
                let now = self.targets.get(&target).map(|(_, holders)| holders);
                if before.is_none_or(|(_, before)| now != Some(&before)) {
                    self.changed.insert(target);
                }
            }
            Err(error) => {
                self.targets.remove(&target);
                self.changed.insert(target.clone());
                self.failed.insert(target, (begun, error));
            }
        }
    }

    /// How many of these targets were never looked at, in vain or not.
    #[must_use]
    pub fn never_looked_at(&self, targets: &HashSet<&ResolvedTarget>) -> usize {
        let looked_at =
            |target: &&&ResolvedTarget| self.targets.contains_key(**target) || self.failed.contains_key(**target);
        targets.len() - targets.iter().filter(looked_at).count()
    }

    /// What a target's holders are known by, if they are known.
    #[must_use]
    pub fn look(&self, target: &ResolvedTarget) -> Option<Look> {
        let (read_at, holders) = self.targets.get(target)?;
        Some(Look {
            read_at: *read_at,
            holders: Arc::clone(holders),
        })
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
            overlay(holders, &key.1, kind);
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

/// Takes a change as done.
pub(crate) fn overlay(holders: &mut Arc<Holders>, principal: &PrincipalId, kind: ChangeKind) {
    let holds = holders.users.contains(principal);
    match kind {
        ChangeKind::Grant if !holds => {
            Arc::make_mut(holders).users.insert(principal.clone());
        }
        ChangeKind::Revoke if holds => {
            Arc::make_mut(holders).users.remove(principal);
        }
        ChangeKind::Grant | ChangeKind::Revoke => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::identity_center::{Instance, Operation, Progress, Resolution, UserPin};
    use crate::model::{Person, Target};

    /// What the applier saw decides the next plan; without that a change that does not fit would be planned and left again
    /// and again.
    #[tokio::test]
    async fn what_was_looked_at_beside_the_passes_is_known_unless_a_later_read_knows_better() {
        let target = ResolvedTarget::Group { group_id: "g".into() };
        let other = ResolvedTarget::Group { group_id: "h".into() };
        let ann = PrincipalId("ann".into());
        let held = || {
            Ok(Arc::new(Holders {
                users: BTreeSet::from([ann.clone()]),
                groups: Vec::new(),
            }))
        };
        let t = |second| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second);
        let reader: Arc<dyn Read> = Arc::new(Nobody::default());
        let (wanted, suspects) = (HashSet::from_iter([&target]), BTreeSet::from([target.clone()]));
        let audit = Audit {
            at_most: 40,
            older_than: SignedDuration::from_mins(10),
            of_plans: 40,
            queued: &BTreeSet::new(),
        };
        // When it was looked at, what time it is, and whether that counts against a read at second 100.
        for (looked_at, now, counts) in [(100, 101, true), (99, 101, false), (10, 11, true)] {
            let mut live = LiveCache::default();
            live.refresh(&reader, &wanted, &suspects, &BTreeMap::new(), audit, t(100))
                .await;
            let looks = [&target, &other].map(|target| (target.clone(), t(looked_at), held()));
            live.take_looks(looks.into(), &BTreeMap::new(), t(now));
            let holds = live.of(&target).unwrap().users.contains(&ann);
            assert_eq!(holds, counts, "looked at {looked_at}, now {now}");
            assert!(live.of(&other).is_none(), "nobody wants it");
            let lags = BTreeMap::from([((target.clone(), ann.clone()), ChangeKind::Revoke)]);
            live.take_looks(vec![(target.clone(), t(101), held())], &lags, t(102));
            assert!(
                live.of(&target).unwrap().users.is_empty(),
                "AWS confirmed that it is gone"
            );
        }
    }

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
    /// it again, which took all that AWS allows, for ever. And of a hand-over of thousands each pass read all again, so that
    /// nothing began before minutes had gone by; what waits for its turn is looked at when its turn has come.
    #[tokio::test]
    async fn however_much_is_planned_a_pass_looks_at_few_that_it_knows() {
        let group = |n: usize| ResolvedTarget::Group {
            group_id: format!("g-{n:03}").into(),
        };
        let all: BTreeSet<ResolvedTarget> = (0..100).map(group).collect();
        let wanted: HashSet<&ResolvedTarget> = all.iter().collect();
        let few: BTreeSet<ResolvedTarget> = all.iter().take(95).cloned().collect();
        // After half an hour what guards hold is due for an audit as everything else is.
        for (queued, expected) in [(&BTreeSet::new(), [100, 40, 40, 40, 49]), (&few, [100, 5, 5, 5, 5])] {
            let nobody = Arc::new(Nobody::default());
            let reader: Arc<dyn Read> = nobody.clone();
            let audit = Audit {
                at_most: 9,
                older_than: SignedDuration::from_mins(10),
                of_plans: 40,
                queued,
            };
            let mut live = LiveCache::default();
            let mut asked = Vec::new();
            for minute in [0, 1, 2, 3, 30] {
                let at = Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute);
                live.refresh(&reader, &wanted, &all, &BTreeMap::new(), audit, at).await;
                asked.push(std::mem::take(&mut *nobody.0.lock().unwrap()));
            }
            let counts: Vec<usize> = asked.iter().map(Vec::len).collect();
            assert_eq!(counts, expected);
            // Those that were read longest ago go first, so that all have their turn.
            let again: BTreeSet<_> = asked[1..].iter().flatten().cloned().collect();
            assert_eq!(again, &all - queued);
        }
    }
}
