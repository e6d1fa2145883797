//! Opsgenie reads against scripted answers; names carry the case ids of the facts' table.

mod groups;
mod people;
mod periods;

use serde_json::{Value, json};

use crate::model::{Interval, Snapshot, SourceUserState};
use crate::schedule::testing::{Provider, Reply, Seen, TestClock, ok, opsgenie, policy, reply, schedule, shared, span};
use crate::schedule::{ReadError, ReadErrorKind};

const NOW: &str = "2026-01-07T12:00:00Z";

fn window() -> Interval {
    span("2026-01-07T00:00:00Z", "2026-01-21T00:00:00Z")
}

/// A timeline from Monday 00:00 in Los Angeles, six weeks before the window, to past its end.
fn timeline_of(rotations: Value) -> Value {
    json!({"data": {"_parent": {"id": "S1", "name": "first_line", "enabled": true},
        "startDate": "2025-12-01T08:00:00Z", "endDate": "2026-02-02T08:00:00Z",
        "finalTimeline": {"rotations": rotations}}, "took": 0.1, "requestId": "r"})
}

fn rotation(periods: Value) -> Value {
    json!({"id": "R", "name": "Primary", "order": 1.0, "periods": periods})
}

fn period(start: &str, end: &str, recipient: Value) -> Value {
    json!({"startDate": start, "endDate": end, "type": "default", "recipient": recipient})
}

fn person(id: &str) -> Value {
    json!({"id": id, "type": "user", "name": format!("{id}@example.com")})
}

fn team() -> Value {
    json!({"id": "T1", "type": "team", "name": "Ops"})
}

fn user(key: &str, blocked: bool) -> Reply {
    let id = key.trim_end_matches("@example.com");
    let user = json!({"id": id, "username": format!("{id}@example.com"), "fullName": id, "blocked": blocked});
    ok(json!({"data": user, "took": 0.1}).to_string())
}

/// Serves the timeline and ordinary users.
async fn provider(body: Value) -> Provider {
    Provider::start(move |seen, _| serve(&body, seen)).await
}

fn serve(body: &Value, seen: &Seen) -> Reply {
    if let Some(key) = seen.path.strip_prefix("/v2/users/") {
        return user(key, key.starts_with("blocked"));
    }
    match seen.path.as_str() {
        "/v2/schedules/S1/timeline" => ok(body.to_string()),
        _ => reply(404, r#"{"message":"No such thing","took":0.1}"#),
    }
}

async fn read(provider: &Provider) -> Result<Snapshot, ReadError> {
    let source = opsgenie(provider, &TestClock::at(NOW));
    source.read(&schedule("S1"), window()).await
}

fn shown(snapshot: &Snapshot) -> Vec<String> {
    let known = |known| if known { "" } else { "?" };
    let line = |shift: &crate::model::Shift| {
        let (start, end) = (known(shift.start_known), known(shift.end_known));
        format!(
            "{start}{}..{}{end} {}",
            shift.interval.start(),
            shift.interval.end(),
            shift.user.id
        )
    };
    snapshot.shifts.iter().map(line).collect()
}
