//! Finds out what a restored ledger lacks where its redo log is lost too: what we granted while nothing was on record,
//! by the schedules of that time and the policy in force now, and what of the grants on record is gone.
//!
//! A grant that stands, that duty in that time earned and that the copy did not list as somebody else's is taken for
//! ours: left standing it would stay for ever. That somebody else granted the same to the same person in the same hours
//! cannot be told apart, so its end counts as a surprise, which the limits hold in number, unless duty earns it still.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;

use crate::config::Config;
use crate::desired::{Snapshots, Timeline};
use crate::identity_center::{ChangeKind, Holders, Read, Resolution};
use crate::ledger::{Adopted, Gone, Ledger, LedgerError, Outstanding, Restoration, StoredSnapshots};
use crate::live::SILENCE;
use crate::model::{Basis, Cause, EntitlementId, Interval, Person, PrincipalId, ResolvedTarget, ScheduleKey};
use crate::plan::{self, Change, Foresight, Key, Owned};
use crate::policy::Policy;
use crate::problem::{Problem, ProblemKind};
use crate::survey::{KnownPeople, resolve_people, resolve_targets};
use crate::text::instant;

/// For how long a restoration is shown as a problem once everything about it is settled.
const SHOWN: SignedDuration = SignedDuration::from_hours(24);

/// Everything that is needed to find out.
pub struct Finder<'a> {
    /// The live state.
    pub reader: &'a Arc<dyn Read>,
    /// The record.
    pub ledger: &'a Ledger,
    /// What schedules were read to hold.
    pub stored: &'a StoredSnapshots,
    /// Who people are.
    pub config: &'a Config,
    /// The policy in force.
    pub policy: &'a Policy,
    /// The time.
    pub now: Timestamp,
}

impl Finder<'_> {
    /// Goes on finding out, as far as schedules have been read by now, and says how it stands. Does nothing to AWS.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn find_out(&self) -> Result<Vec<Problem>, LedgerError> {
        let mut restorations = self.ledger.restorations().await?;
        if let Some(open) = restorations.iter().find(|r| r.outstanding.is_some()) {
            self.round(open).await?;
            restorations = self.ledger.restorations().await?;
        }
        let recent = |r: &&Restoration| r.outstanding.is_some() || r.found_at.duration_until(self.now) < SHOWN;
        Ok(restorations.iter().filter(recent).map(problem).collect())
    }

    async fn round(&self, open: &Restoration) -> Result<(), LedgerError> {
        let mut outstanding = open.outstanding.clone().unwrap_or_default();
        let first = !outstanding.begun;
        let schedules = self.policy.schedules();
        if first {
            outstanding.schedules = schedules;
        } else {
            outstanding.schedules.retain(|key| schedules.contains(key));
        }
        let since = open
            .lost_from
            .max(self.ledger.reads_back_to().unwrap_or(Timestamp::MIN));
        let mut read = self.stored.newest(&outstanding.schedules);
        read.retain(|_, snapshot| open.found_at <= snapshot.read_at && snapshot.window.start() <= since);
        if !first && read.is_empty() && !outstanding.schedules.is_empty() {
            return Ok(());
        }
        let owned = self.ledger.owned().await?;
        let handled = self.ledger.changed_after(open.last_intent).await?;
        let mut unknown = false;
        let gone = if first {
            self.gone(open, &owned, &handled, &mut unknown).await?
        } else {
            Vec::new()
        };
        let causes = self.causes(open, since, &read, first);
        let adopted = self.ours(open, causes, &owned, &handled, &mut unknown).await;
        if !unknown {
            outstanding.begun = true;
            outstanding.schedules.retain(|key| !read.contains_key(key));
        }
        for gone in &gone {
            tracing::warn!(target = %gone.key.0, principal = %gone.key.1, ended = %gone.ended, "access on record is gone; it ended while nothing was recorded");
        }
        for adopted in &adopted {
            tracing::warn!(
                entitlement = %adopted.change.entitlement, principal = %adopted.change.principal, began = %adopted.began,
                "access that is not on record stands, and is ours by the schedule"
            );
        }
        let open_still = !outstanding.begun || !outstanding.schedules.is_empty();
        let outstanding = open_still.then_some(&outstanding);
        if outstanding == open.outstanding.as_ref() && gone.is_empty() && adopted.is_empty() {
            return Ok(());
        }
        self.ledger
            .settle_restoration(open, &gone, &adopted, outstanding, &self.policy.revision, self.now)
            .await
    }

    /// Grants of the copy that AWS no longer shows. They end with their cause where that ended in that time; otherwise
    /// the last moment at which they are known to have stood is all that can be told.
    async fn gone(
        &self,
        open: &Restoration,
        owned: &BTreeMap<Key, Owned>,
        handled: &BTreeSet<Key>,
        unknown: &mut bool,
    ) -> Result<Vec<Gone>, LedgerError> {
        let granting = self.ledger.granting_intents().await?;
        let old = owned.iter().filter_map(|(key, owned)| {
            let grant = granting.get(&owned.access_id).copied()?;
            (grant <= open.last_intent && !handled.contains(key)).then_some((key, owned, grant))
        });
        let old: Vec<_> = old.collect();
        let live = self
            .live(old.iter().map(|(key, ..)| key.0.clone()).collect(), unknown)
            .await;
        let mut gone = Vec::new();
        for (key, owned, grant) in old {
            if live.get(&key.0).is_none_or(|holders| holders.users.contains(&key.1)) {
                continue;
            }
            let end = owned.causes.iter().map(|cause| cause.held.end()).max();
            let end = end.filter(|end| *end <= open.lost_to);
            gone.push(Gone {
                key: key.clone(),
                grant,
                ended: end.unwrap_or(open.lost_from).max(open.lost_from),
                reason: format!(
                    "gone when the ledger was restored; {}",
                    if end.is_some() {
                        "its end, not on record, is taken to be that of its cause"
                    } else {
                        "its end is not on record, and this is when it was last known to stand"
                    }
                ),
            });
        }
        Ok(gone)
    }

    /// What duty earned in that time: by the schedules that have been read for it, and once by everything else.
    fn causes(&self, open: &Restoration, since: Timestamp, read: &Snapshots, first: bool) -> Vec<Arc<Cause>> {
        // What was asked of AWS last was caused in the same instant.
        let until = open.lost_to.max(since).saturating_add(SignedDuration::from_secs(1));
        let Some(range) = until.ok().and_then(|until| Interval::new(since, until)) else {
            return Vec::new();
        };
        let mut causes = Timeline::build(self.policy, read, &self.config.identities, range).causes;
        causes.retain(|cause| first || matches!(cause.right.basis, Basis::OnCall { .. }));
        causes
    }

    /// Of what duty earned, what stands and is not on record.
    async fn ours(
        &self,
        open: &Restoration,
        causes: Vec<Arc<Cause>>,
        owned: &BTreeMap<Key, Owned>,
        handled: &BTreeSet<Key>,
        unknown: &mut bool,
    ) -> Vec<Adopted> {
        let targets =
            plan::refuse_shared_targets(resolve_targets(self.reader, self.policy, |_| true, Some(SILENCE)).await);
        let people = causes.iter().map(|cause| cause.person.clone()).collect();
        let people = resolve_people(self.reader, self.config, people, &KnownPeople::new(), Some(SILENCE)).await;
        let mut earned: BTreeMap<Key, (EntitlementId, Person, Vec<Arc<Cause>>)> = BTreeMap::new();
        for cause in causes {
            let principal = match people.get(&cause.person) {
                Some(Ok(Resolution::Found(id) | Resolution::Disabled(id))) => id.clone(),
                Some(Ok(Resolution::Unknown | Resolution::Ambiguous(_))) => continue,
                Some(Err(_)) | None => {
                    *unknown = true;
                    continue;
                }
            };
            let Some(Ok(target)) = targets.get(&cause.right.entitlement) else {
                *unknown = true;
                continue;
            };
            let key = (target.clone(), principal);
            let strangers = open.drift.iter().any(|drift| {
                drift.entitlement == cause.right.entitlement
                    && (drift.holder == cause.person.as_str() || drift.holder == key.1.0)
            });
            if strangers || owned.contains_key(&key) || handled.contains(&key) {
                continue;
            }
            let entry = earned.entry(key);
            let entry = entry.or_insert_with(|| (cause.right.entitlement.clone(), cause.person.clone(), Vec::new()));
            entry.2.push(cause);
        }
        let live = self
            .live(earned.keys().map(|key| key.0.clone()).collect(), unknown)
            .await;
        let stands = |key: &Key| live.get(&key.0).is_some_and(|holders| holders.users.contains(&key.1));
        let standing = earned.into_iter().filter(|(key, _)| stands(key));
        standing
            .map(|(key, (entitlement, person, causes))| self.adopt(open, key, entitlement, person, causes))
            .collect()
    }

    fn adopt(
        &self,
        open: &Restoration,
        (target, principal): (ResolvedTarget, PrincipalId),
        entitlement: EntitlementId,
        person: Person,
        causes: Vec<Arc<Cause>>,
    ) -> Adopted {
        let causes = last_stretch(causes, self.now);
        let start = causes.iter().map(|cause| cause.held.start()).min().unwrap_or(self.now);
        Adopted {
            began: start.max(open.lost_from).min(self.now),
            certain: causes.iter().any(|cause| cause.held.contains(self.now)),
            change: Change {
                kind: ChangeKind::Grant,
                context: self
                    .policy
                    .projects
                    .get(&entitlement.project)
                    .and_then(|p| p.context.clone()),
                entitlement,
                person: Some(person),
                target,
                principal,
                causes,
                rests_on: BTreeSet::new(),
                due: start,
                foresight: Foresight::Surprising("it stood when the ledger was restored".to_owned()),
            },
        }
    }

    async fn live(&self, targets: BTreeSet<ResolvedTarget>, unknown: &mut bool) -> BTreeMap<ResolvedTarget, Holders> {
        let mut reads = JoinSet::new();
        for target in targets {
            let reader = Arc::clone(self.reader);
            reads.spawn(async move {
                let holders = reader.holders(&target).await;
                (target, holders)
            });
        }
        let mut live = BTreeMap::new();
        while let Some(read) = reads.join_next().await {
            match read {
                Ok((target, Ok(holders))) => {
                    live.insert(target, holders);
                }
                Ok((_, Err(_))) | Err(_) => *unknown = true,
            }
        }
        live
    }
}

/// The causes of the last stretch without a gap that has begun by `now`.
fn last_stretch(mut causes: Vec<Arc<Cause>>, now: Timestamp) -> Vec<Arc<Cause>> {
    causes.retain(|cause| cause.held.start() <= now);
    causes.sort_by_key(|cause| cause.held.start());
    let mut stretch: Vec<Arc<Cause>> = Vec::new();
    for cause in causes {
        if stretch.iter().all(|earlier| earlier.held.end() < cause.held.start()) {
            stretch.clear();
        }
        stretch.push(cause);
    }
    stretch
}

/// What is said about a restoration.
#[must_use]
pub fn problem(restoration: &Restoration) -> Problem {
    let r = restoration;
    let (from, to) = (instant(r.lost_from), instant(r.lost_to));
    let message = match (r.replayed, &r.outstanding) {
        (Some(changes), _) => format!(
            "{} and was brought up to date at {}: {changes} changes from {from} to {to} came from its redo log",
            r.why,
            instant(r.found_at)
        ),
        (None, outstanding) => format!(
            "{}, found at {}: the record from {from} to {to} is lost. {} grants that were not on record are ours by the schedule, \
             {} on record are gone{}. What is not known to be ours is listed as not ours and stays; orders given with `dutybound revoke` \
             in that time have to be given again",
            r.why,
            instant(r.found_at),
            r.found,
            r.gone,
            outstanding.as_ref().map_or_else(String::new, still_open)
        ),
    };
    Problem::new(ProblemKind::LedgerRestored, message)
}

fn still_open(outstanding: &Outstanding) -> String {
    if !outstanding.begun {
        return "; AWS has not answered everything about it yet".to_owned();
    }
    let schedules: Vec<_> = outstanding.schedules.iter().map(ScheduleKey::to_string).collect();
    format!("; still to be read for that time: {}", schedules.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Origin, Right};

    #[test]
    fn access_is_taken_to_begin_with_the_stretch_of_duty_that_led_to_it() {
        let t = |hour: i64| Timestamp::from_second(hour * 3600).unwrap();
        let cause = |start, end| {
            Arc::new(Cause {
                right: Right {
                    entitlement: EntitlementId::try_from("payments/prod-admin".to_owned()).unwrap(),
                    basis: Basis::Membership,
                    project: crate::model::ProjectName("payments".into()),
                    rule: Origin {
                        file: "access.d/payments.toml".into(),
                        line: 1,
                    },
                    delegation: None,
                }
                .into(),
                person: Person::parse("alice@example.com").unwrap(),
                held: Interval::new(t(start), t(end)).unwrap(),
                duty: Interval::new(t(start), t(end)).unwrap(),
                end_known: true,
                member: None,
            })
        };
        let all = vec![cause(20, 30), cause(1, 2), cause(5, 9), cause(4, 5), cause(6, 7)];
        let stretch = last_stretch(all.clone(), t(12));
        assert_eq!(stretch, [cause(4, 5), cause(5, 9), cause(6, 7)]);
        assert_eq!(last_stretch(all, t(25)), [cause(20, 30)]);
    }
}
