//! The commands that end: what they grant, show and refuse, and what they never touch.

use dutybound_sandbox::world::opsgenie::{Group, Period, Recipient, RecipientKind, ScheduleRotation};
use dutybound_sandbox::world::pagerduty::{
    CustomShift, EscalationPolicy, OauthClient, Schedule, ShiftSchedule, Target,
};
use dutybound_sandbox::{Effect, Fault, Service};
use jiff::Timestamp;
use serde_json::Value;

use crate::harness::*;

fn texts<'a>(values: &'a Value, pointer: &str) -> Vec<&'a str> {
    let values = values.as_array().unwrap();
    values
        .iter()
        .map(|v| v.pointer(pointer).unwrap().as_str().unwrap())
        .collect()
}

async fn until_past(end: Timestamp) {
    eventually("the shift has ended", async || end < Timestamp::now()).await;
}

#[tokio::test]
async fn apply_grants_both_kinds_and_the_second_apply_writes_nothing() {
    let site = Site::payments().await;
    site.run(&["apply"])
        .await
        .expect(0)
        .says(&["confirmed at", "payments/prod-admin", "payments/prod-readers", ALICE]);
    assert!(site.admin(ALICE) && site.member(READERS, ALICE));
    assert!(!site.admin(BOB) && !site.member(READERS, BOB));
    let mut written = site.written();
    written.sort();
    assert_eq!(written, ["CreateAccountAssignment", "CreateGroupMembership"]);

    site.sandbox.clear_journal();
    site.run(&["apply"])
        .await
        .expect(0)
        .says(&["0 to grant, 0 to revoke, 0 held, 0 not ours, 2 unchanged"]);
    assert_eq!(site.written(), [""; 0], "{}", site.story());
    assert!(!site.sandbox.journal().is_empty(), "the world was read");
}

#[tokio::test]
async fn diff_never_writes_and_answers_with_its_exit_code() {
    let site = Site::payments().await;
    let diff = site.run(&["diff"]).await.expect(2);
    diff.says(&[
        "+ alice@example.com",
        "context: PCI scope",
        "on call in pagerduty/PABC123",
        "project.toml:",
    ]);
    assert_eq!(content(&site.path("ledger.db")), None, "diff creates no ledger");

    site.run(&["apply"]).await.expect(0);
    let ledger = content(&site.path("ledger.db"));
    site.sandbox.clear_journal();
    site.run(&["diff"]).await.expect(0);
    // From now on a change of the schedule is a surprise, and no surprise is allowed.
    site.configure(|s| s.more = "[limits]\nsurprising_grants = 0\n".to_owned());
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    let held = site.run(&["diff"]).await.expect(3);
    held.says(&[
        "= bob@example.com  HELD (limit)",
        "the limit is 0",
        "dutybound apply --approve",
    ]);
    site.sandbox.edit(|world| world.pagerduty.schedules.clear());
    let site_two = Site::payments().await;
    site_two.sandbox.edit(|world| world.pagerduty.schedules.clear());
    site_two
        .run(&["diff"])
        .await
        .expect(1)
        .says(&["pagerduty/PABC123", "404"]);
    assert_eq!(site.written(), [""; 0]);
    assert_eq!(site_two.written(), [""; 0]);
    assert_eq!(
        content(&site.path("ledger.db")),
        ledger,
        "diff changes nothing on record"
    );
}

#[tokio::test]
async fn what_is_granted_while_a_diff_looks_is_not_taken_for_somebody_elses() {
    let site = Site::payments().await;
    site.configure(|s| s.mode = "observe");
    site.run(&["apply"]).await.expect(3);
    site.configure(|_| {});
    let reading = "ListAccountAssignments";
    site.sandbox.fault(Fault::on(Service::Aws, reading).hold().times(1));
    site.sandbox.clear_journal();
    let apply_meanwhile = async {
        let held = |view: dutybound_sandbox::View<'_>| view.journal.iter().any(|call| call.operation == reading);
        site.until("the diff reads the live state", held).await;
        site.run(&["apply"]).await.expect(0);
        site.sandbox.clear_faults();
    };
    let (diff, ()) = tokio::join!(site.run(&["diff"]), apply_meanwhile);
    diff.expect(0).says(&["2 unchanged"]);
}

#[tokio::test]
async fn diff_at_a_later_hand_off_shows_who_comes_and_who_goes() {
    let site = Site::payments().await;
    site.run(&["apply"]).await.expect(0);
    let later = from_now(9 * 3600).to_string();
    let diff = site
        .run(&["diff", "--at", &later, "--format", "json"])
        .await
        .expect(2)
        .json();
    let changes = &diff["changes"];
    assert_eq!(texts(changes, "/kind"), ["grant", "grant", "revoke", "revoke"]);
    assert_eq!(texts(changes, "/person"), [BOB, BOB, ALICE, ALICE]);
    site.run(&["diff", "--at", &later])
        .await
        .expect(2)
        .says(&["+ bob@example.com", "- alice@example.com"]);
    site.run(&["diff", "--at", "2020-01-01T00:00:00Z"])
        .await
        .expect(1)
        .says(&["2020-01-01", "explain --at"]);
    assert!(site.admin(ALICE) && !site.admin(BOB));
}

#[tokio::test]
async fn apply_revokes_after_the_end_of_the_shift() {
    let site = Site::payments().await;
    let end = from_now(20);
    site.shifts(&[("PALICE1", from_now(-60), end)]);
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(ALICE) && site.member(READERS, ALICE));
    until_past(end).await;
    site.run(&["apply"])
        .await
        .expect(0)
        .says(&["- alice@example.com", "confirmed at"]);
    assert!(!site.admin(ALICE) && !site.member(READERS, ALICE));
    let intervals = site.intervals().await;
    assert_eq!(intervals.len(), 2);
    assert!(
        intervals.iter().all(|i| i.revoked_at.is_some_and(|t| end <= t)),
        "{intervals:?}"
    );
}

#[tokio::test]
async fn back_to_back_shifts_of_one_person_cause_no_call() {
    let site = Site::payments().await;
    let end = from_now(20);
    site.shifts(&[("PALICE1", from_now(-60), end), ("PALICE1", end, from_now(3600))]);
    site.run(&["apply"]).await.expect(0);
    site.sandbox.clear_journal();
    until_past(end).await;
    site.run(&["apply"]).await.expect(0).says(&["2 unchanged"]);
    assert_eq!(site.written(), [""; 0]);
    assert!(site.admin(ALICE));
}

#[tokio::test]
async fn observe_writes_nothing_and_diff_still_shows_the_change() {
    let site = Site::payments().await;
    site.configure(|s| s.mode = "observe");
    site.run(&["diff"]).await.expect(2).says(&["+ alice@example.com"]);
    site.run(&["apply"])
        .await
        .expect(3)
        .says(&["mode is observe: nothing was written"]);
    assert_eq!(site.written(), [""; 0]);
    assert!(!site.admin(ALICE));
    site.run(&["explain", ALICE, "payments/prod-admin"])
        .await
        .expect(2)
        .says(&["mode is \"observe\""]);
}

#[tokio::test]
async fn an_override_at_the_provider_splits_a_shift() {
    let site = Site::payments().await;
    let (from, to) = (from_now(-30), from_now(1800));
    site.sandbox.edit(|world| {
        world
            .pagerduty
            .schedule_mut("PABC123")
            .unwrap()
            .override_with("PBOB002", from, to)
    });
    site.run(&["apply"]).await.expect(0).says(&["+ bob@example.com"]);
    assert!(site.admin(BOB) && !site.admin(ALICE));
    let after = from_now(2000).to_string();
    site.run(&["diff", "--at", &after])
        .await
        .expect(2)
        .says(&["+ alice@example.com", "- bob@example.com"]);
}

#[tokio::test]
async fn a_shift_based_schedule_may_have_several_people_on_call_at_once() {
    let site = Site::payments().await;
    site.sandbox.edit(|world| {
        world.pagerduty.schedules.clear();
        world.pagerduty.shift_schedules.push(ShiftSchedule {
            id: "PABC123".into(),
            name: "payments primary".into(),
            custom_shifts: vec![CustomShift {
                id: "S1".into(),
                members: vec!["PALICE1".into(), String::new(), "PBOB002".into()],
                start: from_now(-60),
                end: from_now(3600),
            }],
            ..ShiftSchedule::default()
        });
    });
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(ALICE) && site.admin(BOB) && site.member(READERS, ALICE) && site.member(READERS, BOB));
}

#[tokio::test]
async fn a_schedule_that_is_upgraded_between_two_applies_causes_no_write() {
    let site = Site::payments().await;
    site.run(&["apply"]).await.expect(0);
    site.sandbox.clear_journal();
    assert!(site.sandbox.edit(|world| world.pagerduty.upgrade("PABC123")));
    site.run(&["apply"]).await.expect(0).says(&["2 unchanged"]);
    assert_eq!(site.written(), [""; 0]);
    let journal = site.sandbox.journal();
    assert!(
        journal
            .iter()
            .any(|c| c.operation == "GET /v3/schedules/PABC123" && c.succeeded())
    );
}

#[tokio::test]
async fn an_escalation_policy_counts_at_the_levels_that_the_rule_names() {
    let rule = "\n[[member]]\nemail = \"carol@example.com\"\nadded_by = \"mira@example.com\"\n\
        [[rule]]\nentitlement = \"prod-admin\"\non_call = { escalation_policy = \"pagerduty/PESC001\", levels = [2] }\n\
        [[rule]]\nentitlement = \"prod-readers\"\non_call = { escalation_policy = \"pagerduty/PESC001\" }\n";
    let site = Site::new(organisation(), &format!("{PAYMENTS}{rule}")).await;
    site.sandbox.edit(|world| {
        let secondary = Schedule::new("PSEC001", "secondary").with_entry("PCAROL3", from_now(-60), from_now(3600));
        world.pagerduty.schedules.push(secondary);
        world.pagerduty.escalation_policies.push(EscalationPolicy {
            id: "PESC001".into(),
            name: "payments".into(),
            levels: vec![
                vec![Target::Schedule("PABC123".into())],
                vec![Target::Schedule("PSEC001".into())],
            ],
        });
    });
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(CAROL) && !site.admin(ALICE));
    assert!(site.member(READERS, CAROL) && site.member(READERS, ALICE) && !site.member(READERS, BOB));
    site.run(&["explain", CAROL, "payments/prod-admin"])
        .await
        .expect(0)
        .says(&["level 2"]);
}

/// A rotation of Opsgenie with one period around now.
fn rotation(recipient: Recipient, kind: &str, from_user: Option<&str>) -> ScheduleRotation {
    let period = Period {
        start: from_now(-600),
        end: from_now(7200),
        recipient,
        kind: kind.to_owned(),
        from_user: from_user.map(str::to_owned),
    };
    ScheduleRotation {
        id: "rotation-1".into(),
        name: "Rotation".into(),
        order: Some(1.0),
        periods: vec![period],
        ..ScheduleRotation::default()
    }
}

#[tokio::test]
async fn opsgenie_forwarding_grants_to_whom_is_forwarded_and_to_nobody_else() {
    let site = Site::new(organisation(), DATA).await;
    site.sandbox.edit(|world| {
        let genie = &mut world.opsgenie;
        let (dave, erin) = (genie.users[0].id.clone(), genie.users[1].id.clone());
        genie.schedules[0].rotations = vec![rotation(Recipient::user(&erin), "forwarding", Some(&dave))];
    });
    site.run(&["apply"]).await.expect(0);
    assert!(site.member(DATA_GROUP, ERIN) && !site.member(DATA_GROUP, DAVE));
}

#[tokio::test]
async fn an_opsgenie_team_on_call_is_flattened_to_its_people() {
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
        genie.schedules[0].rotations = vec![rotation(Recipient::team("team-1"), "default", None)];
    });
    site.run(&["apply"]).await.expect(0);
    assert!(
        site.member(DATA_GROUP, ERIN) && site.member(DATA_GROUP, DAVE),
        "{}",
        site.story()
    );
    site.sandbox.clear_journal();
    site.run(&["apply"]).await.expect(0);
    assert_eq!(site.written(), [""; 0]);
}

/// PagerDuty takes no key any more, and the source signs in as an OAuth app with the scopes that access needs.
pub(crate) fn sign_in_as_an_app(site: &Site) {
    let url = site.sandbox.pagerduty_url();
    site.secret("client-secret", "s3cret-of-the-app\n");
    site.configure(|s| {
        s.pagerduty = format!(
            "base_url = \"{url}\"\n[source.pagerduty.oauth]\nclient_id = \"app\"\n\
             client_secret = {{ file = \"client-secret\" }}\nsubdomain = \"acme\"\ntoken_url = \"{url}/oauth/token\""
        );
    });
    site.sandbox.edit(|world| {
        world.pagerduty.tokens.clear();
        let scopes = [
            "as_account-us.acme",
            "oncalls.read",
            "schedules.read",
            "users.read",
            "escalation_policies.read",
        ];
        world.pagerduty.oauth_clients.push(OauthClient {
            id: "app".into(),
            secret: "s3cret-of-the-app".into(),
            scopes: scopes.map(str::to_owned).to_vec(),
        });
    });
}

#[tokio::test]
async fn a_source_may_sign_in_as_an_oauth_app() {
    let site = Site::payments().await;
    sign_in_as_an_app(&site);
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(ALICE));

    site.secret("client-secret", "another\n");
    let refused = site.run(&["diff"]).await;
    refused.says(&["pagerduty/PABC123"]);
    assert!(
        !refused.all().contains("another") && !refused.all().contains("s3cret"),
        "{}",
        refused.all()
    );
}

#[tokio::test]
async fn a_person_is_found_by_the_pin_in_the_configuration() {
    let site = Site::payments().await;
    let id = site.sandbox.edit(|world| {
        let alice = world.aws.users.iter_mut().find(|user| user.user_name == ALICE).unwrap();
        alice.user_name = "a.adams".into();
        alice.emails = vec!["a.adams@example.net".into()];
        alice.id.clone()
    });
    let unknown = site.run(&["apply"]).await;
    unknown.says(&["person_unknown", "[[identity]]"]);
    assert_eq!(site.written(), [""; 0]);
    site.configure(|s| {
        s.more.push_str(&format!(
            "[[identity]]\nemail = \"{ALICE}\"\nidentity_center = \"{id}\"\n"
        ));
    });
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin("a.adams") && site.member(READERS, "a.adams"));
}

#[tokio::test]
async fn two_causes_are_one_grant_and_the_end_of_one_changes_nothing() {
    let member = "\n[[rule]]\nentitlement = \"prod-admin\"\nmembers = true\n";
    let site = Site::new(organisation(), &format!("{PAYMENTS}{ADMIN_ON_CALL}{member}")).await;
    site.run(&["apply"]).await.expect(0);
    assert_eq!(
        site.written(),
        ["CreateAccountAssignment"; 2],
        "one for alice, one for bob"
    );
    let alice =
        |rows: Vec<dutybound::ledger::AccessRow>| rows.into_iter().find(|r| r.person.as_str() == ALICE).unwrap();
    let causes = alice(site.intervals().await).causes;
    assert_eq!(causes.len(), 2, "{causes:?}");

    site.sandbox.clear_journal();
    site.policy("project.toml", format!("{PAYMENTS}{ADMIN_ON_CALL}"));
    site.shifts(&[("PALICE1", from_now(-60), from_now(3600))]);
    site.run(&["apply"]).await.expect(0);
    assert_eq!(site.written(), ["DeleteAccountAssignment"], "bob's only");
    assert!(site.admin(ALICE) && !site.admin(BOB));
    let ended = alice(site.intervals().await)
        .causes
        .iter()
        .filter(|c| c.ended_at.is_some())
        .count();
    assert!(0 < ended, "the membership is over on record");
}

#[tokio::test]
async fn drift_is_reported_and_not_touched() {
    let site = Site::payments().await;
    site.sandbox.edit(|world| {
        let set = world.aws.permission_set_arn(ADMIN).unwrap().to_owned();
        let (carol, alice) = (
            world.aws.user_id(CAROL).unwrap().to_owned(),
            world.aws.user_id(ALICE).unwrap().to_owned(),
        );
        world.aws.assign(ACCOUNT, &set, &carol);
        let group = world.aws.group_id(READERS).unwrap().to_owned();
        world.aws.add_member(&group, &alice);
    });
    let carol = site.user_id(CAROL);
    let apply = site.run(&["apply"]).await.expect(0);
    apply.says(&[
        &format!("! {carol}"),
        "left alone",
        "! alice@example.com  holds it already",
        "2 not ours",
    ]);
    assert_eq!(
        site.written(),
        ["CreateAccountAssignment"],
        "alice's assignment and nothing else"
    );

    // Alice's duty ends; what she held before us stays.
    site.sandbox.clear_journal();
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.run(&["apply"]).await.expect(0);
    assert!(site.member(READERS, ALICE) && !site.admin(ALICE));
    assert!(site.admin(CAROL));
}

#[tokio::test]
async fn an_exclusive_entitlement_loses_whom_nothing_causes() {
    let policy = format!("{PAYMENTS}{ADMIN_ON_CALL}").replace(
        "permission_set = \"AdministratorAccess\"",
        "permission_set = \"AdministratorAccess\"\nexclusive = true",
    );
    let site = Site::new(organisation(), &policy).await;
    site.sandbox.edit(|world| {
        let set = world.aws.permission_set_arn(ADMIN).unwrap().to_owned();
        let carol = world.aws.user_id(CAROL).unwrap().to_owned();
        world.aws.assign(ACCOUNT, &set, &carol);
    });
    site.run(&["apply"]).await.expect(0).says(&["exclusive"]);
    assert!(site.admin(ALICE) && !site.admin(CAROL));
    assert_eq!(
        site.written(),
        ["CreateAccountAssignment", "DeleteAccountAssignment"],
        "make before break"
    );
    site.sandbox.clear_journal();
    site.run(&["apply"]).await.expect(0);
    assert_eq!(site.written(), [""; 0]);
}

#[tokio::test]
async fn status_and_explain_tell_why_from_the_record_alone() {
    let site = Site::payments().await;
    site.run(&["status"])
        .await
        .expect(1)
        .says(&["there is no ledger", "dutybound run"]);
    site.run(&["apply"]).await.expect(0);
    site.sandbox.clear_journal();
    let line = format!("{PAYMENTS}{ON_CALL}")
        .lines()
        .position(|l| l == "[[rule]]")
        .unwrap()
        + 1;
    let place = format!("project.toml:{line}");
    site.run(&["status"])
        .await
        .expect(0)
        .says(&["Held now (2)", ALICE, "on call in pagerduty/PABC123", &place]);
    let reference = site
        .intervals()
        .await
        .into_iter()
        .find_map(|i| i.grant_reference)
        .unwrap();
    let explained = site.run(&["explain", ALICE]).await.expect(0);
    explained.says(&[
        "alice@example.com holds payments/prod-admin",
        "PCI scope",
        "mira@example.com (owners of payments)",
        "on call in pagerduty/PABC123",
        "project.toml:",
        &format!("AWS reference {reference}"),
    ]);
    site.run(&["explain", BOB, "payments/prod-admin"])
        .await
        .expect(2)
        .says(&["bob@example.com does not hold", "[ ]", "next"]);
    site.run(&["explain", CAROL, "payments/prod-admin"])
        .await
        .expect(2)
        .says(&["[ ] not a member of payments"]);
    site.run(&["explain", CAROL, "payments/nothing"])
        .await
        .expect(2)
        .says(&["no entitlement payments/nothing"]);
    site.run(&["explain", "not an address"]).await.expect(1);
    assert!(
        site.sandbox.journal().is_empty(),
        "asking about the record asks nobody else"
    );
}

#[tokio::test]
async fn a_report_adds_up_to_the_ledger() {
    let site = Site::payments().await;
    let end = from_now(20);
    site.shifts(&[("PALICE1", from_now(-60), end), ("PBOB002", end, from_now(3600))]);
    site.run(&["apply"]).await.expect(0);
    until_past(end).await;
    site.run(&["apply"]).await.expect(0);
    for by in ["entitlement", "project", "person"] {
        let report = site
            .run(&["report", "--format", "json", "--by", by])
            .await
            .expect(0)
            .json();
        let to: Timestamp = report["counted_to"].as_str().unwrap().parse().unwrap();
        let held: f64 = site
            .intervals()
            .await
            .iter()
            .map(|i| i.granted_at.duration_until(i.revoked_at.unwrap_or(to)).as_secs_f64())
            .sum();
        let seconds = |line: &Value| line["held_seconds"].as_i64().unwrap();
        let rows = report["rows"].as_array().unwrap();
        // Each figure is rounded to whole seconds.
        let sum: i64 = rows.iter().map(seconds).sum();
        assert!((sum - seconds(&report["total"])).abs() <= rows.len() as i64, "{report}");
        assert!(
            (held - seconds(&report["total"]) as f64).abs() <= 1.0,
            "{held} {report}"
        );
        assert!(0.0 < held);
    }
    site.run(&["report"])
        .await
        .expect(0)
        .says(&["access hours from", "payments/prod-admin", "total"]);
    let csv = site.run(&["report", "--format", "csv"]).await.expect(0);
    assert!(csv.stdout.starts_with("entitlement,held_seconds"), "{}", csv.stdout);
}

#[tokio::test]
async fn every_command_that_shows_something_speaks_json() {
    let site = Site::payments().await;
    assert!(site.run(&["diff", "--format", "json"]).await.expect(2).json()["digest"].is_string());
    let applied = site.run(&["apply", "--format", "json"]).await.expect(0).json();
    assert_eq!(applied["outcome"].as_array().unwrap().len(), 2, "{applied}");
    let status = site.run(&["status", "--format", "json"]).await.expect(0).json();
    assert_eq!(status["access"].as_array().unwrap().len(), 2, "{status}");
    let explained = site.run(&["explain", ALICE, "--format", "json"]).await.expect(0).json();
    assert_eq!(explained["answers"][0]["holds"], true);
    assert!(site.run(&["report", "--format", "json"]).await.expect(0).json()["total"].is_object());
    site.run(&["check", "--format", "json"]).await.expect(0).json();
    site.policy("project.toml", "[project\n");
    site.run(&["check", "--format", "json"]).await.expect(1).json();
}

#[tokio::test]
async fn what_is_generated_is_printed() {
    let site = Site::payments().await;
    for shell in ["bash", "zsh", "fish"] {
        site.run(&["completions", shell])
            .await
            .expect(0)
            .says(&["dutybound", "explain"]);
    }
    site.run(&["man"])
        .await
        .expect(0)
        .says(&[".TH dutybound", "Exit codes"]);
    assert!(site.run(&["schema", "config"]).await.expect(0).json()["properties"]["mode"].is_object());
    assert!(site.run(&["schema", "project"]).await.expect(0).json()["properties"]["rule"].is_object());
    site.run(&["iam-policy"]).await.expect(0).json();
    assert!(site.sandbox.journal().is_empty(), "none of these asks anybody");
    let resolved = site.run(&["iam-policy", "--resolve"]).await.expect(0);
    let set = site
        .sandbox
        .edit(|world| world.aws.permission_set_arn(ADMIN).unwrap().to_owned());
    resolved.says(&["sso:CreateAccountAssignment", &set]);
    resolved.json();
    assert!(
        site.sandbox
            .journal()
            .iter()
            .all(|c| c.service == Service::Aws && !c.is_write())
    );
    site.run(&["no-such-command"]).await.expect(64);
}

#[tokio::test]
async fn lead_and_linger_widen_a_shift() {
    let rule = format!("{ADMIN_ON_CALL}lead = \"10m\"\nlinger = \"15m\"\n");
    let site = Site::new(organisation(), &format!("{PAYMENTS}{rule}")).await;
    let hand_off = |at: i64| {
        site.shifts(&[
            ("PALICE1", from_now(-3600), from_now(at)),
            ("PBOB002", from_now(at), from_now(7200)),
        ])
    };
    hand_off(1200);
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(ALICE) && !site.admin(BOB), "20 minutes before");
    hand_off(300);
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(ALICE) && site.admin(BOB), "5 minutes before");
    hand_off(-300);
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(ALICE) && site.admin(BOB), "5 minutes after");
    hand_off(-1200);
    site.run(&["apply"]).await.expect(0);
    assert!(!site.admin(ALICE) && site.admin(BOB), "20 minutes after");
}

#[tokio::test]
async fn being_on_call_without_the_second_key_grants_nothing_and_is_said() {
    let rule = format!("{ADMIN_ON_CALL}requires = [\"member\", \"incident-training\"]\n");
    let policy = format!("{PAYMENTS}{rule}");
    let site = Site::new(organisation(), &policy).await;
    site.run(&["apply"])
        .await
        .expect(0)
        .says(&[ALICE, "incident-training", "project.toml:"]);
    assert_eq!(site.written(), [""; 0]);
    let explained = site.run(&["explain", ALICE, "payments/prod-admin"]).await.expect(2);
    explained.says(&["[ ] completed \"incident-training\"", "[x] member of payments"]);

    let trained = "email    = \"alice@example.com\"\ncompleted = [\"incident-training\"]";
    site.policy(
        "project.toml",
        policy.replace("email    = \"alice@example.com\"", trained),
    );
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(ALICE));
    // A membership that ends takes the access with it.
    let ended = format!("{trained}\nuntil = 2026-01-01");
    site.policy(
        "project.toml",
        policy.replace("email    = \"alice@example.com\"", &ended),
    );
    site.run(&["apply"]).await.expect(0);
    assert!(!site.admin(ALICE));
}

#[tokio::test]
async fn a_mode_of_one_direction_does_only_that() {
    let site = Site::payments().await;
    site.configure(|s| s.mode = "revoke-only");
    site.run(&["apply"]).await.expect(3);
    assert_eq!(site.written(), [""; 0]);
    site.configure(|s| s.mode = "grant-only");
    site.run(&["apply"]).await.expect(0);
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.run(&["apply"]).await.expect(3);
    assert!(site.admin(ALICE) && site.admin(BOB));
    site.sandbox.clear_journal();
    site.configure(|s| s.mode = "revoke-only");
    site.run(&["apply"]).await.expect(0);
    assert!(!site.admin(ALICE) && site.admin(BOB));
}

#[tokio::test]
async fn new_grants_wait_while_the_clocks_disagree() {
    let site = Site::payments().await;
    site.sandbox.set_now(Some(from_now(600)));
    site.run(&["apply"]).await.expect(3).says(&[
        "HELD (clock_skew)",
        "the clock of pagerduty differs",
        "correct the clock",
    ]);
    assert_eq!(site.written(), [""; 0]);
    site.sandbox.set_now(None);
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(ALICE));
}

/// One provider whose clock is wrong must not stop the hand-offs of all.
#[tokio::test]
async fn a_second_provider_tells_whose_clock_is_wrong() {
    let site = Site::payments().await;
    site.policy("data.toml", DATA);
    let wrong = Effect::Header {
        name: "date".to_owned(),
        value: "Sat, 01 Jan 2022 00:00:00 GMT".to_owned(),
    };
    site.sandbox
        .fault(Fault::on(Service::PagerDuty, "*").effect(wrong.clone()));
    site.run(&["apply"])
        .await
        .expect(0)
        .says(&["the clock of pagerduty differs", "opsgenie agrees with this host's"]);
    assert!(site.admin(ALICE));
    site.sandbox.fault(Fault::on(Service::Opsgenie, "*").effect(wrong));
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.run(&["apply"]).await.expect(3).says(&["HELD (clock_skew)"]);
    assert!(!site.admin(BOB));
}

#[tokio::test]
async fn an_approval_releases_exactly_the_plan_that_was_shown() {
    let site = Site::payments().await;
    site.run(&["apply"]).await.expect(0);
    site.configure(|s| s.more = "[limits]\nsurprising_grants = 0\nsurprising_revokes = 0\n".to_owned());
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.sandbox.clear_journal();
    let held = site.run(&["diff", "--format", "json"]).await.expect(3).json();
    site.run(&["apply"]).await.expect(3);
    let digest = held["digest"].as_str().unwrap();
    site.run(&["apply", "--approve", "0123456789abcdef"])
        .await
        .expect(1)
        .says(&[digest, "0123456789abcdef", "dutybound diff"]);
    assert_eq!(site.written(), [""; 0]);
    site.run(&["apply", "--approve", digest]).await.expect(0);
    assert!(site.admin(BOB) && !site.admin(ALICE) && site.member(READERS, BOB) && !site.member(READERS, ALICE));
}

#[tokio::test]
async fn a_schedule_not_read_for_too_long_grants_nothing_more_and_ends_what_was_known_to_end() {
    let site = Site::new(organisation(), &format!("{PAYMENTS}{ADMIN_ON_CALL}")).await;
    let end = from_now(20);
    site.shifts(&[("PALICE1", from_now(-60), end), ("PBOB002", end, from_now(3600))]);
    site.run(&["apply"]).await.expect(0);
    until_past(end).await;
    site.sandbox.clear_journal();
    site.sandbox.fault(Fault::on(Service::PagerDuty, "*").status(503));
    site.configure(|s| s.more = "[timing]\nmax_staleness = \"1s\"\n".to_owned());
    let held = site.run(&["apply"]).await.expect(3);
    held.says(&[
        "HELD (stale_source)",
        "HELD (make_before_break)",
        "pagerduty/PABC123 was last read completely at",
    ]);
    assert_eq!(site.written(), [""; 0]);
    site.configure(|s| s.more = "[timing]\nmax_staleness = \"1s\"\npatience = \"0s\"\n".to_owned());
    site.run(&["apply"]).await.expect(3);
    assert_eq!(site.written(), ["DeleteAccountAssignment"]);
    assert!(!site.admin(ALICE) && !site.admin(BOB));
}
