//! How many calls each kind of pass makes, counted at the simulated services: what README says of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dutybound_sandbox::world::aws::{Matching, SlowOperation};
use dutybound_sandbox::world::pagerduty::Schedule;
use dutybound_sandbox::{Call, Fault, Service, View};
use jiff::SignedDuration;

use crate::harness::*;

/// Layer-based, read at v2.
const PRIMARY: &str = "GET /schedules/PABC123";
/// Shift-based, read at v3.
const SECONDARY: &str = "GET /v3/schedules/PABC456";
const DATA_ON_CALL: &str = "GET /v2/schedules/6fce1fd0-bbbb-4000-8000-000000000001/timeline";

const SECOND_LINE: &str = r#"[project]
name   = "second-line"
owners = ["mira@example.com"]

[[entitlement]]
name           = "look"
account        = "444455556666"
permission_set = "ReadOnlyAccess"

[[member]]
email    = "carol@example.com"
added_by = "mira@example.com"

[[rule]]
entitlement = "look"
on_call     = "pagerduty/PABC456"
"#;

/// A group of which everybody in the test is a member.
const EVERYBODY: &str = r#"[project]
name   = "everybody"
owners = ["mira@example.com"]

[[entitlement]]
name  = "readers"
group = "payments-prod-readers"

[[rule]]
entitlement = "readers"
members     = true
requires    = []
"#;

type Tally = BTreeMap<String, usize>;

fn tally(calls: &[Call]) -> Tally {
    let mut tally = Tally::new();
    for call in calls {
        *tally.entry(call.operation.clone()).or_default() += 1;
    }
    tally
}

fn expected(calls: &[(&str, usize)]) -> Tally {
    calls.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

fn of(service: Service, calls: &[Call]) -> Vec<Call> {
    calls.iter().filter(|call| call.service == service).cloned().collect()
}

/// Three schedules of the three kinds and four entitlements: two of each kind. alice's turn ends in ten minutes, so that
/// bob is looked up before his.
async fn site(audit: &str) -> Site {
    let site = Site::new(organisation(), &format!("{PAYMENTS}{ON_CALL}")).await;
    site.policy("data.toml", DATA);
    site.policy("second-line.toml", SECOND_LINE);
    site.sandbox.edit(|world| assert!(world.pagerduty.upgrade("PABC456")));
    turn_ends(&site, 600);
    site.configure(|settings| {
        settings.more = format!("[timing]\npoll = \"1s\"\nnotice = \"0s\"\naudit = \"{audit}\"\n");
    });
    site
}

/// Lets bob take over from alice so many seconds from now.
fn turn_ends(site: &Site, seconds: i64) {
    site.shifts(&[
        ("PALICE1", from_now(-3600), from_now(seconds)),
        ("PBOB002", from_now(seconds), from_now(36000)),
    ]);
}

/// A daemon that has granted everything and comes to rest.
async fn resting(site: &Site) -> Daemon {
    let daemon = site.daemon();
    site.until("everybody on duty holds what it earns", |view| {
        let aws = &view.world.aws;
        aws.holds(ACCOUNT, ADMIN, ALICE)
            && aws.is_member(READERS, ALICE)
            && aws.is_member(DATA_GROUP, DAVE)
            && aws.holds("444455556666", "ReadOnlyAccess", CAROL)
    })
    .await;
    until_quiet(site).await;
    site.sandbox.clear_journal();
    daemon
}

/// How often each schedule has been read to the end since the last call to AWS that `counts`.
fn reads_since(view: &View<'_>, counts: impl Fn(&Call) -> bool) -> usize {
    let last = view.journal.iter().filter(|c| c.service == Service::Aws && counts(c));
    let last = last.map(|call| call.seq).max().unwrap_or_default();
    let reads = |operation: &str| {
        let since = view.journal.iter().filter(|call| last < call.seq);
        since.filter(|c| c.operation == operation && c.status.is_some()).count()
    };
    [PRIMARY, SECONDARY, DATA_ON_CALL].map(reads).into_iter().min().unwrap()
}

/// Waits until polls, and so passes, have gone by without a call to AWS: whatever was to be done has been done.
async fn until_quiet(site: &Site) {
    site.until("nothing more is asked of AWS", |view| 5 <= reads_since(&view, |_| true))
        .await;
}

/// A cold process, which knows nothing: as `diff` and `apply` are, and a daemon's first pass.
#[tokio::test]
async fn a_cold_start_asks_each_thing_once() {
    let site = site("1h").await;
    site.run(&["diff"]).await.expect(2);
    let calls = site.sandbox.journal();
    // What a layer-based schedule is has to be found out, once: v3 is asked first, as PagerDuty's guide says.
    let pagerduty = expected(&[
        ("GET /v3/schedules/PABC123", 1),
        (PRIMARY, 1),
        (SECONDARY, 1),
        ("GET /users/PALICE1", 1),
        ("GET /users/PBOB002", 1),
        ("GET /users/PCAROL3", 1),
    ]);
    assert_eq!(tally(&of(Service::PagerDuty, &calls)), pagerduty);
    let opsgenie = expected(&[
        (DATA_ON_CALL, 1),
        ("GET /v2/users/0a1b2c3d-aaaa-4000-8000-000000000001", 1),
        ("GET /v2/users/0a1b2c3d-aaaa-4000-8000-000000000002", 1),
    ]);
    assert_eq!(tally(&of(Service::Opsgenie, &calls)), opsgenie);
    // Four people are on duty now or soon: each by user name, by e-mail, because another user may have it, and by id.
    let aws = expected(&[
        ("ListInstances", 1),
        ("ListPermissionSets", 1),
        ("DescribePermissionSet", 3),
        ("GetGroupId", 2),
        ("GetUserId", 2 * 4),
        ("DescribeUser", 4),
        ("ListAccountAssignments", 2),
        ("ListGroupMemberships", 2),
    ]);
    assert_eq!(tally(&of(Service::Aws, &calls)), aws);
}

/// So many people that a list of all users asks for less, who have nothing else to do with the store.
async fn many_people(count: usize) -> Site {
    let mut world = organisation();
    // On a busy machine requests arrive in bunches, and what is refused is asked twice.
    world.aws.requests_per_second = 0;
    let mut policy = EVERYBODY.to_owned();
    for number in 0..count {
        let address = format!("member-{number}@example.com");
        world.aws.add_user("member", &address);
        policy += &format!("\n[[member]]\nemail = \"{address}\"\nadded_by = \"mira@example.com\"\n");
    }
    let site = Site::new(world, &policy).await;
    site.configure(|settings| settings.identity_center += "\nrequests_per_second = 19");
    site
}

/// The few who have places before it is known that there will be many are looked up as ever, and nobody else.
#[tokio::test]
async fn a_cold_start_with_many_people_lists_them_instead_of_asking_for_each() {
    let site = many_people(600).await;
    let users = site.sandbox.edit(|world| world.aws.users.len());
    site.run(&["diff"]).await.expect(2);
    let mut calls = tally(&of(Service::Aws, &site.sandbox.journal()));
    let alone = ["GetUserId", "DescribeUser"].map(|operation| calls.remove(operation).unwrap_or_default());
    assert!(alone[0] <= 2 * 8 && alone[1] <= 8, "{alone:?}");
    let rest = expected(&[
        ("ListInstances", 1),
        ("GetGroupId", 1),
        ("ListUsers", users.div_ceil(100)),
        ("ListGroupMemberships", 1),
    ]);
    assert_eq!(calls, rest, "{}", site.story());
}

/// The permission is optional: without it nothing is missing but time, and that is said once.
#[tokio::test]
async fn where_listing_users_is_not_allowed_each_person_is_asked_for() {
    let people = 115;
    let site = many_people(people).await;
    let denied = Fault::on(Service::Aws, "ListUsers").aws_error("AccessDeniedException", "not authorized");
    site.sandbox.fault(denied);
    let said = site.run(&["diff"]).await.expect(2);
    let sentence = "AWS does not let us list users";
    assert_eq!(said.stderr.matches(sentence).count(), 1, "{}", said.all());
    said.says(&["identitystore:ListUsers", "nothing else depends on it"]);
    let calls = tally(&of(Service::Aws, &site.sandbox.journal()));
    let asked = ["ListUsers", "GetUserId", "DescribeUser"].map(|operation| calls[operation]);
    assert_eq!(asked, [1, 2 * people, people]);
}

/// As with people: whoever has a place before it is known that there will be many is looked up as ever.
#[tokio::test]
async fn a_cold_start_with_many_groups_lists_them_and_without_the_permission_asks_for_each() {
    let count = 250;
    let mut world = organisation();
    world.aws.requests_per_second = 0;
    let mut policy = "[project]\nname = \"many\"\nowners = [\"mira@example.com\"]\n".to_owned();
    for number in 0..count {
        world.aws.add_group(&format!("group-{number}"));
        policy += &format!("\n[[entitlement]]\nname = \"e-{number}\"\ngroup = \"group-{number}\"\n");
    }
    let groups = world.aws.groups.len();
    let site = Site::new(world, &policy).await;
    site.run(&["diff"]).await.expect(0);
    let mut calls = tally(&of(Service::Aws, &site.sandbox.journal()));
    let alone = calls.remove("GetGroupId").unwrap_or_default();
    assert!(alone <= 8, "{alone}");
    let rest = expected(&[
        ("ListInstances", 1),
        ("ListGroups", groups.div_ceil(100)),
        ("ListGroupMemberships", count),
    ]);
    assert_eq!(calls, rest, "{}", site.story());

    site.sandbox.clear_journal();
    let denied = Fault::on(Service::Aws, "ListGroups").aws_error("AccessDeniedException", "not authorized");
    site.sandbox.fault(denied);
    let said = site.run(&["diff"]).await.expect(0);
    let sentence = "AWS does not let us list groups";
    assert_eq!(said.stderr.matches(sentence).count(), 1, "{}", said.all());
    said.says(&["identitystore:ListGroups", "nothing else depends on it"]);
    let calls = tally(&of(Service::Aws, &site.sandbox.journal()));
    assert_eq!((calls["ListGroups"], calls["GetGroupId"]), (1, count));
}

/// Its first grants cost nothing but themselves and one question each how an assignment's operation stands.
#[tokio::test]
async fn what_is_granted_after_a_cold_start_is_asked_for_once() {
    let site = site("1h").await;
    site.run(&["apply"]).await.expect(0);
    let calls = of(Service::Aws, &site.sandbox.journal());
    let of_changes = ["Create", "Delete", "DescribeAccountAssignment", "GetGroupMembershipId"];
    let mut changes = tally(&calls);
    changes.retain(|name, _| of_changes.iter().any(|kind| name.starts_with(kind)));
    let least = expected(&[
        ("CreateAccountAssignment", 2),
        ("DescribeAccountAssignmentCreationStatus", 2),
        ("CreateGroupMembership", 2),
    ]);
    assert_eq!(changes, least);
}

#[tokio::test]
async fn a_poll_with_nothing_new_is_one_request_a_schedule_and_none_to_aws() {
    let site = site("1h").await;
    let _daemon = resting(&site).await;
    site.until("each schedule was read four times", |view| {
        4 <= reads_since(&view, |_| true)
    })
    .await;
    let calls = tally(&site.sandbox.journal());
    let asked: BTreeSet<&str> = calls.keys().map(String::as_str).collect();
    assert_eq!(asked, BTreeSet::from([PRIMARY, SECONDARY, DATA_ON_CALL]));
    // None is read more often than the others, but for a round that has just begun.
    let (least, most) = (calls.values().min().unwrap(), calls.values().max().unwrap());
    assert!(most - least <= 2, "{calls:?}");
}

/// One look at each target before anything is decided, one create, one delete, one question each how the operation stands.
/// The membership's id has to be asked for: it may have been made anew since we made it.
#[tokio::test]
async fn a_hand_off_looks_once_creates_once_and_deletes_once() {
    let site = site("1h").await;
    let _daemon = resting(&site).await;
    turn_ends(&site, 3);
    site.until("bob has taken over", |view| {
        let aws = &view.world.aws;
        aws.holds(ACCOUNT, ADMIN, BOB)
            && !aws.holds(ACCOUNT, ADMIN, ALICE)
            && aws.is_member(READERS, BOB)
            && !aws.is_member(READERS, ALICE)
    })
    .await;
    until_quiet(&site).await;
    let calls = site.sandbox.journal();
    let aws = expected(&[
        ("ListAccountAssignments", 1),
        ("CreateAccountAssignment", 1),
        ("DescribeAccountAssignmentCreationStatus", 1),
        ("DeleteAccountAssignment", 1),
        ("DescribeAccountAssignmentDeletionStatus", 1),
        ("ListGroupMemberships", 1),
        ("CreateGroupMembership", 1),
        ("GetGroupMembershipId", 1),
        ("DeleteGroupMembership", 1),
    ]);
    assert_eq!(tally(&of(Service::Aws, &calls)), aws, "{}", site.story());
    // That the turn ends earlier is an edit, so who made it is asked for besides the polls.
    let mut providers = tally(&calls);
    providers.retain(|operation, _| operation.starts_with("GET "));
    let asked: BTreeSet<&str> = providers.keys().map(String::as_str).collect();
    let author = "GET /schedules/PABC123/audit/records";
    assert_eq!(asked, BTreeSet::from([PRIMARY, author, SECONDARY, DATA_ON_CALL]));
}

/// Found by measuring: while AWS worked on a hand-off, every pass read the target again, so that reads were most of the
/// requests of a Monday.
#[tokio::test]
async fn passes_while_aws_works_on_a_hand_off_look_at_nothing_again() {
    let site = site("1h").await;
    let _daemon = resting(&site).await;
    site.sandbox.edit(|world| {
        world.aws.slow_operations.push(SlowOperation {
            matching: Matching::default(),
            takes: SignedDuration::from_secs(2),
        });
    });
    turn_ends(&site, 2);
    site.until_admin(BOB, true).await;
    site.until_admin(ALICE, false).await;
    until_quiet(&site).await;
    let calls = tally(&site.sandbox.journal());
    let looks = ["ListAccountAssignments", "ListGroupMemberships"];
    assert_eq!(looks.map(|look| calls[look]), [1, 1], "{calls:?}");
}

#[tokio::test]
async fn an_edit_of_the_policy_asks_for_whom_it_concerns_and_nothing_else() {
    let with = |more: &str| {
        format!("{PAYMENTS}{ON_CALL}{more}\n[[rule]]\nentitlement = \"prod-readers\"\nmembers = true\nrequires = []\n")
    };
    let site = site("1h").await;
    let daemon = resting(&site).await;

    // A sentence for people changes nothing for anybody.
    let context = "card data never leaves the account.";
    let edited = format!("{PAYMENTS}{ON_CALL}").replace(context, "card data stays in the account.");
    site.policy("project.toml", &edited);
    daemon.until_says("a new policy is in force").await;
    until_quiet(&site).await;
    assert_eq!(tally(&of(Service::Aws, &site.sandbox.journal())), Tally::new());

    // The members, of whom alice holds it already and bob is known, and mira, who is new.
    let mira = "\n[[member]]\nemail = \"mira@example.com\"\nadded_by = \"mira@example.com\"\n";
    site.policy("project.toml", with(mira));
    site.until("the members are in the group", |view| {
        let aws = &view.world.aws;
        aws.is_member(READERS, BOB) && aws.is_member(READERS, "mira@example.com")
    })
    .await;
    until_quiet(&site).await;
    let added = expected(&[
        ("GetUserId", 2),
        ("DescribeUser", 1),
        ("ListGroupMemberships", 1),
        ("CreateGroupMembership", 2),
    ]);
    assert_eq!(tally(&of(Service::Aws, &site.sandbox.journal())), added);

    site.sandbox.clear_journal();
    site.policy("project.toml", with(""));
    site.until("mira has left the group", |view| {
        !view.world.aws.is_member(READERS, "mira@example.com")
    })
    .await;
    until_quiet(&site).await;
    let removed = expected(&[
        ("ListGroupMemberships", 1),
        ("GetGroupMembershipId", 1),
        ("DeleteGroupMembership", 1),
    ]);
    assert_eq!(tally(&of(Service::Aws, &site.sandbox.journal())), removed);
}

#[tokio::test]
async fn an_audit_is_one_request_a_target_and_page() {
    let site = site("1s").await;
    site.sandbox.edit(|world| {
        let group = world.aws.group_id(READERS).unwrap().to_owned();
        for number in 0..150 {
            let user = world.aws.add_user("member", &format!("member-{number}@example.com"));
            world.aws.add_member(&group, &user);
        }
    });
    let _daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    let target = |call: &Call| match call.operation.as_str() {
        "ListGroupMemberships" => Some(format!("{} {}", call.body["GroupId"], call.body["NextToken"])),
        "ListAccountAssignments" => Some(format!("{} {}", call.body["AccountId"], call.body["PermissionSetArn"])),
        _ => None,
    };
    // Whatever was granted at the start has been settled when nothing but looks has been asked for a while.
    let is_look = |call: &Call| call.operation.starts_with("List");
    site.until("the start is over", |view| {
        3 <= reads_since(&view, |call| !is_look(call))
    })
    .await;
    site.sandbox.clear_journal();
    site.until("the audit went around ten times", |view| {
        let first = view.journal.iter().filter(|c| c.operation == "ListAccountAssignments");
        22 < first.count()
    })
    .await;
    let calls = of(Service::Aws, &site.sandbox.journal());
    assert!(calls.iter().all(is_look), "{:?}", tally(&calls));
    // From a look at one target to another look at it are whole rounds, but for the order within the first and the last.
    let asked: Vec<String> = calls.iter().map(|call| target(call).unwrap()).collect();
    let (first, last) = (&asked[0], asked.iter().rposition(|target| *target == asked[0]).unwrap());
    let mut rounds: BTreeMap<&str, usize> = BTreeMap::new();
    for target in &asked[..last] {
        *rounds.entry(target).or_default() += 1;
    }
    // Two assignments, and two groups of which one has two pages.
    assert_eq!(rounds.len(), 5, "{rounds:?}");
    let whole = rounds[first.as_str()];
    assert!(9 <= whole, "{rounds:?}");
    assert!(rounds.values().all(|count| count.abs_diff(whole) <= 1), "{rounds:?}");
}

#[tokio::test]
async fn an_outage_of_a_provider_and_its_end_ask_nothing_of_aws() {
    let site = site("1h").await;
    let daemon = resting(&site).await;
    site.sandbox.fault(Fault::on(Service::PagerDuty, "*").status(500));
    daemon.until_says("the stored snapshot stands in").await;
    site.until("each schedule was tried again", |view| {
        let tries = |operation: &str| view.journal.iter().filter(|c| c.operation == operation).count();
        6 < tries(PRIMARY) && 6 < tries(SECONDARY)
    })
    .await;
    site.sandbox.clear_faults();
    site.sandbox.clear_journal();
    until_quiet(&site).await;
    daemon.until_says("can be read again").await;
    let calls = tally(&site.sandbox.journal());
    let asked: BTreeSet<&str> = calls.keys().map(String::as_str).collect();
    assert_eq!(asked, BTreeSet::from([PRIMARY, SECONDARY, DATA_ON_CALL]));
}

/// A daemon with twenty schedules, of which four are read at once and slowly, and how many passes it makes from when each
/// was read once more until each was read three times more.
async fn passes_of_three_rounds(site: &Site) -> f64 {
    site.configure(|settings| settings.more = "[timing]\npoll = \"3s\"\nnotice = \"0s\"\n".to_owned());
    let slow = Fault::on(Service::PagerDuty, "*").delay(Duration::from_millis(300));
    site.sandbox.fault(slow);
    let daemon = site.ready_daemon().await;
    let reads = |view: &View<'_>| {
        let all = view.journal.iter();
        let reads = all.filter(|c| c.operation.starts_with("GET /schedules/PMANY"));
        reads.filter(|call| call.status.is_some()).count()
    };
    site.until("each is known", |view| 40 <= reads(&view)).await;
    let passes = || daemon.metric("dutybound_passes_total{outcome=\"complete\"}");
    let before = passes().await.unwrap();
    site.sandbox.clear_journal();
    site.until("each was read three times more", |view| 60 <= reads(&view))
        .await;
    passes().await.unwrap() - before
}

/// Twenty schedules on which alice is.
async fn many_schedules() -> Site {
    let mut world = organisation();
    let mut policy = PAYMENTS.to_owned();
    for number in 0..20 {
        let id = format!("PMANY{number:02}");
        let of = Schedule::new(&id, &id).with_entry("PALICE1", from_now(-3600), from_now(24 * 3600));
        world.pagerduty.schedules.push(of);
        policy += &format!("\n[[rule]]\nentitlement = \"prod-readers\"\non_call     = \"pagerduty/{id}\"\n");
    }
    Site::new(world, &policy).await
}

/// Found by a bench of a large organisation: reads that are spread over the poll ended one by one, each alone, and each was
/// followed by a pass over everything.
#[tokio::test]
async fn unchanged_schedules_bring_one_pass_a_round_and_not_one_each() {
    let site = many_schedules().await;
    let passes = passes_of_three_rounds(&site).await;
    assert!(site.member(READERS, ALICE));
    assert!(passes <= 8.0, "{passes} passes for 60 reads");
}

/// By the clock that comes with a read the grant may be right a moment later.
#[tokio::test]
async fn while_a_guard_waits_for_reads_each_brings_a_pass() {
    let site = many_schedules().await;
    site.sandbox.set_now(Some(from_now(600)));
    let passes = passes_of_three_rounds(&site).await;
    assert!(!site.member(READERS, ALICE), "the clocks disagree");
    assert!(10.0 <= passes, "{passes} passes for 60 reads");
}
