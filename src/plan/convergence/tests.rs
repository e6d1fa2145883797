use std::collections::BTreeSet;

use super::*;
use crate::model::{Basis, Cause, EntitlementId, Interval, Origin, Person, PrincipalId, ProjectName, Right};
use crate::plan::Foresight;

fn t(second: i64) -> Timestamp {
    let base: Timestamp = "2026-03-02T09:00:00Z".parse().unwrap();
    base + SignedDuration::from_secs(second)
}

fn change(kind: ChangeKind, account: Option<usize>, begins: i64) -> Change {
    let person = Person::parse("ann@example.com").unwrap();
    let entitlement = EntitlementId {
        project: ProjectName("payments".into()),
        name: "admin".into(),
    };
    let duty = Interval::new(t(begins), t(begins + 3600)).unwrap();
    Change {
        kind,
        entitlement: entitlement.clone(),
        person: Some(person.clone()),
        target: match account {
            Some(account) => ResolvedTarget::Assignment {
                account: format!("{account:012}").into(),
                permission_set_arn: "arn:set".into(),
            },
            None => ResolvedTarget::Group { group_id: "g".into() },
        },
        principal: PrincipalId("u".into()),
        causes: vec![
            Cause {
                right: Right {
                    entitlement,
                    basis: Basis::Window,
                    project: ProjectName("payments".into()),
                    rule: Origin {
                        file: "access.d/payments.toml".into(),
                        line: 1,
                    },
                    delegation: None,
                }
                .into(),
                person,
                held: duty,
                duty,
                end_known: true,
                member: None,
            }
            .into(),
        ],
        rests_on: BTreeSet::new(),
        due: t(0),
        foresight: Foresight::Predicted,
        context: None,
    }
}

fn of(changes: &[Change], operation: Option<i64>) -> Convergence {
    let speed = Speed {
        operation: operation.map(SignedDuration::from_secs),
        at_once: 10,
        requests_per_second: 20,
    };
    Convergence::of(changes, speed, t(0))
}

#[test]
fn places_accounts_and_requests_each_bound_the_time() {
    let grants = |accounts: usize, each: usize| -> Vec<Change> {
        (0..accounts * each)
            .map(|n| change(ChangeKind::Grant, Some(n % accounts), 0))
            .collect()
    };
    let spread = of(&grants(100, 1), Some(30));
    assert_eq!((spread.operations, spread.longest_account), (100, 1));
    assert_eq!((spread.at_least_seconds, spread.about_seconds), (300.0, 315.0));
    let one_account = of(&grants(1, 20), Some(30));
    assert_eq!(one_account.at_least_seconds, 600.0, "one at a time");
    let quick = of(&grants(1000, 1), Some(0));
    assert_eq!(quick.at_least_seconds, 100.0, "two requests each, twenty a second");
    let rounded = of(&grants(11, 1), Some(30));
    assert_eq!(rounded.at_least_seconds, 60.0, "the eleventh waits for a place");
}

#[test]
fn memberships_cost_requests_only() {
    let mut changes: Vec<Change> = (0..60).map(|_| change(ChangeKind::Grant, None, 0)).collect();
    changes.extend((0..60).map(|_| change(ChangeKind::Revoke, None, 0)));
    let all = of(&changes, Some(30));
    assert_eq!((all.operations, all.memberships), (0, 120));
    assert_eq!((all.at_least_seconds, all.about_seconds), (9.0, 9.0));
    assert_eq!(of(&[], None).about(), SignedDuration::ZERO);
}

#[test]
fn while_nothing_was_seen_the_figures_of_aws_stand_in() {
    let changes: Vec<Change> = (0..40).map(|n| change(ChangeKind::Grant, Some(n), 0)).collect();
    let all = of(&changes, None);
    assert_eq!((all.about_seconds, all.at_least_seconds), (120.0, 12.0));
    assert_eq!(
        all.line(),
        "AWS takes about 2m for the changes, and no less than 12s: 40 account assignments (none was seen yet), at most 1 \
         in one account, 0 group memberships."
    );
    assert_eq!(of(&changes[..1], None).line(), "AWS takes about 3s for the changes.");
}

#[test]
fn the_lead_is_what_is_left_until_the_first_duty_begins() {
    let ahead = |begins| change(ChangeKind::Grant, Some(1), begins);
    assert_eq!(of(&[ahead(600), ahead(300)], None).lead_seconds, Some(300.0));
    assert_eq!(of(&[ahead(600), ahead(-5)], None).lead_seconds, Some(0.0));
    assert_eq!(
        of(&[change(ChangeKind::Revoke, Some(1), -9000)], None).lead_seconds,
        None
    );
}
