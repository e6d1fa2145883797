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
    tamper_all(site, &[statement]).await;
}

async fn tamper_all(site: &Site, statements: &[&str]) {
    let database = raw(site).await;
    let run = async |statement: &str| {
        let done = sqlx::query(AssertSqlSafe(statement.to_owned()))
            .execute(&database)
            .await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}"))
            .rows_affected()
    };
    let triggers: Vec<(String, String, String)> =
        sqlx::query_as("SELECT name, tbl_name, sql FROM sqlite_schema WHERE type = 'trigger'")
            .fetch_all(&database)
            .await
            .unwrap();
    for (name, ..) in &triggers {
        run(&format!("DROP TRIGGER {name}")).await;
    }
    run("PRAGMA foreign_keys = OFF").await;
    for statement in statements {
        let rows = run(statement).await;
        assert!(0 < rows || statement.starts_with("DROP"), "{statement}");
    }
    let upgrades: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'event')")
        .fetch_one(&database)
        .await
        .unwrap();
    // A ledger from before the chain has the triggers of its own tables, without the exception for removal.
    for (name, table, sql) in triggers {
        let old = [
            "access_stays",
            "access_ends_once",
            "intent_stays",
            "intent_completes_once",
            "bar_stays",
            "restoration_stays",
        ];
        if upgrades {
            run(&sql).await;
        } else if old.contains(&name.as_str()) {
            let sql = if name == "access_stays" || name == "intent_stays" {
                format!("CREATE TRIGGER {name} BEFORE DELETE ON {table} BEGIN SELECT RAISE(ABORT, 'never'); END")
            } else {
                sql
            };
            run(&sql).await;
        }
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

#[tokio::test]
async fn a_published_head_shows_that_the_tail_was_cut_off() {
    let site = Site::payments().await;
    site.configure(|settings| settings.more.push_str("[audit]\nheads = \"heads.jsonl\"\n"));
    site.run(&["apply"]).await.expect(0);
    let to = site.path("old.db").to_string_lossy().into_owned();
    site.run(&["backup", &to]).await.expect(0);
    let daemon = site.ready_daemon().await;
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.until_admin(ALICE, false).await;
    daemon
        .term()
        .await
        .contains("head of the ledger's chain")
        .then_some(())
        .unwrap();
    let heads = fs::read_to_string(site.path("heads.jsonl")).unwrap();
    assert!(
        1 < heads.lines().count(),
        "one at the start and one at the end: {heads}"
    );
    site.run(&["audit", "verify", "--head", "heads.jsonl"])
        .await
        .expect(0)
        .says(&["Intact", "part of the chain"]);
    let last: serde_json::Value = serde_json::from_str(heads.lines().last().unwrap()).unwrap();
    let hash = last["hash"].as_str().unwrap();
    for head in [hash.to_owned(), format!("{}:{hash}", last["seq"])] {
        site.run(&["audit", "verify", "--head", &head])
            .await
            .expect(0)
            .says(&["part of the chain: 1"]);
    }
    let other = format!("{}:{}", last["seq"], "ab".repeat(32));
    site.run(&["audit", "verify", "--head", &other])
        .await
        .expect(1)
        .says(&["is not the one whose hash was published"]);
    site.run(&["audit", "verify", "--head", &"ab".repeat(32)])
        .await
        .expect(1)
        .says(&["no event of the chain"]);
    site.run(&["audit", "verify", "--head", "nowhere"])
        .await
        .expect(1)
        .says(&["cannot read heads"]);

    // The copy is a sound ledger by itself, and ends before what was published.
    site.run(&["audit", "verify", "--ledger", "old.db"])
        .await
        .expect(0)
        .says(&["Intact"]);
    let cut = site
        .run(&["audit", "verify", "--ledger", "old.db", "--head", "heads.jsonl"])
        .await;
    cut.expect(1).says(&["the chain is cut off", hash]);
}

#[tokio::test]
async fn a_ledger_from_before_the_chain_is_covered_from_its_upgrade_on() {
    let site = eventful().await;
    let before = site.intervals().await;
    tamper_all(
        &site,
        &[
            "DROP TABLE event",
            "DROP TABLE retention",
            "DROP TABLE removed",
            "DROP INDEX access_by_grant",
            "DROP INDEX access_by_revoke",
            "DELETE FROM _sqlx_migrations WHERE version = 4",
        ],
    )
    .await;
    site.run(&["audit", "verify"]).await.expect(1).says(&["no chain yet"]);
    site.run(&["audit", "export", "--from", "2020-01-01T00:00:00Z"])
        .await
        .expect(1)
        .says(&["no events yet"]);
    site.run(&["status"]).await.expect(0);
    site.run(&["apply"]).await.expect(0);
    assert_eq!(site.intervals().await, before);
    site.run(&["audit", "verify"]).await.expect(0).says(&["Intact"]);
    tamper(
        &site,
        "UPDATE access SET granted_at = granted_at - 1 WHERE revoked_at IS NOT NULL",
    )
    .await;
    site.run(&["audit", "verify"])
        .await
        .expect(1)
        .says(&["access: the rows from before the chain began"]);
    tamper(
        &site,
        "UPDATE access SET granted_at = granted_at + 1 WHERE revoked_at IS NOT NULL",
    )
    .await;
    site.run(&["audit", "verify"]).await.expect(0);
    tamper(
        &site,
        "UPDATE access SET granted_at = granted_at - 1 WHERE revoked_at IS NULL",
    )
    .await;
    site.run(&["audit", "verify"])
        .await
        .expect(1)
        .says(&["not what the chain says", "row_restated"]);
}

#[tokio::test]
async fn a_restored_copy_has_a_sound_chain() {
    let site = Site::payments().await;
    site.run(&["apply"]).await.expect(0);
    let to = site.path("copy.db").to_string_lossy().into_owned();
    site.run(&["backup", &to]).await.expect(0);
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.run(&["apply"]).await.expect(0);
    for with_log in [true, false] {
        for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
            drop(fs::remove_file(site.path(name)));
        }
        if !with_log {
            fs::remove_file(site.path("ledger.db.redo")).unwrap();
        }
        fs::copy(site.path("copy.db"), site.path("ledger.db")).unwrap();
        site.run(&["apply"]).await.expect(0);
        site.run(&["audit", "verify"]).await.expect(0).says(&["Intact"]);
    }
}

/// What is exported, line by line.
async fn exported(site: &Site, format: &str) -> Vec<serde_json::Value> {
    let said = site
        .run(&["audit", "export", "--from", "2020-01-01T00:00:00Z", "--format", format])
        .await
        .expect(0);
    said.stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn what_an_auditor_needs_is_in_the_export() {
    let site = eventful().await;
    let events = exported(&site, "jsonl").await;
    let numbers: Vec<i64> = events.iter().map(|event| event["seq"].as_i64().unwrap()).collect();
    assert!(
        numbers.iter().copied().eq(1..=i64::try_from(events.len()).unwrap()),
        "{numbers:?}"
    );
    let of = |kind: &str| -> Vec<&serde_json::Value> { events.iter().filter(|event| event["kind"] == kind).collect() };
    for kind in [
        "chain_begun",
        "policy_in_force",
        "intent_begun",
        "reference_known",
        "intent_completed",
        "access_begun",
        "access_ended",
        "cause_recorded",
        "cause_ended",
        "order_given",
        "order_lifted",
        "schedule_read",
    ] {
        assert!(!of(kind).is_empty(), "{kind}");
    }
    let begun = of("access_begun")
        .into_iter()
        .find(|event| !event["account"].is_null())
        .unwrap();
    assert_eq!(begun["person"], ALICE);
    assert_eq!(begun["entitlement"], "payments/prod-admin");
    assert_eq!(begun["account"], ACCOUNT);
    assert_eq!(begun["principal"], site.user_id(ALICE));
    assert!(begun["permission_set_arn"].as_str().unwrap().contains("/ps-"));
    assert_eq!(begun["reference"].as_str().unwrap().len(), 36);
    assert_eq!(begun["policy"].as_str().unwrap().len(), 64);
    assert_eq!(begun["context"], "PCI scope: card data never leaves the account.");
    let cause = &begun["causes"][0];
    assert_eq!(cause["schedule"], "pagerduty/PABC123");
    assert!(cause["rule"].as_str().unwrap().starts_with("access.d/project.toml:"));
    assert_eq!(cause["added_by"], "mira@example.com");
    let order = of("order_given")[0];
    assert_eq!(
        (&order["person"], &order["says"]["reason"]),
        (&BOB.into(), &"lost laptop".into())
    );

    let csv = site
        .run(&["audit", "export", "--from", "2020-01-01T00:00:00Z", "--format", "csv"])
        .await
        .expect(0);
    assert_eq!(csv.stdout.lines().count(), events.len() + 1);
    assert!(csv.stdout.starts_with("seq,time,kind,person,entitlement,account,"));
    let none = site
        .run(&[
            "audit",
            "export",
            "--from",
            "2020-01-01T00:00:00Z",
            "--to",
            "2020-01-02T00:00:00Z",
        ])
        .await;
    assert_eq!(none.expect(0).stdout, "");
}

pub(crate) mod ocsf {
    //! Compares events with the schema's own files.

    use serde_json::Value;
    use std::path::PathBuf;

    pub(crate) struct Schema {
        folder: PathBuf,
        dictionary: Value,
    }

    impl Schema {
        /// `None` on a plain clone, which has no such folder. CI must have it.
        pub(crate) fn load() -> Option<Self> {
            let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared");
            let folder = std::env::var_os("DUTYBOUND_SHARED")
                .map_or_else(beside, PathBuf::from)
                .join("specs/ocsf");
            if !folder.exists() {
                assert!(std::env::var_os("CI").is_none(), "{} is missing", folder.display());
                eprintln!("left out: the published schema of OCSF, for ../shared is not beside this checkout");
                return None;
            }
            let mut schema = Self {
                folder,
                dictionary: Value::Null,
            };
            schema.dictionary = schema.file("dictionary.json");
            Some(schema)
        }

        pub(crate) fn file(&self, name: &str) -> Value {
            let path = self.folder.join(name);
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            serde_json::from_str(&text).unwrap()
        }

        /// Attributes of a class or an object with those of what it extends, its own last.
        fn attributes(&self, name: &str) -> Vec<Value> {
            let mut all = Vec::new();
            let mut next = Some(name.to_owned());
            while let Some(name) = next {
                let places = [
                    format!("events/{name}.json"),
                    format!("events/iam/{name}.json"),
                    format!("objects/{name}.json"),
                ];
                let Some(place) = places.iter().find(|place| self.folder.join(place).exists()) else {
                    assert_eq!(name, "object");
                    break;
                };
                let file = self.file(place);
                next = file["extends"].as_str().map(str::to_owned);
                all.insert(0, file["attributes"].clone());
            }
            all
        }

        pub(crate) fn check(&self, name: &str, value: &Value, place: &str) {
            let layers = self.attributes(name);
            for (attribute, required) in layers.iter().flat_map(|layer| layer.as_object().unwrap()) {
                if required["requirement"] == "required" {
                    assert!(value.get(attribute).is_some(), "{place}: {attribute} is required");
                }
            }
            for (attribute, value) in value.as_object().unwrap() {
                let place = format!("{place}.{attribute}");
                let known: Vec<&Value> = layers.iter().filter_map(|layer| layer.get(attribute)).collect();
                assert!(!known.is_empty(), "{place}: {name} has no such attribute");
                let entry = &self.dictionary["attributes"][attribute];
                assert!(entry.is_object(), "{place} is not in the dictionary");
                for layer in &known {
                    assert!(layer.get("@deprecated").is_none(), "{place} is deprecated");
                }
                let enumerated = known.iter().chain([&entry]).any(|layer| layer.get("enum").is_some());
                let allowed = known
                    .iter()
                    .chain([&entry])
                    .any(|layer| layer["enum"].get(value.to_string()).is_some());
                // Classes and categories are enumerated by their files.
                let numbered = ["category_uid", "class_uid"].contains(&attribute.as_str());
                assert!(
                    !enumerated || allowed || numbered,
                    "{place}: {value} is not one of its values"
                );
                let values: Vec<&Value> = match entry["is_array"].as_bool() {
                    Some(true) => value
                        .as_array()
                        .unwrap_or_else(|| panic!("{place} is not a list"))
                        .iter()
                        .collect(),
                    _ => vec![value],
                };
                for value in values {
                    match entry["type"].as_str().unwrap() {
                        "integer_t" | "long_t" | "timestamp_t" => assert!(value.is_i64(), "{place}: {value}"),
                        "string_t" | "email_t" | "username_t" => assert!(value.is_string(), "{place}: {value}"),
                        "object" | "json_t" => assert!(value.is_object(), "{place}: {value}"),
                        "object_t" => self.check(entry["object_type"].as_str().unwrap(), value, &place),
                        object if value.is_object() => self.check(object, value, &place),
                        other => panic!("{place}: {other} is not handled, for {value}"),
                    }
                }
            }
        }

        pub(crate) fn class(&self, name: &str) -> Value {
            self.file(&format!("events/iam/{name}.json"))
        }
    }
}

#[tokio::test]
async fn ocsf_events_are_as_the_published_schema_says() {
    let site = eventful().await;
    let events = exported(&site, "ocsf").await;
    let count = |activity: i64| events.iter().filter(|event| event["type_uid"] == activity).count();
    let intervals = site.intervals().await;
    let ended = intervals.iter().filter(|row| row.revoked_at.is_some()).count();
    assert_eq!((count(300_501), count(300_502)), (intervals.len(), ended));
    assert_eq!((count(300_109), count(300_112)), (1, 1));
    let begun = &events[0];
    assert_eq!(begun["user"]["name"], ALICE);
    assert_eq!(begun["unmapped"]["causes"][0]["schedule"], "pagerduty/PABC123");
    let Some(schema) = ocsf::Schema::load() else { return };
    for event in &events {
        let (name, uid) = match event["class_uid"].as_i64().unwrap() {
            3005 => ("user_access", 5),
            3001 => ("account_change", 1),
            other => panic!("{other}"),
        };
        assert_eq!(schema.class(name)["uid"], uid);
        assert_eq!(schema.class(name)["caption"], event["class_name"]);
        assert_eq!(
            event["category_uid"],
            schema.file("categories.json")["attributes"]["iam"]["uid"]
        );
        assert_eq!(event["class_uid"], event["category_uid"].as_i64().unwrap() * 1000 + uid);
        let activity = event["activity_id"].to_string();
        assert_eq!(
            schema.class(name)["attributes"]["activity_id"]["enum"][activity]["caption"],
            event["activity_name"]
        );
        schema.check(name, event, name);
    }
}
