use std::collections::BTreeMap;

use jiff::SignedDuration;
use sqlx::Row;
use tempfile::TempDir;

use super::*;
use crate::accounting::fixtures::{cause, id, on_call, person, span, t};
use crate::identity_center::ChangeKind;
use crate::ledger::{OnDuty, Opened, Outcome};
use crate::model::PrincipalId;
use crate::plan::{Change, Foresight};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

async fn ledger(dir: &TempDir) -> Ledger {
    let path = dir.path().join("ledger.sqlite");
    Ledger::open(&path, "test", t(0)).await.unwrap()
}

fn target(number: usize) -> ResolvedTarget {
    ResolvedTarget::Assignment {
        account: format!("{number:012}").into(),
        permission_set_arn: "arn:ps".into(),
    }
}

/// One person's access to the entitlement of that number, from when until when.
async fn hold(ledger: &Ledger, number: usize, from: i64, to: Option<i64>) {
    let mut change = Change {
        kind: ChangeKind::Grant,
        entitlement: id(&format!("payments/role-{number}")),
        person: Some(person("alice@example.com")),
        target: target(number),
        principal: PrincipalId("u-1".into()),
        causes: vec![
            cause(on_call(), span(from, from + HOUR), span(from, from + HOUR), from, None)
                .cause
                .into(),
        ],
        rests_on: [].into(),
        due: t(from),
        foresight: Foresight::Predicted,
        context: None,
    };
    for (kind, at) in [(ChangeKind::Grant, Some(from)), (ChangeKind::Revoke, to)] {
        let Some(at) = at else { continue };
        change.kind = kind;
        let Opened::Intent(intent) = ledger.open_intent(&change, "r", t(at)).await.unwrap() else {
            panic!("nobody is barred");
        };
        let done = ledger.complete(intent, &change, Outcome::Succeeded, None, t(at), t(at));
        done.await.unwrap();
    }
}

/// What is held, for how long sessions may have lived on, and uncovered time, of everything that ended, in seconds; and how
/// many intervals were read for it.
async fn ended(ledger: &Ledger) -> (BTreeMap<EntitlementId, [i64; 3]>, usize) {
    let mut rows = Vec::new();
    let counted = ledger.counted(|row| rows.push(row)).await.unwrap();
    let mut sums: BTreeMap<EntitlementId, [i64; 3]> = BTreeMap::new();
    for (id, total) in counted.totals {
        sums.insert(
            id,
            [total.held.held(), total.tail, total.uncovered].map(|time| time.as_secs()),
        );
    }
    let sessions = ledger.sessions().await.unwrap();
    let all: Vec<&AccessRow> = rows.iter().collect();
    for ending in crate::accounting::endings(&all, &sessions) {
        let sum = sums.entry(ending.entitlement.clone()).or_default();
        sum[0] += ending.granted_at.duration_until(ending.revoked_at).as_secs();
        sum[1] += ending.tail().map_or(0, |tail| tail.duration().as_secs());
    }
    for unheld in &counted.unheld {
        let time = length(uncovered(unheld, Timestamp::MAX)).as_secs();
        sums.entry(unheld.entitlement.clone()).or_default()[2] += time;
    }
    (sums, rows.len())
}

async fn a_hundred_turns(ledger: &Ledger) {
    let hour = BTreeMap::from([("arn:ps".to_owned(), SignedDuration::from_hours(1))]);
    ledger.note_sessions(&hour, t(0)).await.unwrap();
    for n in 0..100 {
        let (number, from) = (usize::try_from(n % 2).unwrap(), 10 + n / 2 * DAY);
        let waits = OnDuty {
            entitlement: id(&format!("payments/role-{number}")),
            person: person("alice@example.com"),
            duty: span(from - 5, from + HOUR),
            why: "granting".into(),
        };
        ledger.note_unheld(&[waits], false, t(from - 5)).await.unwrap();
        hold(ledger, number, from, Some(from + HOUR)).await;
        ledger.note_unheld(&[], false, t(from + HOUR)).await.unwrap();
        if number == 0 {
            // Granted again within the hour for which sessions live on.
            hold(ledger, number, from + HOUR + 600, Some(from + HOUR + 700)).await;
        }
    }
    hold(ledger, 7, 60 * DAY, None).await;
}

#[tokio::test]
async fn the_sums_say_what_the_record_said_and_whoever_reads_them_reads_no_old_record() {
    let dir = TempDir::new().unwrap();
    let ledger = ledger(&dir).await;
    a_hundred_turns(&ledger).await;
    let (before, read) = ended(&ledger).await;
    assert_eq!(read, 151, "nothing is counted yet");
    assert_eq!(before[&id("payments/role-0")], [50 * 3700, 50 * (600 + 3600), 50 * 5]);
    assert_eq!(before[&id("payments/role-1")], [50 * 3600, 50 * 3600, 50 * 5]);

    assert_eq!(ledger.settle(t(49 * DAY + 5 * HOUR)).await.unwrap(), 147 + 100);
    assert_eq!(
        ended(&ledger).await,
        (before.clone(), 4),
        "the last may be granted again"
    );
    assert_eq!(ledger.settle(t(60 * DAY)).await.unwrap(), 3);
    assert_eq!(ended(&ledger).await, (before.clone(), 1), "what stands");
    assert_eq!(ledger.settle(t(60 * DAY)).await.unwrap(), 0);
    assert!(ledger.check_chain(std::iter::empty()).await.unwrap().intact);

    // What is removed is in the sums, whether or not it was before.
    let rows = ledger.access_in(Interval::ALWAYS).await.unwrap().len();
    while ledger.remove_before(t(40 * DAY), t(60 * DAY)).await.unwrap().is_some() {
        assert_eq!(ended(&ledger).await, (before.clone(), 1));
    }
    assert!(ledger.access_in(Interval::ALWAYS).await.unwrap().len() < rows / 2);
    assert!(ledger.unheld_in(Interval::ALWAYS).await.unwrap().len() < 50);
    assert!(ledger.check_chain(std::iter::empty()).await.unwrap().intact);
}

#[tokio::test]
async fn a_sum_that_was_changed_by_hand_is_found() {
    let dir = TempDir::new().unwrap();
    let ledger = ledger(&dir).await;
    a_hundred_turns(&ledger).await;
    ledger.settle(t(60 * DAY)).await.unwrap();
    ledger
        .try_raw(
            "UPDATE total SET body = json_set(body, '$.held.phases[0]', 'PT1H') WHERE entitlement = 'payments/role-1'",
        )
        .await
        .unwrap();
    let verdict = ledger.check_chain(std::iter::empty()).await.unwrap();
    assert_eq!(verdict.wrong, 1, "{verdict:#?}");
    assert!(verdict.findings[0].what.contains("payments/role-1"), "{verdict:#?}");
}

#[tokio::test]
async fn a_ledger_from_before_the_sums_is_added_up_when_it_is_opened() {
    let dir = TempDir::new().unwrap();
    let ledger = ledger(&dir).await;
    a_hundred_turns(&ledger).await;
    let (before, _) = ended(&ledger).await;
    for statement in [
        "DROP TRIGGER access_is_to_count",
        "DROP TRIGGER access_of_the_past_is_to_count",
        "DROP TRIGGER unheld_is_to_count",
        "DROP TABLE total",
        "DROP TABLE uncounted_access",
        "DROP TABLE uncounted_unheld",
        "DROP INDEX access_standing",
        "DROP INDEX access_of_a_day",
        "DROP INDEX access_of_a_week",
        "DROP INDEX access_of_longer",
        "DROP INDEX unheld_of_a_day",
        "DROP INDEX unheld_of_longer",
        "DROP INDEX unheld_by_person",
        "DROP INDEX intent_that_lasted",
        "CREATE INDEX access_by_time ON access (granted_at, revoked_at)",
        "CREATE INDEX unheld_by_holder ON unheld (entitlement, person, ended_at)",
        "DELETE FROM _sqlx_migrations WHERE version = 6",
    ] {
        ledger.try_raw(statement).await.unwrap();
    }
    // Who only reads need not wait for the writer.
    assert_eq!(ledger.access_in(Interval::ALWAYS).await.unwrap().len(), 151);
    assert_eq!(ledger.unheld_in(Interval::ALWAYS).await.unwrap().len(), 100);
    assert!(ledger.check_chain(std::iter::empty()).await.unwrap().intact);
    ledger.close().await;
    let path = dir.path().join("ledger.sqlite");
    let ledger = Ledger::open(&path, "test", t(60 * DAY)).await.unwrap();
    assert_eq!(ended(&ledger).await, (before, 1));
    assert!(ledger.check_chain(std::iter::empty()).await.unwrap().intact);
}

#[tokio::test]
async fn what_overlaps_a_period_is_found_however_long_it_lasted() {
    let dir = TempDir::new().unwrap();
    let ledger = ledger(&dir).await;
    let lengths = [1, HOUR, DAY - 1, DAY, DAY + 1, 7 * DAY, 8 * DAY, 8 * DAY + 1, 30 * DAY];
    for (number, length) in lengths.into_iter().enumerate() {
        for from in [0, 3, 10, 11, 12, 20, 27] {
            let from = from * DAY / 2;
            // Each a key of its own.
            hold(
                &ledger,
                number * 100 + usize::try_from(from / HOUR).unwrap(),
                from,
                Some(from + length),
            )
            .await;
        }
    }
    hold(&ledger, 5000, 5 * DAY, None).await;
    let all = ledger.access_in(Interval::ALWAYS).await.unwrap();
    assert_eq!(all.len(), 64);
    for from in (0..45 * DAY).step_by(7 * 3600) {
        for length in [1, HOUR, 3 * DAY, 20 * DAY] {
            let range = span(from, from + length);
            let overlaps =
                |row: &&AccessRow| row.granted_at < range.end() && row.revoked_at.is_none_or(|end| range.start() < end);
            let expected: Vec<_> = all.iter().filter(overlaps).cloned().collect();
            assert_eq!(ledger.access_in(range).await.unwrap(), expected, "{range:?}");
        }
        let since = ledger.held_since(t(from)).await.unwrap();
        let lasted = |row: &&AccessRow| row.revoked_at.is_none_or(|end| t(from) < end);
        assert_eq!(since.len(), all.iter().filter(lasted).count());
    }
}

/// Every statement that screens, commands and scrapes ask of a record of years, by the tables of which it may not read all.
#[tokio::test]
async fn no_question_about_a_moment_reads_the_record_of_years() {
    let dir = TempDir::new().unwrap();
    let ledger = ledger(&dir).await;
    let [unheld, with_access] = super::super::unheld::FAR_BACK;
    for (query, index) in [
        (super::super::history::ids_of_access_in!(), "a_day"),
        (unheld, "a_day"),
        (with_access, "access_by_holder"),
    ] {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {query}"));
        let plan = sqlx::query(explain).fetch_all(&ledger.pool).await.unwrap();
        let steps: Vec<String> = plan.iter().map(|step| step.get::<String, _>(3)).collect();
        assert!(!steps.is_empty());
        let whole = |step: &&String| {
            let indexes = ["access_of_longer", "access_standing", "unheld_open"];
            ["SCAN access", "SCAN unheld", "SCAN a", "SCAN u"]
                .iter()
                .any(|scan| step.starts_with(scan))
                && !indexes.iter().any(|index| step.contains(index))
        };
        assert_eq!(steps.iter().find(whole), None, "{steps:#?}");
        let used = |step: &String| step.starts_with("SEARCH") && step.contains(index);
        assert!(steps.iter().any(used), "{index} is not used: {steps:#?}");
    }
}
