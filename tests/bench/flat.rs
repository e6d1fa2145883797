//! What a day of a soak leaves behind, and whether the last days look like the first.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row};

/// What the ledger keeps. It removes once a day of events is older.
pub(crate) const RETENTION_DAYS: usize = 2;
/// The first day with everything in effect: what is older was removed, and replaced reads, kept for three days, were, too.
const WARM: usize = RETENTION_DAYS + 2;
/// From the end of one day to that of the other the ledger takes in what happens and removes nothing yet.
const GROWS: (usize, usize) = (0, 2);
/// How far from the prediction a figure may be. The allocator and half-filled pages make up most of it.
const TOLERANCE: f64 = 0.1;

/// What there is at a day's end.
pub(crate) struct Day {
    pub(crate) passes: usize,
    pub(crate) changes: usize,
    pub(crate) revokes: usize,
    pub(crate) cpu: Duration,
    pub(crate) heap_mb: f64,
    pub(crate) resident_mb: f64,
    pub(crate) peak_mb: f64,
    pub(crate) handles: usize,
    pub(crate) ledger: Sizes,
}

/// The ledger at a day's end.
pub(crate) struct Sizes {
    /// Of its file with its write-ahead log, and of its redo log.
    bytes: u64,
    redo: u64,
    /// In use by what was read of schedules, and by everything else.
    snapshots: i64,
    record: i64,
    /// Intervals of access that ended and those that stand, and events.
    ended: i64,
    standing: i64,
    events: i64,
}

pub(crate) fn head() {
    println!(
        "{:>5} {:>4} {:>7} {:>8} {:>10} {:>8} {:>9} {:>8} {:>8} {:>10} {:>8} {:>10} {:>9} {:>8} {:>9} {:>9}",
        "size",
        "day",
        "passes",
        "changes",
        "CPU ms",
        "heap MB",
        "resident",
        "peak MB",
        "handles",
        "ledger KB",
        "redo KB",
        "record KB",
        "reads KB",
        "ended",
        "standing",
        "events"
    );
}

impl Day {
    pub(crate) fn line(&self, size: usize, day: usize) -> String {
        let ledger = &self.ledger;
        format!(
            "{size:>4}% {day:>4} {:>7} {:>8} {:>10.0} {:>8.2} {:>9.1} {:>8.1} {:>8} {:>10} {:>8} {:>10} {:>9} {:>8} {:>9} {:>9}",
            self.passes,
            self.changes,
            self.cpu.as_secs_f64() * 1e3,
            self.heap_mb,
            self.resident_mb,
            self.peak_mb,
            self.handles,
            ledger.bytes / 1000,
            ledger.redo / 1000,
            ledger.record / 1000,
            ledger.snapshots / 1000,
            ledger.ended,
            ledger.standing,
            ledger.events
        )
    }
}

/// Measures a ledger beside its writer.
pub(crate) async fn read(path: &Path) -> Sizes {
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    let mut connection = options.connect().await.unwrap();
    let count = async |connection: &mut sqlx::SqliteConnection, query: &'static str| -> i64 {
        sqlx::query(query).fetch_one(connection).await.unwrap().get(0)
    };
    let snapshots = "SELECT COALESCE(SUM(pgsize), 0) FROM dbstat WHERE aggregate = TRUE AND name LIKE '%snapshot%'";
    let record = "SELECT COALESCE(SUM(pgsize), 0) FROM dbstat WHERE aggregate = TRUE AND name NOT LIKE '%snapshot%'";
    let file = |suffix| std::fs::metadata(format!("{}{suffix}", path.display())).map_or(0, |file| file.len());
    let sizes = Sizes {
        bytes: file("") + file("-wal") + file("-shm"),
        redo: file(".redo"),
        snapshots: count(&mut connection, snapshots).await,
        record: count(&mut connection, record).await,
        ended: count(
            &mut connection,
            "SELECT COUNT(*) FROM access WHERE revoked_at IS NOT NULL",
        )
        .await,
        standing: count(&mut connection, "SELECT COUNT(*) FROM access WHERE revoked_at IS NULL").await,
        events: count(&mut connection, "SELECT COUNT(*) FROM event").await,
    };
    connection.close().await.unwrap();
    sizes
}

/// Says what was compared, and whether all of it is as it should be.
pub(crate) fn judge(days: &[Day]) -> bool {
    let (Some(last), Some(warm)) = (days.last(), days.get(WARM)) else {
        println!("{} days are too few to judge: it takes {}", days.len(), WARM + 2);
        return true;
    };
    let mut all = true;
    let mut say = |ok: bool, what: String| {
        println!("{} {what}", if ok { "ok:    " } else { "FAILED:" });
        all &= ok;
    };
    let mut at_most = |what: &str, first: f64, last: f64, unit: &str| {
        let grown = (last / first - 1.0) * 100.0;
        let ok = last <= first * (1.0 + TOLERANCE);
        say(
            ok,
            format!("{what} {first:.1} {unit} after day {WARM} and {last:.1} {unit} at the end ({grown:+.1} %)"),
        );
    };
    at_most("heap", warm.heap_mb, last.heap_mb, "MB");
    at_most("resident", warm.resident_mb, last.resident_mb, "MB");
    let highest = |days: &[Day]| days.iter().map(|day| day.ledger.bytes).max().unwrap_or_default();
    let (before, after) = days.split_at(WARM + 1);
    at_most(
        "ledger file with its log, at most",
        mb(highest(before)),
        mb(highest(after)),
        "MB",
    );

    let handles: Vec<usize> = days[WARM..].iter().map(|day| day.handles).collect();
    let same = handles.iter().all(|count| *count == warm.handles);
    say(same, format!("{} open file descriptors every day since", warm.handles));

    let (from, to) = (&days[GROWS.0].ledger, &days[GROWS.1].ledger);
    let revoked = |days: &[Day]| days.iter().map(|day| day.revokes).sum::<usize>();
    let (least, most) = (RETENTION_DAYS, RETENTION_DAYS + 2);
    let bounds = [least, most].map(|kept| revoked(&days[days.len() - kept..]));
    let ended = usize::try_from(last.ledger.ended).unwrap();
    say(
        (bounds[0]..=bounds[1]).contains(&ended),
        format!(
            "{ended} ended intervals on record: those of {least} to {most} days, {} to {}",
            bounds[0], bounds[1]
        ),
    );
    let each = (to.record - from.record) as f64 / (to.ended - from.ended) as f64;
    let predicted = from.record as f64 + each * (last.ledger.ended - from.ended) as f64;
    near(
        &mut say,
        "record",
        predicted,
        last.ledger.record as f64,
        each,
        "ended interval",
    );

    let changes = |days: &[Day]| days.iter().map(|day| day.changes).sum::<usize>() as f64;
    let each = (to.redo - from.redo) as f64 / changes(&days[GROWS.0 + 1..=GROWS.1]);
    let predicted = from.redo as f64 + each * changes(&days[GROWS.0 + 1..]);
    near(
        &mut say,
        "redo log, which keeps 35 days",
        predicted,
        last.ledger.redo as f64,
        each,
        "change",
    );
    all
}

/// Whether a size is as predicted from the growth of the first days, `each` byte an event.
fn near(say: &mut impl FnMut(bool, String), what: &str, predicted: f64, found: f64, each: f64, event: &str) {
    let off = (found / predicted - 1.0) * 100.0;
    let text = format!(
        "{what}: {:.0} KB predicted at {each:.0} bytes an {event}, {:.0} KB found ({off:+.1} %)",
        predicted / 1e3,
        found / 1e3
    );
    say(off.abs() <= TOLERANCE * 100.0, text.replace("an change", "a change"));
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
