//! A large organisation in which everything is in force already: in the simulated AWS and on record.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use dutybound::desired::{Desired, Timeline};
use dutybound::identity_center::ChangeKind;
use dutybound::ledger::{Ledger, StoredSnapshots};
use dutybound::model::{GroupRef, Interval, PermissionSetRef, ResolvedTarget, Target};
use dutybound::plan::{Change, Foresight};
use dutybound::policy::Policy;
use dutybound_sandbox::World;
use dutybound_sandbox::organisation::Organisation;
use jiff::{SignedDuration, Timestamp};

use crate::rig;

/// Who should hold what at `now`, where the turns change at `hand_over`.
fn desired(policy: &Policy, organisation: &Organisation, hand_over: Timestamp, now: Timestamp) -> Desired {
    let snapshots = rig::snapshots_around(organisation, hand_over, now).into_iter();
    let snapshots = snapshots.map(|snapshot| (snapshot.schedule.clone(), Arc::new(snapshot)));
    let around = Interval::new(now, now + SignedDuration::from_secs(1)).unwrap();
    Timeline::build(policy, &snapshots.collect(), &[], around).at(now)
}

/// Grants in the world what everybody should hold at `now`, and gives these grants.
pub(crate) fn put(world: &mut World, organisation: &Organisation, hand_over: Timestamp, now: Timestamp) -> Vec<Change> {
    let policy = rig::parse(rig::files(organisation));
    let aws = &mut world.aws;
    let users = aws.users.iter().map(|user| (user.user_name.clone(), user.id.clone()));
    let users: BTreeMap<String, String> = users.collect();
    let mut grants = Vec::new();
    for (entitlement, holders) in desired(&policy, organisation, hand_over, now).entitlements() {
        let target = match &policy.entitlement(entitlement).unwrap().target {
            Target::Assignment {
                account,
                permission_set: PermissionSetRef::Name(name),
            } => ResolvedTarget::Assignment {
                account: account.clone().into(),
                permission_set_arn: aws.permission_set_arn(name).unwrap().into(),
            },
            Target::Group(GroupRef::Name(name)) => ResolvedTarget::Group {
                group_id: aws.group_id(name).unwrap().into(),
            },
            other => panic!("{other:?} is not generated"),
        };
        for (person, causes) in holders {
            let user = &users[person.as_str()];
            match &target {
                ResolvedTarget::Assignment {
                    account,
                    permission_set_arn,
                } => aws.assign(account, permission_set_arn, user),
                ResolvedTarget::Group { group_id } => drop(aws.add_member(group_id, user)),
            }
            grants.push(Change {
                kind: ChangeKind::Grant,
                entitlement: entitlement.clone(),
                person: Some(person.clone()),
                target: target.clone(),
                principal: dutybound::model::PrincipalId(user.into()),
                causes: causes.to_vec(),
                rests_on: BTreeSet::new(),
                due: now,
                foresight: Foresight::Predicted,
                context: None,
            });
        }
    }
    grants
}

/// Writes a ledger that has these grants and what was read of the schedules.
pub(crate) async fn record(
    path: &Path,
    organisation: &Organisation,
    hand_over: Timestamp,
    grants: &[Change],
    now: Timestamp,
) {
    let ledger = Ledger::open(path, "test", now).await.unwrap();
    let mut stored = StoredSnapshots::default();
    for snapshot in rig::snapshots_around(organisation, hand_over, now) {
        ledger.store_snapshot(&mut stored, snapshot, now).await.unwrap();
    }
    ledger.take_over(grants, "the bench", "bench", now).await.unwrap();
    ledger.close().await;
}
