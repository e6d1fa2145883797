//! Answers of on-call providers: whatever is understood was whole, and nobody in it is lost or made up.

use std::collections::BTreeSet;

use dutybound::{
    model::{Interval, SourceUser, SourceUserState},
    schedule::{
        normalise::Turn,
        opsgenie::{
            flatten,
            timeline::{self, Timeline, Who},
        },
        pagerduty::{self, Reply, oncalls, v2, v3},
        wire::DecodeError,
    },
};
use serde_json::Value;

use super::assert_harmless;

/// The id that is asked for.
const ID: &str = "P";

/// What a decoder makes of `body`, and the same body as plain JSON; a refusal is checked here.
fn understood<T>(body: &[u8], decode: impl Fn(&[u8]) -> Result<T, DecodeError>) -> Option<(T, Value)> {
    let value = match decode(body) {
        Ok(value) => value,
        Err(error) => {
            assert_harmless(&error.to_string());
            assert!(error.to_string().chars().count() <= super::LONGEST_LINE, "{error}");
            return None;
        }
    };
    let whole = body.trim_ascii_end();
    assert!(
        decode(&whole[..whole.len() - 1]).is_err(),
        "a truncated answer was understood"
    );
    assert!(
        decode(&[body, b"{}"].concat()).is_err(),
        "two answers at once were understood"
    );
    // What nobody reads may hold bytes that are no text, half of a surrogate pair, or a number out of range.
    let json = serde_json::from_slice(body).ok()?;
    Some((value, json))
}

/// The elements of a list; none where there is no list.
fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> Option<&str> {
    value.as_str()
}

/// One turn for each row, in their order, with the row's user, and a bound exactly where the row has one.
fn assert_same(turns: &[Turn], rows: &[&Value], user: impl Fn(&Value) -> Option<&str>, bounds: [&str; 2]) {
    assert_eq!(turns.len(), rows.len(), "rows were dropped or made up");
    for (turn, row) in turns.iter().zip(rows) {
        assert_eq!(Some(turn.user_id.as_str()), user(row), "{row}");
        assert!(
            !turn.user_id.contains(|c: char| c.is_control() || c.is_whitespace()),
            "{row}"
        );
        assert_eq!(turn.start.is_some(), !row[bounds[0]].is_null(), "{row}");
        assert_eq!(turn.end.is_some(), !row[bounds[1]].is_null(), "{row}");
        if let Some(via) = &turn.via_override {
            assert_harmless(via);
        }
    }
}

/// `GET /schedules/{id}`.
pub(crate) fn pagerduty_layers(body: &[u8]) {
    let Some((Reply::Final(found), json)) = understood(body, |body| v2::decode(body, ID)) else {
        return;
    };
    let schedule = &json["schedule"];
    assert_eq!(schedule["id"], ID);
    let rendered = &schedule["final_schedule"]["rendered_schedule_entries"];
    assert!(rendered.is_array(), "an answer without a list was understood");
    let rows: Vec<&Value> = list(rendered).iter().collect();
    assert_same(&found.turns, &rows, |row| text(&row["user"]["id"]), ["start", "end"]);
    assert_eq!(found.users.len(), rows.len());
    assert!(found.turns.iter().all(|turn| turn.level.is_none() && !turn.permanent));
}

/// `GET /v3/schedules/{id}`.
pub(crate) fn pagerduty_shifts(body: &[u8]) {
    let Some((Reply::Final(found), json)) = understood(body, |body| v3::decode(body, ID)) else {
        return;
    };
    let schedule = &json["schedule"];
    assert_eq!(schedule["id"], ID);
    let assignments = &schedule["final_schedule"]["computed_shift_assignments"];
    assert!(assignments.is_array(), "an answer without a list was understood");
    let rows: Vec<&Value> = list(assignments)
        .iter()
        .filter(|row| row["member"]["type"] != "empty_member")
        .collect();
    assert!(rows.iter().all(|row| row["member"]["type"] == "user_member"), "{json}");
    assert_same(
        &found.turns,
        &rows,
        |row| text(&row["member"]["user_id"]),
        ["start_time", "end_time"],
    );
}

/// `GET /oncalls`, one page.
pub(crate) fn pagerduty_oncalls(body: &[u8]) {
    let Some((page, json)) = understood(body, |body| oncalls::decode(body, ID)) else {
        return;
    };
    assert!(json["oncalls"].is_array(), "an answer without a list was understood");
    let rows: Vec<&Value> = list(&json["oncalls"]).iter().collect();
    let turns: Vec<Turn> = page.rows.into_iter().map(|(turn, _)| turn).collect();
    assert_same(&turns, &rows, |row| text(&row["user"]["id"]), ["start", "end"]);
    for (turn, row) in turns.iter().zip(rows) {
        assert_eq!(row["escalation_policy"]["id"], ID);
        assert_eq!(turn.level.map(u64::from), row["escalation_level"].as_u64());
        let standing = ["schedule", "start", "end"].iter().all(|key| row[key].is_null());
        assert_eq!(turn.permanent, standing, "{row}");
    }
    assert!(page.limit.is_none_or(|limit| limit > 0), "pages of nothing do not end");
    assert!(page.more || json["more"] != Value::Bool(true), "{json}");
}

/// `GET /users/{id}` of PagerDuty and `GET /v2/users/{id}` of Opsgenie.
pub(crate) fn users(body: &[u8]) {
    if let Some((user, json)) = understood(body, |body| pagerduty::users::decode(body, ID)) {
        let said = &json["user"];
        assert_eq!(said["id"], ID);
        let bare = said["name"].is_null() && said["email"].is_null();
        let active = said["deleted_at"].is_null() && !bare;
        assert_user(&user, said["email"].as_str(), active);
    }
    if let Some((user, json)) = understood(body, |body| dutybound::schedule::opsgenie::users::decode(body, ID)) {
        let said = &json["data"];
        let asked = |key: &str| text(&said[key]).is_some_and(|text| text.eq_ignore_ascii_case(ID));
        assert!(asked("id") || asked("username"), "{json}");
        assert_user(&user, text(&said["username"]), said["blocked"] != Value::Bool(true));
    }
}

fn assert_user(user: &SourceUser, email: Option<&str>, active: bool) {
    assert_eq!(user.state == SourceUserState::Active, active, "{user:?}");
    assert_eq!(user.email.as_deref(), email, "an e-mail is never changed");
    if let Some(name) = &user.name {
        assert_harmless(name);
    }
}

/// `GET /v2/schedules/{id}/timeline`, with the pieces in which groups have to be looked up.
pub(crate) fn opsgenie_timeline(body: &[u8]) {
    let Some((timeline, json)) = understood(body, |body| timeline::decode(body, ID)) else {
        return;
    };
    let rotations = &json["data"]["finalTimeline"]["rotations"];
    assert!(rotations.is_array(), "an answer without a list was understood");
    let mut nobody = 0;
    let mut expected = 0;
    for rotation in list(rotations) {
        if rotation["deleted"] == Value::Bool(true) {
            continue;
        }
        for period in list(&rotation["periods"]) {
            expected += 1;
            let flattened = list(&period["flattenedRecipients"]);
            let people = !flattened.is_empty() && flattened.iter().all(|one| one["type"] == "user");
            let kind = text(&period["recipient"]["type"]);
            nobody += usize::from(!people && matches!(kind, Some("none" | "noone")));
        }
    }
    let kept = timeline.periods.len() + timeline.nameless + nobody;
    assert_eq!(kept, expected, "periods were dropped or made up");
    for period in &timeline.periods {
        if let Some(via) = &period.via_override {
            assert_harmless(via);
        }
        assert!(
            !matches!(&period.who, Who::People(people) if people.is_empty()),
            "{period:?}"
        );
    }
    pieces(&timeline);
}

/// Pieces cover every group's time in the window, no more, and are asked about inside.
fn pieces(timeline: &Timeline) {
    let window = timeline.covered;
    let now = window.start();
    let Some(pieces) = flatten::pieces(timeline, window, now) else {
        return; // Too many, which fails the read.
    };
    for piece in &pieces {
        assert!(piece.interval.contains(piece.sample), "{piece:?}");
        assert_eq!(piece.interval.intersect(&window), Some(piece.interval), "{piece:?}");
    }
    for period in &timeline.periods {
        let Who::Group(group) = &period.who else {
            continue;
        };
        let whole = Interval::new(period.start.0, period.end.0).and_then(|whole| whole.intersect(&window));
        let Some(whole) = whole else {
            continue;
        };
        let mut inside = BTreeSet::new();
        for piece in &pieces {
            if piece.group == *group && piece.via_override == period.via_override {
                inside.extend(piece.interval.intersect(&whole));
            }
        }
        let mut reached = whole.start();
        for piece in inside {
            assert!(
                piece.start() <= reached,
                "nobody is looked up from {reached} to {}",
                piece.start()
            );
            reached = reached.max(piece.end());
        }
        assert_eq!(reached, whole.end(), "nobody is looked up at the end of {whole}");
    }
}

/// `GET /v2/schedules/{id}/on-calls`.
pub(crate) fn opsgenie_oncalls(body: &[u8]) {
    let Some((people, json)) = understood(body, flatten::decode) else {
        return;
    };
    let data = &json["data"];
    if let Some(names) = data["onCallRecipients"].as_array() {
        assert_eq!(people.len(), names.len(), "people were dropped or made up");
        return;
    }
    assert!(
        data["onCallParticipants"].is_array(),
        "an answer without a list was understood"
    );
    let mut found = BTreeSet::new();
    let mut waiting: Vec<&Value> = list(&data["onCallParticipants"]).iter().collect();
    while let Some(one) = waiting.pop() {
        if one["type"] == "user" {
            found.insert(["id", "name", "username"].map(|key| text(&one[key])));
        } else {
            waiting.extend(list(&one["onCallParticipants"]));
        }
    }
    assert_eq!(people.len(), found.len(), "people were dropped or made up: {people:?}");
}
