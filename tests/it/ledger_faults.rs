//! A ledger that cannot be used: nothing is changed in AWS, and whoever looks is told how to go on.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use dutybound::ledger::Ledger;
use jiff::Timestamp;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};

use crate::harness::*;

/// The page size of SQLite.
const PAGE: u64 = 4096;

/// An installation in which bob is to take over from alice, with a ledger that no process uses.
async fn before_a_hand_off() -> Site {
    let site = Site::payments().await;
    site.run(&["apply"]).await.expect(0);
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    // The user of it that ends last moves its log into the file.
    let writer = Ledger::open(&site.path("ledger.db"), "test", Timestamp::now()).await;
    writer.unwrap().close().await;
    assert!(content(&site.path("ledger.db-wal")).is_none());
    site.sandbox.clear_journal();
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

/// The pass refuses to act, says these words, and acts once the ledger is as it was.
async fn refuses(site: &Site, words: &[&str]) {
    site.run(&["apply"]).await.expect(1).says(words);
    assert_eq!(site.written(), [""; 0]);
    assert!(site.admin(ALICE) && !site.admin(BOB));
}

async fn goes_on(site: &Site) {
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(BOB) && !site.admin(ALICE));
}

fn overwrite(path: &Path, at: u64, length: usize) {
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    // No page of SQLite and no text begins like this.
    file.write_all(&vec![0xa5; length]).unwrap();
}

/// Runs the program through another one, such as a shell that limits it first.
fn through(site: &Site, wrapper: &[&str], arguments: &[&str]) -> Command {
    let plain = site.command(arguments);
    let mut command = Command::new(wrapper[0]);
    command
        .args(&wrapper[1..])
        .arg(plain.get_program())
        .args(plain.get_args())
        .current_dir(site.path("."))
        .env_clear()
        .envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("PATH", std::env::var_os("PATH").unwrap())
        .stdin(Stdio::null());
    command
}

/// Runs a prepared command to its end.
async fn outcome(mut command: Command) -> Output {
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    Output {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[tokio::test]
async fn a_damaged_ledger_is_refused_and_a_copy_in_its_place_goes_on() {
    let site = before_a_hand_off().await;
    let ledger = site.path("ledger.db");
    let good = fs::read(&ledger).unwrap();
    let pages = u64::try_from(good.len()).unwrap() / PAGE;
    let page = usize::try_from(PAGE).unwrap();
    let told = &["ledger.db", "damaged", "dutybound backup", "Nothing is changed in AWS"];
    overwrite(&ledger, 0, 100);
    refuses(&site, told).await;
    for page_number in 1..pages {
        fs::write(&ledger, &good).unwrap();
        overwrite(&ledger, page_number * PAGE, page);
        refuses(&site, told).await;
    }
    fs::write(&ledger, &good[..good.len() / 2]).unwrap();
    refuses(&site, told).await;
    fs::write(&ledger, &good[..page + 17]).unwrap();
    refuses(&site, told).await;
    fs::write(&ledger, "these are the minutes of the last meeting\n".repeat(200)).unwrap();
    refuses(&site, told).await;
    fs::write(&ledger, &good).unwrap();
    goes_on(&site).await;
}

#[tokio::test]
async fn a_ledger_that_cannot_be_opened_is_refused() {
    let site = before_a_hand_off().await;
    let (ledger, away) = (site.path("ledger.db"), site.path("away.db"));
    fs::rename(&ledger, &away).unwrap();
    fs::create_dir(&ledger).unwrap();
    refuses(&site, &["cannot open the ledger", "ledger.db", "directory"]).await;
    fs::remove_dir(&ledger).unwrap();
    let config = fs::read_to_string(site.path("config.toml")).unwrap();
    let elsewhere = config.replace("\"ledger.db\"", "\"nowhere/ledger.db\"");
    fs::write(site.path("config.toml"), elsewhere).unwrap();
    refuses(&site, &["nowhere/ledger.db", "check that the directory exists"]).await;
    fs::write(site.path("config.toml"), config).unwrap();
    fs::rename(&away, &ledger).unwrap();
    goes_on(&site).await;
}

#[tokio::test]
async fn a_ledger_that_cannot_be_written_is_refused() {
    let site = before_a_hand_off().await;
    // Whom permissions do not bind must give that right up first.
    let root = fs::metadata(site.path(".")).unwrap().uid() == 0;
    let bound: &[&str] = if root {
        &[
            "setpriv",
            "--bounding-set",
            "-dac_override,-dac_read_search",
            "--inh-caps",
            "-all",
        ]
    } else {
        &["env"]
    };
    for (what, denied, allowed) in [("ledger.db", 0o400, 0o600), (".", 0o500, 0o700)] {
        if what == "." {
            fs::remove_file(site.path("ledger.db.lock")).unwrap();
        }
        fs::set_permissions(site.path(what), Permissions::from_mode(denied)).unwrap();
        let apply = outcome(through(&site, bound, &["apply"])).await;
        fs::set_permissions(site.path(what), Permissions::from_mode(allowed)).unwrap();
        apply.expect(1).says(&["ledger.db", "may write there"]);
        assert_eq!(site.written(), [""; 0]);
    }
    goes_on(&site).await;
}

#[tokio::test]
async fn a_ledger_that_somebody_keeps_locked_is_refused_in_seconds() {
    let site = before_a_hand_off().await;
    let somebody = raw(&site).await;
    let lock = somebody.begin_with("BEGIN EXCLUSIVE").await.unwrap();
    refuses(&site, &["another program keeps the ledger locked", "ledger.db"]).await;
    lock.rollback().await.unwrap();
    somebody.close().await;
    goes_on(&site).await;
}

#[tokio::test]
async fn a_ledger_of_another_version_or_owner_is_refused() {
    let site = before_a_hand_off().await;
    let good = fs::read(site.path("ledger.db")).unwrap();
    for (change, words) in [
        (
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'later', 1, x'00', 0)",
            ["does not fit this version", "9999"],
        ),
        (
            "UPDATE _sqlx_migrations SET checksum = x'00' WHERE version = 1",
            ["does not fit this version", "has been modified"],
        ),
        (
            "UPDATE installation SET owner_id = 'somebody'",
            ["belongs to owner_id \"somebody\"", "\"test\""],
        ),
    ] {
        let database = raw(&site).await;
        sqlx::query(change).execute(&database).await.unwrap();
        database.close().await;
        refuses(&site, &words).await;
        fs::write(site.path("ledger.db"), &good).unwrap();
    }
    goes_on(&site).await;
}

/// A shell that ignores the signal of an exceeded limit, so that the program gets the error instead.
const LIMITED: [&str; 4] = [
    "bash",
    "-c",
    "trap '' XFSZ; ulimit -S -f \"$LIMIT\"; exec \"$@\"",
    "bash",
];

#[tokio::test]
async fn a_disk_that_is_full_at_any_point_of_a_pass_is_survived() {
    let mut limits = (0..).map(|step| step * 28);
    let mut acted = 0;
    loop {
        let limit = limits.next().unwrap();
        let site = before_a_hand_off().await;
        let mut command = through(&site, &LIMITED, &["apply"]);
        command.env("LIMIT", limit.to_string());
        let apply = outcome(command).await;
        if apply.code == Some(0) {
            break;
        }
        apply.expect(1).says(&["ledger", "disk"]);
        // What was done had been announced in the ledger, so that it is settled now and not done again.
        let writes = site.writes().len();
        acted += writes;
        assert!(limit > 16 || writes == 0, "{limit}: {}", site.story());
        site.run(&["apply"]).await;
        goes_on(&site).await;
        assert_eq!(site.writes().len(), 4, "{limit}: {}", site.story());
        assert_eq!(site.intervals().await.len(), 4, "{limit}");
    }
    assert!(0 < acted, "the disk was never full between a call and its outcome");
}

#[tokio::test]
async fn the_daemon_outlives_a_full_disk_and_goes_on_when_there_is_room() {
    let site = Site::payments().await;
    let mut command = through(&site, &LIMITED, &["run"]);
    command.env("LIMIT", "unlimited");
    let daemon = site.daemon_by(command);
    daemon.ready().await;
    site.until_admin(ALICE, true).await;
    eventually("both grants are on record", async || site.intervals().await.len() == 2).await;
    let boundary = from_now(20);
    site.shifts(&[
        ("PALICE1", from_now(-60), boundary),
        ("PBOB002", boundary, from_now(3600)),
    ]);
    site.until_polled("GET /schedules/PABC123").await;
    let limit = |bytes: &str| {
        let (pid, limit) = (daemon.id().to_string(), format!("--fsize={bytes}:unlimited"));
        let limited = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
        assert!(limited.unwrap().success());
    };
    // The log of the ledger cannot grow any more.
    limit(&fs::metadata(site.path("ledger.db-wal")).unwrap().len().to_string());
    site.sandbox.clear_journal();
    let failed = "dutybound_passes_total{outcome=\"ledger_error\"} ";
    eventually("passes fail", async || {
        daemon.metric(failed).await.is_some_and(|n| 2.0 <= n)
    })
    .await;
    assert_eq!(site.written(), [""; 0]);
    assert!(site.admin(ALICE) && site.member(READERS, ALICE));
    daemon.until_says("the disk of the ledger").await;
    let said = daemon.log().matches("the pass failed; it is tried again").count();
    assert_eq!(said, 1, "{}", daemon.log());

    limit("unlimited");
    site.until_admin(ALICE, false).await;
    site.until("alice no longer reads", |view| {
        !view.world.aws.is_member(READERS, ALICE)
    })
    .await;
    assert!(site.admin(BOB) && site.member(READERS, BOB));
    daemon.until_says("passes succeed again").await;
    eventually("everything is on record", async || {
        let rows = site.intervals().await;
        rows.len() == 4 && rows.iter().filter(|row| row.revoked_at.is_none()).count() == 2
    })
    .await;
    daemon.term().await;
    assert_eq!(site.writes().len(), 4, "{}", site.story());
}

#[tokio::test]
async fn two_daemons_with_ledgers_of_their_own_do_not_fight() {
    let site = Site::payments().await;
    let _first = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    site.until("alice reads", |view| view.world.aws.is_member(READERS, ALICE))
        .await;
    eventually("both grants are on record", async || site.intervals().await.len() == 2).await;
    let config = fs::read_to_string(site.path("config.toml")).unwrap();
    let other = config
        .replace("\"ledger.db\"", "\"other.db\"")
        .replace("owner_id = \"test\"", "owner_id = \"other\"");
    fs::write(site.path("other.toml"), other).unwrap();
    // The program with the other configuration.
    let second = |arguments: &[&str]| {
        let plain = site.command(&[]);
        let mut command = Command::new(plain.get_program());
        command
            .args(["--config", "other.toml"])
            .args(arguments)
            .current_dir(site.path("."))
            .env_clear()
            .envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .stdin(Stdio::null());
        command
    };
    site.sandbox.clear_journal();
    let daemon = site.daemon_by(second(&["run"]));
    daemon.ready().await;
    eventually("the second one reports what is not its own", async || {
        outcome(second(&["status"])).await.all().contains("Not ours (2)")
    })
    .await;
    let several_passes = async || {
        for _ in 0..4 {
            site.until_polled("GET /schedules/PABC123").await;
        }
    };
    several_passes().await;
    assert_eq!(site.written(), [""; 0]);

    // Whoever of the two is first: bob gets it, alice loses what the first one gave her, and then all is quiet.
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.until_admin(ALICE, false).await;
    site.until("alice no longer reads", |view| {
        !view.world.aws.is_member(READERS, ALICE)
    })
    .await;
    several_passes().await;
    site.sandbox.clear_journal();
    several_passes().await;
    assert_eq!(site.written(), [""; 0], "{}", site.story());
    assert!(site.admin(BOB) && site.member(READERS, BOB));
    assert!(!site.admin(ALICE) && !site.member(READERS, ALICE));
}
