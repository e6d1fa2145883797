//! The record cannot be changed without `audit verify` saying so.

use std::fs;

use dutybound::ledger::Ledger;
use jiff::Timestamp;
use sqlx::AssertSqlSafe;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};

use crate::harness::*;

/// Two hand-offs, a hold, an order given and lifted, on record.
async fn eventful() -> Site {
    let site = Site::payments().await;
    site.run(&["apply"]).await.expect(0);
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.run(&["apply"]).await.expect(0);
    site.run(&["revoke", "--person", BOB, "--reason", "lost laptop"])
        .await
        .expect(0);
    site.run(&["revoke", "--person", BOB, "--lift"]).await.expect(0);
    site.run(&["apply"]).await.expect(0);
    site.run(&["audit", "verify"]).await.expect(0).says(&["Intact"]);
    site
}

/// The database without the program.
async fn raw(site: &Site) -> SqlitePool {
    let options = SqliteConnectOptions::new().filename(site.path("ledger.db"));
    SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await
        .unwrap()
}

/// Does something to the file behind the program's back, with the triggers out of the way, and puts them back.
async fn tamper(site: &Site, statement: &str) {
    let database = raw(site).await;
    let triggers: Vec<(String, String)> = sqlx::query_as("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
        .fetch_all(&database)
        .await
        .unwrap();
    for (name, _) in &triggers {
        sqlx::query(AssertSqlSafe(format!("DROP TRIGGER {name}")))
            .execute(&database)
            .await
            .unwrap();
    }
    sqlx::query("PRAGMA foreign_keys = OFF")
        .execute(&database)
        .await
        .unwrap();
    let done = sqlx::query(AssertSqlSafe(statement.to_owned()))
        .execute(&database)
        .await
        .unwrap();
    assert!(0 < done.rows_affected(), "{statement}");
    for (_, sql) in triggers {
        sqlx::query(AssertSqlSafe(sql)).execute(&database).await.unwrap();
    }
    database.close().await;
}

#[tokio::test]
async fn whatever_is_changed_added_or_deleted_directly_is_found() {
    let site = eventful().await;
    // The last user of it moves the log into the file.
    Ledger::open(&site.path("ledger.db"), "test", Timestamp::now())
        .await
        .unwrap()
        .close()
        .await;
    let good = fs::read(site.path("ledger.db")).unwrap();
    for (statement, words) in [
        (
            "UPDATE access SET granted_at = granted_at - 60000 WHERE id = 1",
            &["access 1", "not what the chain says", "granted_at"][..],
        ),
        (
            "UPDATE access SET revoked_at = revoked_at - 1 WHERE id = 1",
            &["access 1", "revoked_at"],
        ),
        (
            "UPDATE access SET person = 'mallory@example.com' WHERE id = 2",
            &["access 2", "mallory@example.com", "alice@example.com"],
        ),
        ("DELETE FROM access WHERE id = 2", &["access 2", "the row is gone"]),
        (
            "INSERT INTO access (entitlement, target, principal, person, granted_at, grant_intent) SELECT entitlement, target, 'x', person, granted_at, grant_intent FROM access WHERE id = 1",
            &["the chain knows nothing of it"],
        ),
        (
            "UPDATE intent SET reference = 'other' WHERE id = 1",
            &["intent 1", "reference"],
        ),
        (
            "UPDATE intent SET change = replace(change, 'alice', 'carol') WHERE id = 1",
            &["intent 1", "change", "sha256:"],
        ),
        ("DELETE FROM intent WHERE id = 3", &["intent 3", "the row is gone"]),
        (
            "UPDATE cause SET body = replace(body, 'PABC123', 'PZZZ999') WHERE id = 1",
            &["cause 1", "body"],
        ),
        ("DELETE FROM cause WHERE id = 1", &["cause 1", "the row is gone"]),
        (
            "UPDATE bar SET reason = 'routine' WHERE id = 1",
            &["bar 1", "lost laptop", "routine"],
        ),
        (
            "UPDATE bar SET lifted_at = NULL, lifted_by = NULL WHERE id = 1",
            &["bar 1", "lifted_by", "null"],
        ),
        (
            "UPDATE snapshot SET content = 'x' WHERE id = 1",
            &["snapshot 1", "content"],
        ),
        (
            "UPDATE installation SET created_at = 0",
            &["installation 1", "created_at"],
        ),
        (
            "UPDATE event SET body = replace(body, 'alice', 'carol') WHERE kind = 'access_begun'",
            &["access_begun", "hashes do not fit"],
        ),
        (
            "UPDATE event SET at = at + 1 WHERE seq = 5",
            &["event 5", "hashes do not fit"],
        ),
        (
            "UPDATE event SET tbl = 'cause' WHERE kind = 'access_begun'",
            &["access_begun", "hashes do not fit"],
        ),
        (
            "UPDATE event SET row = row + 1 WHERE kind = 'access_begun'",
            &["access_begun", "hashes do not fit"],
        ),
        (
            "DELETE FROM event WHERE seq BETWEEN 4 AND 6",
            &["events 4 to 6 are missing", "event 7"],
        ),
        ("DELETE FROM event WHERE seq = 1", &["event 1 is missing"]),
        (
            "DELETE FROM event WHERE seq > (SELECT MAX(seq) - 5 FROM event)",
            &["BROKEN"],
        ),
        (
            "INSERT INTO event SELECT 0, at, kind, tbl, row, op, body, hash FROM event WHERE seq = 5",
            &["before the beginning"],
        ),
        ("DELETE FROM event", &["no event at all"]),
        (
            "INSERT INTO retention VALUES (1, 1000, 1000)",
            &["opened the ledger for removal"],
        ),
    ] {
        for name in ["ledger.db-wal", "ledger.db-shm"] {
            drop(fs::remove_file(site.path(name)));
        }
        fs::write(site.path("ledger.db"), &good).unwrap();
        tamper(&site, statement).await;
        let said = site.run(&["audit", "verify"]).await;
        assert_eq!(said.code, Some(1), "{statement}: {}", said.all());
        said.says(words);
        let json = site
            .run(&["audit", "verify", "--format", "json"])
            .await
            .expect(1)
            .json();
        assert_eq!(json["intact"], false, "{statement}");
        assert!(0 < json["wrong"].as_i64().unwrap(), "{statement}");
    }
}

#[tokio::test]
async fn a_trigger_that_is_gone_is_found() {
    let site = eventful().await;
    let database = raw(&site).await;
    sqlx::query("DROP TRIGGER access_ends_once")
        .execute(&database)
        .await
        .unwrap();
    database.close().await;
    site.run(&["audit", "verify"])
        .await
        .expect(1)
        .says(&["access_ends_once", "is gone"]);
}
