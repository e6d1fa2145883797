use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::accounting::account;
use crate::accounting::fixtures::{cause, id, on_call, on_call_rule, person, policy, schedule, snapshots, span, t};
use crate::clock::SystemClock;
use crate::config::Limits;
use crate::desired::{Desired, Snapshots, Timeline};
use crate::guard::{Conditions, Verdict, guard};
use crate::identity_center::{AwsError, AwsErrorKind, Instance};
use crate::ledger::{Opened, Outcome};
use crate::model::{Cause, Interval, PrincipalId, ResolvedTarget};
use crate::plan::convergence::Speed;
use crate::plan::{Change, Drift, Kept, Plan};
use crate::problem::Problem;
use crate::schedule::{ReadError, ReadErrorKind};
use crate::stream::{Figures, FiguresCollector};
use crate::survey::Survey;

mod lacking;

fn metrics() -> Metrics {
    Metrics::new(&ApiCalls::new().unwrap(), "1.2.3", Mode::Sync).unwrap()
}

async fn ledger(dir: &TempDir) -> Ledger {
    Ledger::open(&dir.path().join("ledger.sqlite"), "test", t(0))
        .await
        .unwrap()
}

fn change(kind: ChangeKind, entitlement: &str, who: &str, causes: Vec<Cause>, due: Timestamp) -> Change {
    Change {
        rests_on: BTreeSet::new(),
        kind,
        entitlement: id(entitlement),
        person: Some(person(who)),
        target: ResolvedTarget::Group {
            group_id: format!("g-{entitlement}").into(),
        },
        principal: PrincipalId(who.into()),
        causes: causes.into_iter().map(Into::into).collect(),
        due,
        foresight: Foresight::Predicted,
        context: None,
    }
}

async fn ask(ledger: &Ledger, change: &Change, at: Timestamp) -> i64 {
    match ledger.open_intent(change, "r", at).await.unwrap() {
        Opened::Intent(intent) => intent,
        Opened::Barred(bar) => panic!("{bar:?}"),
    }
}

async fn carry_out(ledger: &Ledger, change: &Change, at: Timestamp) {
    let intent = ask(ledger, change, at).await;
    let done = ledger.complete(intent, change, Outcome::Succeeded, None, at, at);
    done.await.unwrap();
}

fn shift(start: i64, end: i64) -> Cause {
    cause(on_call(), span(start - 10, end), span(start, end), 0, None).cause
}

async fn grant(ledger: &Ledger, entitlement: &str, who: &str, causes: Vec<Cause>, at: i64) {
    carry_out(
        ledger,
        &change(ChangeKind::Grant, entitlement, who, causes, t(at)),
        t(at),
    )
    .await;
}

async fn revoke(ledger: &Ledger, entitlement: &str, who: &str, at: i64) {
    carry_out(
        ledger,
        &change(ChangeKind::Revoke, entitlement, who, Vec::new(), t(at)),
        t(at),
    )
    .await;
}

fn samples(text: &str) -> HashMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a sample has a value");
            (name, value.parse().expect("a value is a number"))
        })
        .collect()
}

fn pass(problems: Vec<Problem>, drift: Vec<Drift>, ended: Vec<Applied>) -> Pass {
    let plan = Plan {
        at: t(0),
        digest: String::new(),
        changes: Vec::new(),
        drift,
        problems: Vec::new(),
        lost: Vec::new(),
        gone: BTreeSet::new(),
        unchanged: 0,
        kept: Vec::new(),
        lapsing: Vec::new(),
        unread: BTreeMap::new(),
        awaited: BTreeMap::new(),
        in_flight: BTreeSet::new(),
    };
    let verdict = ask_guards(&plan, Mode::Sync);
    Pass {
        survey: Survey {
            at: t(0),
            instance: Instance {
                arn: String::new(),
                identity_store_id: String::new(),
                owner_account_id: String::new(),
            },
            timeline: Timeline {
                causes: vec![shift(500, 900).into()],
                ..Timeline::default()
            },
            desired: Desired::default(),
            plan,
            verdict,
            problems,
            unheld: Vec::new(),
            next_boundary: Some(t(490)),
            unresolved: 0,
            never_looked_at: 0,
        },
        ended,
        open_intents: 2,
    }
}

fn applied(change: Change, end: End, at: i64) -> Applied {
    Applied {
        change: change.into(),
        at: t(at),
        end,
    }
}

/// A page with every family on it.
async fn full_page(dir: &TempDir) -> String {
    let calls = ApiCalls::new().unwrap();
    calls.record("ssoadmin", "ListInstances", crate::telemetry::CallOutcome::Ok);
    let metrics = Metrics::new(&calls, "1.2.3", Mode::Sync).unwrap();
    let figures = Arc::new(Figures::new(Arc::new(SystemClock)).unwrap());
    figures.begin("siem", 0);
    figures.head(1, t(0));
    metrics
        .add([Box::new(FiguresCollector(figures)) as Box<dyn prometheus::core::Collector>])
        .unwrap();
    let ledger = ledger(dir).await;
    let policy = policy(vec![on_call_rule(true, None, 9)]);
    let mut assigned = change(
        ChangeKind::Grant,
        "payments/admin",
        "alice@example.com",
        vec![shift(0, 900)],
        t(0),
    );
    assigned.target = ResolvedTarget::Assignment {
        account: "111122223333".into(),
        permission_set_arn: "arn:ps".into(),
    };
    carry_out(&ledger, &assigned, t(0)).await;
    let sessions = BTreeMap::from([("arn:ps".to_owned(), SignedDuration::from_hours(1))]);
    ledger.note_sessions(&sessions, t(0)).await.unwrap();
    ledger.set_holds(&held_grant(), t(-60)).await.unwrap();
    let ended = vec![applied(
        change(
            ChangeKind::Grant,
            "payments/admin",
            "alice@example.com",
            Vec::new(),
            t(0),
        ),
        End::Confirmed,
        3,
    )];
    metrics.policy_loaded(true, "0123456789abcdef", t(-100));
    metrics.pass_ended(&pass(Vec::new(), Vec::new(), ended), Duration::from_millis(300), t(20));
    metrics.pass_failed(&aws_error(), t(30));
    let speed = Speed {
        operation: Some(SignedDuration::from_secs(8)),
        at_once: 10,
        requests_per_second: 15,
    };
    metrics.convergence(Convergence::of([&assigned], speed, t(0)));
    let mut stored = StoredSnapshots::default();
    let mut snapshot = (*snapshots()[&schedule()]).clone();
    snapshot.clock_offset_ms = Some(-1500);
    stored.accept(snapshot, Timestamp::MAX);
    metrics.sources(&stored, &[schedule()].into(), [&schedule().source]);
    metrics.outlook(&policy, &snapshots(), &[], SignedDuration::from_hours(1), t(0));
    metrics.config_loaded(true);
    metrics.credentials(BTreeMap::from([(schedule().source, t(86_400))]));
    metrics.changes_in_flight(1);
    metrics.encode(&ledger, &policy, t(40)).await.unwrap()
}

fn aws_error() -> PassError {
    PassError::Aws(AwsError {
        operation: "ssoadmin ListInstances",
        kind: AwsErrorKind::Unreachable,
        message: "no answer".to_owned(),
        outcome_unknown: false,
    })
}

/// What the guards hold of one grant in mode `observe`.
fn held_grant() -> Vec<crate::guard::Held> {
    let mut plan = pass(Vec::new(), Vec::new(), Vec::new()).survey.plan;
    let grant = change(ChangeKind::Grant, "payments/admin", "bob@example.com", Vec::new(), t(0));
    plan.changes.push(grant.into());
    ask_guards(&plan, Mode::Observe).held
}

fn ask_guards(plan: &Plan, mode: Mode) -> Verdict {
    let limits = Limits {
        surprising_grants: 1,
        surprising_revokes: 1,
        surprising_revokes_percent: 1,
        surprising_grants_per_entitlement: 1,
        surprising_revokes_per_entitlement: 1,
        protected: Vec::new(),
    };
    let conditions = Conditions {
        paused: false,
        floors: &BTreeMap::new(),
        mode,
        ground: &crate::invariant::Ground::default(),
        limits: &limits,
        patience: jiff::SignedDuration::ZERO,
        max_staleness: jiff::SignedDuration::ZERO,
        max_clock_skew: jiff::SignedDuration::ZERO,
        timeline: &crate::desired::Timeline::default(),
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
    guard(plan, &conditions)
}

#[tokio::test]
async fn access_counters_equal_the_account_over_incremental_scrapes_and_a_restart() {
    let dir = TempDir::new().unwrap();
    let (metrics, ledger) = (metrics(), ledger(&dir).await);
    let policy = policy(Vec::new());
    let membership = cause(
        crate::model::Basis::Membership,
        Interval::ALWAYS,
        Interval::ALWAYS,
        0,
        None,
    )
    .cause;

    grant(&ledger, "payments/admin", "alice@example.com", vec![shift(10, 600)], 0).await;
    grant(&ledger, "payments/admin", "bob@example.com", vec![membership], 100).await;
    metrics.encode(&ledger, &policy, t(300)).await.unwrap();
    revoke(&ledger, "payments/admin", "alice@example.com", 640).await;
    grant(
        &ledger,
        "payments/gone",
        "carol@example.com",
        vec![shift(650, 700)],
        640,
    )
    .await;
    revoke(&ledger, "payments/gone", "carol@example.com", 700).await;
    let now = t(1000);
    let text = metrics.encode(&ledger, &policy, now).await.unwrap();

    let rows = ledger.access_in(Interval::ALWAYS).await.unwrap();
    let account = account(&rows, Interval::ALWAYS, now).grouped(|id, _| id.clone());
    let shown = samples(&text);
    for (id, figures) in &account {
        for basis in Phase::BASES {
            let name = format!(
                "dutybound_access_seconds_total{{basis=\"{basis}\",entitlement=\"{}\",project=\"{}\"}}",
                id.name, id.project
            );
            assert_eq!(shown[name.as_str()], figures.basis(basis).as_secs_f64(), "{name}");
        }
    }
    assert_eq!(account[&id("payments/admin")].basis("on_call").as_secs(), 590);
    assert_eq!(account[&id("payments/admin")].basis("overhang").as_secs(), 10 + 40);
    assert_eq!(account[&id("payments/admin")].basis("membership").as_secs(), 900);
    assert_eq!(
        shown["dutybound_active_grants{entitlement=\"admin\",project=\"payments\"}"],
        1.0
    );
    assert_eq!(
        shown["dutybound_active_grants{entitlement=\"gone\",project=\"payments\"}"],
        0.0
    );

    let fresh = self::metrics().encode(&ledger, &policy, now).await.unwrap();
    let access = |text: &str| -> Vec<String> {
        let of_access = |line: &&str| line.starts_with("dutybound_access_seconds_total");
        text.lines().filter(of_access).map(str::to_owned).collect()
    };
    assert_eq!(access(&fresh), access(&text), "a restart changes nothing");
}

#[tokio::test]
async fn access_counters_do_not_go_back_when_the_record_ends_access_before_the_last_scrape() {
    let dir = TempDir::new().unwrap();
    let (metrics, ledger) = (metrics(), ledger(&dir).await);
    let policy = policy(Vec::new());
    let name = "dutybound_access_seconds_total{basis=\"on_call\",entitlement=\"admin\",project=\"payments\"}";
    grant(&ledger, "payments/admin", "alice@example.com", vec![shift(0, 600)], 0).await;
    let before = metrics.encode(&ledger, &policy, t(103)).await.unwrap();
    revoke(&ledger, "payments/admin", "alice@example.com", 100).await;
    let after = metrics.encode(&ledger, &policy, t(110)).await.unwrap();
    assert_eq!((samples(&before)[name], samples(&after)[name]), (103.0, 103.0));

    grant(
        &ledger,
        "payments/admin",
        "alice@example.com",
        vec![shift(200, 600)],
        200,
    )
    .await;
    let later = metrics.encode(&ledger, &policy, t(220)).await.unwrap();
    assert_eq!(samples(&later)[name], 120.0, "the record has caught up");
    let rows = ledger.access_in(Interval::ALWAYS).await.unwrap();
    let held = account(&rows, Interval::ALWAYS, t(220)).total().held();
    assert_eq!(held.as_secs(), 120);
}

#[tokio::test]
async fn access_counters_notice_every_change_of_the_record() {
    let dir = TempDir::new().unwrap();
    let (metrics, ledger) = (metrics(), ledger(&dir).await);
    let policy = policy(Vec::new());
    let on_call = async |now| {
        let text = metrics.encode(&ledger, &policy, t(now)).await.unwrap();
        samples(&text)["dutybound_access_seconds_total{basis=\"on_call\",entitlement=\"admin\",project=\"payments\"}"]
    };
    let (first, second) = (shift(0, 100), shift(200, 300));
    grant(&ledger, "payments/admin", "alice@example.com", vec![first.clone()], 0).await;
    assert_eq!(on_call(50).await, 50.0);
    let id = ledger.access_in(Interval::ALWAYS).await.unwrap()[0].id;
    let both = [first.clone(), second.clone()];
    ledger
        .update_kept(&[kept(id, std::slice::from_ref(&first), &both)], t(60))
        .await
        .unwrap();
    assert_eq!(on_call(250).await, 150.0, "a cause came");
    ledger
        .update_kept(&[kept(id, &both, std::slice::from_ref(&first))], t(260))
        .await
        .unwrap();
    assert_eq!(on_call(290).await, 160.0, "a cause went");
    revoke(&ledger, "payments/admin", "alice@example.com", 290).await;
    grant(
        &ledger,
        "payments/admin",
        "alice@example.com",
        vec![shift(290, 400)],
        290,
    )
    .await;
    assert_eq!(on_call(300).await, 170.0, "access ended and began again");
}

#[tokio::test]
async fn everything_known_in_advance_starts_at_zero() {
    let dir = TempDir::new().unwrap();
    let (metrics, ledger) = (metrics(), ledger(&dir).await);
    metrics.pass_ended(&pass(Vec::new(), Vec::new(), Vec::new()), Duration::ZERO, t(0));
    let text = metrics.encode(&ledger, &policy(Vec::new()), t(0)).await.unwrap();
    let shown = samples(&text);
    let zeros = |prefix: &str| {
        let zero = |(name, value): &(&&str, &f64)| name.starts_with(prefix) && **value == 0.0;
        shown.iter().filter(zero).count()
    };
    assert_eq!(zeros("dutybound_access_seconds_total{"), Phase::BASES.len());
    assert_eq!(zeros("dutybound_active_grants{"), 1);
    assert_eq!(zeros("dutybound_drift_holders{"), 1);
    assert_eq!(zeros("dutybound_problems{"), ProblemKind::ALL.len());
    assert_eq!(zeros("dutybound_held_changes{"), Guard::ALL.len());
    assert_eq!(zeros("dutybound_changes_total{"), 8);
    assert_eq!(zeros("dutybound_passes_total{"), 3);
    assert_eq!(shown["dutybound_mode{mode=\"sync\"}"], 1.0);
    assert_eq!(shown["dutybound_mode{mode=\"observe\"}"], 0.0);
}

#[tokio::test]
async fn a_pass_shows_what_it_saw() {
    let dir = TempDir::new().unwrap();
    let (metrics, ledger) = (metrics(), ledger(&dir).await);
    let now = Problem::new(ProblemKind::NoEmail, "no e-mail".to_owned());
    let ahead = Problem {
        during: Some(span(100, 200)),
        ..Problem::new(ProblemKind::NotAMember, "not a member".to_owned())
    };
    let drift = Drift {
        entitlement: id("payments/admin"),
        target: ResolvedTarget::Group { group_id: "g".into() },
        holder: "u-9".to_owned(),
        person: Some(person("eve@example.com")),
        desired: false,
    };
    metrics.pass_ended(
        &pass(vec![now, ahead], vec![drift], Vec::new()),
        Duration::from_millis(300),
        t(5),
    );
    metrics.pass_failed(&aws_error(), t(9));
    let text = metrics.encode(&ledger, &policy(Vec::new()), t(10)).await.unwrap();
    let shown = samples(&text);
    assert_eq!(shown["dutybound_problems{kind=\"no_email\"}"], 1.0);
    assert_eq!(shown["dutybound_problems{kind=\"not_a_member\"}"], 0.0);
    assert_eq!(shown["dutybound_upcoming_problems{kind=\"not_a_member\"}"], 1.0);
    assert_eq!(
        shown["dutybound_drift_holders{entitlement=\"admin\",project=\"payments\"}"],
        1.0
    );
    assert_eq!(shown["dutybound_open_intents"], 2.0);
    assert_eq!(shown["dutybound_next_boundary_timestamp_seconds"], unix(t(490)));
    assert_eq!(shown["dutybound_last_attempt_timestamp_seconds"], unix(t(9)));
    assert_eq!(shown["dutybound_last_success_timestamp_seconds"], unix(t(5)));
    assert_eq!(shown["dutybound_passes_total{outcome=\"complete\"}"], 1.0);
    assert_eq!(shown["dutybound_passes_total{outcome=\"aws_error\"}"], 1.0);
    assert_eq!(shown["dutybound_pass_duration_seconds_sum"], 0.3);
    assert!(
        !text.contains("eve@example.com") && !text.contains("u-9"),
        "no person is on the page"
    );
}

#[tokio::test]
async fn held_changes_are_counted_by_guard_with_the_oldest_instant() {
    let dir = TempDir::new().unwrap();
    let text = full_page(&dir).await;
    let shown = samples(&text);
    assert_eq!(shown["dutybound_held_changes{guard=\"mode\"}"], 1.0);
    assert_eq!(
        shown["dutybound_oldest_hold_timestamp_seconds{guard=\"mode\"}"],
        unix(t(-60))
    );
    assert!(!shown.contains_key("dutybound_oldest_hold_timestamp_seconds{guard=\"limit\"}"));
}

#[test]
fn delays_are_counted_from_boundaries_known_in_advance_only() {
    let metrics = metrics();
    let of = |due| {
        change(
            ChangeKind::Grant,
            "payments/admin",
            "alice@example.com",
            Vec::new(),
            due,
        )
    };
    let count = || {
        let histogram = metrics.change_delay.with_label_values(&["grant"]);
        (histogram.get_sample_count(), histogram.get_sample_sum())
    };
    metrics.applied(&applied(of(t(100)), End::Confirmed, 104));
    assert_eq!(count(), (1, 4.0));
    metrics.applied(&applied(of(t(100)), End::Failed("no".to_owned()), 104));
    metrics.applied(&applied(of(Timestamp::MIN), End::Confirmed, 104));
    let surprise = Change {
        foresight: Foresight::Surprising("an override".to_owned()),
        ..of(t(100))
    };
    metrics.applied(&applied(surprise, End::Confirmed, 104));
    assert_eq!(
        count(),
        (1, 4.0),
        "a refusal, a membership and a surprise have no delay"
    );

    metrics.policy_loaded(true, "one", t(150));
    metrics.applied(&applied(of(t(100)), End::Confirmed, 160));
    assert_eq!(count(), (2, 64.0), "a restart was late for the boundary");
    metrics.policy_loaded(true, "two", t(200));
    metrics.applied(&applied(of(t(100)), End::Confirmed, 210));
    metrics.policy_loaded(false, "two", t(300));
    metrics.applied(&applied(of(t(220)), End::Confirmed, 225));
    assert_eq!(count(), (3, 69.0), "an edit brought about what had begun before it");
}

#[tokio::test]
async fn sources_show_the_schedule_that_waits_longest() {
    let dir = TempDir::new().unwrap();
    let (metrics, ledger) = (metrics(), ledger(&dir).await);
    let key = |source: &str, id: &str| ScheduleKey {
        source: SourceName(source.into()),
        id: id.into(),
        ..schedule()
    };
    let keys: BTreeSet<_> = [key("a", "1"), key("a", "2"), key("b", "1"), key("b", "2")].into();
    let mut stored = StoredSnapshots::default();
    for (source, id, read_at) in [("a", "1", 50), ("a", "2", 70), ("b", "1", 90)] {
        stored.accept(
            crate::model::Snapshot {
                schedule: key(source, id),
                read_at: t(read_at),
                ..(*snapshots()[&schedule()]).clone()
            },
            Timestamp::MAX,
        );
    }
    for (source, id) in [("a", "1"), ("b", "1"), ("b", "2")] {
        let error = ReadError {
            schedule: key(source, id),
            kind: ReadErrorKind::Timeout,
            message: "no answer".to_owned(),
        };
        stored.fail(&error, t(95));
    }
    let names = ["a", "b", "unused"].map(|name| SourceName(name.into()));
    metrics.sources(&stored, &keys, &names);
    let text = metrics.encode(&ledger, &policy(Vec::new()), t(100)).await.unwrap();
    let shown = samples(&text);
    let of = |metric: &str, source: &str| {
        shown
            .get(format!("dutybound_{metric}{{source=\"{source}\"}}").as_str())
            .copied()
    };
    assert_eq!((of("source_up", "a"), of("source_up", "b")), (Some(1.0), Some(0.0)));
    assert_eq!(
        (of("schedules_failing", "a"), of("schedules_failing", "b")),
        (Some(1.0), Some(2.0))
    );
    let last = |source| of("source_last_success_timestamp_seconds", source);
    assert_eq!((last("a"), last("b")), (Some(unix(t(50))), Some(0.0)));
    assert_eq!(
        (of("source_schedules", "unused"), of("source_up", "unused")),
        (Some(0.0), None)
    );
}

#[tokio::test]
async fn the_page_keeps_to_the_rules_that_promtool_checks() {
    let dir = TempDir::new().unwrap();
    let text = full_page(&dir).await;
    let mut types = HashMap::new();
    let mut helps = HashMap::new();
    for line in text.lines().filter(|line| line.starts_with('#')) {
        let mut words = line.splitn(4, ' ').skip(1);
        let (what, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let known = if what == "TYPE" { &mut types } else { &mut helps };
        assert!(known.insert(name, rest).is_none(), "{name} is described twice");
    }
    for name in samples(&text).into_keys() {
        let bare = name.split('{').next().unwrap();
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| bare.strip_suffix(end));
        let family = base
            .filter(|base| types.get(base) == Some(&"histogram"))
            .unwrap_or(bare);
        let kind = types.get(family).unwrap_or_else(|| panic!("{name} has no type"));
        assert!(!helps[family].is_empty(), "{name} has no help");
        assert_eq!(*kind == "counter", family.ends_with("_total"), "{family} is a {kind}");
        assert!(
            family.starts_with("dutybound_") || family.starts_with("process_"),
            "{family}"
        );
        assert!(
            family
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'),
            "{family}"
        );
        for unit in ["_ms", "_milliseconds", "_minutes", "_hours", "_days", "_kb", "_percent"] {
            assert!(!family.contains(unit), "{family} is not in base units");
        }
    }
    promtool(&text);
}

/// Asks promtool itself where it is installed.
fn promtool(text: &str) {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else { return };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn an_unusable_ledger_leaves_the_rest_of_the_page() {
    let dir = TempDir::new().unwrap();
    let (metrics, ledger) = (metrics(), ledger(&dir).await);
    let file = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.path().join("ledger.sqlite"));
    let by_hand = sqlx::SqlitePool::connect_with(file).await.unwrap();
    sqlx::query("ALTER TABLE hold RENAME TO held")
        .execute(&by_hand)
        .await
        .unwrap();
    let text = metrics.encode(&ledger, &policy(Vec::new()), t(0)).await.unwrap();
    assert_eq!(samples(&text)["dutybound_ledger_up"], 0.0);
    assert!(text.contains("dutybound_build_info") && !text.contains("dutybound_access_seconds_total"));

    sqlx::query("ALTER TABLE held RENAME TO hold")
        .execute(&by_hand)
        .await
        .unwrap();
    let text = metrics.encode(&ledger, &policy(Vec::new()), t(0)).await.unwrap();
    assert_eq!(samples(&text)["dutybound_ledger_up"], 1.0);
}

fn kept(access_id: i64, recorded: &[Cause], causes: &[Cause]) -> Kept {
    Kept {
        access_id,
        entitlement: causes[0].right.entitlement.clone(),
        person: causes[0].person.clone(),
        causes: causes.iter().cloned().map(Into::into).collect(),
        recorded: recorded.iter().cloned().map(Into::into).collect(),
        renamed: false,
    }
}

#[tokio::test]
async fn counters_stay_and_the_chain_goes_on_when_what_is_old_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(&dir).await;
    let day = 24 * 3600;
    let turn = |day_of: i64| {
        cause(
            on_call(),
            Interval::new(s(day_of), s(day_of + 7200)).unwrap(),
            Interval::new(s(day_of), s(day_of + 3600)).unwrap(),
            0,
            None,
        )
        .cause
    };
    let hand = async |who: &str, kind: ChangeKind, at: i64| {
        let change = change(kind, "payments/admin", who, vec![turn(at)], s(at));
        carry_out(&ledger, &change, s(at)).await;
    };
    hand("standing@example.com", ChangeKind::Grant, day).await;
    for n in 1..=40 {
        hand("alice@example.com", ChangeKind::Grant, n * day).await;
        hand("alice@example.com", ChangeKind::Revoke, n * day + 7200).await;
    }
    let early = ledger.head().await.unwrap().unwrap();
    for n in 41..=120 {
        hand("bob@example.com", ChangeKind::Grant, n * day).await;
        hand("bob@example.com", ChangeKind::Revoke, n * day + 7200).await;
    }
    let late = ledger.head().await.unwrap().unwrap();
    let now = s(121 * day);
    let shown = async || {
        let mut access = access::AccessTime::default();
        access.read(&ledger, now).await.unwrap().clone()
    };
    let running = &mut access::AccessTime::default();
    let before = running.read(&ledger, now).await.unwrap().clone();
    let rows = ledger.access_in(Interval::ALWAYS).await.unwrap();

    let (mut removed, mut rounds) = (0, 0);
    while let Some(round) = ledger.remove_before(s(100 * day), now).await.unwrap() {
        removed += round.intervals;
        rounds += 1;
        assert_eq!(shown().await, before, "round {rounds}");
        assert_eq!(*running.read(&ledger, now).await.unwrap(), before);
    }
    assert!(10 < rounds && 90 < removed, "{rounds} {removed}");
    let left = ledger.access_in(Interval::ALWAYS).await.unwrap();
    assert_eq!(left.len(), rows.len() - usize::try_from(removed).unwrap());
    assert!(left.iter().all(|row| rows.contains(row)), "what stays is as it was");
    assert!(left.iter().any(|row| row.person.as_str() == "standing@example.com"));

    let published = |head: &crate::ledger::Head| crate::ledger::PublishedHead {
        seq: Some(head.seq),
        hash: head.hash.clone(),
    };
    let verdict = ledger
        .check_chain([published(&early), published(&late)].into_iter())
        .await
        .unwrap();
    assert!(verdict.intact, "{verdict:#?}");
    assert_eq!((verdict.heads_older, verdict.heads_found), (1, 1));
    assert!(verdict.first > Some(early.seq));

    // Nothing else may be deleted, before as after.
    for statement in [
        "DELETE FROM access",
        "DELETE FROM intent",
        "DELETE FROM cause",
        "DELETE FROM event",
        "DELETE FROM removed",
    ] {
        assert!(ledger.try_raw(statement).await.is_err(), "{statement}");
    }
    hand("alice@example.com", ChangeKind::Grant, 121 * day).await;
    assert!(ledger.check_chain(std::iter::empty()).await.unwrap().intact);
}

fn s(second: i64) -> Timestamp {
    t(0) + jiff::SignedDuration::from_secs(second)
}

/// Every label and the bound of its values.
const LABELS: [(&str, &str); 14] = [
    ("basis", "`on_call`, `window`, `membership`, `overhang`"),
    (
        "entitlement",
        "the entitlements that the policy names or the ledger knows, by name",
    ),
    (
        "guard",
        "the guards: `mode`, `pause`, `protected`, `min_holders`, `clock_skew`, `stale_source`, `not_knowing`, `empty_schedule`, `unsteady_schedule`, `limit`, `invariant`, `make_before_break`",
    ),
    (
        "kind",
        "`grant`, `revoke`; of problems the kinds that `dutybound status` shows",
    ),
    ("mode", "`observe`, `grant-only`, `revoke-only`, `sync`"),
    (
        "operation",
        "the calls that the program knows, such as `CreateAccountAssignment`",
    ),
    ("outcome", "a closed list for each family"),
    ("part", "`lead`, `linger`, `late`"),
    ("project", "the projects that the policy names or the ledger knows"),
    ("revision", "one at a time: the policy in force"),
    ("service", "the configured sources, `ssoadmin`, `identitystore`"),
    ("sink", "the configured sinks"),
    ("source", "the configured sources"),
    ("version", "one at a time: the program's"),
];

/// The table in `dashboards/METRICS.md` is made of a page with every family on it; `DUTYBOUND_BLESS=1` writes it anew.
#[tokio::test]
async fn the_table_of_metrics_lists_every_family_with_its_labels() {
    let dir = TempDir::new().unwrap();
    let text = full_page(&dir).await;
    let mut table = String::from(
        "# Metrics\n\nGenerated from the program by a test; edit the help texts there. No label carries a person, a schedule, an \
         account or a message.\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    let mut used = BTreeSet::new();
    let mut help = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').unwrap().1;
        }
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        if !name.starts_with("dutybound_") {
            continue;
        }
        let sample = text.lines().find(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_lowercase()))
        });
        let sample = sample.unwrap_or_else(|| panic!("{name} has no sample"));
        let labels = sample
            .split_once('{')
            .and_then(|(_, rest)| rest.split_once('}'))
            .map_or("", |(labels, _)| labels);
        let names: Vec<&str> = labels
            .split(',')
            .filter_map(|label| label.split_once('='))
            .map(|(name, _)| name)
            .filter(|l| *l != "le")
            .collect();
        used.extend(names.iter().copied());
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        table.push_str(&format!("| `{name}` | {kind} | {} | {help} |\n", names.join(", ")));
    }
    table.push_str("\nBeside these the process's own: `process_cpu_seconds_total`, `process_open_fds` and so on.\n\n| label | values |\n|---|---|\n");
    let known: BTreeSet<&str> = LABELS.map(|(label, _)| label).into();
    assert_eq!(used, known);
    for (label, values) in LABELS {
        table.push_str(&format!("| `{label}` | {values} |\n"));
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards/METRICS.md");
    if std::env::var_os("DUTYBOUND_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &table).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        written, table,
        "run DUTYBOUND_BLESS=1 cargo test --lib the_table_of_metrics and read the diff"
    );
}

#[tokio::test]
async fn tails_and_uncovered_time_count_behind_and_never_go_back() {
    let dir = TempDir::new().unwrap();
    let ledger = ledger(&dir).await;
    let policy = policy(Vec::new());
    let alice = || person("alice@example.com");
    let arn = "arn:aws:sso:::permissionSet/ssoins-1/ps-1";
    let on_target = |mut change: Change| {
        change.target = ResolvedTarget::Assignment {
            account: "111122223333".into(),
            permission_set_arn: arn.into(),
        };
        change
    };
    let grant = on_target(change(
        ChangeKind::Grant,
        "payments/admin",
        alice().as_str(),
        vec![shift(0, 600)],
        t(0),
    ));
    let revoke = on_target(change(
        ChangeKind::Revoke,
        "payments/admin",
        alice().as_str(),
        Vec::new(),
        t(600),
    ));
    let hour = BTreeMap::from([(arn.to_owned(), SignedDuration::from_hours(1))]);
    ledger.note_sessions(&hour, t(0)).await.unwrap();
    let on_duty = crate::ledger::OnDuty {
        entitlement: id("payments/admin"),
        person: alice(),
        duty: span(0, 600),
        why: "granting".into(),
    };
    let metrics = metrics();
    let mut before = (0.0, 0.0);
    let mut shown = async |ledger: &Ledger, now: i64, (uncovered, tail): (f64, f64)| {
        // Another process, that has seen nothing, says the same as the one that saw everything.
        for metrics in [&metrics, &self::metrics()] {
            let text = metrics.encode(ledger, &policy, t(now)).await.unwrap();
            let of = |name: &str| {
                samples(&text)[format!("dutybound_{name}{{entitlement=\"admin\",project=\"payments\"}}").as_str()]
            };
            let counted = (of("uncovered_seconds_total"), of("session_tail_seconds_total"));
            assert_eq!(counted, (uncovered, tail), "at {now}");
            assert!(before.0 <= counted.0 && before.1 <= counted.1);
        }
        before = (uncovered, tail);
    };
    ledger
        .note_unheld(std::slice::from_ref(&on_duty), false, t(1))
        .await
        .unwrap();
    shown(&ledger, 310, (10.0, 0.0)).await;
    // What is asked for and not answered may be held already.
    let intent = ask(&ledger, &grant, t(20)).await;
    shown(&ledger, 500, (20.0, 0.0)).await;
    ledger
        .complete(intent, &grant, Outcome::Succeeded, None, t(30), t(510))
        .await
        .unwrap();
    ledger.note_unheld(&[], false, t(515)).await.unwrap();
    shown(&ledger, 520, (30.0, 0.0)).await;
    carry_out(&ledger, &revoke, t(600)).await;
    shown(&ledger, 910, (30.0, 10.0)).await;
    shown(&ledger, 1900, (30.0, 1000.0)).await;
    let again = on_target(change(
        ChangeKind::Grant,
        "payments/admin",
        alice().as_str(),
        vec![shift(2000, 2600)],
        t(2000),
    ));
    carry_out(&ledger, &again, t(2000)).await;
    shown(&ledger, 2200, (30.0, 1300.0)).await;
    shown(&ledger, 9000, (30.0, 1400.0)).await;
    let again = on_target(change(
        ChangeKind::Revoke,
        "payments/admin",
        alice().as_str(),
        Vec::new(),
        t(9000),
    ));
    carry_out(&ledger, &again, t(9000)).await;
    shown(&ledger, 99_000, (30.0, 5000.0)).await;
    shown(&ledger, 990_000, (30.0, 5000.0)).await;

    let rows = ledger.access_in(Interval::ALWAYS).await.unwrap();
    let record = crate::accounting::Record {
        rows: &rows,
        unheld: &ledger.unheld_in(Interval::ALWAYS).await.unwrap(),
        sessions: &ledger.sessions().await.unwrap(),
    };
    let total = crate::accounting::measure(record, Interval::ALWAYS, t(990_000)).total();
    assert_eq!(
        (total.uncovered().as_secs(), total.tail.as_secs()),
        (30, 5000),
        "the report says the same"
    );
}
