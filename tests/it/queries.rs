//! What the daemon asks of its own ledger costs the same after years of it.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::Value;
use sqlx::{Connection, Row, SqliteConnection};

use crate::harness::*;

/// Tables that grow with every change. The others hold what is so now.
const GROWING: [&str; 5] = ["event", "access", "cause", "intent", "unheld"];

/// These stop at the first row.
const FIRST_ROW_ONLY: [&str; 2] = ["ORDER BY seq DESC LIMIT 1", "EXISTS (SELECT 1 FROM intent)"];

/// Found by a profile of passes with nothing to do: MIN and MAX of a key in one query make SQLite go through all rows, which
/// after a year are thirty million; each pass and each line to a sink did.
#[tokio::test]
async fn no_statement_of_a_working_daemon_goes_through_a_table_that_grows() {
    let site = Site::payments().await;
    site.configure(|s| {
        s.more =
            "[timing]\npoll = \"1s\"\n[[sink]]\nname = \"file\"\nkind = \"file\"\npath = \"events.jsonl\"\n".to_owned()
    });
    let mut command = site.command(&["run"]);
    command.env("DUTYBOUND_LOG", "dutybound=info,sqlx=debug");
    let daemon = site.daemon_by(command);
    daemon.ready().await;
    site.until_admin(ALICE, true).await;
    // The second looks only at what has changed.
    daemon.get("/metrics").await;
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.until_admin(ALICE, false).await;
    eventually("the change is on record", async || {
        site.intervals().await.iter().any(|row| row.revoked_at.is_some())
    })
    .await;
    for page in [
        "/metrics",
        "/metrics",
        "/",
        "/project/payments",
        "/person/alice@example.com",
    ] {
        let status = daemon.get(page).await.map(|(status, _)| status);
        assert_eq!(status, Some(200), "{page}");
    }
    let log = daemon.term().await;
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut statements: BTreeSet<String> = lines
        .filter(|line| line["target"] == "sqlx::query")
        .map(|line| {
            let whole = line["db.statement"].as_str().unwrap().trim();
            let text = if whole.is_empty() {
                line["summary"].as_str().unwrap()
            } else {
                whole
            };
            text.to_owned()
        })
        .collect();
    assert!(statements.len() > 30, "the log does not tell of statements:\n{log}");
    // A command's log is for people, and a statement in it a quoted text.
    let quoted = Regex::new(r#"(?:db.statement|summary)="((?:[^"\\]|\\.)+)""#).unwrap();
    for arguments in [
        vec!["status"],
        vec!["status", "payments"],
        vec!["status", ALICE],
        vec!["explain", ALICE, "payments/prod-admin"],
    ] {
        let mut command = site.command(&arguments);
        command.env("DUTYBOUND_LOG", "sqlx=debug");
        let output = tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        statements.extend(
            quoted
                .captures_iter(&text)
                .map(|found| found[1].replace("\\n", "\n").replace("\\\"", "\"").trim().to_owned())
                .filter(|text| !text.ends_with('…')),
        );
    }
    let ledger = format!("sqlite://{}", site.path("ledger.db").display());
    let mut db = SqliteConnection::connect(&ledger).await.unwrap();
    // An index of only some rows holds what stands, or what is rare.
    let partial: Vec<String> =
        sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'index' AND sql LIKE '% WHERE %'")
            .fetch_all(&mut db)
            .await
            .unwrap();
    let asks = |statement: &&String| {
        let first = statement.split_whitespace().next().unwrap();
        ["SELECT", "INSERT", "UPDATE", "DELETE"].contains(&first)
    };
    let scan = Regex::new(r"^SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?$").unwrap();
    // All that ever told of access, of causes or of intents.
    let of_a_table = Regex::new(r"INDEX event_by_row \(tbl=\?\)").unwrap();
    // What was tried in vain is asked for weeks back, and is not to be looked for in all that was done since.
    let of_weeks = |statement: &str, step: &str| {
        statement.contains("outcome <> 'succeeded'") && step.ends_with("INDEX intent_by_completion (completed_at>?)")
    };
    let mut through_all = Vec::new();
    for statement in statements.iter().filter(asks) {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
        // What needs a table that a connection keeps to itself is about a few rows of the moment.
        let Ok(steps) = sqlx::query(explain).fetch_all(&mut db).await else {
            assert!(statement.contains("noted"), "{statement}");
            continue;
        };
        for step in steps {
            let step: String = step.get("detail");
            if of_a_table.is_match(&step) || of_weeks(statement, &step) {
                through_all.push(format!("{step}: {statement}"));
            }
            let Some(found) = scan.captures(&step) else { continue };
            let alias = Regex::new(&format!(r"(?:FROM|JOIN)\s+(\w+)\s+{}\b", &found[1])).unwrap();
            let table = alias
                .captures(statement)
                .map_or(&found[1], |named| named.get(1).unwrap().as_str());
            let by_few = found
                .get(2)
                .is_some_and(|index| partial.iter().any(|name| name == index.as_str()));
            let first_only = FIRST_ROW_ONLY.iter().any(|words| statement.contains(words));
            if GROWING.contains(&table) && !by_few && !first_only {
                through_all.push(format!("{step}: {statement}"));
            }
        }
    }
    assert!(through_all.is_empty(), "{through_all:#?}");
}
