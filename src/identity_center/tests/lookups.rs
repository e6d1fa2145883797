//! Finding the instance, permission sets, groups and people, and reading who holds what.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::server::{Reply, Server, person};
use super::*;
use crate::identity_center::{AwsErrorKind, Resolution, UserPin};
use crate::model::GroupRef;

#[tokio::test]
async fn the_instance_is_found_once_and_kept() {
    let server = Server::start(|_, _, _| None);
    let rig = Rig::new(&server);
    let reader = rig.client.reader();
    let found = reader.instance().await.unwrap();
    assert_eq!(
        (found.arn.as_str(), found.identity_store_id.as_str()),
        (INSTANCE, "d-1234567890")
    );
    reader.holders(&admin()).await.unwrap();
    rig.client.reader().holders(&group()).await.unwrap();
    assert_eq!(
        server.operations(),
        ["ListInstances", "ListAccountAssignments", "ListGroupMemberships"]
    );
    assert_eq!(rig.counted("ssoadmin", "ListInstances", "ok"), 1);
    assert_eq!(rig.counted("identitystore", "ListGroupMemberships", "ok"), 1);
}

#[tokio::test]
async fn nothing_is_read_or_written_in_the_wrong_place() {
    let instance = |owner: &str, status: &str, arn: &str| json!({"InstanceArn": arn, "IdentityStoreId": "d-1", "OwnerAccountId": owner, "Status": status});
    let other = "arn:aws:sso:::instance/ssoins-9999";
    let cases: [(Value, Option<&str>, &[&str]); 6] = [
        (json!([]), None, &["eu-central-1", "own region"]),
        (
            json!([instance("999999999999", "ACTIVE", INSTANCE)]),
            None,
            &["999999999999", OWNER, "nothing was written"],
        ),
        (
            json!([instance(OWNER, "CREATE_IN_PROGRESS", INSTANCE)]),
            None,
            &["CREATE_IN_PROGRESS"],
        ),
        (
            json!([instance(OWNER, "ACTIVE", INSTANCE), instance(OWNER, "ACTIVE", other)]),
            None,
            &["instance_arn", INSTANCE, other],
        ),
        (
            json!([instance(OWNER, "ACTIVE", INSTANCE)]),
            Some(other),
            &["instance_arn", INSTANCE, other],
        ),
        (
            json!([{"InstanceArn": INSTANCE, "IdentityStoreId": "d-1"}]),
            None,
            &["OwnerAccountId"],
        ),
    ];
    for (instances, arn, words) in cases {
        let answer = json!({ "Instances": instances });
        let server = Server::start(move |op, _, _| (op == "ListInstances").then(|| Reply::Ok(answer.clone())));
        let rig = Rig::with(&server, |config| config.instance_arn = arn.map(str::to_owned));
        let (reader, writer) = (rig.client.reader(), rig.client.writer());
        let errors = [
            reader.instance().await.unwrap_err(),
            reader.holders(&admin()).await.unwrap_err(),
            reader.resolve_target(&set_named("Admin")).await.unwrap_err(),
            reader.resolve_person(&alice(), None).await.unwrap_err(),
            writer
                .start(crate::identity_center::ChangeKind::Revoke, &admin(), &user("u-1"))
                .await
                .unwrap_err(),
            writer
                .start(crate::identity_center::ChangeKind::Grant, &group(), &user("u-1"))
                .await
                .unwrap_err(),
        ];
        for error in errors {
            assert!(
                matches!(error.kind, AwsErrorKind::Misconfigured | AwsErrorKind::Server),
                "{error:?}"
            );
            for word in words {
                assert!(error.to_string().contains(word), "{error} lacks {word}");
            }
        }
        assert!(
            server.operations().iter().all(|op| op == "ListInstances"),
            "{:?}",
            server.operations()
        );
    }
}

#[tokio::test]
async fn those_who_wait_for_the_instance_share_its_failure() {
    let server = Server::start(|op, _, nth| {
        (op == "ListInstances" && nth == 0).then_some(Reply::Error("AccessDeniedException", "no"))
    });
    let rig = Rig::new(&server);
    let reader = rig.client.reader();
    reader.instance().await.unwrap_err();
    reader.holders(&admin()).await.unwrap_err();
    assert_eq!(server.operations(), ["ListInstances"]);
    rig.clock.advance(Duration::from_secs(2));
    reader.holders(&admin()).await.unwrap();
}

#[tokio::test]
async fn several_instances_are_told_apart_by_arn_over_pages() {
    let server = Server::start(|op, body, _| {
        (op == "ListInstances").then(|| {
            Reply::Ok(if body["NextToken"].is_null() {
                json!({"NextToken": "2", "Instances": [{"InstanceArn": "arn:other", "IdentityStoreId": "d-0",
                    "OwnerAccountId": "999999999999", "Status": "ACTIVE"}]})
            } else {
                json!({"Instances": [{"InstanceArn": INSTANCE, "IdentityStoreId": "d-1",
                    "OwnerAccountId": OWNER, "Status": "ACTIVE"}]})
            })
        })
    });
    let rig = Rig::with(&server, |config| config.instance_arn = Some(INSTANCE.to_owned()));
    assert_eq!(rig.client.reader().instance().await.unwrap().identity_store_id, "d-1");
}

/// Twelve permission sets `Set0` to `Set11` over two pages; the description of the last is not readable.
fn many_sets(broken: bool) -> Server {
    Server::start(move |op, body, _| match op {
        "ListPermissionSets" => Some(Reply::Ok(if body["NextToken"].is_null() {
            json!({"PermissionSets": (0..6).map(|n| format!("arn:ps-{n}")).collect::<Vec<_>>(), "NextToken": "2"})
        } else {
            json!({"PermissionSets": (6..12).map(|n| format!("arn:ps-{n}")).collect::<Vec<_>>()})
        })),
        "DescribePermissionSet" => {
            let arn = body["PermissionSetArn"].as_str().unwrap();
            Some(match arn.strip_prefix("arn:ps-") {
                // As moto describes a set that was made without a session duration.
                Some("5") => Reply::Ok(json!({"PermissionSet": {"Name": "Set5", "SessionDuration": 3600}})),
                Some("11") if broken => Reply::Ok(json!({"PermissionSet": {"Name": 7}})),
                // Deleted since it was listed.
                Some("10") => Reply::Error("ResourceNotFoundException", "gone"),
                Some(n) => Reply::Ok(json!({"PermissionSet": {"Name": format!("Set{n}"), "PermissionSetArn": arn}})),
                None => Reply::Error("ResourceNotFoundException", "PermissionSet not found"),
            })
        }
        _ => None,
    })
}

#[tokio::test]
async fn session_durations_come_with_the_name_and_cost_no_call() {
    let server = Server::start(|operation, body, _| {
        (operation == "DescribePermissionSet").then(|| {
            let arn = body["PermissionSetArn"].as_str().unwrap();
            // As AWS writes them, and what it does not allow.
            let duration = match arn.rsplit('-').next().unwrap() {
                "1" => "PT4H",
                "2" => "PT13H",
                "3" => "PT0S",
                "4" => "-PT1H",
                "5" => "soon",
                _ => "PT90M",
            };
            Reply::Ok(json!({"PermissionSet": {"Name": "Set", "PermissionSetArn": arn, "SessionDuration": duration}}))
        })
    });
    let rig = Rig::new(&server);
    let reader = rig.client.reader();
    assert!(reader.sessions().is_empty());
    for n in 1..=6 {
        let arn = format!("arn:aws:sso:::permissionSet/ssoins-1/ps-{n}");
        let target = Target::Assignment {
            account: "111122223333".to_owned(),
            permission_set: PermissionSetRef::Arn(arn),
        };
        reader.resolve_target(&target).await.unwrap();
    }
    let known: Vec<(String, i64)> = reader
        .sessions()
        .into_iter()
        .map(|(arn, time)| (arn, time.as_secs()))
        .collect();
    let ps = |n| format!("arn:aws:sso:::permissionSet/ssoins-1/ps-{n}");
    assert_eq!(known, [(ps(1), 4 * 3600), (ps(6), 90 * 60)]);
    assert_eq!(server.count("DescribePermissionSet"), 6);
}

#[tokio::test]
async fn permission_sets_are_listed_once_and_then_remembered() {
    let server = many_sets(false);
    let rig = Rig::new(&server);
    let reader = rig.client.reader();
    let resolved = reader.resolve_target(&set_named("Set7")).await.unwrap();
    assert_eq!(resolved.to_string(), format!("arn:ps-7 in account {ACCOUNT}"));
    reader.resolve_target(&set_named("Set3")).await.unwrap();
    assert_eq!(
        (
            server.count("ListPermissionSets"),
            server.count("DescribePermissionSet")
        ),
        (2, 12)
    );

    // An unknown name names close ones, and causes no new listing for five minutes.
    let error = reader.resolve_target(&set_named("Sett5")).await.unwrap_err();
    assert_eq!(error.kind, AwsErrorKind::NotFound);
    assert!(
        error.to_string().contains("\"Sett5\"") && error.to_string().contains("\"Set5\""),
        "{error}"
    );
    assert_eq!(server.count("ListPermissionSets"), 2);
    rig.clock.advance(Duration::from_secs(301));
    reader.resolve_target(&set_named("Sett5")).await.unwrap_err();
    assert_eq!(
        (
            server.count("ListPermissionSets"),
            server.count("DescribePermissionSet")
        ),
        (4, 13)
    );

    // After an hour one description confirms a name.
    rig.clock.advance(Duration::from_secs(3_600));
    reader.resolve_target(&set_named("Set7")).await.unwrap();
    assert_eq!(
        (
            server.count("ListPermissionSets"),
            server.count("DescribePermissionSet")
        ),
        (4, 14)
    );
}

#[tokio::test]
async fn a_set_that_cannot_be_read_hides_no_other_and_is_never_called_absent() {
    let server = many_sets(true);
    let rig = Rig::new(&server);
    let reader = rig.client.reader();
    reader.resolve_target(&set_named("Set7")).await.unwrap();
    let error = reader.resolve_target(&set_named("Set11")).await.unwrap_err();
    assert_eq!(error.kind, AwsErrorKind::Server, "{error}");
}

#[tokio::test]
async fn permission_sets_by_arn_cost_one_call() {
    let server = many_sets(false);
    let rig = Rig::new(&server);
    let reader = rig.client.reader();
    let by_arn = |arn: &str| Target::Assignment {
        account: ACCOUNT.to_owned(),
        permission_set: PermissionSetRef::Arn(arn.to_owned()),
    };
    for _ in 0..2 {
        reader.resolve_target(&by_arn("arn:ps-4")).await.unwrap();
    }
    assert_eq!(server.operations(), ["ListInstances", "DescribePermissionSet"]);
    let error = reader.resolve_target(&by_arn("arn:elsewhere")).await.unwrap_err();
    assert_eq!(error.kind, AwsErrorKind::NotFound);
    assert!(error.to_string().contains("arn:elsewhere"), "{error}");
}

#[tokio::test]
async fn groups_are_found_by_name_and_by_id() {
    let server = Server::start(|op, body, _| {
        let missing =
            body["GroupId"] == "nope" || body["AlternateIdentifier"]["UniqueAttribute"]["AttributeValue"] == "nope";
        (op.contains("Group") && missing).then(|| {
            Reply::Raw(
                400,
                "application/x-amz-json-1.1",
                json!({"__type": "ResourceNotFoundException", "Message": "GROUP not found", "ResourceType": "GROUP"})
                    .to_string(),
            )
        })
    });
    let rig = Rig::new(&server);
    let reader = rig.client.reader();
    for reference in [GroupRef::Name("readers".to_owned()), GroupRef::Id("g-1".to_owned())] {
        for _ in 0..2 {
            assert_eq!(
                reader.resolve_target(&Target::Group(reference.clone())).await.unwrap(),
                group()
            );
        }
    }
    assert_eq!(server.operations(), ["ListInstances", "GetGroupId", "DescribeGroup"]);
    let asked = &server.bodies("GetGroupId")[0]["AlternateIdentifier"]["UniqueAttribute"];
    assert_eq!(
        *asked,
        json!({"AttributePath": "displayName", "AttributeValue": "readers"})
    );
    for reference in [GroupRef::Name("nope".to_owned()), GroupRef::Id("nope".to_owned())] {
        let error = reader.resolve_target(&Target::Group(reference)).await.unwrap_err();
        assert_eq!(error.kind, AwsErrorKind::NotFound);
        assert!(error.to_string().contains("\"nope\""), "{error}");
    }
}

/// A directory: what `userName` and `emails.value` find, and how each user is described.
fn directory(
    by_name: Option<&'static str>,
    by_mail: Option<&'static str>,
    users: &'static [(&'static str, &'static str, &'static str)],
) -> Server {
    let missing = || {
        Some(Reply::Raw(
            400,
            "application/x-amz-json-1.1",
            json!({"__type": "ResourceNotFoundException", "Message": "USER not found", "ResourceType": "USER"})
                .to_string(),
        ))
    };
    Server::start(move |op, body, _| match op {
        "GetUserId" => {
            let attribute = &body["AlternateIdentifier"]["UniqueAttribute"]["AttributePath"];
            let found = if attribute == "userName" { by_name } else { by_mail };
            match found {
                Some(id) => Some(Reply::Ok(json!({"UserId": id, "IdentityStoreId": "d-1234567890"}))),
                None => missing(),
            }
        }
        "DescribeUser" => match users.iter().find(|(id, _, _)| body["UserId"] == *id) {
            Some((id, address, status)) => Some(Reply::Ok(person(&json!(id), address, status))),
            None => missing(),
        },
        _ => None,
    })
}

#[tokio::test]
async fn people_are_found_unknown_disabled_or_ambiguous() {
    let enabled: &[_] = &[
        ("u-1", "Alice@Example.com", "ENABLED"),
        ("u-2", "alice@example.com", "ENABLED"),
    ];
    let cases = [
        (
            directory(Some("u-1"), Some("u-1"), enabled),
            Resolution::Found(user("u-1")),
        ),
        (directory(None, Some("u-2"), enabled), Resolution::Found(user("u-2"))),
        (directory(Some("u-1"), None, enabled), Resolution::Found(user("u-1"))),
        (directory(None, None, enabled), Resolution::Unknown),
        (
            directory(Some("u-1"), Some("u-2"), enabled),
            Resolution::Ambiguous(vec![user("u-1"), user("u-2")]),
        ),
        (
            directory(Some("u-3"), Some("u-3"), &[("u-3", "alice@example.com", "DISABLED")]),
            Resolution::Disabled(user("u-3")),
        ),
        // A status that this version does not know earns nothing.
        (
            directory(Some("u-3"), None, &[("u-3", "alice@example.com", "SUSPENDED")]),
            Resolution::Disabled(user("u-3")),
        ),
        // AWS matched more loosely than equality.
        (
            directory(Some("u-4"), Some("u-4"), &[("u-4", "alice+x@example.com", "ENABLED")]),
            Resolution::Unknown,
        ),
        // Deleted between the two calls.
        (directory(Some("u-9"), None, enabled), Resolution::Unknown),
    ];
    for (server, expected) in cases {
        let rig = Rig::new(&server);
        let found = rig.client.reader().resolve_person(&alice(), None).await.unwrap();
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn pins_are_exact() {
    let server = directory(
        Some("u-1"),
        None,
        &[("u-1", "Alice", "ENABLED"), ("u-2", "bob", "DISABLED")],
    );
    let rig = Rig::new(&server);
    let reader = rig.client.reader();
    for (pin, expected) in [
        (UserPin::Id(user("u-1")), Resolution::Found(user("u-1"))),
        (UserPin::Id(user("u-2")), Resolution::Disabled(user("u-2"))),
        (UserPin::Id(user("u-3")), Resolution::Unknown),
        (UserPin::UserName("Alice".to_owned()), Resolution::Found(user("u-1"))),
        (UserPin::UserName("alice".to_owned()), Resolution::Unknown),
    ] {
        assert_eq!(
            reader.resolve_person(&alice(), Some(&pin)).await.unwrap(),
            expected,
            "{pin:?}"
        );
    }
}

#[tokio::test]
async fn people_are_remembered_for_an_hour_and_problems_for_five_minutes() {
    let server = directory(Some("u-1"), Some("u-1"), &[("u-1", "alice@example.com", "ENABLED")]);
    let rig = Rig::new(&server);
    let reader = rig.client.reader();
    for (advance, calls) in [(0, 1), (3_599, 1), (601, 2)] {
        rig.clock.advance(Duration::from_secs(advance));
        reader.resolve_person(&alice(), None).await.unwrap();
        assert_eq!(server.count("DescribeUser"), calls);
    }
    let server = directory(None, None, &[]);
    let rig = Rig::new(&server);
    let reader = rig.client.reader();
    for (advance, calls) in [(0, 2), (299, 2), (2, 4)] {
        rig.clock.advance(Duration::from_secs(advance));
        assert_eq!(
            reader.resolve_person(&alice(), None).await.unwrap(),
            Resolution::Unknown
        );
        assert_eq!(server.count("GetUserId"), calls);
    }
}

/// Three calls find somebody; from then on one call an hour tells that it is still they, which no pass waits for, and once a
/// day the names are looked up again.
#[tokio::test]
async fn somebody_who_was_found_is_confirmed_by_one_call_an_hour_and_looked_up_anew_when_anything_is_different() {
    let server = directory(Some("u-1"), Some("u-1"), &[("u-1", "alice@example.com", "ENABLED")]);
    let rig = Rig::new(&server);
    let reader = rig.client.reader();
    for hour in 0..=24 {
        while server.count("DescribeUser") <= hour {
            let found = reader.resolve_person(&alice(), None).await.unwrap();
            assert_eq!(found, Resolution::Found(user("u-1")));
            tokio::task::yield_now().await;
        }
        rig.clock.advance(Duration::from_secs(3_601));
    }
    assert_eq!((server.count("GetUserId"), server.count("DescribeUser")), (4, 25));

    let gone = || {
        let body = json!({"__type": "ResourceNotFoundException", "Message": "USER not found", "ResourceType": "USER"});
        Reply::Raw(400, "application/x-amz-json-1.1", body.to_string())
    };
    let renamed = Server::start(|op, body, nth| {
        let renamed = || Reply::Ok(person(&body["UserId"], "renamed@example.com", "ENABLED"));
        (op == "DescribeUser" && nth > 0).then(renamed)
    });
    let disabled = Server::start(|op, body, nth| {
        let disabled = || Reply::Ok(person(&body["UserId"], "alice@example.com", "DISABLED"));
        (op == "DescribeUser" && nth > 0).then(disabled)
    });
    // The former id is gone, and the names lead to the new one.
    let made_anew = Server::start(move |op, body, nth| match op {
        "GetUserId" if nth > 1 => Some(Reply::Ok(json!({"UserId": "u-2", "IdentityStoreId": "d-1234567890"}))),
        "DescribeUser" if nth > 0 && body["UserId"] == "u-alice" => Some(gone()),
        _ => None,
    });
    for (server, expected) in [
        (renamed, Resolution::Unknown),
        (disabled, Resolution::Disabled(user("u-alice"))),
        (made_anew, Resolution::Found(user("u-2"))),
    ] {
        let rig = Rig::new(&server);
        let reader = rig.client.reader();
        let found = Resolution::Found(user("u-alice"));
        assert_eq!(reader.resolve_person(&alice(), None).await.unwrap(), found);
        rig.clock.advance(Duration::from_secs(3_601));
        assert_eq!(reader.resolve_person(&alice(), None).await.unwrap(), found);
        while reader.resolve_person(&alice(), None).await.unwrap() == found {
            tokio::task::yield_now().await;
        }
        assert_eq!(reader.resolve_person(&alice(), None).await.unwrap(), expected);
        assert_eq!(server.count("GetUserId"), 4);
    }

    // Where AWS does not answer for too long, it is not known any more who it is.
    let silent = Server::start(|op, _, nth| {
        (op == "DescribeUser" && nth > 0).then_some(Reply::Error("AccessDeniedException", "no"))
    });
    let rig = Rig::new(&silent);
    let reader = rig.client.reader();
    for (advance, is_known) in [(0, true), (3_601, true), (600, false)] {
        rig.clock.advance(Duration::from_secs(advance));
        assert_eq!(reader.resolve_person(&alice(), None).await.is_ok(), is_known);
    }
}

/// Found by measuring: hundreds of people were asked for call by call in turn, so that nobody was known for so long that
/// passes gave up and asked for all of them anew.
#[tokio::test]
async fn of_many_people_some_are_known_soon_and_passes_that_overlap_look_up_few_twice() {
    let server = Server::start(|_, _, _| None);
    let rig = Rig::new(&server);
    let mut lookups = JoinSet::new();
    for number in (0..100).chain(0..100) {
        let reader = rig.client.reader();
        let person = Person::parse(&format!("person-{number}@example.com")).unwrap();
        lookups.spawn(async move { reader.resolve_person(&person, None).await.unwrap() });
    }
    while let Some(found) = lookups.join_next().await {
        found.unwrap();
    }
    let calls = server.operations();
    let known = calls[..60].iter().filter(|call| *call == "DescribeUser").count();
    assert!(8 <= known, "{calls:?}");
    // But for those who are being looked up at that very moment.
    let twice = server.count("DescribeUser") - 100;
    assert!(twice <= 8, "{twice}");
    assert_eq!(server.count("GetUserId"), 2 * (100 + twice));
}

#[tokio::test]
async fn only_a_missing_user_is_an_unknown_person() {
    for reply in [
        || Reply::Error("AccessDeniedException", "not authorized"),
        || Reply::Error("ValidationException", "bad"),
        || Reply::Raw(404, "text/html", "<html>no such page</html>".to_owned()),
        || Reply::Ok(json!({})),
        || {
            Reply::Raw(
                400,
                "application/x-amz-json-1.1",
                json!({"__type": "ResourceNotFoundException", "Message": "STORE not found",
                    "ResourceType": "IDENTITY_STORE"})
                .to_string(),
            )
        },
    ] {
        let server = Server::start(move |op, _, _| (op == "GetUserId").then(reply));
        let rig = Rig::new(&server);
        let error = rig.client.reader().resolve_person(&alice(), None).await.unwrap_err();
        assert_ne!(error.kind, AwsErrorKind::NotFound, "{error}");
    }
}

#[tokio::test]
async fn holders_are_read_over_all_pages_without_duplicates() {
    let server = Server::start(|op, body, _| {
        let token = body["NextToken"].as_str().unwrap_or("0").to_owned();
        let next = |n: &str| match n {
            "0" => json!("1"),
            // Pages may be empty and still go on.
            "1" => json!("2"),
            _ => json!(null),
        };
        assert_eq!(body["MaxResults"], json!(100), "{op}");
        match op {
            "ListAccountAssignments" => {
                let row = |kind: &str, id: &str| json!({"AccountId": ACCOUNT, "PermissionSetArn": ADMIN, "PrincipalType": kind, "PrincipalId": id});
                let rows = match token.as_str() {
                    "0" => json!([row("USER", "u-1"), row("GROUP", "g-9"), row("USER", "u-1")]),
                    "1" => json!([]),
                    _ => json!([row("USER", "u-2"), row("GROUP", "g-9")]),
                };
                Some(Reply::Ok(
                    json!({"AccountAssignments": rows, "NextToken": next(&token)}),
                ))
            }
            "ListGroupMemberships" => {
                let row = |id: &str, user: &str| {
                    json!({"MembershipId": id, "MemberId": {"UserId": user}, "GroupId": "g-1",
                        "IdentityStoreId": "d-1234567890"})
                };
                let rows = match token.as_str() {
                    "0" => json!([row("m-1", "u-1"), row("m-2", "u-2")]),
                    "1" => json!([]),
                    _ => json!([row("m-3", "u-1"), row("m-4", "u-4")]),
                };
                Some(Reply::Ok(json!({"GroupMemberships": rows, "NextToken": next(&token)})))
            }
            _ => None,
        }
    });
    let rig = Rig::new(&server);
    let reader = rig.client.reader();
    let assigned = reader.holders(&admin()).await.unwrap();
    assert_eq!(
        assigned.users.into_iter().collect::<Vec<_>>(),
        [user("u-1"), user("u-2")]
    );
    assert_eq!(assigned.groups, ["g-9"]);
    let members = reader.holders(&group()).await.unwrap();
    assert_eq!(
        members.users.into_iter().collect::<Vec<_>>(),
        [user("u-1"), user("u-2"), user("u-4")]
    );
    assert_eq!(
        (
            server.count("ListAccountAssignments"),
            server.count("ListGroupMemberships")
        ),
        (3, 3)
    );
}

#[tokio::test]
async fn a_list_that_cannot_be_trusted_is_an_error() {
    let row = json!({"AccountId": ACCOUNT, "PermissionSetArn": ADMIN, "PrincipalType": "USER", "PrincipalId": "u-1"});
    let mut nobody = row.clone();
    nobody["PrincipalId"] = json!(null);
    let mut elsewhere = row.clone();
    elsewhere["AccountId"] = json!("999999999999");
    for (answer, word) in [
        (json!({"AccountAssignments": [row], "NextToken": "again"}), "repeat"),
        (json!({"AccountAssignments": [nobody]}), "PrincipalId"),
        (json!({"AccountAssignments": [elsewhere]}), "another account"),
    ] {
        let server = Server::start(move |op, _, _| (op == "ListAccountAssignments").then(|| Reply::Ok(answer.clone())));
        let rig = Rig::new(&server);
        let error = rig.client.reader().holders(&admin()).await.unwrap_err();
        assert_eq!(error.kind, AwsErrorKind::Server);
        assert!(error.to_string().contains(word), "{error}");
    }
}
