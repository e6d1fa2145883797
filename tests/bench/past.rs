//! A year of ledger, written in bulk: the rows and events that the daemon leaves behind, many to a transaction.
//!
//! The daemon commits each of them by itself, which for three million hand-overs takes hours. This writes the same rows and
//! the same chain straight into the file of a ledger that the daemon's own code has begun, as its one user; `audit verify`
//! afterwards proves that the ledger accepts them as its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use dutybound::config::Timing;
use dutybound::identity_center::ChangeKind;
use dutybound::ledger::Ledger;
use dutybound::model::{
    Basis, Cause, EntitlementId, GroupRef, Interval, MemberRef, Origin, PermissionSetRef, Person, ProjectName,
    ResolvedTarget, Right, ScheduleKey, ScheduleKind, Snapshot, SourceName, Target,
};
use dutybound::plan::{Change, Foresight};
use dutybound_sandbox::organisation::Organisation;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, QueryBuilder, Row, Sqlite, SqliteConnection};

use crate::rig;

/// How long a turn lasts: every schedule hands over three times a day, so that the large organisation comes to 3.3 million
/// intervals of access a year.
const TURN: SignedDuration = SignedDuration::from_hours(8);
/// How long a past is written: a year, or `DUTYBOUND_DAYS`.
pub(crate) fn length() -> SignedDuration {
    let days = std::env::var("DUTYBOUND_DAYS").map_or(365, |days| days.parse().unwrap());
    SignedDuration::from_hours(24 * days)
}

/// So many rows go into one statement.
const ROWS: usize = 100;
/// As the ledger's chain has it.
const EVENT_DOMAIN: &[u8] = b"dutybound ledger event v1\0";

/// What was written.
pub(crate) struct Written {
    /// Intervals of access that ended.
    pub(crate) ended: i64,
    /// Intervals that stand.
    pub(crate) standing: i64,
}

/// When the year begins that ends at `end`.
pub(crate) fn beginning(end: Timestamp) -> Timestamp {
    end - length()
}

/// Writes the year before `end` into a new ledger at `path`: all members hold what membership earns all the time, and every
/// schedule has handed over every eight hours.
pub(crate) async fn write(path: &Path, organisation: &Organisation, end: Timestamp) -> Written {
    let begin = beginning(end);
    let ledger = Ledger::open(path, "bench", begin).await.unwrap();
    let lives: BTreeMap<String, SignedDuration> = (0..60)
        .map(|n| {
            let name = PermissionSetRef::Name(format!("Role{n:02}"));
            let account = "1".repeat(12);
            let target = rig::Aws::target(&Target::Assignment {
                account,
                permission_set: name,
            });
            let ResolvedTarget::Assignment { permission_set_arn, .. } = target else {
                unreachable!()
            };
            (permission_set_arn.to_string(), SignedDuration::from_hours(1))
        })
        .collect();
    ledger.note_sessions(&lives, begin).await.unwrap();
    ledger.close().await;

    let mut writer = Writer::open(path).await;
    let mut first = Vec::new();
    for project in organisation.projects() {
        for (i, group) in project.groups.iter().enumerate() {
            for email in &project.members {
                let id = entitlement(&project.name, &format!("group-{i}"));
                let target = rig::Aws::target(&Target::Group(GroupRef::Name(group.clone())));
                let always = Interval::ALWAYS;
                first.push(grant(id, email, target, always, Basis::Membership, begin));
            }
        }
    }
    let mut standing = 0;
    for change in &first {
        writer.hand(change, begin, None).await;
        standing += 1;
    }
    drop(first);
    let turns = length().as_secs() / TURN.as_secs();
    let mut ended = 0;
    for turn in 0..turns {
        let from = begin + TURN * i32::try_from(turn).unwrap();
        let span = Interval::new(from, from + TURN).unwrap();
        for project in organisation.projects() {
            for schedule in &project.schedules {
                let (user_id, email) = schedule.turn(usize::try_from(turn).unwrap());
                let source = SourceName(schedule.provider.into());
                let basis = Basis::OnCall {
                    schedule: ScheduleKey {
                        source,
                        kind: ScheduleKind::Schedule,
                        id: schedule.id.clone().into(),
                    },
                    user_id: user_id.into(),
                    level: None,
                    via_override: None,
                };
                let target = rig::Aws::target(&Target::Assignment {
                    account: project.account.clone(),
                    permission_set: PermissionSetRef::Name(schedule.permission_set.clone()),
                });
                let id = entitlement(&project.name, &schedule.entitlement);
                let change = grant(id, email, target, span, basis, from);
                // The last turn lasts.
                let over = (turn + 1 < turns).then_some(span.end());
                writer.hand(&change, from, over).await;
                standing += i64::from(over.is_none());
                ended += i64::from(over.is_some());
            }
        }
    }
    writer.end().await;
    Written { ended, standing }
}

/// What a read of every schedule at `at` finds: the turns that go on as they did in the year that ended at `end`.
pub(crate) fn snapshots(organisation: &Organisation, end: Timestamp, at: Timestamp) -> Vec<Snapshot> {
    let window = dutybound::poll::window(at, Timing::default().horizon, None);
    let begin = beginning(end);
    let turn_at = |t: Timestamp| begin.duration_until(t).as_secs().div_euclid(TURN.as_secs());
    let turns = turn_at(window.start())..=turn_at(window.end());
    let schedules = organisation.projects().iter().flat_map(|project| &project.schedules);
    let turns = turns.map(|turn| {
        (
            usize::try_from(turn).unwrap(),
            begin + TURN * i32::try_from(turn).unwrap(),
        )
    });
    let turns: Vec<_> = turns.collect();
    schedules
        .map(|schedule| rig::read(schedule, &turns, TURN, window, at))
        .collect()
}

fn entitlement(project: &str, name: &str) -> EntitlementId {
    EntitlementId {
        project: ProjectName(project.into()),
        name: name.into(),
    }
}

fn grant(
    id: EntitlementId,
    email: &str,
    target: ResolvedTarget,
    span: Interval,
    basis: Basis,
    due: Timestamp,
) -> Change {
    let person = Person::parse(email).unwrap();
    let origin = |line| Origin {
        file: format!("access.d/{}.toml", id.project).into(),
        line,
    };
    let rests_on = match &basis {
        Basis::OnCall { schedule, .. } => [schedule.clone()].into(),
        _ => [].into(),
    };
    let cause = Cause {
        right: Arc::new(Right {
            entitlement: id.clone(),
            basis,
            project: id.project.clone(),
            rule: origin(11),
            delegation: None,
        }),
        person: person.clone(),
        held: span,
        duty: span,
        end_known: true,
        member: Some(Arc::new(MemberRef {
            origin: origin(53),
            added_by: Some(person.clone()),
        })),
    };
    Change {
        kind: ChangeKind::Grant,
        entitlement: id,
        principal: rig::Aws::principal(&person),
        person: Some(person),
        target,
        causes: vec![Arc::new(cause)],
        rests_on,
        due,
        foresight: Foresight::Predicted,
        context: None,
    }
}

/// A row of the table `intent`.
struct Intent {
    id: i64,
    change: Change,
    text: String,
    created_at: i64,
    completed_at: i64,
}

/// A row of the table `access` with its one cause.
struct Access {
    id: i64,
    change: Change,
    granted_at: i64,
    grant_intent: i64,
    revoked: Option<(i64, i64)>,
    cause: String,
    recorded_at: i64,
}

/// A row of the table `unheld`.
struct Unheld {
    entitlement: String,
    person: String,
    from: i64,
    to: i64,
    ended_at: i64,
}

/// A row of the table `event`.
struct Event {
    seq: i64,
    at: i64,
    kind: &'static str,
    table: &'static str,
    row: i64,
    op: &'static str,
    body: String,
    hash: [u8; 32],
}

/// What is to happen once a turn is over.
struct Later {
    access: i64,
    change: Change,
    granted_at: i64,
    grant_intent: i64,
    cause: String,
    recorded_at: i64,
    over: Timestamp,
}

struct Writer {
    connection: SqliteConnection,
    seq: i64,
    hash: [u8; 32],
    ids: i64,
    accesses: i64,
    due: std::collections::VecDeque<Later>,
    intents: Vec<Intent>,
    ended: Vec<Access>,
    unheld: Vec<Unheld>,
    events: Vec<Event>,
}

impl Writer {
    async fn open(path: &Path) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Off)
            .synchronous(SqliteSynchronous::Off)
            .pragma("cache_size", "-400000")
            .foreign_keys(false);
        let mut connection = options.connect().await.unwrap();
        let last = sqlx::query("SELECT seq, hash FROM event ORDER BY seq DESC LIMIT 1");
        let last = last.fetch_one(&mut connection).await.unwrap();
        let hash: Vec<u8> = last.get(1);
        sqlx::query("BEGIN").execute(&mut connection).await.unwrap();
        Self {
            connection,
            seq: last.get(0),
            hash: hash.try_into().unwrap(),
            ids: 0,
            accesses: 0,
            due: std::collections::VecDeque::new(),
            intents: Vec::new(),
            ended: Vec::new(),
            unheld: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Grants what a turn from `from` earns, and takes back what the turn before it earned.
    async fn hand(&mut self, change: &Change, from: Timestamp, over: Option<Timestamp>) {
        // AWS takes some seconds, another number of them each time.
        let asked = from.as_millisecond() + 200;
        let confirmed = asked + 3000 + self.ids % 17 * 250;
        let grant_intent = self.intent(change.clone(), asked, confirmed);
        self.accesses += 1;
        let access = self.accesses;
        let cause = serde_json::to_string(&change.causes[0]).unwrap();
        let body = json!({
            "entitlement": change.entitlement.to_string(), "target": text(&change.target),
            "principal": change.principal.0, "person": change.person, "granted_at": confirmed,
            "grant_intent": grant_intent, "revoked_at": null, "revoke_intent": null, "end_reason": null,
        });
        self.event(confirmed, "access_begun", "access", access, "insert", &body);
        let body = json!({ "access_id": access, "body": cause, "recorded_at": confirmed, "ended_at": null });
        self.event(confirmed, "cause_recorded", "cause", access, "insert", &body);
        if let Basis::OnCall { .. } = change.causes[0].right.basis {
            self.unheld.push(Unheld {
                entitlement: change.entitlement.to_string(),
                person: change.person.as_ref().unwrap().to_string(),
                from: from.as_millisecond(),
                to: (from + TURN).as_millisecond(),
                ended_at: confirmed,
            });
        }
        let later = Later {
            access,
            change: change.clone(),
            granted_at: confirmed,
            grant_intent,
            cause,
            recorded_at: confirmed,
            over: over.unwrap_or(Timestamp::MAX),
        };
        match over {
            Some(_) => self.due.push_back(later),
            None => self.stands(later),
        }
        while self.due.front().is_some_and(|later| later.over <= from) {
            if let Some(later) = self.due.pop_front() {
                self.take_back(later);
            }
        }
        self.flush(ROWS).await;
    }

    fn take_back(&mut self, later: Later) {
        let asked = later.over.as_millisecond() + 8000;
        let confirmed = asked + 2000 + self.ids % 13 * 300;
        let change = Change {
            kind: ChangeKind::Revoke,
            due: later.over,
            ..later.change.clone()
        };
        let intent = self.intent(change, asked, confirmed);
        let body = json!({ "ended_at": confirmed });
        self.event(confirmed, "cause_ended", "cause", later.access, "update", &body);
        let body = json!({ "revoked_at": confirmed, "revoke_intent": intent, "end_reason": "revoked" });
        self.event(confirmed, "access_ended", "access", later.access, "update", &body);
        self.ended.push(Access {
            id: later.access,
            change: later.change,
            granted_at: later.granted_at,
            grant_intent: later.grant_intent,
            revoked: Some((confirmed, intent)),
            cause: later.cause,
            recorded_at: later.recorded_at,
        });
    }

    fn stands(&mut self, later: Later) {
        self.ended.push(Access {
            id: later.access,
            change: later.change,
            granted_at: later.granted_at,
            grant_intent: later.grant_intent,
            revoked: None,
            cause: later.cause,
            recorded_at: later.recorded_at,
        });
    }

    fn intent(&mut self, change: Change, asked: i64, confirmed: i64) -> i64 {
        self.ids += 1;
        let id = self.ids;
        let written = text(&change);
        let digest = Sha256::digest(written.as_bytes());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let body = json!({
            "kind": kind(change.kind), "entitlement": change.entitlement.to_string(), "target": text(&change.target),
            "principal": change.principal.0, "person": change.person, "change": format!("sha256:{digest}"),
            "policy": POLICY, "due_at": change.due.as_millisecond(), "created_at": asked, "reference": null,
            "completed_at": null, "outcome": null, "detail": null,
        });
        self.event(asked, "intent_begun", "intent", id, "insert", &body);
        let reference = json!({ "reference": reference(id) });
        self.event(asked + 200, "reference_known", "intent", id, "update", &reference);
        let completed = json!({ "completed_at": confirmed, "outcome": "succeeded" });
        self.event(confirmed, "intent_completed", "intent", id, "update", &completed);
        self.intents.push(Intent {
            id,
            change,
            text: written,
            created_at: asked,
            completed_at: confirmed,
        });
        id
    }

    fn event(&mut self, at: i64, kind: &'static str, table: &'static str, row: i64, op: &'static str, body: &Value) {
        self.seq += 1;
        let body = body.to_string();
        let mut hash = Sha256::new();
        hash.update(EVENT_DOMAIN);
        for part in [
            &self.hash[..],
            &self.seq.to_be_bytes(),
            &at.to_be_bytes(),
            kind.as_bytes(),
            table.as_bytes(),
            &row.to_be_bytes(),
            op.as_bytes(),
            body.as_bytes(),
        ] {
            hash.update(u64::try_from(part.len()).unwrap().to_be_bytes());
            hash.update(part);
        }
        self.hash = hash.finalize().into();
        self.events.push(Event {
            seq: self.seq,
            at,
            kind,
            table,
            row,
            op,
            body,
            hash: self.hash,
        });
    }

    /// Writes what waits, unless that is less than so many rows.
    async fn flush(&mut self, least: usize) {
        if self.events.len() < least.max(1) {
            return;
        }
        let to = &mut self.connection;
        for rows in self.intents.chunks(ROWS) {
            let insert = "INSERT INTO intent (id, kind, entitlement, target, principal, person, change, policy, due_at, \
                 created_at, reference, completed_at, outcome) ";
            let mut query = QueryBuilder::<Sqlite>::new(insert);
            query.push_values(rows, |mut row, intent| {
                let change = &intent.change;
                row.push_bind(intent.id)
                    .push_bind(kind(change.kind))
                    .push_bind(change.entitlement.to_string())
                    .push_bind(text(&change.target))
                    .push_bind(change.principal.0.as_str())
                    .push_bind(change.person.as_ref().map(Person::as_str))
                    .push_bind(intent.text.as_str())
                    .push_bind(POLICY)
                    .push_bind(change.due.as_millisecond())
                    .push_bind(intent.created_at)
                    .push_bind(reference(intent.id))
                    .push_bind(intent.completed_at)
                    .push_bind("succeeded");
            });
            query.build().execute(&mut *to).await.unwrap();
        }
        for rows in self.ended.chunks(ROWS) {
            let insert = "INSERT INTO access (id, entitlement, target, principal, person, granted_at, grant_intent, \
                 revoked_at, revoke_intent, end_reason) ";
            let mut query = QueryBuilder::<Sqlite>::new(insert);
            query.push_values(rows, |mut row, access| {
                let change = &access.change;
                row.push_bind(access.id)
                    .push_bind(change.entitlement.to_string())
                    .push_bind(text(&change.target))
                    .push_bind(change.principal.0.as_str())
                    .push_bind(change.person.as_ref().map(Person::as_str))
                    .push_bind(access.granted_at)
                    .push_bind(access.grant_intent)
                    .push_bind(access.revoked.map(|(at, _)| at))
                    .push_bind(access.revoked.map(|(_, intent)| intent))
                    .push_bind(access.revoked.map(|_| "revoked"));
            });
            query.build().execute(&mut *to).await.unwrap();
            let insert = "INSERT INTO cause (id, access_id, body, recorded_at, ended_at) ";
            let mut query = QueryBuilder::<Sqlite>::new(insert);
            query.push_values(rows, |mut row, access| {
                row.push_bind(access.id)
                    .push_bind(access.id)
                    .push_bind(access.cause.as_str())
                    .push_bind(access.recorded_at)
                    .push_bind(access.revoked.map(|(at, _)| at));
            });
            query.build().execute(&mut *to).await.unwrap();
        }
        for rows in self.unheld.chunks(ROWS) {
            let insert = "INSERT INTO unheld (entitlement, person, duty_from, duty_to, why, noted_at, ended_at) ";
            let mut query = QueryBuilder::<Sqlite>::new(insert);
            query.push_values(rows, |mut row, unheld| {
                row.push_bind(unheld.entitlement.as_str())
                    .push_bind(unheld.person.as_str())
                    .push_bind(unheld.from)
                    .push_bind(unheld.to)
                    .push_bind("granting")
                    .push_bind(unheld.from)
                    .push_bind(unheld.ended_at);
            });
            query.build().execute(&mut *to).await.unwrap();
        }
        for rows in self.events.chunks(ROWS) {
            let mut query = QueryBuilder::<Sqlite>::new("INSERT INTO event (seq, at, kind, tbl, row, op, body, hash) ");
            query.push_values(rows, |mut row, event| {
                row.push_bind(event.seq)
                    .push_bind(event.at)
                    .push_bind(event.kind)
                    .push_bind(event.table)
                    .push_bind(event.row)
                    .push_bind(event.op)
                    .push_bind(event.body.as_str())
                    .push_bind(&event.hash[..]);
            });
            query.build().execute(&mut *to).await.unwrap();
        }
        self.intents.clear();
        self.ended.clear();
        self.unheld.clear();
        self.events.clear();
    }

    async fn end(mut self) {
        while let Some(later) = self.due.pop_front() {
            self.take_back(later);
        }
        self.flush(0).await;
        sqlx::query("COMMIT").execute(&mut self.connection).await.unwrap();
        self.connection.close().await.unwrap();
    }
}

/// The content hash of a policy.
const POLICY: &str = "4be0f2d5a9c0d3c1b6a74f3d6d1e57b1a8a6c0de3bb2b2a7c5e2f94a1c6d7e8f";

fn kind(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Grant => "grant",
        ChangeKind::Revoke => "revoke",
    }
}

fn reference(intent: i64) -> String {
    format!("7c1f4d0a-5b7e-4a52-9d3c-{intent:012}")
}

fn text(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap()
}
