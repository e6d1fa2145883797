//! Which of several queued changes begin, and which ends call for a pass: the applier alone, against an AWS that answers
//! when the test lets it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dutybound::apply::Applier;
use dutybound::clock::Clock;
use dutybound::config::{Limits, Mode};
use dutybound::desired::{Snapshots, Timeline};
use dutybound::guard::{self, ApprovedPlan, Conditions};
use dutybound::identity_center::{
    AwsError, AwsErrorKind, ChangeKind, Holders, Instance, Operation, Progress, Read, Resolution, Started, UserPin,
    Write,
};
use dutybound::invariant::Ground;
use dutybound::ledger::Ledger;
use dutybound::model::{
    Basis, Cause, EntitlementId, Interval, Origin, Person, PrincipalId, ProjectName, ResolvedTarget, Right, Target,
};
use dutybound::plan::{Change, Foresight, Key, Plan};
use dutybound::policy::{self, PolicyContext};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Semaphore, watch};

/// The time is what the test says; AWS answers once for every permit that the test gives for the name of a user.
pub(crate) struct Fake {
    now: watch::Sender<Timestamp>,
    answers: BTreeMap<String, Semaphore>,
    calls: Mutex<Vec<String>>,
    /// Whether the next sleep panics.
    breaks: AtomicBool,
    /// Whether AWS refuses every change.
    refuses: AtomicBool,
    /// Who holds everything, to whoever looks; without it a look fails.
    pub(crate) holders: Mutex<Option<Holders>>,
    /// Held by a test, it keeps every look waiting.
    pub(crate) gate: tokio::sync::Mutex<()>,
}

impl Fake {
    pub(crate) fn new(now: Timestamp) -> Arc<Self> {
        let users = ["ann", "bob", "cat"];
        Arc::new(Self {
            now: watch::Sender::new(now),
            answers: users.map(|user| (user.to_owned(), Semaphore::new(0))).into(),
            calls: Mutex::default(),
            breaks: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            holders: Mutex::default(),
            gate: tokio::sync::Mutex::default(),
        })
    }

    pub(crate) fn answer(&self, user: &str) {
        self.answers[user].add_permits(1);
    }

    pub(crate) fn advance(&self, span: SignedDuration) {
        self.now.send_modify(|now| *now += span);
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

#[async_trait]
impl Clock for Fake {
    fn now(&self) -> Timestamp {
        *self.now.borrow()
    }

    async fn sleep(&self, duration: Duration) {
        assert!(!self.breaks.swap(false, Ordering::Relaxed), "this clock is broken");
        let until = self.now() + SignedDuration::try_from(duration).unwrap();
        self.now.subscribe().wait_for(|now| until <= *now).await.unwrap();
    }
}

#[async_trait]
impl Read for Fake {
    async fn instance(&self) -> Result<Instance, AwsError> {
        unreachable!("the applier asks who holds something and how operations stand")
    }

    async fn resolve_target(&self, _: &Target) -> Result<ResolvedTarget, AwsError> {
        unreachable!("the applier asks who holds something and how operations stand")
    }

    async fn resolve_person(&self, _: &Person, _: Option<&UserPin>) -> Result<Resolution, AwsError> {
        unreachable!("the applier asks who holds something and how operations stand")
    }

    async fn holders(&self, _: &ResolvedTarget) -> Result<Holders, AwsError> {
        self.calls.lock().unwrap().push("look".to_owned());
        let _open = self.gate.lock().await;
        self.holders.lock().unwrap().clone().ok_or_else(|| AwsError {
            operation: "ListAccountAssignments",
            kind: AwsErrorKind::Throttled,
            message: "not now".to_owned(),
            outcome_unknown: false,
        })
    }

    async fn operation(&self, _: &Operation) -> Result<Progress, AwsError> {
        Ok(Progress::Succeeded)
    }
}

#[async_trait]
impl Write for Fake {
    async fn start(&self, kind: ChangeKind, _: &ResolvedTarget, user: &PrincipalId) -> Result<Started, AwsError> {
        self.calls.lock().unwrap().push(format!("{kind:?} {user}"));
        self.answers[user.0.as_str()].acquire().await.unwrap().forget();
        if self.refuses.load(Ordering::Relaxed) {
            return Err(AwsError {
                operation: "CreateAccountAssignment",
                kind: AwsErrorKind::Rejected,
                message: "no".to_owned(),
                outcome_unknown: false,
            });
        }
        Ok(Started::Done { reference: None })
    }
}

pub(crate) fn t(second: i64) -> Timestamp {
    let base: Timestamp = "2026-03-02T09:00:00Z".parse().unwrap();
    base + SignedDuration::from_secs(second)
}

pub(crate) fn person(name: &str) -> Person {
    Person::parse(&format!("{name}@example.com")).unwrap()
}

fn entitlement(name: &str) -> EntitlementId {
    EntitlementId {
        project: ProjectName("payments".into()),
        name: name.into(),
    }
}

pub(crate) fn turn(name: &str, from: i64, to: i64) -> Cause {
    let held = Interval::new(t(from), t(to)).unwrap();
    Cause {
        right: Right {
            entitlement: entitlement("admin"),
            basis: Basis::Window,
            project: ProjectName("payments".into()),
            rule: Origin {
                file: "access.d/payments.toml".into(),
                line: 1,
            },
            delegation: None,
        }
        .into(),
        person: person(name),
        held,
        duty: held,
        end_known: true,
        member: None,
    }
}

pub(crate) fn change(kind: ChangeKind, entitlement_name: &str, account: &str, name: &str) -> Change {
    Change {
        kind,
        entitlement: entitlement(entitlement_name),
        person: Some(person(name)),
        target: ResolvedTarget::Assignment {
            account: account.into(),
            permission_set_arn: "arn:set".into(),
        },
        principal: PrincipalId(name.into()),
        causes: vec![turn(name, 0, 3600).into()],
        rests_on: BTreeSet::new(),
        due: t(0),
        foresight: Foresight::Predicted,
        context: None,
    }
}

pub(crate) fn approved(changes: Vec<Change>, turns: Vec<Cause>) -> ApprovedPlan {
    approved_on(&Ground::default(), BTreeSet::new(), changes, turns)
}

fn approved_on(ground: &Ground<'_>, in_flight: BTreeSet<Key>, changes: Vec<Change>, turns: Vec<Cause>) -> ApprovedPlan {
    let mut timeline = Timeline {
        causes: turns.into_iter().map(Arc::new).collect(),
        problems: vec![],
    };
    timeline.causes.sort();
    let plan = Plan {
        at: t(0),
        digest: "digest".into(),
        changes: changes.into_iter().map(Arc::new).collect(),
        drift: vec![],
        problems: vec![],
        lost: vec![],
        gone: BTreeSet::new(),
        unchanged: 0,
        kept: vec![],
        lapsing: vec![],
        unread: BTreeMap::new(),
        awaited: BTreeMap::new(),
        in_flight,
    };
    let conditions = Conditions {
        mode: Mode::Sync,
        paused: false,
        floors: &BTreeMap::new(),
        ground,
        limits: &Limits::default(),
        patience: SignedDuration::from_mins(10),
        max_staleness: SignedDuration::from_hours(24),
        max_clock_skew: SignedDuration::from_secs(60),
        timeline: &timeline,
        snapshots: &Snapshots::new(),
        emptied: &BTreeSet::new(),
        unsteady: &BTreeSet::new(),
        clock_skew: None,
        unidentified: &BTreeSet::new(),
        unresolved: &BTreeSet::new(),
        owned: 0,
        approved_digest: None,
        released: &BTreeMap::new(),
    };
    guard::guard(&plan, &conditions).approved
}

pub(crate) async fn applier(fake: &Arc<Fake>, dir: &tempfile::TempDir) -> Arc<Applier> {
    let ledger = Ledger::open(&dir.path().join("ledger.db"), "test", t(0)).await.unwrap();
    let (clock, reader, writer) = (Arc::clone(fake), Arc::clone(fake), Arc::clone(fake));
    let timeout = Duration::from_secs(60);
    Applier::new(clock, reader, writer, ledger, 8, timeout, dir.path().join("pause"))
}

/// Found by simulation: an override of five seconds, and AWS took four to grant it. The revoke that had waited for that
/// grant began when the turn that it was to end had begun again.
#[tokio::test]
async fn a_revoke_that_waited_until_the_next_turn_began_does_not_begin() {
    for (taken, expected) in [
        (4, vec!["Grant bob", "Revoke ann"]),
        (5, vec!["Grant bob"]),
        (6, vec!["Grant bob"]),
    ] {
        let (fake, dir) = (Fake::new(t(0)), tempfile::tempdir().unwrap());
        let applier = applier(&fake, &dir).await;
        let hand_off = vec![
            change(ChangeKind::Grant, "admin", "1", "bob"),
            change(ChangeKind::Revoke, "admin", "1", "ann"),
        ];
        let turns = vec![turn("bob", 0, 60), turn("ann", 5, 3600), turn("ann", 7200, 9000)];
        applier.start(approved(hand_off, turns), "revision", |_| 5, |_| None);
        fake.advance(SignedDuration::from_secs(taken));
        fake.answer("bob");
        fake.answer("ann");
        applier.idle().await;
        assert_eq!(fake.calls(), expected, "the grant took {taken} s");
    }
}

/// The other half of the same: a grant that waited for its account until the turn was over.
#[tokio::test]
async fn a_grant_that_waited_until_its_turn_was_over_does_not_begin() {
    let (fake, dir) = (Fake::new(t(0)), tempfile::tempdir().unwrap());
    let applier = applier(&fake, &dir).await;
    let two_in_one_account = vec![
        change(ChangeKind::Grant, "admin", "1", "ann"),
        change(ChangeKind::Grant, "admin", "1", "bob"),
    ];
    let turns = vec![turn("ann", 0, 3600), turn("bob", 0, 5)];
    applier.start(approved(two_in_one_account, turns), "revision", |_| 5, |_| None);
    fake.advance(SignedDuration::from_secs(5));
    fake.answer("ann");
    fake.answer("bob");
    applier.idle().await;
    assert_eq!(fake.calls(), ["Grant ann"]);
}

/// Found by simulation: a confirmed grant called for no pass, because one had been called for a moment ago and another
/// step was still to end; that step was superseded, which calls for none. The revoke that was held until the grant was
/// confirmed stayed for a whole poll.
#[tokio::test]
async fn a_change_that_ended_before_a_superseded_step_still_gets_its_pass() {
    let (fake, dir) = (Fake::new(t(0)), tempfile::tempdir().unwrap());
    let applier = applier(&fake, &dir).await;
    let steps = vec![
        change(ChangeKind::Grant, "other", "2", "cat"),
        change(ChangeKind::Grant, "admin", "1", "ann"),
        change(ChangeKind::Grant, "admin", "1", "bob"),
    ];
    applier.start(approved(steps, vec![]), "revision", |_| 5, |_| None);
    fake.answer("cat");
    applier.progress().await;
    assert_eq!(
        applier.take_results().len(),
        1,
        "the first end calls for a pass at once"
    );

    // A pause is ordered, and AWS confirms what is under way within the same second.
    std::fs::write(dir.path().join("pause"), "").unwrap();
    fake.answer("ann");
    applier.idle().await;
    let begun: BTreeSet<String> = fake.calls().into_iter().collect();
    assert_eq!(
        begun,
        BTreeSet::from(["Grant ann".to_owned(), "Grant cat".to_owned()]),
        "the third is superseded"
    );

    let mut called = pin!(applier.progress());
    tokio::select! {
        biased;
        () = called.as_mut() => panic!("not at once"),
        () = std::future::ready(()) => {}
    }
    fake.advance(SignedDuration::from_secs(1));
    called.await;
    assert_eq!(applier.take_results().len(), 1);
}

/// Found by review: a grant had failed and come about after all, and its revoke waited until that grant might be tried again,
/// for up to five minutes.
#[tokio::test]
async fn a_revoke_does_not_wait_because_its_grant_has_failed() {
    let (fake, dir) = (Fake::new(t(0)), tempfile::tempdir().unwrap());
    let applier = applier(&fake, &dir).await;
    let one = |kind| approved(vec![change(kind, "admin", "1", "ann")], vec![turn("ann", 0, 3600)]);
    fake.refuses.store(true, Ordering::Relaxed);
    fake.answer("ann");
    applier.start(one(ChangeKind::Grant), "revision", |_| 5, |_| None);
    applier.idle().await;
    assert_eq!(applier.take_results().len(), 1);
    fake.answer("ann");
    applier.start(one(ChangeKind::Grant), "revision", |_| 5, |_| None);
    applier.idle().await;
    assert_eq!(fake.calls(), ["Grant ann"], "it is not tried again at once");

    fake.refuses.store(false, Ordering::Relaxed);
    applier.start(one(ChangeKind::Revoke), "revision", |_| 5, |_| None);
    applier.idle().await;
    assert_eq!(fake.calls(), ["Grant ann", "Revoke ann"]);
}

/// Found by review: between the order and the next pass, queued grants of the person still began and were taken back.
#[tokio::test]
async fn whoever_is_barred_after_the_approval_is_granted_nothing_more() {
    let (fake, dir) = (Fake::new(t(0)), tempfile::tempdir().unwrap());
    let applier = applier(&fake, &dir).await;
    let steps = vec![
        change(ChangeKind::Grant, "admin", "1", "ann"),
        change(ChangeKind::Grant, "admin", "1", "bob"),
        change(ChangeKind::Grant, "admin", "1", "cat"),
    ];
    let turns = vec![turn("ann", 0, 3600), turn("bob", 0, 3600), turn("cat", 0, 3600)];
    applier.start(approved(steps, turns), "revision", |_| 5, |_| None);
    while fake.calls().is_empty() {
        tokio::task::yield_now().await;
    }
    // Another process orders it.
    let beside = Ledger::open_beside(&dir.path().join("ledger.db"), "test")
        .await
        .unwrap();
    let barred = person("bob");
    beside.bar(Some(&barred), "stolen laptop", "olga", t(1)).await.unwrap();
    for user in ["ann", "bob", "cat"] {
        fake.answer(user);
    }
    applier.idle().await;
    assert_eq!(fake.calls(), ["Grant ann", "Grant cat"]);
    let ends = applier.take_results();
    let end = ends
        .iter()
        .find(|applied| applied.change.person.as_ref() == Some(&barred));
    let end = format!("{:?}", end.expect("it ended").end);
    assert!(end.contains("olga") && end.contains("stolen laptop"), "{end}");
}

/// Found by review: had the dispatcher ever broken off, nothing would have begun any more, without a word.
#[tokio::test]
async fn a_dispatcher_that_breaks_off_is_replaced_with_the_next_plan() {
    let (fake, dir) = (Fake::new(t(0)), tempfile::tempdir().unwrap());
    let applier = applier(&fake, &dir).await;
    let revoke = || change(ChangeKind::Revoke, "admin", "1", "ann");
    let hand_off = vec![change(ChangeKind::Grant, "admin", "1", "bob"), revoke()];
    // The dispatcher sleeps until the revoke's patience ends; that is where this clock breaks it off.
    fake.breaks.store(true, Ordering::Relaxed);
    applier.start(
        approved(hand_off, vec![turn("bob", 0, 3600)]),
        "revision",
        |_| 5,
        |_| None,
    );
    while fake.breaks.load(Ordering::Relaxed) {
        tokio::task::yield_now().await;
    }
    fake.answer("bob");
    fake.answer("ann");
    applier.progress().await;
    assert_eq!(fake.calls(), ["Grant bob"], "nobody dispatches");
    let granted = applier.take_results();
    assert_eq!(granted.len(), 1);
    applier.start(approved(vec![revoke()], vec![]), "revision", |_| 5, |_| None);
    applier.progress().await;
    assert_eq!(fake.calls(), ["Grant bob", "Revoke ann"]);
}

/// Found under load: a grant was confirmed while a pass looked, and the plan of that pass asked for it once more.
#[tokio::test]
async fn a_plan_that_is_older_than_the_end_of_a_change_does_not_ask_for_it_again() {
    let (fake, dir) = (Fake::new(t(0)), tempfile::tempdir().unwrap());
    let applier = applier(&fake, &dir).await;
    let grant = || {
        approved(
            vec![change(ChangeKind::Grant, "admin", "1", "ann")],
            vec![turn("ann", 0, 3600)],
        )
    };
    fake.answer("ann");
    applier.start(grant(), "revision", |_| 5, |_| None);
    applier.idle().await;
    applier.start(grant(), "revision", |_| 5, |_| None);
    applier.idle().await;
    assert_eq!(fake.calls(), ["Grant ann"]);
    assert!(applier.is_news(&change(ChangeKind::Grant, "admin", "1", "ann").key()));
    assert_eq!(applier.take_results().len(), 1);
    fake.answer("ann");
    applier.start(grant(), "revision", |_| 5, |_| None);
    applier.idle().await;
    assert_eq!(
        fake.calls(),
        ["Grant ann", "Grant ann"],
        "a pass that has taken the end in decides"
    );
}

/// A pass looked while a grant of the plan before it was still queued, and let another one come first; meanwhile the
/// queued one began. With at most one holder the other must not begin as well.
#[tokio::test]
async fn a_grant_that_took_the_place_of_one_that_has_begun_after_all_does_not_begin() {
    let text = "[project]\nname = \"payments\"\nowners = [\"mira@example.com\"]\n\
                [[entitlement]]\nname = \"admin\"\ngroup = \"admins\"\n\
                [[invariant]]\nname = \"one\"\nstatement = \"One.\"\nmax_holders = 1\n";
    let files = vec![("payments.toml".to_owned(), text.as_bytes().to_vec())];
    let loaded = policy::parse(Path::new("access.d"), files, &PolicyContext::default());
    let policy = loaded.unwrap_or_else(|report| panic!("{}", report.to_text(false))).0;
    let ground = Ground {
        invariants: &policy.invariants,
        ..Ground::default()
    };
    let (ann, bob) = (
        change(ChangeKind::Grant, "admin", "1", "ann"),
        change(ChangeKind::Grant, "admin", "1", "bob"),
    );
    let turns = || vec![turn("ann", 0, 3600), turn("bob", 0, 3600)];
    for ann_began in [false, true] {
        let (fake, dir) = (Fake::new(t(0)), tempfile::tempdir().unwrap());
        let applier = applier(&fake, &dir).await;
        if ann_began {
            applier.start(approved(vec![ann.clone()], turns()), "revision", |_| 5, |_| None);
            fake.answer("ann");
            applier.idle().await;
        }
        let earlier = Change {
            due: t(-60),
            ..bob.clone()
        };
        let plan = approved_on(&ground, BTreeSet::new(), vec![ann.clone(), earlier], turns());
        assert_eq!(plan.steps().len(), 1, "ann is held");
        applier.start(plan, "revision", |_| 5, |_| None);
        fake.answer("bob");
        applier.idle().await;
        assert_eq!(fake.calls(), [if ann_began { "Grant ann" } else { "Grant bob" }]);
    }
}

/// An override was taken back while the revoke that it had caused began: the plan of the pass that saw it taken back
/// counts on access that is going, and revokes the substitute.
#[tokio::test]
async fn a_revoke_does_not_count_on_access_that_is_being_taken_away_unknown_to_its_plan() {
    let revoke = |name| change(ChangeKind::Revoke, "admin", "1", name);
    for known in [false, true] {
        let (fake, dir) = (Fake::new(t(0)), tempfile::tempdir().unwrap());
        let applier = applier(&fake, &dir).await;
        applier.start(approved(vec![revoke("ann")], vec![]), "revision", |_| 5, |_| None);
        while fake.calls().is_empty() {
            tokio::task::yield_now().await;
        }
        let seen = known.then(|| revoke("ann").key()).into_iter().collect();
        let plan = approved_on(&Ground::default(), seen, vec![revoke("bob")], vec![]);
        applier.start(plan, "revision", |_| 5, |_| None);
        fake.answer("ann");
        fake.answer("bob");
        applier.idle().await;
        let begun = if known {
            vec!["Revoke ann", "Revoke bob"]
        } else {
            vec!["Revoke ann"]
        };
        assert_eq!(fake.calls(), begun);
    }
}
