use std::sync::Mutex as Shared;

use async_trait::async_trait;

use super::*;
use crate::model::{Actor, ScheduleChange, ScheduleKind, Shift, Snapshot, SourceUser, SourceUserState};
use crate::schedule::Source;

fn t(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// The time, as the test sets it.
struct Hand(Shared<Timestamp>);

#[async_trait]
impl Clock for Hand {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    async fn sleep(&self, _: Duration) {}
}

type Answer = Result<Option<Vec<ScheduleChange>>, ReadErrorKind>;

/// Answers as it is told, and counts.
struct Provider {
    name: SourceName,
    answer: Shared<Answer>,
    asked: Shared<Vec<Interval>>,
}

#[async_trait]
impl Source for Provider {
    fn name(&self) -> &SourceName {
        &self.name
    }

    async fn read(&self, _: &ScheduleKey, _: Interval) -> Result<Snapshot, ReadError> {
        unreachable!("nobody reads schedules here")
    }

    async fn changes(&self, schedule: &ScheduleKey, span: Interval) -> Result<Option<Vec<ScheduleChange>>, ReadError> {
        self.asked.lock().unwrap().push(span);
        self.answer.lock().unwrap().clone().map_err(|kind| ReadError {
            schedule: schedule.clone(),
            kind,
            message: "it was refused; do something about it".to_owned(),
        })
    }
}

struct World {
    folder: tempfile::TempDir,
    clock: Arc<Hand>,
    provider: Arc<Provider>,
    snapshots: Arc<Mutex<StoredSnapshots>>,
    ledger: Ledger,
}

impl World {
    async fn new(answer: Answer) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("ledger.db"), "test", t(0))
            .await
            .unwrap();
        let world = Self {
            folder,
            clock: Arc::new(Hand(Shared::new(t(0)))),
            provider: Arc::new(Provider {
                name: SourceName("pagerduty".into()),
                answer: Shared::new(answer),
                asked: Shared::default(),
            }),
            snapshots: Arc::default(),
            ledger,
        };
        world.read(100, "PALICE1").await;
        world.read(200, "PBOB002").await;
        world
    }

    fn schedule(&self) -> ScheduleKey {
        ScheduleKey {
            source: self.provider.name.clone(),
            kind: ScheduleKind::Schedule,
            id: "PABC123".into(),
        }
    }

    /// A read that shows this user on call throughout.
    async fn read(&self, at: i64, user: &str) {
        *self.clock.0.lock().unwrap() = t(at);
        let span = Interval::new(t(0), t(100_000)).unwrap();
        let snapshot = Snapshot {
            schedule: self.schedule(),
            read_at: t(at),
            window: span,
            shifts: vec![Shift {
                interval: span,
                start_known: true,
                end_known: true,
                user: SourceUser {
                    id: user.into(),
                    name: None,
                    email: None,
                    state: SourceUserState::Active,
                }
                .into(),
                level: None,
                permanent: false,
                via_override: None,
            }],
            notices: Vec::new(),
            clock_offset_ms: None,
        };
        let mut stored = self.snapshots.lock().await;
        self.ledger.store_snapshot(&mut stored, snapshot, t(at)).await.unwrap();
    }

    fn authors(&self) -> Authors {
        let source: Arc<dyn Source> = Arc::clone(&self.provider) as Arc<dyn Source>;
        let sources = Sources::from([(self.provider.name.clone(), source)]);
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as Arc<dyn Clock>;
        Authors::new(clock, self.ledger.clone(), Arc::clone(&self.snapshots), sources)
    }

    fn at(&self, second: i64) {
        *self.clock.0.lock().unwrap() = t(second);
    }

    fn asked(&self) -> usize {
        self.provider.asked.lock().unwrap().len()
    }

    async fn recorded(&self) -> Vec<Authorship> {
        let schedules = BTreeSet::from([self.schedule()]);
        let found = self.ledger.attributions(&schedules, t(0)).await.unwrap();
        found.into_iter().map(|found| found.author).collect()
    }
}

fn change(record: &str, at: i64, actor: &str) -> ScheduleChange {
    ScheduleChange {
        record: record.to_owned(),
        at: t(at),
        by: vec![Actor {
            id: actor.to_owned(),
            name: Some("Mira Stone".to_owned()),
        }],
        method: "browser".to_owned(),
        key: None,
        action: "update".to_owned(),
        names: Vec::new(),
    }
}

#[tokio::test]
async fn a_record_that_comes_late_is_waited_for_and_then_nothing_is_asked_again() {
    let world = World::new(Ok(Some(Vec::new()))).await;
    let mut authors = world.authors();
    authors.look().await;
    assert_eq!(world.asked(), 1);
    authors.look().await;
    assert_eq!(world.asked(), 1, "not at every look");
    world.at(220);
    authors.look().await;
    assert_eq!(world.asked(), 2);
    let late = vec![change("R1", 150, "PMIRA01")];
    *world.provider.answer.lock().unwrap() = Ok(Some(late.clone()));
    world.at(400);
    authors.look().await;
    let known = Authorship::Changes { latest: late, more: 0 };
    assert_eq!(world.recorded().await, std::slice::from_ref(&known));
    for second in [500, 5000] {
        world.at(second);
        authors.look().await;
    }
    assert_eq!(world.asked(), 3);
    // Neither is it after a restart.
    world.authors().look().await;
    assert_eq!((world.asked(), world.recorded().await), (3, vec![known]));
    // It was asked about the time between the two reads, and half a minute around for the clocks.
    let span = world.provider.asked.lock().unwrap()[0];
    assert_eq!((span.start(), span.end()), (t(70), t(230)));
    drop(world.folder);
}

#[tokio::test]
async fn in_the_end_it_is_on_record_that_nobody_knows() {
    for (answer, why) in [
        (Ok(Some(Vec::new())), "name no change of the schedule"),
        (Err(ReadErrorKind::Server), "could not be read (it was refused)"),
        (Err(ReadErrorKind::Timeout), "could not be read (it was refused)"),
    ] {
        let world = World::new(answer).await;
        let mut authors = world.authors();
        authors.look().await;
        assert_eq!(world.recorded().await, []);
        world.at(200 + 15 * 60);
        authors.look().await;
        let recorded = world.recorded().await;
        assert!(
            matches!(recorded.as_slice(), [Authorship::Unknown(said)] if said.contains(why)),
            "{recorded:?}"
        );
        let asked = world.asked();
        world.at(100_000);
        authors.look().await;
        assert_eq!(world.asked(), asked);
    }
}

#[tokio::test]
async fn a_refusal_is_remembered_until_the_next_start() {
    let world = World::new(Err(ReadErrorKind::Forbidden)).await;
    let mut authors = world.authors();
    authors.look().await;
    world.read(300, "PALICE1").await;
    authors.look().await;
    assert_eq!(world.asked(), 1);
    assert_eq!(world.recorded().await.len(), 2, "each says why nobody knows");
    world.read(400, "PBOB002").await;
    world.authors().look().await;
    assert_eq!(world.asked(), 2);
}

#[tokio::test]
async fn a_provider_that_tells_nobody_is_not_on_record() {
    let world = World::new(Ok(None)).await;
    let mut authors = world.authors();
    authors.look().await;
    authors.look().await;
    assert_eq!((world.asked(), world.recorded().await), (1, Vec::new()));
}

#[test]
fn several_changes_are_all_named() {
    let world = |latest: Vec<ScheduleChange>, more| Attribution {
        sighting: Sighting {
            schedule: ScheduleKey {
                source: SourceName("pagerduty".into()),
                kind: ScheduleKind::Schedule,
                id: "PABC123".into(),
            },
            unseen_at: t(100),
            seen_at: t(200),
            turns: vec![crate::model::NewTurn {
                user_id: "PBOB002".into(),
                duty: Interval::new(t(50), t(500)).unwrap(),
                via_override: None,
            }],
        },
        author: Authorship::Changes { latest, more },
    };
    let duty = Interval::new(t(0), t(1000)).unwrap();
    let two = world(vec![change("R2", 180, "PBOB002"), change("R1", 150, "PMIRA01")], 3);
    assert_eq!(
        of_turn(&[&two], "PBOB002", duty, Some("override")),
        [
            "the schedule was changed by Mira Stone (PBOB002, for themselves) at 1970-01-01T00:03:00Z, by Mira Stone \
          (PMIRA01) at 1970-01-01T00:02:30Z, and 3 times more, the changes between the reads of 1970-01-01T00:01:40Z \
          and 1970-01-01T00:03:20Z (PagerDuty audit records R2, R1)"
        ]
    );
    assert_eq!(of_turn(&[&two], "PALICE1", duty, None), [""; 0]);
    let later = Interval::new(t(500), t(1000)).unwrap();
    assert_eq!(of_turn(&[&two], "PBOB002", later, None), [""; 0], "another duty");
}
