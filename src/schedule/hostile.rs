//! No answer, however odd, panics a decoder, and no truncated one is taken for a whole one.

use proptest::prelude::*;

use super::{opsgenie, pagerduty, wire};
use crate::model::Interval;

const LAYERED: &str = r#"{"schedule":{"id":"P","type":"schedule","final_schedule":{"rendered_schedule_entries":[
    {"start":"2026-01-05T09:00:00-05:00","end":null,"user":{"id":"U","type":"user_reference"}}]}}}"#;
const SHIFTS: &str = r#"{"schedule":{"id":"P","type":"schedule_v3","final_schedule":{"computed_shift_assignments":[
    {"start_time":"2026-01-05T09:00:00.123Z","end_time":"2026-01-05T09:00:00Z","member":{"type":"user_member",
    "user_id":"U"},"source":{"type":"schedule_rotation"}}]}}}"#;
const ONCALLS: &str = r#"{"oncalls":[{"escalation_policy":{"id":"P"},"escalation_level":1,"user":{"id":"U"},
    "schedule":null,"start":null,"end":null}],"limit":100,"offset":0,"more":false,"total":1}"#;
const TIMELINE: &str = r#"{"data":{"_parent":{"id":"P"},"startDate":"2026-01-05T00:00:00Z",
    "endDate":"2026-01-19T00:00:00Z","finalTimeline":{"rotations":[{"periods":[{"startDate":"2026-01-05T00:00:00Z",
    "endDate":"2026-01-06T00:00:00Z","recipient":{"type":"team","id":"T"}}]}]}}}"#;
const ON_CALL: &str =
    r#"{"data":{"onCallParticipants":[{"type":"team","onCallParticipants":[{"type":"user","id":"U"}]}]}}"#;
const USER: &str = r#"{"user":{"id":"P","name":"n","email":"e@x"},"data":{"id":"P","username":"e@x"}}"#;

/// Which of the decoders understand the bytes.
fn understood(body: &[u8]) -> [bool; 7] {
    let timeline = opsgenie::timeline::decode(body, "P");
    if let Ok(timeline) = &timeline {
        let pieces = opsgenie::flatten::pieces(timeline, Interval::ALWAYS, timeline.covered.start());
        assert!(
            pieces.is_some_and(|pieces| pieces.len() <= 1),
            "one period is at most one piece"
        );
    }
    assert!(wire::refusal(body, &[""]).is_none_or(|refusal| !refusal.text.contains(char::is_control)));
    [
        pagerduty::v2::decode(body, "P").is_ok(),
        pagerduty::v3::decode(body, "P").is_ok(),
        pagerduty::oncalls::decode(body, "P").is_ok(),
        pagerduty::users::decode(body, "P").is_ok(),
        timeline.is_ok(),
        opsgenie::flatten::decode(body).is_ok(),
        opsgenie::users::decode(body, "P").is_ok(),
    ]
}

#[test]
fn the_samples_are_good_and_each_is_understood_where_it_belongs() {
    let count = |body: &str| understood(body.as_bytes()).iter().filter(|ok| **ok).count();
    assert_eq!(
        [LAYERED, SHIFTS, ONCALLS, TIMELINE, ON_CALL].map(count),
        [2, 2, 1, 1, 1]
    );
    assert_eq!(count(USER), 2);
}

#[test]
fn nesting_without_end_is_refused() {
    let deep = "{\"data\":".repeat(100_000);
    assert_eq!(understood(deep.as_bytes()), [false; 7]);
    let tree = r#"{"type":"team","onCallParticipants":["#.repeat(50_000);
    assert!(opsgenie::flatten::decode(format!(r#"{{"data":{{"onCallParticipants":[{tree}"#).as_bytes()).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_survived(body in proptest::collection::vec(any::<u8>(), 0..400)) {
        understood(&body);
    }

    #[test]
    fn damaged_answers_are_survived(
        sample in 0..6usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut body = [LAYERED, SHIFTS, ONCALLS, TIMELINE, ON_CALL, USER][sample].as_bytes().to_vec();
        for (index, byte) in changes {
            let at = index.index(body.len());
            body[at] = byte;
        }
        understood(&body);
    }

    #[test]
    fn truncated_answers_are_never_understood(sample in 0..6usize, cut in any::<prop::sample::Index>()) {
        let body = [LAYERED, SHIFTS, ONCALLS, TIMELINE, ON_CALL, USER][sample].as_bytes();
        prop_assert_eq!(understood(&body[..cut.index(body.len())]), [false; 7]);
    }

    #[test]
    fn any_text_for_an_instant_is_survived(text in "[0-9TZ:.+-]{0,60}") {
        let _parsed = wire::Instant::parse(&text);
    }
}
