//! Many groups at once are told by one list of all, and looked up one by one where there is none.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::server::{Reply, Server};
use super::*;
use crate::identity_center::{AwsErrorKind, MANY_GROUPS as MANY};
use crate::model::GroupRef;

/// So many have a place before it is known that there will be many.
const PLACES: usize = 8;

fn groups(numbers: std::ops::Range<usize>) -> Vec<Value> {
    let group = |n| json!({"GroupId": format!("g-{n}"), "IdentityStoreId": "d-1234567890", "DisplayName": format!("group-{n}")});
    numbers.map(group).collect()
}

/// What a store with these groups says, whose list has only the first so many of them.
fn store(groups: &[Value], listed: usize, operation: &str, body: &Value) -> Option<Reply> {
    let found = match operation {
        "ListGroups" => {
            assert_eq!(body["MaxResults"], json!(100));
            let from: usize = body["NextToken"].as_str().map_or(0, |token| token.parse().unwrap());
            let to = listed.min(from + 100);
            let next = (to < listed).then(|| to.to_string());
            return Some(Reply::Ok(json!({"Groups": groups[from..to], "NextToken": next})));
        }
        "GetGroupId" => {
            let name = &body["AlternateIdentifier"]["UniqueAttribute"]["AttributeValue"];
            groups.iter().find(|group| group["DisplayName"] == *name)
        }
        "DescribeGroup" => groups.iter().find(|group| group["GroupId"] == body["GroupId"]),
        _ => return None,
    };
    let missing = json!({"__type": "ResourceNotFoundException", "Message": "GROUP not found", "ResourceType": "GROUP"});
    Some(match found {
        Some(group) => Reply::Ok(group.clone()),
        None => Reply::Raw(400, "application/x-amz-json-1.1", missing.to_string()),
    })
}

fn named(numbers: std::ops::Range<usize>) -> Vec<GroupRef> {
    numbers.map(|n| GroupRef::Name(format!("group-{n}"))).collect()
}

/// Asks for all at once, as a pass does. Gives the ids, or what kind of error there was.
async fn ask(rig: &Rig, asked: &[GroupRef]) -> BTreeMap<String, Result<String, AwsErrorKind>> {
    let mut lookups = JoinSet::new();
    for group in asked {
        let (reader, group) = (rig.client.reader(), group.clone());
        lookups.spawn(async move {
            let found = reader.resolve_target(&Target::Group(group.clone())).await;
            let id = found.map(|target| match target {
                ResolvedTarget::Group { group_id } => group_id.to_string(),
                other => panic!("{other:?}"),
            });
            (group.to_string(), id.map_err(|error| error.kind))
        });
    }
    lookups.join_all().await.into_iter().collect()
}

fn one_by_one(server: &Server) -> usize {
    server.count("GetGroupId") + server.count("DescribeGroup")
}

#[tokio::test]
async fn many_groups_are_told_by_one_list_and_few_are_not() {
    let all = groups(0..350);
    let server = Server::start(move |operation, body, _| store(&all, all.len(), operation, body));
    let rig = Rig::new(&server);
    // By id as well as by name; more than these are not counted as many.
    let mut asked = named(0..99);
    asked.push(GroupRef::Id("g-349".to_owned()));
    let found = ask(&rig, &asked).await;
    assert!(found.iter().all(|(_, id)| id.is_ok()));
    assert_eq!((server.count("ListGroups"), one_by_one(&server)), (0, 100));

    asked = named(99..340);
    asked.push(GroupRef::Id("g-345".to_owned()));
    let found = ask(&rig, &asked).await;
    for (group, id) in &found {
        let number = group.rsplit('-').next().unwrap();
        assert_eq!(*id, Ok(format!("g-{number}")), "{group}");
    }
    assert_eq!(found.len(), 242);
    assert_eq!(server.count("ListGroups"), 4);
    assert!(one_by_one(&server) <= 100 + PLACES, "{}", one_by_one(&server));

    // The list confirmed those as well that were found before, so that all are due at once and listed again.
    rig.clock.advance(Duration::from_secs(3_599));
    let before = one_by_one(&server);
    ask(&rig, &named(0..340)).await;
    assert_eq!((server.count("ListGroups"), one_by_one(&server)), (4, before));
    rig.clock.advance(Duration::from_secs(2));
    ask(&rig, &named(0..340)).await;
    assert_eq!(server.count("ListGroups"), 8);
    assert!(one_by_one(&server) <= before + PLACES, "{}", one_by_one(&server));
}

/// Pages may have moved while they were read, so being missing in a list is no proof.
#[tokio::test]
async fn whatever_a_list_lacks_or_tells_twice_is_looked_up() {
    let mut all = groups(0..150);
    all.push(json!({"GroupId": "g-other", "IdentityStoreId": "d-1234567890", "DisplayName": "group-20"}));
    let listed = all.clone();
    let server = Server::start(move |operation, body, _| match operation {
        "ListGroups" => {
            let mut moved = listed.clone();
            moved.rotate_left(10);
            store(&moved, 141, operation, body)
        }
        _ => store(&all, all.len(), operation, body),
    });
    let rig = Rig::new(&server);
    let mut asked = named(0..150);
    asked.push(GroupRef::Name("nothing".to_owned()));
    let found = ask(&rig, &asked).await;
    assert_eq!(found["nothing"], Err(AwsErrorKind::NotFound));
    for n in 0..150 {
        assert_eq!(found[&format!("group-{n}")], Ok(format!("g-{n}")));
    }
    // Ten that it lacks, one that it tells twice, and one that is not there.
    let alone = one_by_one(&server);
    assert!((10..=12 + PLACES).contains(&alone), "{alone}");
    assert_eq!(server.count("ListGroups"), 2);
}

#[tokio::test]
async fn without_the_permission_or_with_far_more_groups_each_is_looked_up_and_the_list_asked_for_seldom() {
    let all = groups(0..150);
    let server = Server::start(move |operation, body, _| match operation {
        "ListGroups" => Some(Reply::Error("AccessDeniedException", "not authorized")),
        _ => store(&all, all.len(), operation, body),
    });
    let rig = Rig::new(&server);
    for _ in 0..2 {
        assert!(ask(&rig, &named(0..150)).await.values().all(Result::is_ok));
        rig.clock.advance(Duration::from_secs(7_200));
    }
    assert_eq!((server.count("ListGroups"), one_by_one(&server)), (1, 300));
    rig.clock.advance(Duration::from_secs(24 * 3_600));
    ask(&rig, &named(0..150)).await;
    assert_eq!(server.count("ListGroups"), 2);

    // A list that costs as much as it saves is given up, and not tried for a few more.
    let all = groups(0..20_000);
    let server = Server::start(move |operation, body, _| store(&all, all.len(), operation, body));
    let rig = Rig::new(&server);
    assert!(ask(&rig, &named(0..150)).await.values().all(Result::is_ok));
    let pages = server.count("ListGroups");
    // Nobody is counted twice, but the first few may have been found before.
    assert!((MANY / 3..=50).contains(&pages), "{pages}");
    rig.clock.advance(Duration::from_secs(7_200));
    ask(&rig, &named(0..160)).await;
    assert_eq!(server.count("ListGroups"), pages);
}

#[tokio::test]
async fn a_group_of_another_store_or_without_an_id_spoils_the_list_and_nothing_else() {
    for strange in [
        json!({"GroupId": "g-5", "IdentityStoreId": "d-other", "DisplayName": "group-5"}),
        json!({"GroupId": "", "IdentityStoreId": "d-1234567890", "DisplayName": "group-5"}),
    ] {
        let all = groups(0..150);
        let mut listed = all.clone();
        listed[5] = strange;
        let server = Server::start(move |operation, body, _| match operation {
            "ListGroups" => store(&listed, listed.len(), operation, body),
            _ => store(&all, all.len(), operation, body),
        });
        let rig = Rig::new(&server);
        assert!(ask(&rig, &named(0..150)).await.values().all(Result::is_ok));
        assert_eq!((server.count("ListGroups"), one_by_one(&server)), (1, 150));
    }
}

#[tokio::test]
async fn a_list_that_takes_longer_than_asking_for_each_is_given_up() {
    let all = groups(0..2_000);
    let rig: Arc<Mutex<Option<Arc<SimClock>>>> = Arc::default();
    let clock = Arc::clone(&rig);
    let server = Server::start(move |operation, body, _| {
        if operation == "ListGroups"
            && let Some(clock) = &*clock.lock().unwrap()
        {
            clock.advance(Duration::from_secs(10));
        }
        store(&all, all.len(), operation, body)
    });
    let slow = Rig::new(&server);
    *rig.lock().unwrap() = Some(Arc::clone(&slow.clock));
    assert!(ask(&slow, &named(0..200)).await.values().all(Result::is_ok));
    assert_eq!((server.count("ListGroups"), one_by_one(&server)), (3, 200));
}
