//! What is told, when, and how often: looks one after the other, with what the one before left behind.

use std::collections::BTreeSet;

use secrecy::SecretString;

use super::*;
use crate::config::notify::{Api, Destination};
use crate::forecast::GapKind;
use crate::guard::Guard;
use crate::identity_center::ChangeKind;
use crate::ledger::HeldSummary;
use crate::model::{
    Basis, Cause, EntitlementId, Interval, Origin, Person, PrincipalId, ResolvedTarget, Right, ScheduleKey,
    ScheduleKind, SourceName,
};
use crate::plan::{Change, Foresight};
use crate::problem::{Problem, ProblemKind};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// Looks at a world, remembering as the queue's file does.
struct Looks {
    known: Known,
    routes: Routes,
    pace: Pace,
    next_event: i64,
}

impl Looks {
    fn new(tells: &[Kind]) -> Self {
        let api = Api::SlackWebhook {
            url: SecretString::from("https://hooks.example.com/x"),
        };
        let destination = Destination {
            api,
            tells: tells.iter().copied().collect(),
            projects: None,
            zone: None,
        };
        Self {
            known: Known::default(),
            routes: Routes::new([("d".to_owned(), destination)].into()),
            pace: Pace {
                digest: SignedDuration::from_secs(60),
                health_after: SignedDuration::from_secs(120),
                windows: false,
                max_age: SignedDuration::from_hours(24),
            },
            next_event: 0,
        }
    }

    /// One look; what it tells, and when it wants to look again.
    fn look(&mut self, world: &World, now: Timestamp) -> (Vec<Message>, Option<Timestamp>) {
        let policy = Policy {
            commit: None,
            invariants: Vec::new(),
            revision: "r".into(),
            projects: BTreeMap::new(),
        };
        let board = Board {
            problems: world.problems.clone(),
            ..Board::default()
        };
        let seen = Seen {
            policy: &policy,
            done: &world.done,
            record: (!world.blind).then_some((world.holds.as_slice(), &board)),
            gaps: world.gaps.as_deref(),
            beat: &world.beat,
            unreadable: world.blind.then_some("cannot be read"),
        };
        let (batch, again) = look(&seen, &self.known, &self.routes, &self.pace, now);
        self.known.conditions.extend(batch.conditions);
        self.known.conditions.retain(|subject, _| !batch.over.contains(subject));
        self.known.events.retain(|event| !batch.told_events.contains(&event.id));
        for (audience, at, access) in batch.events {
            self.next_event += 1;
            self.known.events.push(Event {
                id: self.next_event,
                audience,
                at,
                access,
            });
        }
        (
            batch.messages.into_iter().map(|(_, _, message)| message).collect(),
            again,
        )
    }
}

#[derive(Default)]
struct World {
    done: Vec<EndedChange>,
    holds: Vec<HoldRow>,
    problems: Vec<Problem>,
    gaps: Option<Vec<Gap>>,
    beat: Beat,
    blind: bool,
}

fn entitlement(name: &str) -> EntitlementId {
    EntitlementId {
        project: ProjectName("payments".into()),
        name: name.into(),
    }
}

fn done(id: i64, kind: ChangeKind, person: &str, name: &str, basis: Basis, when: Timestamp) -> EndedChange {
    let person = Person::parse(person).unwrap();
    let held = Interval::new(at(-3600), at(36_000)).unwrap();
    let cause = Cause {
        right: Right {
            entitlement: entitlement(name),
            basis,
            project: ProjectName("payments".into()),
            rule: Origin {
                file: "access.d/p.toml".into(),
                line: 7,
            },
            delegation: None,
        }
        .into(),
        person: person.clone(),
        held,
        duty: held,
        end_known: true,
        member: None,
    };
    let change = Change {
        kind,
        entitlement: entitlement(name),
        person: Some(person),
        target: ResolvedTarget::Group { group_id: "g".into() },
        principal: PrincipalId("u".into()),
        causes: vec![cause.into()],
        rests_on: BTreeSet::new(),
        due: when,
        foresight: Foresight::Predicted,
        context: None,
    };
    EndedChange { id, at: when, change }
}

fn on_call() -> Basis {
    Basis::OnCall {
        schedule: schedule(),
        user_id: "P1".into(),
        level: None,
        via_override: None,
    }
}

fn schedule() -> ScheduleKey {
    ScheduleKey {
        source: SourceName("pagerduty".into()),
        kind: ScheduleKind::Schedule,
        id: "PABC123".into(),
    }
}

#[test]
fn a_hand_over_is_one_message_for_the_project_and_one_for_each_person() {
    let mut looks = Looks::new(&[Kind::Grant, Kind::Handoff]);
    let (alice, bob) = ("alice@example.com", "bob@example.com");
    let first = World {
        done: vec![
            done(1, ChangeKind::Grant, bob, "admin", on_call(), at(0)),
            done(2, ChangeKind::Grant, bob, "readers", on_call(), at(1)),
        ],
        ..World::default()
    };
    assert!(looks.look(&first, at(1)).0.is_empty());
    let second = World {
        done: vec![done(3, ChangeKind::Revoke, alice, "admin", on_call(), at(2))],
        ..World::default()
    };
    assert!(looks.look(&second, at(2)).0.is_empty());
    let (told, again) = looks.look(&World::default(), at(4));
    assert_eq!(
        told.iter().map(|m| m.kind).collect::<Vec<_>>(),
        [Kind::Grant],
        "one, for both"
    );
    assert_eq!(told[0].person.as_ref().unwrap().as_str(), bob);
    assert!(matches!(&told[0].content, Content::Access(access) if access.len() == 2));
    assert_eq!(again, Some(at(60)), "the digest is due");
    assert!(looks.look(&World::default(), at(59)).0.is_empty());
    let (told, again) = looks.look(&World::default(), at(60));
    assert_eq!(told.iter().map(|m| m.kind).collect::<Vec<_>>(), [Kind::Handoff]);
    assert!(matches!(&told[0].content, Content::Access(access) if access.len() == 3));
    assert_eq!(again, None);
    assert!(looks.look(&World::default(), at(61)).0.is_empty());
}

#[test]
fn windows_are_told_only_where_asked_for_and_old_news_never() {
    let window = || World {
        done: vec![done(1, ChangeKind::Grant, "a@b", "admin", Basis::Window, at(0))],
        ..World::default()
    };
    let mut looks = Looks::new(&[Kind::Grant]);
    looks.look(&window(), at(0));
    assert!(looks.known.events.is_empty());
    looks.pace.windows = true;
    looks.look(&window(), at(86_401));
    assert!(looks.known.events.is_empty(), "a day old");
    looks.look(&window(), at(0));
    assert_eq!(looks.known.events.len(), 1);
}

#[test]
fn trouble_is_told_once_it_lasts_and_once_it_is_over() {
    let mut looks = Looks::new(&[Kind::Health]);
    let failing = |id: &str| {
        let mut problem = Problem::new(ProblemKind::ScheduleFailing, format!("{id} cannot be read"));
        problem.schedule = Some(ScheduleKey {
            id: id.into(),
            ..schedule()
        });
        problem
    };
    let world = World {
        problems: vec![failing("P1")],
        ..World::default()
    };
    let (told, again) = looks.look(&world, at(0));
    assert!(told.is_empty() && again == Some(at(120)));
    assert!(
        looks.look(&World::default(), at(60)).0.is_empty(),
        "it passed by itself, and nobody was told"
    );
    looks.look(&world, at(100));
    let world = World {
        problems: vec![failing("P1"), failing("P2")],
        ..World::default()
    };
    let (told, _) = looks.look(&world, at(220));
    assert!(
        matches!(&told[..], [m] if matches!(&m.content, Content::Matters { begun, .. } if begun.len() == 2)),
        "{told:?}"
    );
    assert!(looks.look(&world, at(500)).0.is_empty(), "once");
    let blind = World {
        blind: true,
        ..World::default()
    };
    let (told, _) = looks.look(&blind, at(600));
    assert!(told.is_empty(), "what cannot be seen is not over: {told:?}");
    let (told, _) = looks.look(&blind, at(720));
    let Content::Matters { begun, over } = &told[0].content else {
        panic!("{told:?}")
    };
    assert_eq!((begun.len(), over.len()), (1, 0), "the ledger itself");
    let (told, _) = looks.look(&World::default(), at(800));
    let Content::Matters { begun, over } = &told[0].content else {
        panic!("{told:?}")
    };
    assert_eq!((begun.len(), over.len()), (0, 3), "both schedules and the ledger");
    assert!(looks.look(&World::default(), at(801)).0.is_empty());
}

#[test]
fn a_hold_is_told_once_and_once_when_released_and_a_hand_off_in_progress_never() {
    let mut looks = Looks::new(&[Kind::Held]);
    let hold = |guard: Guard| HoldRow {
        since: at(0),
        held: HeldSummary {
            kind: ChangeKind::Revoke,
            entitlement: entitlement("admin"),
            who: "alice@example.com".into(),
            guard,
            reason: "5 of 5".into(),
            release: "approval".into(),
        },
    };
    let ordinary = World {
        holds: vec![hold(Guard::MakeBeforeBreak), hold(Guard::Mode), hold(Guard::Pause)],
        ..World::default()
    };
    assert!(looks.look(&ordinary, at(0)).0.is_empty());
    let held = World {
        holds: vec![hold(Guard::Limit)],
        ..World::default()
    };
    let (told, _) = looks.look(&held, at(1));
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].project, Some(ProjectName("payments".into())));
    assert!(looks.look(&held, at(2)).0.is_empty());
    let (told, _) = looks.look(&World::default(), at(3));
    assert!(matches!(&told[0].content, Content::Matters { begun, over } if begun.is_empty() && over.len() == 1));
    assert_eq!(told[0].project, Some(ProjectName("payments".into())));
    assert!(looks.look(&World::default(), at(4)).0.is_empty());
}

#[test]
fn a_gap_is_told_once_the_next_one_again_and_one_that_stays_once_a_week() {
    let mut looks = Looks::new(&[Kind::Gap]);
    let gap = |start: i64, end: i64, more: usize| World {
        gaps: Some(vec![Gap {
            kind: GapKind::NobodyOnCall,
            during: Interval::new(at(start), at(end)).unwrap(),
            more,
            entitlements: [entitlement("admin")].into(),
            schedule: Some(schedule()),
            person: None,
            message: "nobody is on call".into(),
        }]),
        ..World::default()
    };
    assert_eq!(looks.look(&gap(3600, 7200, 0), at(0)).0.len(), 1);
    assert!(
        looks.look(&World::default(), at(10)).0.is_empty(),
        "not looked for this time"
    );
    assert!(looks.look(&gap(3600, 7200, 0), at(900)).0.is_empty());
    assert!(looks.look(&gap(4000, 7200, 0), at(4000)).0.is_empty(), "it has begun");
    assert_eq!(
        looks.look(&gap(90_000, 93_600, 0), at(5000)).0.len(),
        1,
        "the one after it is another one"
    );
    assert!(
        looks
            .look(
                &World {
                    gaps: Some(Vec::new()),
                    ..World::default()
                },
                at(5001)
            )
            .0
            .is_empty(),
        "closed"
    );
    assert_eq!(looks.look(&gap(90_000, 93_600, 5), at(6000)).0.len(), 1);
    assert!(
        looks.look(&gap(200_000, 203_600, 5), at(100_000)).0.is_empty(),
        "it was told that it recurs"
    );
    assert_eq!(
        looks.look(&gap(700_000, 703_600, 5), at(6000 + 7 * 86_400)).0.len(),
        1,
        "a week later"
    );
}

#[test]
fn the_same_thing_has_the_same_key() {
    let world = World {
        beat: Beat {
            policy_refused: Some("line 3".into()),
            ..Beat::default()
        },
        ..World::default()
    };
    let keys = |at_once: bool| {
        let mut looks = Looks::new(&[Kind::Health]);
        looks.look(&world, at(0));
        let (told, _) = looks.look(&world, at(if at_once { 120 } else { 300 }));
        told.into_iter().map(|m| m.key).collect::<Vec<_>>()
    };
    assert_eq!(keys(true), keys(false));
    assert_eq!(keys(true).len(), 1);
}
