//! Keeps the live state between complete reads and reads it anew where it matters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;

use crate::identity_center::{AwsError, ChangeKind, Holders, Read};
use crate::model::ResolvedTarget;
use crate::plan::Key;

/// How long after AWS confirmed a change a read that does not show it is taken to be AWS's lag and not somebody's edit.
pub const CONSISTENCY_GRACE: SignedDuration = SignedDuration::from_secs(60);

/// The live state of managed targets, each with the instant of its last complete read.
#[derive(Debug, Default)]
pub struct LiveCache {
    targets: BTreeMap<ResolvedTarget, (Timestamp, Holders)>,
}

impl LiveCache {
    /// Reads every target of `wanted` that is older than `max_age` or in `suspects`, drops those not wanted any more, and
    /// returns the errors by target. A target that could not be read is not in [`Self::holders`] until it can.
    pub async fn refresh(
        &mut self,
        reader: &Arc<dyn Read>,
        wanted: &BTreeSet<ResolvedTarget>,
        suspects: &BTreeSet<ResolvedTarget>,
        at: Timestamp,
        max_age: SignedDuration,
    ) -> BTreeMap<ResolvedTarget, AwsError> {
        self.targets.retain(|target, _| wanted.contains(target));
        let due = |target: &&ResolvedTarget| {
            suspects.contains(target)
                || self
                    .targets
                    .get(target)
                    .is_none_or(|(read_at, _)| max_age <= read_at.duration_until(at))
        };
        let mut reads = JoinSet::new();
        for target in wanted.iter().filter(due).cloned() {
            let reader = Arc::clone(reader);
            reads.spawn(async move {
                let holders = reader.holders(&target).await;
                (target, holders)
            });
        }
        let mut errors = BTreeMap::new();
        while let Some(read) = reads.join_next().await {
            match read {
                Ok((target, Ok(holders))) => {
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

    /// The live state, with what AWS confirmed lately taken as done.
    #[must_use]
    pub fn holders(&self, confirmed: &BTreeMap<Key, ChangeKind>) -> BTreeMap<ResolvedTarget, Holders> {
        let mut live: BTreeMap<_, _> = self
            .targets
            .iter()
            .map(|(target, (_, holders))| (target.clone(), holders.clone()))
            .collect();
        for ((target, principal), kind) in confirmed {
            if let Some(holders) = live.get_mut(target) {
                match kind {
                    ChangeKind::Grant => {
                        holders.users.entry(principal.clone()).or_default();
                    }
                    ChangeKind::Revoke => {
                        holders.users.remove(principal);
                    }
                }
            }
        }
        live
    }

    /// Takes a confirmed change into the kept state, so that it outlives the grace without another read.
    pub fn note(&mut self, key: &Key, kind: ChangeKind) {
        if let Some((_, holders)) = self.targets.get_mut(&key.0) {
            match kind {
                ChangeKind::Grant => {
                    holders.users.entry(key.1.clone()).or_default();
                }
                ChangeKind::Revoke => {
                    holders.users.remove(&key.1);
                }
            }
        }
    }
}
