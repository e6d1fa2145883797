//! Changes that were tried and are not in force, in words: those that AWS still works on, and those that failed. Pure.

use jiff::{SignedDuration, Timestamp};

use crate::apply::kind_word;
use crate::identity_center::ChangeKind;
use crate::ledger::{FailedTry, LastTry, OpenIntent};
use crate::model::{EntitlementId, Person, ResolvedTarget};
use crate::plan::{Change, Key, PlannedSince};
use crate::problem::{Problem, ProblemKind};
use crate::text::instant;

/// A change that is later than this is said to be overdue: AWS takes seconds as a rule.
const OVERDUE: SignedDuration = SignedDuration::from_secs(60);

/// What failed longer ago than this was not tried again all the time since, so that it says nothing of the present try.
const TRIED_AGAIN_WITHIN: SignedDuration = SignedDuration::from_hours(1);

/// A change of which it is not known how it ended.
#[derive(Debug, Clone)]
pub struct Unsettled {
    /// The record of it.
    pub intent: OpenIntent,
    /// Why AWS could not say how it stands, if it was asked in vain.
    pub unanswered: Option<String>,
}

impl From<OpenIntent> for Unsettled {
    fn from(intent: OpenIntent) -> Self {
        Self {
            intent,
            unanswered: None,
        }
    }
}

/// What is to be said of changes that AWS has not ended. `wanted` tells whether a person should hold an entitlement now.
pub fn unsettled<'a>(
    changes: impl IntoIterator<Item = &'a Unsettled>,
    wanted: impl Fn(&EntitlementId, &Person) -> bool,
    at: Timestamp,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for Unsettled { intent, unanswered } in changes {
        let change = &intent.change;
        problems.push(about(
            change,
            ProblemKind::ChangeUnsettled,
            words(intent, unanswered.as_deref()),
        ));
        if is_called_for(change, &wanted) {
            problems.extend(overdue(change, Some(intent.created_at), at));
        }
    }
    problems
}

/// Who waits for changes that are being carried out at this moment, again and again where AWS fails them.
pub fn late_at_work(
    changes: &[OpenIntent],
    planned_since: &PlannedSince,
    wanted: impl Fn(&EntitlementId, &Person) -> bool,
    at: Timestamp,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for OpenIntent { change, created_at, .. } in changes {
        let since = planned_since.of(&change.key(), change.kind).unwrap_or(*created_at);
        if is_called_for(change, &wanted) {
            problems.extend(overdue(change, Some(since), at));
        }
    }
    problems
}

/// Nobody waits for a change that duty no longer calls for.
fn is_called_for(change: &Change, wanted: impl Fn(&EntitlementId, &Person) -> bool) -> bool {
    let person = change.person.as_ref();
    person.is_none_or(|person| wanted(&change.entitlement, person) == (change.kind == ChangeKind::Grant))
}

fn words(intent: &OpenIntent, unanswered: Option<&str>) -> String {
    let change = &intent.change;
    let (word, who, began) = (kind_word(change.kind), change.who(), instant(intent.created_at));
    let what = format!("the {word} of {} for {who}", change.entitlement);
    let access = match change.kind {
        ChangeKind::Grant => format!("{who} has no access through dutybound yet"),
        ChangeKind::Revoke => format!("the access of {who} may still stand"),
    };
    let mut text = match (&intent.reference, &change.target) {
        (Some(request), ResolvedTarget::Assignment { .. }) => {
            let of = match change.kind {
                ChangeKind::Grant => "creation",
                ChangeKind::Revoke => "deletion",
            };
            format!(
                "AWS has been working on {what} since {began} (request id {request}); {access}; dutybound asks again at \
                 every pass and asks for nothing else until AWS has ended it; look at it with \
                 `aws sso-admin describe-account-assignment-{of}-status`, and if it stays so, give AWS support the request id"
            )
        }
        _ => {
            let access = match change.kind {
                ChangeKind::Grant => format!("it is not known whether {who} has access"),
                ChangeKind::Revoke => access,
            };
            format!(
                "{what} was asked of AWS at {began} and no answer is on record yet, so {access}; the next pass looks at \
                 what AWS has and goes on from there"
            )
        }
    };
    if let Some(why) = unanswered {
        text.push_str(&format!("; AWS could not be asked how it stands: {why}"));
    }
    let is_recent = |before: &&LastTry| before.at.duration_until(intent.created_at) <= TRIED_AGAIN_WITHIN;
    let before = intent.before.as_ref().filter(is_recent);
    if let Some(before) = before.filter(|before| is_of_this_turn(change, before)) {
        text.push_str(&format!(
            "; the try before it, at {}: {}",
            instant(before.at),
            before.why
        ));
    }
    text
}

/// A grant that failed for an earlier turn says nothing of this one; a revoke stays to be done.
#[must_use]
pub fn is_of_this_turn(change: &Change, last: &LastTry) -> bool {
    change.kind == ChangeKind::Revoke || change.due <= last.at
}

/// What is to be said of a change that was tried and is not in force.
#[must_use]
pub fn failed(change: &Change, last: &LastTry) -> Problem {
    let message = format!(
        "the {} of {} for {} is not in force; the last try, at {}: {}",
        kind_word(change.kind),
        change.entitlement,
        change.who(),
        instant(last.at),
        last.why
    );
    about(change, ProblemKind::ChangeFailed, message)
}

/// Said when a change should have been in force a while ago. One that is seen for the first time is being carried out
/// now; late is what has been planned, tried or held `since` a while.
#[must_use]
pub fn overdue(change: &Change, since: Option<Timestamp>, at: Timestamp) -> Option<Problem> {
    let stands_out = since.is_some_and(|since| OVERDUE < since.duration_until(at));
    if !stands_out || change.due == Timestamp::MIN || change.due.duration_until(at) <= OVERDUE {
        return None;
    }
    let (who, entitlement, due) = (change.who(), &change.entitlement, instant(change.due));
    Some(match change.kind {
        ChangeKind::Grant => about(
            change,
            ProblemKind::GrantOverdue,
            format!("{who} has waited for {entitlement} since {due}"),
        ),
        ChangeKind::Revoke => about(
            change,
            ProblemKind::RevokeOverdue,
            format!("{who} still holds {entitlement} although it was due to end at {due}"),
        ),
    })
}

/// A problem of that kind with this change.
#[must_use]
pub fn about(change: &Change, kind: ProblemKind, message: String) -> Problem {
    Problem {
        entitlement: Some(change.entitlement.clone()),
        person: change.person.clone(),
        rule: change.causes.first().map(|c| c.right.rule.clone()),
        ..Problem::new(kind, message)
    }
}

/// What the record alone knows to be not in force at `at`: everything open, and of what failed that which duty and
/// the record still call for. `standing` tells whether access of ours stands.
pub fn from_record(
    open: &[Unsettled],
    tries: &[FailedTry],
    wanted: impl Fn(&EntitlementId, &Person) -> bool,
    standing: impl Fn(&Key) -> bool,
    at: Timestamp,
) -> Vec<Problem> {
    let mut problems = unsettled(open, &wanted, at);
    for FailedTry { change, last } in tries {
        let wanted = change.person.as_ref().is_some_and(|p| wanted(&change.entitlement, p));
        let called_for = match change.kind {
            ChangeKind::Grant => {
                // A turn that is over is not what this one waits for.
                let lasts = change.causes.iter().any(|cause| cause.held.contains(at));
                wanted && lasts && !standing(&change.key())
            }
            ChangeKind::Revoke => !wanted && standing(&change.key()),
        };
        if called_for {
            problems.push(failed(change, last));
            problems.extend(overdue(change, Some(last.at), at));
        }
    }
    problems.sort();
    problems
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ledger::LastTry;
    use crate::model::{Basis, Cause, Interval, Origin, PrincipalId, Right};
    use crate::plan::Foresight;

    const NOW: i64 = 10_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn change(kind: ChangeKind) -> Change {
        let (entitlement, person) = (
            EntitlementId::try_from("payments/admin".to_owned()).unwrap(),
            Person::parse("alice@example.com").unwrap(),
        );
        let turn = Interval::new(at(NOW - 300), at(NOW + 300)).unwrap();
        let cause = Cause {
            right: Right {
                entitlement: entitlement.clone(),
                basis: Basis::Membership,
                project: entitlement.project.clone(),
                rule: Origin {
                    file: "access.d/payments.toml".into(),
                    line: 1,
                },
                delegation: None,
            }
            .into(),
            person: person.clone(),
            held: turn,
            duty: turn,
            end_known: true,
            member: None,
        };
        Change {
            kind,
            entitlement,
            person: Some(person),
            target: ResolvedTarget::Assignment {
                account: "111122223333".into(),
                permission_set_arn: "arn".into(),
            },
            principal: PrincipalId("u-alice".into()),
            causes: vec![cause.into()],
            rests_on: BTreeSet::new(),
            due: at(NOW - 300),
            foresight: Foresight::Predicted,
            context: None,
        }
    }

    fn open(kind: ChangeKind, began: i64, unanswered: Option<&str>) -> Unsettled {
        Unsettled {
            intent: OpenIntent {
                id: 1,
                change: change(kind),
                created_at: at(began),
                reference: Some("r-1".to_owned()),
                before: None,
            },
            unanswered: unanswered.map(str::to_owned),
        }
    }

    fn kinds(problems: &[Problem]) -> Vec<ProblemKind> {
        problems.iter().map(|p| p.kind).collect()
    }

    #[test]
    fn whoever_waits_for_an_operation_that_does_not_end_is_counted_as_waiting() {
        let stuck = [open(ChangeKind::Grant, NOW - 200, None)];
        let problems = unsettled(&stuck, |_, _| true, at(NOW));
        assert_eq!(
            kinds(&problems),
            [ProblemKind::ChangeUnsettled, ProblemKind::GrantOverdue]
        );
        assert_eq!(
            problems[1].message,
            "alice@example.com has waited for payments/admin since 1970-01-01T02:41:40Z"
        );
        // Her duty is over: nobody waits, and the operation is still told of.
        let problems = unsettled(&stuck, |_, _| false, at(NOW));
        assert_eq!(kinds(&problems), [ProblemKind::ChangeUnsettled]);
        // AWS failed it before, and it is being tried once more.
        let again = open(ChangeKind::Grant, NOW - 5, None).intent;
        let late = |since| {
            let mut planned_since = PlannedSince::default();
            planned_since.keep([&again.change], &Default::default(), at(since));
            kinds(&late_at_work(
                std::slice::from_ref(&again),
                &planned_since,
                |_, _| true,
                at(NOW),
            ))
        };
        assert_eq!(late(NOW - 200), [ProblemKind::GrantOverdue]);
        assert_eq!(late(NOW - 5), []);
        // It was begun a moment ago.
        let fresh = [open(ChangeKind::Grant, NOW - 5, None)];
        assert_eq!(
            kinds(&unsettled(&fresh, |_, _| true, at(NOW))),
            [ProblemKind::ChangeUnsettled]
        );
    }

    #[test]
    fn a_revoke_that_does_not_end_says_that_access_may_stand() {
        let stuck = [open(ChangeKind::Revoke, NOW - 200, Some("no route to AWS"))];
        let problems = unsettled(&stuck, |_, _| false, at(NOW));
        assert_eq!(
            kinds(&problems),
            [ProblemKind::ChangeUnsettled, ProblemKind::RevokeOverdue]
        );
        for words in [
            "request id r-1",
            "may still stand",
            "deletion-status",
            "asked how it stands: no route to AWS",
        ] {
            assert!(problems[0].message.contains(words), "{words}: {}", problems[0].message);
        }
    }

    #[test]
    fn what_is_tried_again_says_how_the_try_before_it_ended() {
        let told = |kind, ended: i64| {
            let mut again = open(kind, NOW - 5, None);
            again.intent.change.due = at(NOW - 100);
            again.intent.before = Some(LastTry {
                at: at(ended),
                why: "access denied".to_owned(),
            });
            unsettled(&[again], |_, _| true, at(NOW)).remove(0).message
        };
        let of_this_turn = told(ChangeKind::Grant, NOW - 60);
        let words = "; the try before it, at 1970-01-01T02:45:40Z: access denied";
        assert!(of_this_turn.ends_with(words), "{of_this_turn}");
        let of_another_turn = told(ChangeKind::Grant, NOW - 200);
        assert!(!of_another_turn.contains("access denied"), "{of_another_turn}");
        let to_be_done = told(ChangeKind::Revoke, NOW - 200);
        assert!(to_be_done.ends_with("access denied"), "{to_be_done}");
        let of_long_ago = told(ChangeKind::Revoke, NOW - 3700);
        assert!(!of_long_ago.contains("access denied"), "{of_long_ago}");
    }

    #[test]
    fn what_failed_counts_for_as_long_as_somebody_wants_it() {
        let told_at = |kind, wanted: bool, standing: bool, now: i64| {
            let tries = [FailedTry {
                change: change(kind),
                last: LastTry {
                    at: at(NOW - 5),
                    why: "access denied".to_owned(),
                },
            }];
            let problems = from_record(&[], &tries, |_, _| wanted, |_| standing, at(now));
            kinds(&problems).contains(&ProblemKind::ChangeFailed)
        };
        let told = |kind, wanted, standing| told_at(kind, wanted, standing, NOW);
        assert!(told(ChangeKind::Grant, true, false));
        assert!(!told(ChangeKind::Grant, false, false), "the duty is over");
        assert!(
            !told_at(ChangeKind::Grant, true, false, NOW + 3600),
            "another turn calls for it"
        );
        assert!(!told(ChangeKind::Grant, true, true), "it came about after all");
        assert!(told(ChangeKind::Revoke, false, true));
        assert!(!told(ChangeKind::Revoke, true, true), "a new duty calls for it");
        assert!(!told(ChangeKind::Revoke, false, false), "it is gone");
        assert!(
            told_at(ChangeKind::Revoke, false, true, NOW + 3600),
            "access that stands stays a failure"
        );
    }
}
