use std::collections::BTreeSet;

use jiff::SignedDuration;

use super::*;
use crate::model::{Basis, Cause, EntitlementId, Interval, Origin, Person, PrincipalId, ProjectName, Right};
use crate::plan::Foresight;

fn t(second: i64) -> Timestamp {
    let base: Timestamp = "2026-03-02T09:00:00Z".parse().unwrap();
    base + SignedDuration::from_secs(second)
}

/// A step as `kind name account begins`: the duty of the person begins so many seconds after `t(0)`.
fn step(kind: ChangeKind, name: &str, account: &str, begins: i64) -> Step {
    let person = Person::parse(&format!("{name}@example.com")).unwrap();
    let entitlement = EntitlementId {
        project: ProjectName("payments".into()),
        name: account.into(),
    };
    let duty = Interval::new(t(begins), t(begins + 3600)).unwrap();
    let cause = Cause {
        right: Right {
            entitlement: entitlement.clone(),
            basis: Basis::Window,
            project: ProjectName("payments".into()),
            rule: Origin {
                file: "access.d/payments.toml".into(),
                line: 1,
            },
            delegation: None,
        }
        .into(),
        person: person.clone(),
        held: duty.widen(SignedDuration::from_mins(10), SignedDuration::ZERO),
        duty,
        end_known: true,
        member: None,
    };
    let target = if account == "group" {
        ResolvedTarget::Group {
            group_id: account.into(),
        }
    } else {
        ResolvedTarget::Assignment {
            account: account.into(),
            permission_set_arn: "arn:set".into(),
        }
    };
    Step {
        change: Arc::new(Change {
            kind,
            entitlement,
            person: Some(person),
            target,
            principal: PrincipalId(name.into()),
            causes: vec![cause.into()],
            rests_on: BTreeSet::new(),
            due: t(0),
            foresight: Foresight::Predicted,
            context: None,
        }),
        waits_for: Vec::new(),
        patience_ends: t(600),
        lapses_at: Timestamp::MAX,
    }
}

fn grant(name: &str, account: &str) -> Step {
    step(ChangeKind::Grant, name, account, 0)
}

fn revoke(name: &str, account: &str) -> Step {
    step(ChangeKind::Revoke, name, account, -7200)
}

fn ahead(name: &str, account: &str) -> Step {
    step(ChangeKind::Grant, name, account, 300)
}

fn queue(steps: Vec<Step>) -> Queue {
    let mut queue = Queue::default();
    let priority = |step: &Step| if step.change.entitlement.name == "urgent" { 1 } else { 5 };
    queue.replace(steps, "revision", priority, |_| None, t(0));
    queue
}

/// Everything in the order in which it would begin if every place were free at every turn.
fn order(queue: &mut Queue) -> Vec<String> {
    let next = |queue: &mut Queue| queue.next_assignment(|_| true);
    std::iter::from_fn(|| next(queue))
        .map(|q| q.step.change.principal.0.to_string())
        .collect()
}

#[test]
fn what_matters_comes_first() {
    let mut ordered = revoke("ordered", "4");
    Arc::make_mut(&mut ordered.change).foresight = Foresight::Ordered("left".into());
    let steps = vec![
        ahead("ahead", "1"),
        ahead("ahead-urgent", "urgent"),
        revoke("over", "2"),
        grant("begun", "3"),
        ordered,
        grant("begun-urgent", "urgent"),
    ];
    assert_eq!(
        order(&mut queue(steps)),
        ["ordered", "begun-urgent", "begun", "over", "ahead-urgent", "ahead"]
    );
}

#[test]
fn the_account_with_the_longest_queue_goes_first_and_a_busy_one_keeps_nobody_waiting() {
    let mut queue = queue(vec![
        grant("a1", "1"),
        grant("b1", "2"),
        grant("b2", "2"),
        revoke("b3", "2"),
        grant("c1", "3"),
        grant("c2", "3"),
    ]);
    assert_eq!(queue.next_assignment(|_| true).unwrap().step.change.principal.0, "b1");
    let but_2 = |lane: &Lane| *lane != Lane::Account("2".into());
    assert_eq!(queue.next_assignment(but_2).unwrap().step.change.principal.0, "c1");
    // Now 1, 2 and 3 have one, two and one left.
    assert_eq!(order(&mut queue), ["b2", "a1", "c2", "b3"]);
}

#[test]
fn an_earlier_boundary_goes_first_within_an_account_and_repeated_steps_keep_their_turn() {
    let mut late = grant("late", "1");
    Arc::make_mut(&mut late.change).due = t(-60);
    let mut queue = queue(vec![grant("first", "1"), grant("second", "1")]);
    let again = vec![grant("new", "1"), grant("second", "1"), late];
    let dropped = queue.replace(again, "revision", |_| 5, |_| None, t(1));
    assert_eq!(dropped.len(), 1, "the newer plan does not want the first any more");
    assert_eq!(order(&mut queue), ["late", "second", "new"]);
}

#[test]
fn a_revoke_waits_for_its_grants_and_its_patience_ends() {
    let wait = |name: &str, patience: i64| Step {
        waits_for: vec![grant("bob", "1").change.key(), grant("cat", "1").change.key()],
        patience_ends: t(patience),
        ..revoke(name, "1")
    };
    let mut queue = queue(vec![
        grant("bob", "1"),
        grant("cat", "1"),
        wait("ann", 600),
        wait("dan", 5),
        wait("eve", 900),
    ]);
    assert_eq!(queue.patience_ends(), Some(t(5)));
    assert_eq!(
        order(&mut queue),
        ["bob", "cat"],
        "the grants begin, the revokes do not"
    );
    assert!(
        queue
            .grant_ended(&grant("bob", "1").change.key(), true, t(1))
            .is_empty()
    );
    queue.end_patience(t(5));
    assert_eq!(order(&mut queue), ["dan"]);
    let stay = queue.grant_ended(&grant("cat", "1").change.key(), false, t(700));
    assert_eq!(
        stay.iter().map(|s| s.change.principal.0.as_str()).collect::<Vec<_>>(),
        ["eve"],
        "the patience of the other is over"
    );
    assert_eq!(order(&mut queue), ["ann"]);
    assert_eq!((queue.len(), queue.patience_ends()), (0, None));
}

#[test]
fn memberships_have_a_lane_of_their_own() {
    let mut queue = queue(vec![grant("ann", "1"), revoke("bob", "group"), grant("cat", "group")]);
    assert_eq!(queue.next_membership().unwrap().step.change.principal.0, "cat");
    assert_eq!(queue.next_membership().unwrap().step.change.principal.0, "bob");
    assert!(queue.next_membership().is_none());
    assert!(queue.is_contended());
    assert_eq!(order(&mut queue), ["ann"]);
    assert!(queue.is_empty() && !queue.is_contended());
}

/// Found by a reviewer: longest first alone let one hand-off wait until twenty accounts with a hundred grants each were as
/// short as its own.
#[test]
fn one_hand_off_does_not_wait_for_hundreds_in_other_accounts() {
    let steps = (0..20).flat_map(|account| (0..100).map(move |n| (account, n)));
    let many = steps.map(|(account, n)| grant(&format!("many-{account}-{n}"), &format!("{account:012}")));
    let mut queue = self::queue(many.chain([grant("single", "999999999999")]).collect());
    let position = order(&mut queue).iter().position(|who| who == "single");
    assert!(position.is_some_and(|position| position < 17), "{position:?}");
}
