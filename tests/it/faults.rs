//! Peers that misbehave in ways that need more than a scenario file says: several lures, thousands of rows, what takes
//! effect late. The plain cases are in `tests/scenarios`.

use std::collections::BTreeMap;
use std::time::Duration;

use dutybound_sandbox::world::Rotation;
use dutybound_sandbox::world::aws::{Matching, OperationKind, SlowOperation};
use dutybound_sandbox::world::opsgenie::{Group, Recipient, RecipientKind};
use dutybound_sandbox::world::pagerduty::{EscalationPolicy, Target};
use dutybound_sandbox::{Effect, Fault, Service};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::harness::*;

/// A provider in these tests and where it is read.
struct Provider {
    service: Service,
    schedule: &'static str,
    site: Site,
}

impl Provider {
    async fn pagerduty() -> Self {
        Self {
            service: Service::PagerDuty,
            schedule: "pagerduty/PABC123",
            site: Site::new(organisation(), &format!("{PAYMENTS}{ON_CALL}")).await,
        }
    }

    async fn opsgenie() -> Self {
        Self {
            service: Service::Opsgenie,
            schedule: "opsgenie/6fce1fd0-bbbb-4000-8000-000000000001",
            site: Site::new(organisation(), DATA).await,
        }
    }

    /// Hands the schedule over to the other person for the rest of the shift.
    fn hand_over(&self) {
        let (from, to) = (from_now(-30), from_now(3600));
        self.site.sandbox.edit(|world| {
            if self.service == Service::PagerDuty {
                world
                    .pagerduty
                    .schedule_mut("PABC123")
                    .unwrap()
                    .override_with("PBOB002", from, to);
            } else {
                let erin = world.opsgenie.users[1].id.clone();
                world.opsgenie.schedules[0].override_with(Recipient::user(&erin), from, to);
            }
        });
    }
}

#[tokio::test]
async fn a_429_without_a_word_is_waited_out() {
    let provider = Provider::pagerduty().await;
    let site = &provider.site;
    site.sandbox
        .fault(Fault::on(Service::PagerDuty, "*").times(2).status(429));
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(ALICE));
}

#[tokio::test]
async fn no_credential_follows_a_redirect_or_a_next_link_to_another_host() {
    for provider in [Provider::pagerduty().await, Provider::opsgenie().await] {
        let site = &provider.site;
        site.run(&["apply"]).await.expect(0);
        provider.hand_over();
        let elsewhere = Site::payments().await;
        let lures = [
            elsewhere.sandbox.pagerduty_url(),
            elsewhere.sandbox.pagerduty_url().replace("127.0.0.1", "localhost"),
            site.sandbox.aws_url(),
        ];
        site.sandbox.clear_journal();
        for lure in &lures {
            site.sandbox.clear_faults();
            let redirect = Effect::Redirect(format!("{lure}/next"));
            site.sandbox.fault(Fault::on(provider.service, "*").effect(redirect));
            let apply = site.run(&["apply"]).await.expect(0);
            apply.says(&[provider.schedule, "redirected", "never followed"]);
            assert_eq!(site.written(), [""; 0]);
        }
        for lure in &lures {
            site.sandbox.clear_faults();
            let link = Effect::NextLink(format!("{lure}/next"));
            site.sandbox.fault(Fault::on(provider.service, "*").effect(link));
            site.run(&["apply"]).await.expect(0);
        }
        assert!(
            elsewhere.sandbox.journal().is_empty(),
            "{:?}",
            elsewhere.sandbox.journal()
        );
        let strays = site
            .sandbox
            .journal()
            .into_iter()
            .filter(|c| c.operation.contains("/next"))
            .count();
        assert_eq!(strays, 0, "{}", site.story());
    }
}

#[tokio::test]
async fn an_escalation_policy_of_which_one_page_fails_is_not_read_at_all() {
    let rule = "\n[[rule]]\nentitlement = \"prod-admin\"\non_call = { escalation_policy = \"pagerduty/PESC001\" }\n";
    let site = Site::new(organisation(), &format!("{PAYMENTS}{rule}")).await;
    let rotation = |first: &str, second: &str| {
        let start = from_now(-3600);
        // So many turns that the answer has several pages.
        let turns = Rotation {
            turns: Some(400),
            ..Rotation::new(&[first, second], start, SignedDuration::from_hours(2))
        };
        site.sandbox
            .edit(|world| world.pagerduty.schedule_mut("PABC123").unwrap().rotation = Some(turns));
    };
    rotation("PALICE1", "PBOB002");
    site.sandbox.edit(|world| {
        world.pagerduty.escalation_policies.push(EscalationPolicy {
            id: "PESC001".into(),
            name: "payments".into(),
            levels: vec![vec![Target::Schedule("PABC123".into())]],
        });
    });
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(ALICE));
    rotation("PBOB002", "PALICE1");
    site.sandbox.clear_journal();
    for effect in [
        Effect::Status {
            status: 500,
            headers: BTreeMap::new(),
            body: Value::Null,
        },
        Effect::Status {
            status: 403,
            headers: BTreeMap::new(),
            body: Value::Null,
        },
        Effect::Cut,
        Effect::TruncatedJson,
        Effect::EmptyBody,
    ] {
        site.sandbox.clear_faults();
        site.sandbox
            .fault(Fault::on(Service::PagerDuty, "GET /oncalls").page(2).effect(effect));
        site.run(&["apply"])
            .await
            .expect(0)
            .says(&["pagerduty/escalation-policy/PESC001", "schedule_failing"]);
        assert!(
            site.sandbox.faults()[0].seen > 0,
            "the second page was asked for: {}",
            site.story()
        );
        assert_eq!(site.written(), [""; 0]);
    }
    site.sandbox.clear_faults();
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(BOB) && !site.admin(ALICE));
}

#[tokio::test]
async fn a_team_that_cannot_be_flattened_keeps_its_grants() {
    let site = Site::new(organisation(), DATA).await;
    site.sandbox.edit(|world| {
        let genie = &mut world.opsgenie;
        let people: Vec<_> = genie.users.iter().map(|user| Recipient::user(&user.id)).collect();
        genie.groups = vec![Group {
            kind: RecipientKind::Team,
            id: "team-1".into(),
            name: "data".into(),
            members: people,
        }];
        genie.schedules[0].override_with(Recipient::team("team-1"), from_now(-600), from_now(7200));
    });
    site.run(&["apply"]).await.expect(0);
    assert!(site.member(DATA_GROUP, DAVE) && site.member(DATA_GROUP, ERIN));
    site.sandbox.clear_journal();
    site.sandbox.edit(|world| world.opsgenie.groups[0].members.truncate(1));
    for effect in [Effect::EmptyBody, Effect::TruncatedJson, Effect::Cut] {
        site.sandbox.clear_faults();
        site.sandbox
            .fault(Fault::on(Service::Opsgenie, "*").containing("on-calls").effect(effect));
        site.run(&["apply"]).await.expect(0).says(&["schedule_failing"]);
        assert!(site.sandbox.faults()[0].seen > 0);
        assert_eq!(site.written(), [""; 0]);
    }
}

/// The installation with the account assignment only.
async fn admin_site() -> Site {
    Site::new(organisation(), &format!("{PAYMENTS}{ADMIN_ON_CALL}")).await
}

#[tokio::test]
async fn conflicts_and_throttles_are_tried_again_within_the_pass() {
    let site = Site::payments().await;
    let sandbox = &site.sandbox;
    let message = "Rate exceeded";
    sandbox.fault(
        Fault::on(Service::Aws, "CreateAccountAssignment")
            .times(2)
            .aws_error("ConflictException", "There is a conflicting operation in process"),
    );
    sandbox.fault(
        Fault::on(Service::Aws, "CreateGroupMembership")
            .times(2)
            .aws_error("ThrottlingException", message),
    );
    sandbox.fault(
        Fault::on(Service::Aws, "ListAccountAssignments")
            .times(1)
            .aws_error("ThrottlingException", message),
    );
    sandbox.fault(
        Fault::on(Service::Aws, "ListInstances")
            .times(1)
            .aws_error("InternalServerException", "oops"),
    );
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(ALICE) && site.member(READERS, ALICE));
    assert!(
        sandbox.faults().iter().all(|f| Some(f.seen) > f.times),
        "{:?}",
        sandbox.faults()
    );
}

#[tokio::test]
async fn a_slow_operation_of_one_account_keeps_no_other_change_waiting() {
    let site = Site::payments().await;
    site.sandbox.edit(|world| {
        world.aws.slow_operations.push(SlowOperation {
            matching: Matching {
                kind: Some(OperationKind::Create),
                ..Matching::default()
            },
            takes: SignedDuration::from_secs(5),
        });
    });
    let apply = site.run(&["apply"]).await.expect(0);
    apply.says(&["confirmed at"]);
    let intervals = site.intervals().await;
    let of = |name: &str| {
        intervals
            .iter()
            .find(|i| i.entitlement.name == name)
            .unwrap()
            .granted_at
    };
    assert!(of("prod-readers") < of("prod-admin"));
    let due = site.sandbox.edit(|world| world.aws.operations[0].due);
    assert!(
        due.as_millisecond() <= of("prod-admin").as_millisecond(),
        "access counts from the confirmation"
    );
}

#[tokio::test]
async fn lists_of_many_pages_are_read_whole() {
    let site = Site::payments().await;
    site.run(&["apply"]).await.expect(0);
    site.sandbox.edit(|world| {
        world.aws.page_size = 2;
        world.aws.empty_first_page = true;
        let set = world.aws.permission_set_arn(ADMIN).unwrap().to_owned();
        let group = world.aws.group_id(READERS).unwrap().to_owned();
        for number in 0..7 {
            let user = world.aws.add_user("Other", &format!("other-{number}@example.com"));
            world.aws.assign(ACCOUNT, &set, &user);
            world.aws.add_member(&group, &user);
        }
        // Ours come last, on the last page.
        let ours = world.aws.assignments.remove(0);
        world.aws.assignments.push(ours);
        let ours = world.aws.memberships.remove(0);
        world.aws.memberships.push(ours);
    });
    site.sandbox.clear_journal();
    site.run(&["apply"]).await.expect(0).says(&["14 not ours, 2 unchanged"]);
    assert_eq!(site.written(), [""; 0]);
    let pages = site
        .sandbox
        .journal()
        .iter()
        .filter(|c| c.operation == "ListAccountAssignments")
        .count();
    assert!(3 < pages, "{pages}");
    // A page that fails is not the end of the list.
    site.sandbox.fault(
        Fault::on(Service::Aws, "ListAccountAssignments")
            .page(3)
            .aws_error("AccessDeniedException", "not this page"),
    );
    site.run(&["apply"])
        .await
        .expect(1)
        .says(&["could not be read", ACCOUNT, "not this page"]);
    assert_eq!(site.written(), [""; 0]);
}

#[tokio::test]
async fn thirty_grants_over_three_accounts_stay_within_the_limits_of_aws() {
    let accounts = ["111122223333", "444455556666", "777788889999"];
    let mut policy = "[project]\nname = \"wide\"\nowners = [\"mira@example.com\"]\n".to_owned();
    for (number, account) in accounts.iter().enumerate() {
        policy.push_str(&format!(
            "[[entitlement]]\nname = \"e{number}\"\naccount = \"{account}\"\npermission_set = \"AdministratorAccess\"\n\
             [[rule]]\nentitlement = \"e{number}\"\nmembers = true\n"
        ));
    }
    let mut world = organisation();
    world.aws.add_account(accounts[2], "third");
    // Long enough for two operations on one account to meet, if they were not kept apart.
    world.aws.operation_takes = SignedDuration::from_millis(300);
    for number in 0..10 {
        let email = format!("member-{number}@example.com");
        world.aws.add_user("Member", &email);
        policy.push_str(&format!(
            "[[member]]\nemail = \"{email}\"\nadded_by = \"mira@example.com\"\n"
        ));
    }
    let site = Site::new(world, &policy).await;
    site.configure(|s| {
        s.more = "[limits]\nsurprising_grants = 50\nsurprising_grants_per_entitlement = 50\n".to_owned()
    });
    site.run(&["apply"]).await.expect(0);
    assert_eq!(site.sandbox.edit(|world| world.aws.assignments.len()), 30);
    let calls: Vec<_> = site
        .sandbox
        .journal()
        .into_iter()
        .filter(|c| c.service == Service::Aws)
        .collect();
    let refused: Vec<_> = calls.iter().filter(|c| !c.succeeded()).collect();
    assert!(refused.is_empty(), "{refused:?}");
    for (number, call) in calls.iter().enumerate() {
        let second = SignedDuration::from_secs(1);
        let within = calls[number..]
            .iter()
            .take_while(|c| call.at.duration_until(c.at) < second)
            .count();
        assert!(within <= 20, "{within} requests within a second from {}", call.at);
    }
    let created: Vec<Timestamp> = calls.iter().filter(|c| c.is_write()).map(|c| c.at).collect();
    assert_eq!(created.len(), 30);
}

#[tokio::test]
async fn an_answer_of_aws_that_never_comes_ends_by_itself() {
    let site = admin_site().await;
    let url = site.sandbox.aws_url();
    site.configure(|s| {
        s.identity_center = format!(
            "region = \"eu-central-1\"\nexpected_account_id = \"999999999999\"\nendpoint_url = \"{url}\"\ncall_timeout = \"1s\""
        );
    });
    site.sandbox.fault(
        Fault::on(Service::Aws, "ListInstances")
            .times(1)
            .delay(Duration::from_secs(5)),
    );
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(ALICE));
}

#[tokio::test]
async fn a_creation_that_takes_effect_after_its_reply_was_lost_is_ours() {
    let site = admin_site().await;
    site.sandbox
        .edit(|world| world.aws.operation_takes = SignedDuration::from_secs(3));
    site.sandbox
        .fault(Fault::on(Service::Aws, "CreateAccountAssignment").times(1).lost_reply());
    site.run(&["apply"]).await;
    // Nobody is on call any more when it takes effect.
    site.shifts(&[]);
    site.until("the creation took effect", |view| {
        let done = |o: &dutybound_sandbox::world::aws::Operation| {
            o.status != dutybound_sandbox::world::aws::Status::InProgress
        };
        view.world.aws.operations.first().is_some_and(done)
    })
    .await;
    site.run(&["apply"]).await;
    site.run(&["apply"]).await;
    assert!(!site.admin(ALICE), "{}", site.run(&["apply"]).await.all());
    assert!(site.intervals().await.iter().all(|i| i.revoked_at.is_some()));
}

#[tokio::test]
async fn what_somebody_else_did_meanwhile_is_a_success() {
    let site = Site::payments().await;
    site.run(&["apply"]).await.expect(0);
    // Both are gone without us, and nobody should hold them any more.
    site.sandbox.edit(|world| {
        world.aws.assignments.clear();
        world.aws.memberships.clear();
    });
    site.shifts(&[]);
    site.run(&["apply"]).await;
    site.run(&["apply"]).await.expect(0);
    let intervals = site.intervals().await;
    assert!(intervals.iter().all(|i| i.revoked_at.is_some()), "{intervals:?}");
}

#[tokio::test]
async fn whoever_cannot_be_looked_up_keeps_the_one_before_from_being_revoked() {
    let site = admin_site().await;
    site.run(&["apply"]).await.expect(0);
    site.sandbox.clear_journal();
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    for code in ["AccessDeniedException", "ValidationException"] {
        site.sandbox.clear_faults();
        site.sandbox.fault(
            Fault::on(Service::Aws, "*")
                .containing(BOB)
                .aws_error(code, "not for you"),
        );
        let apply = site.run(&["apply"]).await.expect(3);
        apply.says(&["HELD (not_knowing)", BOB, "not for you"]);
        assert!(site.sandbox.faults()[0].seen > 0);
        assert_eq!(site.written(), [""; 0]);
    }
    // A user who was disabled gets nothing either, and is named.
    site.sandbox.clear_faults();
    let disable = |disabled: bool| {
        site.sandbox.edit(|world| {
            let bob = world.aws.users.iter_mut().find(|user| user.user_name == BOB).unwrap();
            bob.enabled = !disabled;
        });
    };
    disable(true);
    site.run(&["apply"]).await.expect(3).says(&["person_disabled", BOB]);
    assert_eq!(site.written(), [""; 0]);
    disable(false);
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(BOB) && !site.admin(ALICE));
}

#[tokio::test]
async fn nothing_that_a_peer_says_drives_a_terminal_or_forges_a_line() {
    let evil = "\u{1b}]0;owned\u{7}\u{1b}[2J\nerror: forged line\u{202e}";
    let site = admin_site().await;
    site.sandbox.edit(|world| {
        world.aws.fail(Matching::default(), evil);
        world.pagerduty.users[0].name = evil.to_owned();
    });
    let mut said = vec![
        site.run(&["apply"]).await,
        site.run(&["status"]).await,
        site.run(&["explain", ALICE]).await,
    ];
    let body = json!({"error": {"message": evil}});
    site.sandbox
        .fault(Fault::on(Service::PagerDuty, "*").respond(403, &[], body));
    said.extend([
        site.run(&["diff"]).await,
        site.run(&["apply"]).await,
        site.run(&["status"]).await,
    ]);
    said[0].says(&["owned"]);
    said[3].says(&["owned"]);
    for output in said {
        let all = output.all();
        assert!(!all.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{all:?}");
        assert!(!all.lines().any(|line| line.starts_with("error: forged")), "{all}");
    }
}
