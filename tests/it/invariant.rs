//! Statements of owners and operator, at the front door: hand-offs go on with them, and nothing else passes them.

use dutybound_sandbox::world::pagerduty::Schedule;
use dutybound_sandbox::{Call, World};
use jiff::SignedDuration;

use crate::harness::*;

const ONE: &str = r#"
[[invariant]]
name         = "one-admin"
statement    = "Never more than one administrator at a time."
entitlements = ["prod-admin"]
max_holders  = 1
"#;

const APART: &str = r#"
[[invariant]]
name           = "apart"
statement      = "Who administers does not read as well."
entitlements   = ["prod-admin", "prod-readers"]
never_together = true
"#;

fn with(rules: &str, statements: &str) -> String {
    format!("{PAYMENTS}{rules}{statements}")
}

/// The place in the order of writes of the one write of this kind.
fn seq(writes: &[Call], operation: &str, words: &str) -> u64 {
    let found: Vec<_> = writes
        .iter()
        .filter(|call| call.operation == operation && call.body.to_string().contains(words))
        .collect();
    assert_eq!(found.len(), 1, "{operation} {words} in {writes:#?}");
    found[0].seq
}

#[tokio::test]
async fn with_at_most_one_holder_a_hand_off_revokes_first_and_then_grants() {
    let site = Site::new(organisation(), &with(ADMIN_ON_CALL, ONE)).await;
    site.sandbox
        .edit(|world| world.aws.operation_takes = SignedDuration::from_secs(1));
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    let (alice, bob) = (site.user_id(ALICE), site.user_id(BOB));
    let boundary = from_now(5);
    site.shifts(&[
        ("PALICE1", from_now(-60), boundary),
        ("PBOB002", boundary, from_now(3600)),
    ]);
    site.until_admin(BOB, true).await;
    assert!(!site.admin(ALICE));
    let writes = site.writes();
    let gone = seq(&writes, "DeleteAccountAssignment", &alice);
    let came = seq(&writes, "CreateAccountAssignment", &bob);
    assert!(gone < came, "{}", site.story());
    let together = site.sandbox.edit(|world| {
        let due = |principal: &str, kind| {
            let mut of = world
                .aws
                .operations
                .iter()
                .filter(|o| o.key.principal == principal && o.kind == kind);
            of.next_back().map(|o| o.due).unwrap()
        };
        let revoked = due(&alice, dutybound_sandbox::world::aws::OperationKind::Delete);
        let granted = due(&bob, dutybound_sandbox::world::aws::OperationKind::Create);
        granted < revoked
    });
    assert!(!together, "{}", site.story());
    daemon.term().await;
}

#[tokio::test]
async fn one_apply_is_enough_for_a_hand_off_and_diff_says_how_it_goes() {
    let site = Site::new(organisation(), &with(ADMIN_ON_CALL, ONE)).await;
    site.run(&["apply"]).await.expect(0);
    site.shifts(&[("PBOB002", from_now(-5), from_now(3600))]);
    site.run(&["diff"]).await.expect(3).says(&[
        "- alice@example.com",
        "= bob@example.com  HELD (invariant): grant waits",
        "at most 1 holder is allowed, and alice@example.com holds it; due since 20",
        "(this plan revokes that of alice@example.com), or an edit of the statement",
    ]);
    site.run(&["apply"]).await.expect(0).says(&[
        "revoke of payments/prod-admin for alice@example.com",
        "grant of payments/prod-admin for bob@example.com",
    ]);
    assert!(site.admin(BOB) && !site.admin(ALICE));
    assert_eq!(
        site.written(),
        [
            "CreateAccountAssignment",
            "DeleteAccountAssignment",
            "CreateAccountAssignment"
        ]
    );
    site.run(&["apply"]).await.expect(0).says(&["0 held"]);
}

#[tokio::test]
async fn people_who_swap_what_nobody_holds_together_both_get_it() {
    let rules = r#"
[[rule]]
entitlement = "prod-admin"
on_call     = "pagerduty/PABC123"

[[rule]]
entitlement = "prod-readers"
on_call     = "pagerduty/PDEF456"
"#;
    let on_call = |world: &mut World, id: &str, user: &str| {
        let turn = Schedule::new(id, id).with_entry(user, from_now(-60), from_now(3600));
        world.pagerduty.schedules.retain(|schedule| schedule.id != id);
        world.pagerduty.schedules.push(turn);
    };
    let mut world = organisation();
    on_call(&mut world, "PABC123", "PALICE1");
    on_call(&mut world, "PDEF456", "PBOB002");
    let site = Site::new(world, &with(rules, APART)).await;
    let daemon = site.ready_daemon().await;
    site.until("each holds one", |view| {
        view.world.aws.holds(ACCOUNT, ADMIN, ALICE) && view.world.aws.is_member(READERS, BOB)
    })
    .await;
    site.sandbox.edit(|world| {
        on_call(world, "PABC123", "PBOB002");
        on_call(world, "PDEF456", "PALICE1");
    });
    site.until("they have swapped", |view| {
        let aws = &view.world.aws;
        let both = |who| aws.holds(ACCOUNT, ADMIN, who) && aws.is_member(READERS, who);
        assert!(!both(ALICE) && !both(BOB));
        aws.holds(ACCOUNT, ADMIN, BOB) && aws.is_member(READERS, ALICE)
    })
    .await;
    assert!(!site.admin(ALICE) && !site.member(READERS, BOB));
    daemon.term().await;
}

#[tokio::test]
async fn what_a_statement_holds_passes_by_no_approval_but_by_an_edit_of_it() {
    let outside = r#"
[[invariant]]
name      = "staff"
statement = "Only our own people, never contractors."
domains   = ["corp.example"]
"#;
    let site = Site::new(organisation(), &with(ADMIN_ON_CALL, outside)).await;
    let said = site.run(&["diff", "--format", "json"]).await.expect(3).json();
    let held = &said["held"][0];
    assert_eq!(held["guard"], "invariant", "{said}");
    let reason = held["reason"].as_str().unwrap();
    for words in [
        "\"Only our own people, never contractors.\" (payments/staff, access.d/project.toml:",
        "alice@example.com is outside corp.example",
        "; due since 20",
    ] {
        assert!(reason.contains(words), "{reason}");
    }
    let release = held["release"].as_str().unwrap();
    assert!(
        release.contains("an edit of the statement at access.d/project.toml:"),
        "{release}"
    );
    assert!(release.ends_with("no approval releases it"), "{release}");
    let digest = said["digest"].as_str().unwrap().to_owned();
    site.run(&["apply", "--approve", &digest]).await.expect(3);
    assert!(!site.admin(ALICE) && site.writes().is_empty());
    site.run(&["explain", ALICE, "payments/prod-admin"])
        .await
        .expect(2)
        .says(&["held by guard invariant since", "Only our own people"]);
    site.run(&["status"]).await.expect(0).says(&["Only our own people"]);

    site.policy(
        "project.toml",
        with(ADMIN_ON_CALL, &outside.replace("corp.example", "example.com")),
    );
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(ALICE));
}

#[tokio::test]
async fn access_that_stands_is_reported_and_stays() {
    let site = Site::new(organisation(), &with(ADMIN_ON_CALL, "")).await;
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(ALICE));
    let trained = r#"
[[invariant]]
name      = "trained"
statement = "Nobody without the incident training, whatever the rule says."
requires  = ["incident-training"]
"#;
    site.policy("project.toml", with(ADMIN_ON_CALL, trained));
    site.run(&["check"])
        .await
        .expect(0)
        .says(&["nobody has completed `incident-training`"]);
    let words = [
        "\"Nobody without the incident training, whatever the rule says.\" (payments/trained, access.d/project.toml:",
        "alice@example.com holds payments/prod-admin and has not completed \"incident-training\"",
        "nothing is revoked for it",
    ];
    site.run(&["diff"]).await.expect(0).says(&words);
    let daemon = site.ready_daemon().await;
    eventually("the metric tells", async || {
        daemon.metric("dutybound_problems{kind=\"invariant_broken\"}").await == Some(1.0)
    })
    .await;
    site.run(&["status"]).await.says(&words);
    site.run(&["explain", ALICE, "payments/prod-admin"])
        .await
        .expect(0)
        .says(&words[1..]);
    assert!(site.admin(ALICE));
    site.policy("trainings.csv", "email,training\nalice@example.com,incident-training\n");
    eventually("it is mended", async || {
        daemon.metric("dutybound_problems{kind=\"invariant_broken\"}").await == Some(0.0)
    })
    .await;
    daemon.term().await;
}

#[tokio::test]
async fn the_operator_states_things_about_everything_and_an_edit_counts_at_once() {
    let site = Site::new(organisation(), &with(ADMIN_ON_CALL, "")).await;
    let state = |domains: &str, id: &str| {
        let text = format!(
            "[[invariant]]\nname = \"house\"\nstatement = \"Only the house.\"\nentitlements = [\"{id}\"]\ndomains = [{domains}]\n"
        );
        site.configure(|settings| settings.more.push_str(&text));
    };
    state("\"corp.example\"", "payments/prod-admn");
    site.run(&["check"]).await.expect(1).says(&[
        "config.toml:",
        "there is no entitlement `payments/prod-admn`",
        "did you mean `payments/prod-admin`?",
    ]);
    state("\"corp.example\"", "payments/prod-admin");
    site.run(&["check"]).await.expect(0).says(&["1 statement"]);
    let daemon = site.ready_daemon().await;
    eventually("it is held", async || {
        daemon.metric("dutybound_held_changes{guard=\"invariant\"}").await == Some(1.0)
    })
    .await;
    site.run(&["status"])
        .await
        .says(&["\"Only the house.\" (house, config.toml:"]);
    assert!(!site.admin(ALICE));
    state("\"example.com\"", "payments/prod-admin");
    site.until_admin(ALICE, true).await;
    daemon.term().await;
}

/// The days of a rotation do not make it: what is too long by itself is held throughout.
#[tokio::test]
async fn a_turn_longer_than_the_statement_allows_is_held() {
    let rest = r#"
[[invariant]]
name           = "rest"
statement      = "Nobody carries this for more than half a day."
longest_access = "12h"
break          = "8h"
"#;
    let site = Site::new(organisation(), &with(ADMIN_ON_CALL, rest)).await;
    site.shifts(&[("PALICE1", from_now(-60), from_now(24 * 3600))]);
    site.run(&["apply"]).await.expect(3).says(&[
        "at most 12h without a break of 8h is allowed, and alice@example.com would hold it for 1d, from 20",
        "a break of 8h, or turns that are short enough",
    ]);
    site.shifts(&[("PALICE1", from_now(-60), from_now(6 * 3600))]);
    site.run(&["apply"]).await.expect(0);
    // An override that prolongs the turn takes nothing away.
    site.shifts(&[("PALICE1", from_now(-60), from_now(24 * 3600))]);
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(ALICE));
}

#[tokio::test]
async fn mistakes_in_statements_are_shown_where_they_are() {
    let statements = r#"
[[invariant]]
name         = "a"
statement    = "Two conditions."
max_holders  = 1
domains      = ["example.com"]

[[invariant]]
name         = "b"
statement    = "No condition."

[[invariant]]
name         = "c"
statement    = "Nobody at all."
max_holders  = 0

[[invariant]]
name         = "c"
statement    = "Named like the one before, and about nothing that is there."
entitlements = ["prod-admn", "prod-admin", "prod-admin"]
max_holders  = 3

[[invariant]]
name           = "d"
statement      = "   "
longest_access = "12h"

[[invariant]]
name           = "e"
statement      = "Somebody else's."
entitlements   = ["other/thing"]
never_together = true
"#;
    let other = "[project]\nname = \"other\"\nowners = [\"zoe@example.com\"]\n[[entitlement]]\nname = \"thing\"\ngroup = \"things\"\n";
    let site = Site::new(organisation(), &with("", statements)).await;
    site.policy("other.toml", other);
    site.run(&["check"]).await.expect(1).says(&[
        "a statement has one condition, and this one has `max_holders` already",
        "make a statement of its own of `domains`",
        "[[invariant]] does not say what must be so",
        "nobody could ever hold it",
        "there is no entitlement `payments/prod-admn`",
        "did you mean `payments/prod-admin`?",
        "`prod-admin` is listed twice",
        "the statement says nothing",
        "[[invariant]] with `longest_access` has no `break`",
        "`other/thing` belongs neither to payments nor to a project below it",
        "ask zoe@example.com to state it for other",
        "one entitlement alone is never held together with another of the list",
        "there is a statement `c` already",
    ]);
}

#[tokio::test]
async fn forecast_names_the_moments_at_which_a_statement_will_hold_a_grant() {
    let rule = r#"
[[rule]]
entitlement = "prod-admin"
members     = true
during      = { cron = "0 9 * * *", for = "9h", zone = "UTC" }
"#;
    let statements = r#"
[[invariant]]
name         = "one-admin"
statement    = "Never more than one administrator at a time."
entitlements = ["prod-admin"]
max_holders  = 1
"#;
    let site = Site::new(organisation(), &with(rule, statements)).await;
    let said = site
        .run(&["forecast", "--days", "4", "--format", "json"])
        .await
        .expect(2)
        .json();
    let gaps = said["forecast"]["gaps"].as_array().unwrap();
    assert_eq!(gaps.len(), 1, "{said}");
    assert_eq!(gaps[0]["kind"], "invariant");
    assert_eq!(gaps[0]["person"], BOB);
    assert!(gaps[0]["more"].as_u64().unwrap() >= 2, "{said}");
    let said = site.run(&["forecast", "payments", "--days", "4"]).await.expect(2);
    said.says(&[
        "bob@example.com will be held from payments/prod-admin by the statement \"Never more than one administrator at a time.\"",
        "alice@example.com holds it",
        "bob@example.com BUT invariant broken",
    ]);
    let page = site
        .run(&["forecast", "--days", "4", "--format", "html"])
        .await
        .expect(2);
    page.says(&["Against a statement", "Never more than one administrator"]);
}

#[tokio::test]
async fn a_pull_request_says_which_statements_get_tighter_or_looser() {
    let apart = APART.replace("apart", "kept");
    let site = Site::new(organisation(), &with(ADMIN_ON_CALL, &format!("{ONE}{apart}"))).await;
    std::fs::rename(site.path("access.d"), site.path("before")).unwrap();
    std::fs::create_dir(site.path("access.d")).unwrap();
    let after = format!("{}{APART}", ONE.replace("= 1", "= 2"));
    site.policy("project.toml", with(ADMIN_ON_CALL, &after));
    let base = site.path("before").display().to_string();
    let arguments = ["diff", "--offline", "--base", &base, "--format"];
    let said = site.run(&[&arguments[..], &["json"]].concat()).await.expect(2).json();
    let becomes: Vec<_> = said["comparison"]["statements"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| format!("{} {}", s["name"].as_str().unwrap(), s["becomes"].as_str().unwrap()))
        .collect();
    assert_eq!(becomes, ["apart appears", "kept vanishes", "one-admin looser"]);
    site.run(&[&arguments[..], &["text"]].concat()).await.expect(2).says(&[
        "~ statement one-admin gets looser",
        "(at most 1 holder of payments/prod-admin) becomes",
        "(at most 2 holders of payments/prod-admin)",
        "- statement kept vanishes",
    ]);
    site.run(&[&arguments[..], &["markdown"]].concat())
        .await
        .expect(2)
        .says(&["| payments/one-admin | gets looser |", "| consent from |"]);
}

#[tokio::test]
async fn check_proves_what_follows_from_the_policy_alone() {
    let rules = r#"
[[rule]]
entitlement = "prod-admin"
members     = true

[[rule]]
entitlement = "prod-readers"
members     = true
during      = { cron = "0 9 * * MON-FRI", for = "9h", zone = "UTC" }
"#;
    let statements = r#"
[[invariant]]
name         = "one"
statement    = "One."
entitlements = ["prod-admin"]
max_holders  = 1

[[invariant]]
name           = "kept-apart"
statement      = "Apart."
never_together = true

[[invariant]]
name           = "short"
statement      = "Short."
longest_access = "8h"
break          = "8h"

[[invariant]]
name      = "house"
statement = "House."
domains   = ["corp.example"]

[[invariant]]
name      = "drilled"
statement = "Drilled."
requires  = ["fire-drill"]
"#;
    let site = Site::new(organisation(), &with(rules, statements)).await;
    site.policy("trainings.csv", "email,training\nzoe@example.com,fire-drill\n");
    site.run(&["check"]).await.expect(0).says(&[
        "2 members are to hold this all the time, and at most 1 may",
        "alice@example.com and 1 more would hold `payments/prod-readers` together with `payments/prod-admin`, which \
         payments/kept-apart rules out",
        "this grants `payments/prod-admin` without end, and payments/short allows 8h",
        "this grants `payments/prod-readers` for 9h, and payments/short allows 8h",
        "alice@example.com may not hold `payments/prod-admin`: payments/house allows only corp.example",
        "no member of payments has completed `fire-drill`, which payments/drilled demands for `payments/prod-admin`",
        "5 statements",
    ]);
    let floor = PAYMENTS.replace(
        "\"AdministratorAccess\"\n",
        "\"AdministratorAccess\"\nmin_holders = 1\n",
    );
    site.policy("project.toml", format!("{floor}{ADMIN_ON_CALL}{ONE}"));
    site.run(&["check"]).await.expect(1).says(&[
        "`payments/prod-admin` demands min_holders = 1, so with at most 1 nobody could hand over",
        "allow at least 2, or lower `min_holders` at ",
    ]);
}
