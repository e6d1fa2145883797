//! Keeps the live state between complete reads and reads it anew where it matters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;

use crate::identity_center::{AwsError, ChangeKind, Holders, Read};
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
}

/// How many targets that nothing is planned for are read in one pass, so that a look for drift never keeps a hand-off
/// waiting for long.
pub const AUDIT: usize = 40;

/// The live state of managed targets, each with the instant of its last complete read.
#[derive(Debug, Default)]
pub struct LiveCache {
    targets: BTreeMap<ResolvedTarget, (Timestamp, Holders)>,
}

impl LiveCache {
    /// Reads every target in `suspects` and the oldest others of `wanted` that the audit calls for, drops
    /// those not wanted any more, and returns the errors by target. A target that could not be read is not in
    /// [`Self::holders`] until it can. What AWS `confirmed` lately is taken as done, whatever a lagging read says.
    pub async fn refresh(
        &mut self,
        reader: &Arc<dyn Read>,
        wanted: &BTreeSet<ResolvedTarget>,
        suspects: &BTreeSet<ResolvedTarget>,
        confirmed: &BTreeMap<Key, ChangeKind>,
        audit: Audit,
        at: Timestamp,
    ) -> BTreeMap<ResolvedTarget, AwsError> {
        self.targets.retain(|target, _| wanted.contains(target));
        let read_at = |target: &&ResolvedTarget| self.targets.get(*target).map(|(read_at, _)| *read_at);
        let is_old =
            |target: &&ResolvedTarget| read_at(target).is_none_or(|t| audit.older_than <= t.duration_until(at));
        let mut oldest: Vec<_> = wanted
            .iter()
            .filter(|t| !suspects.contains(*t))
            .filter(is_old)
            .collect();
        oldest.sort_by_key(|target| read_at(target));
        oldest.truncate(audit.at_most);
        let due: Vec<_> = wanted.intersection(suspects).chain(oldest).cloned().collect();
        let mut reads = JoinSet::new();
        for target in due {
            let reader = Arc::clone(reader);
            reads.spawn(async move {
                let holders = reader.holders(&target).await;
                (target, holders)
            });
        }
        let mut errors = BTreeMap::new();
        while let Some(read) = reads.join_next().await {
            match read {
                Ok((target, Ok(mut holders))) => {
                    for ((_, principal), kind) in confirmed.iter().filter(|((t, _), _)| *t == target) {
                        overlay(&mut holders, principal, *kind);
                    }
                    self.targets.insert(target, (at, holders));
                }
                Ok((target, Err(error))) => {
                    self.targets.remove(&target);
                    errors.insert(target, error);
                }
                // A reader that panicked leaves its target as it was, and old targets are read again in the next pass.
                Err(error) => tracing::error!(%error, "a read of the live state broke off"),
            }
        }
        errors
    }

    /// The live state by target.
    #[must_use]
    pub fn holders(&self) -> BTreeMap<ResolvedTarget, Holders> {
        self.targets
            .iter()
            .map(|(target, (_, holders))| (target.clone(), holders.clone()))
            .collect()
    }

    /// Takes in a change that AWS confirmed.
    pub fn note(&mut self, key: &Key, kind: ChangeKind) {
        if let Some((_, holders)) = self.targets.get_mut(&key.0) {
            overlay(holders, &key.1, kind);
        }
    }
}

fn overlay(holders: &mut Holders, principal: &PrincipalId, kind: ChangeKind) {
    match kind {
        ChangeKind::Grant => {
            holders.users.entry(principal.clone()).or_default();
        }
        ChangeKind::Revoke => {
            holders.users.remove(principal);
        }
    }
}
