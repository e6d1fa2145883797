//! Recorded responses of the real API, and the hand-written examples of the contract.

use super::*;
use crate::schedule::pagerduty::{Reply, oncalls, v2, v3};
use crate::schedule::testing::{shared, t};

const RECORDED: &str = "fixtures/pagerduty-pagerbeauty-MIT";

#[test]
fn recorded_oncalls_decode() {
    for (schedule, policy, end) in [("P538IZH", "PIYVU5O", true), ("P2RFGIP", "POQTAHN", false)] {
        let name = format!("{RECORDED}/oncalls_GET--schedule_ids_5B_5D_{schedule}_limit_1_include_5B_5D_users.json");
        let Some(body) = shared(&name) else { return };
        let page = oncalls::decode(&body, policy).unwrap();
        let (turn, user) = &page.rows[0];
        assert_eq!(turn.end.is_some(), end, "case 2 and 3: {schedule}");
        assert!(turn.start.is_some_and(|start| start < t("2019-12-31T00:00:00Z")));
        assert!(user.settled().unwrap().email.unwrap().ends_with("@example.com"));
        assert!(oncalls::decode(&body, "PANOTHER").is_err());
    }
}

#[test]
fn recorded_schedules_without_a_window_are_not_taken_for_nobody() {
    for id in ["P538IZH", "P2RFGIP", "PJ1P5JQ"] {
        let Some(body) = shared(&format!("{RECORDED}/schedules_{id}_GET.json")) else {
            return;
        };
        let error = v2::decode(&body, id).unwrap_err();
        assert!(error.to_string().contains("not rendered"), "{error}");
    }
}

#[test]
fn the_contracts_examples_decode() {
    let Some(contract) = shared("specs/pagerduty-oncall-own.json") else {
        return;
    };
    let contract: Value = serde_json::from_slice(&contract).unwrap();
    let examples = |path: &str| {
        let content = &contract["paths"][path]["get"]["responses"]["200"]["content"]["application/json"];
        let examples = content["examples"].as_object().unwrap().clone();
        examples
            .into_iter()
            .map(|(name, example)| (name, example["value"].clone()))
    };
    for (name, body) in examples("/schedules/{id}") {
        let id = body["schedule"]["id"].as_str().unwrap().to_owned();
        let decoded = v2::decode(body.to_string().as_bytes(), &id);
        assert_eq!(decoded.is_ok(), name != "no_window_given", "{name}: {decoded:?}");
    }
    for (name, body) in examples("/v3/schedules/{id}") {
        let id = body["schedule"]["id"].as_str().unwrap().to_owned();
        let decoded = v3::decode(body.to_string().as_bytes(), &id).unwrap();
        assert!(matches!(decoded, Reply::Final(_)), "{name}");
    }
    for (name, body) in examples("/oncalls") {
        let decoded = oncalls::decode(body.to_string().as_bytes(), "PT20YPA");
        // Without a filter the example lists a second policy, which our request cannot get.
        assert_eq!(
            decoded.is_ok(),
            name != "same_shift_two_policies",
            "{name}: {decoded:?}"
        );
    }
}
