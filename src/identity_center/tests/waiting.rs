//! What those take who wait for the limit to let them ask, and how it is known that AWS answers.

use std::mem::size_of_val;

use serde_json::json;

use super::server::{Reply, Server};
use super::*;
use crate::identity_center::ListOf;
use crate::identity_center::limiter::Priority;
use crate::model::GroupRef;

/// Of a large organisation tens of thousands wait. Each took 11 to 22 KB, because requests were made before they were let
/// through: together more than everything else that a daemon holds.
#[tokio::test]
async fn whoever_waits_takes_little_memory() {
    let server = Server::start(|_, _, _| None);
    let client = &Rig::new(&server).client;
    let (by_name, target, person) = (Target::Group(GroupRef::Name("readers".to_owned())), group(), alice());
    for (what, bytes) in [
        ("a target", size_of_val(&client.resolve(&by_name))),
        ("a person", size_of_val(&client.person(&person, None))),
        ("holders", size_of_val(&client.holders(&target, Priority::Look))),
    ] {
        assert!(bytes < 2_000, "{what}: {bytes}");
    }
}

/// A pass that asks about thousands of people who are not there is at work.
#[tokio::test]
async fn that_nobody_is_there_is_an_answer_and_a_refusal_is_none() {
    for (error, is_answer) in [("ResourceNotFoundException", true), ("AccessDeniedException", false)] {
        let server = Server::start(move |operation, _, _| {
            let body = json!({"__type": error, "Message": "USER", "ResourceType": "USER"}).to_string();
            (operation == "GetUserId").then_some(Reply::Raw(400, "application/x-amz-json-1.1", body))
        });
        let reader = Rig::new(&server).client.reader();
        drop(reader.resolve_person(&alice(), None).await);
        assert_eq!(reader.last_answer().is_some(), is_answer, "{error}");
    }
}

/// That users are being listed says nothing of a permission set that hangs.
#[tokio::test]
async fn a_list_keeps_only_those_waiting_whom_it_may_tell() {
    let server = Server::start(|_, _, _| None);
    let reader = Rig::new(&server).client.reader();
    drop(reader.resolve_target(&set_named("Admin")).await);
    assert!(reader.last_page(ListOf::Targets).is_some() && reader.last_page(ListOf::People).is_none());
}
