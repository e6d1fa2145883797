//! Many people at once are told by one list of everybody, and looked up one by one where there is none.

use std::collections::BTreeMap;
use std::sync::mpsc;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::server::{Reply, Server, person};
use super::*;
use crate::identity_center::{Resolution, UserPin};

type Answers = BTreeMap<String, Resolution>;
type Asked = (String, Option<UserPin>);

/// So many have a place before it is known that there will be many.
const PLACES: usize = 8;

fn name(number: usize) -> String {
    format!("person-{number:04}@example.com")
}

fn id(number: usize) -> String {
    format!("u-{number:04}")
}

/// Enabled users, by number.
fn users(numbers: std::ops::Range<usize>) -> Vec<Value> {
    numbers
        .map(|number| person(&json!(id(number)), &name(number), "ENABLED"))
        .collect()
}

fn no_such_user() -> Reply {
    let body = json!({"__type": "ResourceNotFoundException", "Message": "USER not found", "ResourceType": "USER"});
    Reply::Raw(400, "application/x-amz-json-1.1", body.to_string())
}

/// What a store with these users says. Its lookups by attribute compare exactly.
fn store(users: &[Value], operation: &str, body: &Value) -> Option<Reply> {
    paged(100, users, operation, body)
}

/// A store whose pages have only so many rows, though more were asked for.
fn paged(rows: usize, users: &[Value], operation: &str, body: &Value) -> Option<Reply> {
    let found = |matches: &dyn Fn(&Value) -> bool| users.iter().find(|user| matches(user)).cloned();
    let user = match operation {
        "ListUsers" => {
            assert_eq!(body["MaxResults"], json!(100));
            let from: usize = body["NextToken"].as_str().map_or(0, |token| token.parse().unwrap());
            let to = users.len().min(from + rows);
            let next = (to < users.len()).then(|| to.to_string());
            return Some(Reply::Ok(json!({"Users": users[from..to], "NextToken": next})));
        }
        "DescribeUser" => found(&|user| user["UserId"] == body["UserId"]),
        "GetUserId" => {
            let attribute = &body["AlternateIdentifier"]["UniqueAttribute"];
            let value = &attribute["AttributeValue"];
            match attribute["AttributePath"].as_str() {
                Some("userName") => found(&|user| user["UserName"] == *value),
                _ => found(&|user| user["Emails"][0]["Value"] == *value),
            }
        }
        _ => return None,
    };
    Some(user.map_or_else(no_such_user, Reply::Ok))
}

/// A store whose list never changes.
fn healthy(users: Vec<Value>) -> Server {
    Server::start(move |operation, body, _| store(&users, operation, body))
}

fn people(numbers: std::ops::Range<usize>) -> Vec<Asked> {
    numbers.map(|number| (name(number), None)).collect()
}

/// Asks for everybody at once, as a pass does.
fn begin(rig: &Rig, asked: &[Asked]) -> JoinSet<(String, Resolution)> {
    let mut lookups = JoinSet::new();
    for (address, pin) in asked.iter().cloned() {
        let (reader, person) = (rig.client.reader(), Person::parse(&address).unwrap());
        lookups.spawn(async move { (address, reader.resolve_person(&person, pin.as_ref()).await.unwrap()) });
    }
    lookups
}

async fn ask(rig: &Rig, asked: &[Asked]) -> Answers {
    begin(rig, asked).join_all().await.into_iter().collect()
}

fn found(numbers: std::ops::Range<usize>) -> Answers {
    numbers
        .map(|number| (name(number), Resolution::Found(user(&id(number)))))
        .collect()
}

/// Requests by which people are looked up one by one.
fn one_by_one(server: &Server) -> usize {
    server.count("GetUserId") + server.count("DescribeUser")
}

#[tokio::test]
async fn many_people_are_found_and_confirmed_by_one_list_each_time() {
    let server = healthy(users(0..250));
    let rig = Rig::new(&server);
    assert_eq!(ask(&rig, &people(0..130)).await, found(0..130));
    assert_eq!(server.count("ListUsers"), 3);
    let first = one_by_one(&server);
    assert!(first <= 3 * PLACES, "{first}");

    // Within the hour nobody is asked for, and after it they are confirmed beside the passes.
    for hour in 1..=26 {
        assert_eq!(ask(&rig, &people(0..130)).await, found(0..130));
        assert_eq!(server.count("ListUsers"), 3 * hour);
        rig.clock.advance(Duration::from_secs(3_601));
        while server.count("ListUsers") < 3 * (hour + 1) {
            ask(&rig, &people(0..130)).await;
            tokio::task::yield_now().await;
        }
        while rig.client.shared.people.is_confirming() {
            tokio::task::yield_now().await;
        }
    }
    // The few who have places first, each hour, and once a day their names.
    let more = one_by_one(&server) - first;
    assert!(more <= PLACES * (26 + 2 * 2), "{more}");
}

/// Passes ask now for these and now for those, of whom many are due; one list confirms all.
#[tokio::test]
async fn a_list_confirms_also_whom_nobody_asks_for_at_the_moment() {
    let all = users(0..460);
    let server = Server::start(move |operation, body, _| paged(4, &all, operation, body));
    let rig = Rig::new(&server);
    assert_eq!(ask(&rig, &people(0..400)).await, found(0..400));
    assert_eq!(server.count("ListUsers"), 115);
    let first = one_by_one(&server);
    // Too late for being confirmed beside the passes. Those who wait are fewer than there are pages.
    rig.clock.advance(Duration::from_secs(4_300));
    for from in [0, 112, 224] {
        let some = from..from + 112;
        assert_eq!(ask(&rig, &people(some.clone())).await, found(some));
    }
    assert_eq!(server.count("ListUsers"), 2 * 115);
    let more = one_by_one(&server) - first;
    assert!(more <= PLACES, "{more}");
    // Where those are all, the list is longer than they are many.
    let all = users(0..460);
    let fewer = Server::start(move |operation, body, _| paged(4, &all, operation, body));
    let other = Rig::new(&fewer);
    assert_eq!(ask(&other, &people(0..112)).await, found(0..112));
    assert_eq!(one_by_one(&fewer), 3 * 112);
    let pages = fewer.count("ListUsers");
    assert!((101..=112).contains(&pages), "{pages}");
}

#[tokio::test]
async fn few_people_are_looked_up_one_by_one() {
    let server = healthy(users(0..300));
    let rig = Rig::new(&server);
    for range in [0..100, 100..200] {
        assert_eq!(ask(&rig, &people(range.clone())).await, found(range));
    }
    assert_eq!(server.count("ListUsers"), 0);
    assert_eq!(one_by_one(&server), 3 * 200);
}

/// Everything that a list can say of somebody, beside many about whom it says the ordinary.
#[tokio::test]
async fn a_list_tells_what_lookups_tell() {
    let mut listed = users(0..150);
    let mut add = |id: &str, user_name: &str, email: &str, status: &str| {
        let mut user = person(&json!(id), email, status);
        user["UserName"] = json!(user_name);
        listed.push(user);
    };
    add("u-disabled", "disabled@example.com", "disabled@example.com", "DISABLED");
    add("u-odd", "odd@example.com", "odd@example.com", "SUSPENDED");
    add("u-two-b", "two@example.com", "else@example.com", "ENABLED");
    add("u-two-a", "another", "Two@Example.com", "ENABLED");
    add("u-case", "Case@Example.COM", "CASE@example.com", "ENABLED");
    add("u-mail", "mailed", "mail@example.com", "ENABLED");
    add("u-pinned", "Pinned", "of-nobody@example.com", "ENABLED");
    add("u-pinned-off", "off", "off@example.com", "DISABLED");
    // Somebody with nothing to be found by.
    listed.push(json!({"UserId": "u-blank", "IdentityStoreId": "d-1234567890"}));
    let server = healthy(listed);
    let rig = Rig::new(&server);
    let named = |name: &str| Some(UserPin::UserName(name.to_owned()));
    let cases: [(&str, Option<UserPin>, Resolution); 11] = [
        ("disabled@example.com", None, Resolution::Disabled(user("u-disabled"))),
        ("odd@example.com", None, Resolution::Disabled(user("u-odd"))),
        (
            "two@example.com",
            None,
            Resolution::Ambiguous(vec![user("u-two-a"), user("u-two-b")]),
        ),
        ("case@example.com", None, Resolution::Found(user("u-case"))),
        ("mail@example.com", None, Resolution::Found(user("u-mail"))),
        ("nobody@example.com", None, Resolution::Unknown),
        (
            "pinned-1@example.com",
            named("Pinned"),
            Resolution::Found(user("u-pinned")),
        ),
        ("pinned-2@example.com", named("pinned"), Resolution::Unknown),
        (
            "pinned-3@example.com",
            Some(UserPin::Id(user("u-pinned"))),
            Resolution::Found(user("u-pinned")),
        ),
        (
            "pinned-4@example.com",
            Some(UserPin::Id(user("u-pinned-off"))),
            Resolution::Disabled(user("u-pinned-off")),
        ),
        (
            "pinned-5@example.com",
            Some(UserPin::Id(user("u-gone"))),
            Resolution::Unknown,
        ),
    ];
    let mut asked = people(0..150);
    asked.extend(
        cases
            .iter()
            .map(|(address, pin, _)| ((*address).to_owned(), pin.clone())),
    );
    let answers = ask(&rig, &asked).await;
    for (address, pin, expected) in &cases {
        assert_eq!(answers[*address], *expected, "{address} {pin:?}");
    }
    assert_eq!(server.count("ListUsers"), 2);
    // Beside the first few, those whom the list lacks: somebody, a user name, an id.
    let alone = one_by_one(&server);
    assert!(alone <= 3 * PLACES + 2 + 1 + 1, "{alone}");

    // AWS's exact comparison does not find them, but they are called as before.
    rig.clock.advance(Duration::from_secs(24 * 3600));
    let again = ask(&rig, &[("case@example.com".to_owned(), None)]).await;
    assert_eq!(again["case@example.com"], Resolution::Found(user("u-case")));
    assert_eq!(one_by_one(&server) - alone, 3);
}

/// Pages may have moved while they were read, so being missing in a list takes nobody's access.
#[tokio::test]
async fn whoever_a_list_lacks_is_looked_up_before_they_count_as_gone() {
    let all = users(0..150);
    let server = Server::start(move |operation, body, _| match operation {
        "ListUsers" => store(&all[..140], operation, body),
        _ => store(&all, operation, body),
    });
    let rig = Rig::new(&server);
    let mut asked = people(0..150);
    asked.push(("nobody@example.com".to_owned(), None));
    let mut expected = found(0..150);
    expected.insert("nobody@example.com".to_owned(), Resolution::Unknown);
    assert_eq!(ask(&rig, &asked).await, expected);
    let alone = one_by_one(&server);
    assert!((3 * 10 + 2..=3 * (PLACES + 10) + 2).contains(&alone), "{alone}");
    assert_eq!(server.count("ListUsers"), 2);

    // Whoever was known not to be there is believed to be still unknown.
    rig.clock.advance(Duration::from_secs(7_200));
    let nobody = json!("nobody@example.com");
    let asked_for_nobody = || {
        let bodies = server.bodies("GetUserId");
        let values = bodies
            .iter()
            .map(|body| &body["AlternateIdentifier"]["UniqueAttribute"]["AttributeValue"]);
        values.filter(|value| **value == nobody).count()
    };
    let before = asked_for_nobody();
    assert_eq!(ask(&rig, &asked).await, expected);
    assert_eq!(server.count("ListUsers"), 4);
    assert_eq!(asked_for_nobody(), before);
}

#[tokio::test]
async fn only_a_lookup_tells_of_users_whose_status_the_list_omits() {
    // Some of them: the rest is told by the list.
    let all = users(0..150);
    let mut listed = all.clone();
    for user in &mut listed[120..130] {
        user.as_object_mut().unwrap().remove("UserStatus");
    }
    let mut known = all.clone();
    known[125]["UserStatus"] = json!("DISABLED");
    let server = Server::start(move |operation, body, _| match operation {
        "ListUsers" => store(&listed, operation, body),
        _ => store(&known, operation, body),
    });
    let rig = Rig::new(&server);
    let answers = ask(&rig, &people(0..150)).await;
    assert_eq!(answers[&name(125)], Resolution::Disabled(user(&id(125))));
    let of_enabled = |answers: &Answers| {
        answers
            .iter()
            .filter(|(_, r)| matches!(r, Resolution::Found(_)))
            .count()
    };
    assert_eq!(of_enabled(&answers), 149);
    assert!(one_by_one(&server) <= 3 * (PLACES + 10), "{}", one_by_one(&server));

    // All of them: the list is of no use, and a page shows it.
    let mut without = all.clone();
    for user in &mut without {
        user.as_object_mut().unwrap().remove("UserStatus");
    }
    let server = Server::start(move |operation, body, _| match operation {
        "ListUsers" => store(&without, operation, body),
        _ => store(&all, operation, body),
    });
    let rig = Rig::new(&server);
    for _ in 0..2 {
        assert_eq!(ask(&rig, &people(0..150)).await, found(0..150));
        assert_eq!(server.count("ListUsers"), 1);
        rig.clock.advance(Duration::from_secs(2 * 3600));
    }
}

#[tokio::test]
async fn without_the_permission_everybody_is_looked_up_and_the_list_asked_for_once_a_day() {
    let all = users(0..150);
    let server = Server::start(move |operation, body, _| match operation {
        "ListUsers" => Some(Reply::Error("AccessDeniedException", "not authorized")),
        _ => store(&all, operation, body),
    });
    let rig = Rig::new(&server);
    for (advance, lists) in [(0, 1), (2 * 3600, 1), (23 * 3600, 2)] {
        rig.clock.advance(Duration::from_secs(advance));
        assert_eq!(ask(&rig, &people(0..150)).await, found(0..150));
        assert_eq!(server.count("ListUsers"), lists);
    }
    assert_eq!(rig.counted("identitystore", "ListUsers", "denied"), 2);
}

#[tokio::test]
async fn a_list_that_is_not_whole_tells_nothing() {
    type Page = fn(&[Value], &Value, usize) -> Reply;
    let cases: [(&str, Page); 5] = [
        ("a page that fails", |all, body, _| match body["NextToken"].is_null() {
            true => store(all, "ListUsers", body).unwrap(),
            false => Reply::Raw(500, "text/plain", "no".to_owned()),
        }),
        ("refused credentials", |_, _, _| {
            Reply::Error("ExpiredTokenException", "expired")
        }),
        ("pages that repeat", |all, _, _| {
            Reply::Ok(json!({"Users": all[..100], "NextToken": "again"}))
        }),
        ("a user without an id", |all, body, _| {
            let mut page = all.to_vec();
            page[120]["UserId"] = json!(null);
            store(&page, "ListUsers", body).unwrap()
        }),
        ("another store", |all, body, _| {
            let mut page = all.to_vec();
            page[120]["IdentityStoreId"] = json!("d-9999999999");
            store(&page, "ListUsers", body).unwrap()
        }),
    ];
    for (what, page) in cases {
        let all = users(0..150);
        let server = Server::start(move |operation, body, nth| match operation {
            "ListUsers" => Some(page(&all, body, nth)),
            _ => store(&all, operation, body),
        });
        let rig = Rig::new(&server);
        assert_eq!(ask(&rig, &people(0..150)).await, found(0..150), "{what}");
        assert_eq!(one_by_one(&server), 3 * 150, "{what}");
        // A minute later it is not asked for again, five minutes later it is.
        let lists = server.count("ListUsers");
        for (advance, is_asked) in [(60, false), (360, true)] {
            rig.clock.advance(Duration::from_secs(advance));
            let strangers: Vec<Asked> = (0..112).map(|n| (format!("{advance}-{n}@example.com"), None)).collect();
            ask(&rig, &strangers).await;
            assert_eq!(server.count("ListUsers") > lists, is_asked, "{what} after {advance} s");
        }
    }
}

/// A store that is far larger than those who are looked for: at most one page for each of them, once a day.
#[tokio::test]
async fn a_list_that_needs_more_requests_than_lookups_is_given_up() {
    let all = users(0..150);
    let server = Server::start(move |operation, body, nth| match operation {
        "ListUsers" => {
            let page: Vec<Value> = (0..3)
                .map(|n| {
                    person(
                        &json!(format!("x-{nth}-{n}")),
                        &format!("x-{nth}-{n}@example.com"),
                        "ENABLED",
                    )
                })
                .collect();
            Some(Reply::Ok(json!({"Users": page, "NextToken": (nth + 1).to_string()})))
        }
        _ => store(&all, operation, body),
    });
    let rig = Rig::new(&server);
    assert_eq!(ask(&rig, &people(0..150)).await, found(0..150));
    let pages = server.count("ListUsers");
    assert!((100..=150).contains(&pages), "{pages}");
    rig.clock.advance(Duration::from_secs(7_200));
    assert_eq!(ask(&rig, &people(0..150)).await, found(0..150));
    assert_eq!(server.count("ListUsers"), pages);
    rig.clock.advance(Duration::from_secs(23 * 3600));
    ask(&rig, &people(0..150)).await;
    assert!(pages < server.count("ListUsers"));
}

/// Throttled so that each page comes only after pauses, the clock says when it has been enough.
#[tokio::test]
async fn a_list_that_takes_minutes_is_given_up() {
    let all = users(0..360);
    let server = Server::start(move |operation, body, nth| match operation {
        "ListUsers" if nth % 4 != 3 => Some(Reply::Error("ThrottlingException", "Rate exceeded")),
        _ => paged(4, &all, operation, body),
    });
    let rig = Rig::new(&server);
    let began = rig.clock.now();
    assert_eq!(ask(&rig, &people(0..150)).await, found(0..150));
    let took = began.duration_until(rig.clock.now());
    assert!(took.as_secs() < 240, "{took:?}");
    assert!(server.count("ListUsers") < 4 * 90);
    assert_eq!(one_by_one(&server), 3 * 150);
}

#[tokio::test]
async fn somebody_needed_alone_does_not_wait_for_a_list_and_no_second_list_is_begun() {
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let all = users(0..400);
    let server = Server::start(move |operation, body, _| {
        if operation == "ListUsers" && body["NextToken"].is_null() {
            held.lock().unwrap().recv().unwrap();
        }
        store(&all, operation, body)
    });
    let rig = Rig::new(&server);
    let mut crowd = begin(&rig, &people(0..200));
    for _ in 0..PLACES {
        crowd.join_next().await.unwrap().unwrap();
    }
    // All of the first have been found, so that there is a place.
    assert_eq!(ask(&rig, &people(399..400)).await, found(399..400));
    assert_eq!(one_by_one(&server), 3 * (PLACES + 1));
    // The next pass asks for the same people and for others.
    let mut next = begin(&rig, &people(0..300));
    for _ in 0..2 * PLACES {
        next.join_next().await.unwrap().unwrap();
    }
    assert_eq!(server.count("ListUsers"), 1);
    release.send(()).unwrap();
    let all: Answers = crowd.join_all().await.into_iter().collect();
    assert_eq!(all.len(), 200 - PLACES);
    next.join_all().await;
    assert_eq!(server.count("ListUsers"), 4);
    assert_eq!(one_by_one(&server), 3 * (2 * PLACES + 1));
}
