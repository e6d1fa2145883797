//! From standing access to dutybound: `import` says what people hold today, `adopt` makes it ours, and nothing else happens.

use std::fs;

use dutybound_sandbox::world::aws::{Assignment, AssignmentKey, PrincipalType, User};
use dutybound_sandbox::{Fault, Service, World};

use crate::harness::*;

const OWNER: &str = "mira@example.com";
const READ: &str = "ReadOnlyAccess";

/// An installation without a policy, in an organisation in which access was given out by hand: alice and bob administer
/// payments-prod, carol reads there, and carol is in the readers' group.
async fn standing(change: impl FnOnce(&mut World)) -> Site {
    let mut world = organisation();
    let aws = &mut world.aws;
    let id = |aws: &dutybound_sandbox::world::aws::Aws, who: &str| aws.user_id(who).unwrap().to_owned();
    let (alice, bob, carol) = (id(aws, ALICE), id(aws, BOB), id(aws, CAROL));
    let (admin, read) = (
        aws.permission_set_arn(ADMIN).unwrap().to_owned(),
        aws.permission_set_arn(READ).unwrap().to_owned(),
    );
    aws.assign(ACCOUNT, &admin, &alice);
    aws.assign(ACCOUNT, &admin, &bob);
    aws.assign(ACCOUNT, &read, &carol);
    let readers = aws.group_id(READERS).unwrap().to_owned();
    aws.add_member(&readers, &carol);
    change(&mut world);
    let site = Site::new(world, PAYMENTS).await;
    fs::remove_file(site.path("access.d/project.toml")).unwrap();
    site
}

fn assign_group(world: &mut World, set: &str, group: &str) {
    let key = AssignmentKey {
        account: ACCOUNT.to_owned(),
        permission_set: world.aws.permission_set_arn(set).unwrap().to_owned(),
        principal_type: PrincipalType::Group,
        principal: group.to_owned(),
    };
    world.aws.assignments.push(Assignment {
        key,
        since: None,
        removed: None,
    });
}

fn user(world: &mut World, name: &str, emails: &[&str], enabled: bool) -> String {
    let id = format!("b3c4d5e6-4444-4000-8000-{:012x}", world.aws.users.len());
    world.aws.users.push(User {
        id: id.clone(),
        user_name: name.to_owned(),
        display_name: name.to_owned(),
        emails: emails.iter().map(|&email| email.to_owned()).collect(),
        enabled,
    });
    id
}

/// Comments as they were before they were broken into lines.
fn unbroken(mut output: Output) -> Output {
    output.stdout = output.stdout.replace("\n# ", " ");
    output
}

fn digest_in(text: &str) -> String {
    let rest = text
        .split("--confirm ")
        .nth(1)
        .unwrap_or_else(|| panic!("no digest in:\n{text}"));
    rest.chars().take_while(char::is_ascii_hexdigit).collect()
}

#[tokio::test]
async fn standing_access_becomes_policy_then_ours_and_then_ends_with_its_membership() {
    let site = standing(|_| {}).await;
    site.run(&[
        "import",
        "--account",
        ACCOUNT,
        "--group",
        READERS,
        "--owner",
        OWNER,
        "--out",
        "access.d",
    ])
    .await
    .expect(0)
    .says(&[
        "2 projects, 3 entitlements, 4 members; 0 not explained",
        "written to access.d",
    ]);
    site.run(&["check"]).await.expect(0);
    // Exactly what people hold: nobody gains, nobody loses, and none of it is ours.
    let diff = site.run(&["diff"]).await.expect(0);
    diff.says(&["0 to grant, 0 to revoke, 0 held, 4 not ours, 0 unchanged"]);
    assert_eq!(
        content(&site.path("ledger.db")),
        None,
        "neither import nor diff makes a ledger"
    );

    let admins = "account-111122223333/AdministratorAccess";
    let shown = site.run(&["adopt", admins]).await.expect(0);
    shown.says(&["Would become ours", ALICE, BOB, "Nothing was recorded"]);
    assert!(!shown.all().contains(CAROL), "{}", shown.all());
    assert_eq!(content(&site.path("ledger.db")), None, "showing makes no ledger");
    site.run(&["adopt", admins, "--confirm", "0123456789abcdef"])
        .await
        .expect(1)
        .says(&["nothing was recorded", "not 0123456789abcdef"]);
    assert_eq!(site.intervals().await.len(), 0);
    let digest = digest_in(&shown.stdout);
    site.run(&["adopt", admins, "--confirm", &digest])
        .await
        .expect(0)
        .says(&["Ours from now on", ALICE, BOB, "Recorded"]);
    assert_eq!(site.written(), [""; 0], "nothing was asked of AWS");
    let intervals = site.intervals().await;
    assert_eq!(intervals.len(), 2);
    assert!(intervals.iter().all(|i| i.revoked_at.is_none()), "{intervals:?}");

    site.run(&["diff"])
        .await
        .expect(0)
        .says(&["0 to grant, 0 to revoke, 0 held, 2 not ours, 2 unchanged"]);
    let status = site.run(&["status"]).await.expect(0);
    status.says(&[admins, ALICE, BOB]);
    site.run(&["explain", ALICE, admins]).await.expect(0);
    site.run(&["audit", "verify"]).await.expect(0);
    site.run(&["audit", "export", "--from", "2020-01-01T00:00:00Z"])
        .await
        .expect(0)
        .says(&["taken over by tester: it stood before"]);
    // What is ours already is not taken over twice.
    site.run(&["adopt", admins])
        .await
        .expect(0)
        .says(&["nothing to take over"]);

    // The membership ends, and with it the access: as if we had granted it.
    let file = site.path("access.d/account-111122223333.toml");
    let text = fs::read_to_string(&file).unwrap();
    let (head, members) = text.split_once("\n# Bob Brown").unwrap_or_else(|| panic!("{text}"));
    let rest = members.split_once("\n\n").unwrap().1;
    fs::write(&file, format!("{head}\n{rest}")).unwrap();
    site.run(&["apply"])
        .await
        .expect(0)
        .says(&["- bob@example.com", "confirmed at"]);
    assert!(site.admin(ALICE) && !site.admin(BOB));
    assert!(site.member(READERS, CAROL), "what was not taken over stays");
}

#[tokio::test]
async fn what_a_policy_cannot_say_stands_as_a_comment_at_its_place() {
    let site = standing(|world| {
        let gone = "b3c4d5e6-9999-4000-8000-000000000000";
        let mallory = user(world, "mallory", &["mallory@example.com"], false);
        let robot = user(world, "robot", &[], true);
        let twin = user(world, "twin", &["twins@example.com"], true);
        user(world, "other", &["x@example.com"], true);
        world.aws.users.last_mut().unwrap().user_name = "twins@example.com".to_owned();
        let read = world.aws.permission_set_arn(READ).unwrap().to_owned();
        for who in [gone, &mallory, &robot, &twin] {
            world.aws.assign(ACCOUNT, &read, who);
        }
        let readers = world.aws.group_id(READERS).unwrap().to_owned();
        assign_group(world, READ, &readers);
        assign_group(world, "BreakGlass", "c4d5e6f7-9999-4000-8000-000000000000");
    })
    .await;
    // Half of the account is managed already.
    site.policy("project.toml", PAYMENTS);
    let import = ["import", "--account", ACCOUNT, "--owner", OWNER];
    let text = site.run(&import).await.expect(0);
    assert!(
        text.stdout.lines().all(|line| line.chars().count() <= 100),
        "{}",
        text.stdout
    );
    let text = unbroken(text);
    text.says(&[
        "UNEXPLAINED (user_disabled): mallory (mallory@example.com) is disabled",
        "UNEXPLAINED (user_without_email): robot has no e-mail address",
        "UNEXPLAINED (user_ambiguous): twin (twins@example.com)",
        "UNEXPLAINED (orphaned_assignment): the user b3c4d5e6-9999",
        "UNEXPLAINED (group_assignment): the group payments-prod-readers",
        "UNEXPLAINED (orphaned_assignment): the group c4d5e6f7-9999",
        "payments/prod-admin already, at access.d/project.toml:6; it is not repeated",
    ]);
    assert!(
        !text.stdout.contains("name           = \"AdministratorAccess\""),
        "{}",
        text.stdout
    );
    // At its place: below the entitlement that they hold.
    let place = |words: &str| {
        text.stdout
            .find(words)
            .unwrap_or_else(|| panic!("{words}: {}", text.stdout))
    };
    assert!(place("permission_set = \"ReadOnlyAccess\"") < place("robot has no e-mail"));
    assert!(place("robot has no e-mail") < place("[[member]]"));

    let json = site
        .run(&[&import[..], &["--format", "json"]].concat())
        .await
        .expect(0)
        .json();
    let project = &json["projects"][0];
    let entitlement = &project["entitlements"][0];
    assert_eq!(entitlement["holders"], serde_json::json!([CAROL]));
    assert_eq!(
        entitlement["unexplained"].as_array().unwrap().len(),
        5,
        "{entitlement:#}"
    );
    assert!(text.stdout.contains(project["name"].as_str().unwrap()));

    // Pinned by the operator, they can be named.
    let twin = site.user_id("twin");
    site.configure(|s| {
        s.more = format!("[[identity]]\nemail = \"twins@example.com\"\nidentity_center = \"{twin}\"\n");
    });
    let text = site.run(&import).await.expect(0);
    assert!(
        text.stdout.contains("email     = \"twins@example.com\""),
        "{}",
        text.all()
    );
}

#[tokio::test]
async fn no_name_breaks_out_of_the_file_or_drives_the_terminal() {
    let evil = "a\"b\\c\n[[rule]]\nentitlement = \"x\"\u{1b}[31m\u{202e}\u{1f525}\u{7f}'''\"\"\"";
    let site = standing(|world| {
        let id = world.aws.user_id(ALICE).unwrap().to_owned();
        let group = world.aws.add_group(evil);
        world.aws.add_member(&group, &id);
        let group = world.aws.add_group("\u{1f525} on call \u{706b}");
        world.aws.add_member(&group, &id);
        let set = world.aws.add_permission_set(evil);
        world.aws.assign(ACCOUNT, &set, &id);
        assign_group(world, evil, &group);
        let alice = world.aws.users.iter_mut().find(|user| user.id == id).unwrap();
        alice.display_name = evil.to_owned();
        world.aws.accounts[0].name = evil.to_owned();
    })
    .await;
    let names = serde_json::json!({"Accounts": [{"Id": ACCOUNT, "Name": evil}]});
    fs::write(site.path("names.json"), names.to_string()).unwrap();
    for more in [&[][..], &["--as-groups"]] {
        let arguments = [
            &["import", "--all", "--owner", OWNER, "--account-names", "names.json"][..],
            more,
        ]
        .concat();
        let text = site.run(&arguments).await.expect(0);
        let hidden = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!text.all().contains(hidden), "{:?}", text.all());
        assert!(!text.stdout.contains("entitlement = \"x\"\n"), "{}", text.stdout);
    }
    site.run(&[
        "import",
        "--all",
        "--owner",
        OWNER,
        "--account-names",
        "names.json",
        "--out",
        "access.d",
    ])
    .await
    .expect(0);
    site.run(&["check"]).await.expect(0);
    site.run(&["diff"])
        .await
        .expect(0)
        .says(&["0 to grant, 0 to revoke, 0 held"]);
    assert_eq!(site.written(), [""; 0]);
}

#[tokio::test]
async fn small_pages_and_throttles_change_nothing_about_what_is_read() {
    let import = ["import", "--all", "--owner", OWNER, "--format", "json"];
    let strip = |mut json: serde_json::Value| {
        json["imported_at"] = serde_json::Value::Null;
        for project in json["projects"].as_array_mut().unwrap() {
            project["toml"] = serde_json::Value::Null;
        }
        json
    };
    let plain = standing(|_| {}).await;
    let plain = strip(plain.run(&import).await.expect(0).json());
    let hard = standing(|world| {
        world.aws.page_size = 1;
        world.aws.empty_first_page = true;
    })
    .await;
    for operation in ["ListAccountAssignments", "DescribeUser"] {
        let throttle = Fault::on(Service::Aws, operation).times(3);
        hard.sandbox
            .fault(throttle.aws_error("ThrottlingException", "Rate exceeded"));
    }
    assert_eq!(strip(hard.run(&import).await.expect(0).json()), plain);
    let journal = hard.sandbox.journal();
    let throttled = journal.iter().filter(|call| call.status == Some(400)).count();
    assert_eq!(throttled, 6);
    assert_eq!(hard.written(), [""; 0]);
}

#[tokio::test]
async fn the_same_work_through_groups_loads_and_says_what_the_operator_must_do() {
    let site = standing(|world| {
        let admin = world.aws.permission_set_arn(ADMIN).unwrap().to_owned();
        for who in [ALICE, BOB] {
            let id = world.aws.user_id(who).unwrap().to_owned();
            world.aws.assign("444455556666", &admin, &id);
        }
    })
    .await;
    site.run(&[
        "import",
        "--permission-set",
        ADMIN,
        "--owner",
        OWNER,
        "--as-groups",
        "--out",
        "access.d",
    ])
    .await
    .expect(0)
    .says(&["1 projects, 1 entitlements, 2 members"]);
    site.run(&["check"]).await.expect(0);
    let text = fs::read_to_string(site.path("access.d/2-accounts-administratoraccess.toml")).unwrap();
    for words in [
        "group = \"2-accounts-AdministratorAccess\"",
        "create-group --identity-store-id d-9067f5a2b1 --display-name 2-accounts-AdministratorAccess",
        "--target-type AWS_ACCOUNT --target-id 444455556666",
        "--principal-type GROUP",
        "members     = true",
    ] {
        assert!(text.contains(words), "{words} in\n{text}");
    }
    // Nothing is replaced.
    let elsewhere = ["import", "--group", READERS, "--owner", OWNER, "--out", "new.d"];
    site.run(&elsewhere).await.expect(0);
    let before = content(&site.path("new.d/payments-prod-readers.toml"));
    site.run(&elsewhere)
        .await
        .expect(1)
        .says(&["exists already; nothing was written"]);
    assert_eq!(content(&site.path("new.d/payments-prod-readers.toml")), before);
}

#[tokio::test]
async fn what_was_asked_wrongly_is_refused_with_what_to_do() {
    let site = standing(|_| {}).await;
    for (arguments, words) in [
        (&["import", "--owner", OWNER][..], "required"),
        (
            &["import", "--account", "payments-prod", "--owner", OWNER],
            "--account-names",
        ),
        (
            &["import", "--account", "999900001111", "--owner", OWNER],
            "nothing was imported",
        ),
        (&["import", "--group", "nobody", "--owner", OWNER], "there is no group"),
        (
            &["import", "--permission-set", "AdministratorAcces", "--owner", OWNER],
            "did you mean",
        ),
        (&["import", "--all", "--owner", "mira"], "not an e-mail address"),
        (
            &["import", "--all", "--owner", OWNER, "--parent", "commerce"],
            "there is no project",
        ),
    ] {
        let output = site.run(arguments).await;
        assert!(matches!(output.code, Some(1 | 64)), "{arguments:?}: {}", output.all());
        output.says(&[words]);
        assert_eq!(output.stdout, "", "{arguments:?}");
    }
    fs::write(
        site.path("names.json"),
        r#"{"Accounts": [{"Id": "111122223333", "Name": "Payments Prod"}]}"#,
    )
    .unwrap();
    let named = [
        "import",
        "--account",
        "Payments Prod",
        "--owner",
        OWNER,
        "--account-names",
        "names.json",
    ];
    site.run(&named)
        .await
        .expect(0)
        .says(&["\"Payments-Prod\"", "111122223333 (Payments Prod)"]);
    // Where AWS does not answer for one of them, nothing is imported in part.
    site.sandbox.edit(|world| {
        let ghost = AssignmentKey {
            account: ACCOUNT.to_owned(),
            permission_set: "arn:aws:sso:::permissionSet/ssoins-7223b02f1ab4c5d6/ps-ffffffffffffffff".to_owned(),
            principal_type: PrincipalType::User,
            principal: "b3c4d5e6-1111-4000-8000-000000000001".to_owned(),
        };
        world.aws.assignments.push(Assignment {
            key: ghost,
            since: None,
            removed: None,
        });
    });
    let output = site
        .run(&["import", "--account", ACCOUNT, "--owner", OWNER])
        .await
        .expect(1);
    output.says(&["nothing was imported"]);
    assert_eq!(output.stdout, "");
    site.run(&["iam-policy", "--import"])
        .await
        .expect(0)
        .says(&["sso:ListPermissionSetsProvisionedToAccount", "identitystore:ListGroups"]);
}

#[tokio::test]
async fn taking_over_needs_the_policy_to_call_for_it_and_the_daemon_to_be_stopped() {
    // Alice is on call; bob is a member and is not; carol is a stranger.
    let site = standing(|world| {
        let admin = world.aws.permission_set_arn(ADMIN).unwrap().to_owned();
        let carol = world.aws.user_id(CAROL).unwrap().to_owned();
        world.aws.assign(ACCOUNT, &admin, &carol);
    })
    .await;
    site.policy("project.toml", format!("{PAYMENTS}{ADMIN_ON_CALL}"));
    let shown = site
        .run(&["adopt", "payments", "--format", "json"])
        .await
        .expect(0)
        .json();
    assert_eq!(shown["recorded"], false);
    assert_eq!(shown["taken"].as_array().unwrap().len(), 1, "{shown:#}");
    assert_eq!(shown["taken"][0]["person"], ALICE);
    assert_eq!(shown["left"].as_array().unwrap().len(), 3, "{shown:#}");
    let digest = shown["digest"].as_str().unwrap().to_owned();

    let daemon = site.ready_daemon().await;
    site.run(&["adopt", "payments", "--confirm", &digest])
        .await
        .expect(1)
        .says(&["the daemon is running", "nothing was recorded"]);
    site.run(&["adopt", "payments"])
        .await
        .expect(0)
        .says(&["Would become ours", ALICE]);
    daemon.term().await;

    // The world differs: alice's assignment is gone.
    let alice = site.user_id(ALICE);
    let kept = site.sandbox.edit(|world| {
        let kept = world.aws.assignments.clone();
        world.aws.assignments.retain(|row| row.key.principal != alice);
        kept
    });
    site.run(&["adopt", "payments", "--confirm", &digest])
        .await
        .expect(1)
        .says(&["nothing was recorded"]);
    site.sandbox.edit(|world| world.aws.assignments = kept);
    site.run(&["adopt", "payments", "--confirm", &digest]).await.expect(0);
    assert_eq!(site.written(), [""; 0]);
    let intervals = site.intervals().await;
    assert_eq!(intervals.len(), 1, "{intervals:?}");

    // A ledger that is lost comes back from its redo log, and what was taken over with it.
    for file in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        // SQLite removes the latter two by itself when it closes.
        drop(fs::remove_file(site.path(file)));
    }
    site.run(&["apply"])
        .await
        .expect(0)
        .says(&["0 to grant, 0 to revoke", "1 unchanged"]);
    assert_eq!(site.intervals().await, intervals);

    // At the end of her shift alice loses it; bob's and carol's are not ours.
    site.shifts(&[("PALICE1", from_now(-3600), from_now(-1))]);
    site.run(&["apply"]).await.expect(0).says(&["- alice@example.com"]);
    assert!(!site.admin(ALICE) && site.admin(BOB) && site.admin(CAROL));
    site.run(&["adopt", "payments/nothing"])
        .await
        .expect(1)
        .says(&["the policy has no entitlement"]);
}
