//! The tree of projects from the outside: limits, delegations, `tree`, `codeowners`, and when what they date ends.

use std::fs;
use std::path::Path;

use dutybound::desired::{Snapshots, Timeline};
use dutybound::model::{Interval, ScheduleKey, ScheduleKind, Shift, Snapshot, SourceName, SourceUser, SourceUserState};
use dutybound::policy::{self, Policy, PolicyContext};
use dutybound::problem::ProblemKind;
use jiff::Timestamp;

use crate::harness::*;

const ACME: &str = r#"[project]
name   = "acme"
owners = ["ceo@example.com"]

[project.children]
accounts           = ["111122223333"]
permission_sets    = ["Admin*", "ReadOnly"]
longest_membership = "180d"
may_drop_member    = false
"#;

const SHOP: &str = r#"[project]
name   = "shop"
parent = "acme"
owners = ["cto@example.com", "ceo@example.com"]
"#;

const PAY: &str = r#"[project]
name   = "pay"
parent = "shop"
owners = ["mira@example.com", "o\u202eo@example.com"]

[[entitlement]]
name           = "admin"
account        = "111122223333"
permission_set = "AdministratorAccess"
delegate_to    = [{ project = "sre", schedules = ["pagerduty/PABC123"], until = 2099-03-31 }]

[[member]]
email = "alice@example.com"
since = 2098-12-01
until = 2099-05-29

[[rule]]
entitlement = "admin"
members     = true
during      = { cron = "0 9 * * *", for = "2h", zone = "UTC" }
"#;

const SRE: &str = r#"[project]
name   = "sre"
owners = ["sam@example.com"]

[[entitlement]]
name  = "break-glass"
group = "break-glass"

[[member]]
email = "bob@example.com"
since = 2098-12-01
until = 2099-05-29

[[rule]]
entitlement = "pay/admin"
on_call     = "pagerduty/PABC123"

[[rule]]
entitlement = "break-glass"
on_call     = "pagerduty/PDEF456"
requires    = []
"#;

async fn four_projects() -> Site {
    let site = Site::new(organisation(), ACME).await;
    fs::rename(site.path("access.d/project.toml"), site.path("access.d/acme.toml")).unwrap();
    for (name, text) in [("shop.toml", SHOP), ("pay.toml", PAY), ("sre.toml", SRE)] {
        site.policy(name, text);
    }
    site
}

/// Without the instant, which differs in each run.
fn undated(text: &str) -> String {
    let date = regex::Regex::new(r"as of [0-9TZ:-]+:").unwrap();
    date.replace(text, "as of NOW:").into_owned()
}

#[tokio::test]
async fn the_tree_shows_owners_limits_delegations_and_hours() {
    let site = four_projects().await;
    let text = undated(&site.run(&["tree"]).await.expect(0).stdout);
    let expected = r#"project                                members  owns rules states   standing h  windows h     held h
acme                                         0     0     0      0         0.00       0.00          -
│  owners    ceo@example.com
│  limits    below it only the account 111122223333; only the permission sets Admin*, ReadOnly;
│            memberships of at most 180d; on-call rules keep the membership key
│            (access.d/acme.toml:5)
└─ shop                                      0     0     0      0         0.00       0.00          -
   │  owners    cto@example.com, ceo@example.com
   │  bound by  the limits of acme
   └─ pay                                    1     1     1      0         0.00       0.00          -
         owners    mira@example.com, o\u{202e}o@example.com
         bound by  the limits of acme
         lends     admin to sre for on-call rules in pagerduty/PABC123 until 2099-04-01T00:00:00Z
                   (access.d/pay.toml:10)
sre                                          1     1     2      0         0.00       0.00          -
   owners    sam@example.com
   borrows   pay/admin for on-call rules in pagerduty/PABC123 until 2099-04-01T00:00:00Z
             (access.d/pay.toml:10)
   besides   whoever is on call in pagerduty/PDEF456, member or not: not counted yet
total                                        2     2     3      0         0.00       0.00          -

Hours are person-hours of what a project owns, as of NOW:
  standing  if all who could ever earn it held it all of the coming week
  windows   what membership rules give in the coming week, without anybody being on call
  held      unknown: there is no ledger yet
"#;
    assert_eq!(text, expected, "{text}");
    let all = site.run(&["tree", "--format", "json"]).await.expect(0).json();
    let limits = &all["projects"][0]["children_limits"];
    assert_eq!(limits["longest_membership_seconds"], 180 * 86_400, "{all:#}");

    // Memberships that have begun count: alice and bob by 168 h, and alice's windows by 14 h.
    let begun = |text: &str| {
        text.replace("2098-12-01", "2026-01-01")
            .replace("2099-05-29", "2099-01-01")
    };
    site.policy(
        "acme.toml",
        ACME.replace("180d", "3660d").replace("longest", "#longest"),
    );
    site.policy("pay.toml", begun(PAY));
    site.policy("sre.toml", begun(SRE));
    let part = site.run(&["tree", "pay"]).await.expect(0);
    part.says(&[
        "pay                                          1     1     1      0       336.00      14.00          -",
        "\n   above     shop: cto@example.com, ceo@example.com\n   above     acme: ceo@example.com\n",
        "\n   bound by  acme: only the account 111122223333; only the permission sets Admin*, ReadOnly; on-call\n",
    ]);
    assert!(!part.stdout.contains("sre  "), "{}", part.stdout);
    let json = site.run(&["tree", "pay", "--format", "json"]).await.expect(0).json();
    let pay = &json["projects"][0];
    assert_eq!(json["ledger"], false);
    assert_eq!(pay["standing_seconds"], 336 * 3600);
    assert_eq!(pay["window_seconds"], 14 * 3600);
    assert_eq!(pay["held_seconds"], serde_json::Value::Null);
    assert_eq!(pay["bound_by"][0]["by"], "acme");
    assert_eq!(pay["lends"][0]["delegation"]["until"], "2099-04-01T00:00:00Z");
    site.run(&["tree", "shopp"])
        .await
        .expect(1)
        .says(&["there is no project `shopp`; did you mean `shop`?"]);
    site.run(&["tree", "x\u{1b}[31m"])
        .await
        .expect(1)
        .says(&["there is no project `x\\u{1b}[31m`; `dutybound tree` shows those that there are"]);
}

#[tokio::test]
async fn the_tree_reads_the_ledger_when_there_is_one_and_nobody_else() {
    let site = Site::payments().await;
    site.run(&["apply"]).await.expect(0);
    site.sandbox.clear_journal();
    let ledger = content(&site.path("ledger.db"));
    site.run(&["tree"])
        .await
        .expect(0)
        .says(&["held      what was held in the last seven days, by the ledger"]);
    let json = site.run(&["tree", "--format", "json"]).await.expect(0).json();
    assert!(json["projects"][0]["held_seconds"].is_i64(), "{json:#}");
    assert_eq!(site.sandbox.journal().len(), 0, "{}", site.story());
    assert_eq!(content(&site.path("ledger.db")), ledger);
}

#[tokio::test]
async fn explain_names_the_owners_above_and_the_delegation() {
    let site = four_projects().await;
    let explained = site
        .run(&["explain", BOB, "pay/admin", "--at", "2099-03-01T00:00:00Z"])
        .await
        .expect(2);
    explained.says(&[
        "\n  above     cto@example.com (shop), ceo@example.com (shop), ceo@example.com (acme)\n",
        "[x] delegated to sre for on-call rules in pagerduty/PABC123 until 2099-04-01T00:00:00Z (access.d/pay.toml:10)",
        "[x] member of sre (access.d/sre.toml:9, since 2098-12-01T00:00:00Z, until 2099-05-30T00:00:00Z)",
    ]);
    site.run(&["explain", BOB, "pay/admin", "--at", "2099-04-01T00:00:00Z"])
        .await
        .expect(2)
        .says(&["[ ] delegated to sre for on-call rules in pagerduty/PABC123 until 2099-04-01T00:00:00Z"]);
}

#[tokio::test]
async fn a_child_beyond_the_limits_refuses_to_load_and_names_whom_to_ask() {
    let site = four_projects().await;
    site.policy("pay.toml", PAY.replace("111122223333", "444455556666"));
    let refused = site.run(&["check"]).await.expect(1);
    let root = format!("{}/", site.path("").display()).replace("//", "/");
    let said = refused.stdout.replace(&root, "");
    let expected = r#"error[beyond-limits]: account 444455556666 is not among those that acme allows below it
 --> access.d/pay.toml:8:18
  |
8 | account        = "444455556666"
  |                  ^^^^^^^^^^^^^^ beyond the limits of acme
  |
  = help: ask ceo@example.com to add it to `accounts` at access.d/acme.toml:6:22
"#;
    assert!(said.contains(expected), "{said}");
    assert!(said.ends_with("1 error, 1 warning\n"), "{said}");
    for command in ["tree", "codeowners", "diff"] {
        site.run(&[command])
            .await
            .expect(1)
            .says(&["beyond-limits", "cannot be used"]);
    }
}

#[tokio::test]
async fn only_named_roots_stand_without_a_parent() {
    let site = four_projects().await;
    let config = fs::read_to_string(site.path("config.toml")).unwrap();
    let named = |roots: &str| fs::write(site.path("config.toml"), format!("roots = {roots}\n{config}")).unwrap();
    named("[\"acme\", \"sre\"]");
    site.run(&["check"]).await.expect(0);
    // Without its parent no limit would bind it any more.
    site.policy("shop.toml", SHOP.replace("parent = \"acme\"\n", ""));
    for command in ["check", "tree"] {
        site.run(&[command]).await.expect(1).says(&[
            "error[not-a-root]: shop has no parent and is not one of the `roots` in the configuration",
            "shop.toml:2:10",
            "= help: name the project that it stands below as its `parent`, or ask the operator to add it to `roots`",
        ]);
    }
}

#[tokio::test]
async fn codeowners_ask_the_owners_and_those_above_about_each_file() {
    let site = four_projects().await;
    site.policy("pay.toml", PAY.replace(", \"o\\u202eo@example.com\"", ""));
    fs::rename(site.path("access.d/shop.toml"), site.path("access.d/shop floor.toml")).unwrap();
    fs::write(site.path("access.d/README.md"), "no policy").unwrap();
    site.run(&["codeowners"])
        .await
        .expect(1)
        .says(&["is in no Git working tree; name the repository's directory with --root"]);
    let dir = site.path("").display().to_string();
    let lines = |said: Output| -> Vec<String> {
        let lines = said.expect(0).stdout;
        lines
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect()
    };
    // New files fall to the roots' owners; the last pattern decides, so every line is complete.
    let expected = [
        "/access.d/ ceo@example.com sam@example.com",
        "/access.d/acme.toml ceo@example.com",
        "/access.d/pay.toml mira@example.com cto@example.com ceo@example.com",
        r"/access.d/shop\ floor.toml cto@example.com ceo@example.com",
        "/access.d/sre.toml sam@example.com",
    ];
    assert_eq!(lines(site.run(&["codeowners", "--root", &dir]).await), expected);
    // A working tree's or submodule's `.git` is a file.
    fs::write(site.path(".git"), "gitdir: elsewhere\n").unwrap();
    assert_eq!(lines(site.run(&["codeowners"]).await), expected);
    let inner = site.path("access.d").display().to_string();
    let at_root = lines(site.run(&["codeowners", "--root", &inner]).await);
    assert_eq!(
        at_root[..2],
        ["* ceo@example.com sam@example.com", "/acme.toml ceo@example.com"]
    );

    // The content of a linked file changes where it stands.
    fs::create_dir(site.path("shared")).unwrap();
    fs::rename(site.path("access.d/sre.toml"), site.path("shared/sre.toml")).unwrap();
    std::os::unix::fs::symlink("../shared/sre.toml", site.path("access.d/sre.toml")).unwrap();
    let linked = lines(site.run(&["codeowners"]).await);
    assert_eq!(
        linked[4..],
        ["/access.d/sre.toml sam@example.com", "/shared/sre.toml sam@example.com"]
    );

    for name in [
        "a*.toml",
        "a?.toml",
        "[a].toml",
        "a#.toml",
        "a\\.toml",
        "a\u{202e}.toml",
        "a\u{a0}.toml",
    ] {
        fs::rename(site.path("access.d/acme.toml"), site.path("access.d").join(name)).unwrap();
        site.run(&["codeowners"])
            .await
            .expect(1)
            .says(&["CODEOWNERS cannot name access.d/a", "rename it"].map(|words| {
                if name.starts_with('[') {
                    words.trim_end_matches('a')
                } else {
                    words
                }
            }));
        fs::rename(site.path("access.d").join(name), site.path("access.d/acme.toml")).unwrap();
    }
    site.policy("pay.toml", PAY);
    site.run(&["codeowners"])
        .await
        .expect(1)
        .says(&["CODEOWNERS cannot name the owner o\\u{202e}o@example.com"]);
    site.run(&["codeowners", "--root", "/dev"])
        .await
        .expect(1)
        .says(&["is not inside /dev"]);
}

fn instant(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn parsed(files: &[(&str, &str)]) -> Policy {
    let files = files
        .iter()
        .map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()));
    let loaded = policy::parse(Path::new("access.d"), files.collect(), &PolicyContext::default());
    loaded.unwrap_or_else(|report| panic!("{}", report.to_text(false))).0
}

/// Bob is on call throughout.
fn bob_on_call(from: &str, to: &str) -> (Snapshots, Interval) {
    let schedule = ScheduleKey {
        source: SourceName("pagerduty".into()),
        kind: ScheduleKind::Schedule,
        id: "PABC123".into(),
    };
    let span = Interval::new(instant(from), instant(to)).unwrap();
    let shift = Shift {
        interval: span,
        start_known: true,
        end_known: false,
        user: SourceUser {
            id: "PBOB002".into(),
            name: None,
            email: Some(BOB.into()),
            state: SourceUserState::Active,
        }
        .into(),
        level: None,
        permanent: false,
        via_override: None,
    };
    let snapshot = Snapshot {
        schedule: schedule.clone(),
        read_at: span.start(),
        window: span,
        shifts: vec![shift],
        notices: vec![],
        clock_offset_ms: None,
    };
    ([(schedule, snapshot.into())].into(), span)
}

#[test]
fn a_delegation_ends_grants_at_its_instant_which_is_known_ahead() {
    let policy = parsed(&[
        ("acme.toml", ACME),
        ("shop.toml", SHOP),
        ("pay.toml", PAY),
        ("sre.toml", SRE),
    ]);
    let (snapshots, span) = bob_on_call("2099-03-31T12:00:00Z", "2099-04-02T00:00:00Z");
    let timeline = Timeline::build(&policy, &snapshots, &[], span);
    let end = instant("2099-04-01T00:00:00Z");
    let borrowed: Vec<_> = timeline.causes.iter().filter(|c| c.right.project.0 == "sre").collect();
    let [cause] = borrowed.as_slice() else {
        panic!("{borrowed:#?}")
    };
    assert_eq!(cause.right.entitlement.to_string(), "pay/admin");
    assert_eq!(
        (cause.held.start(), cause.held.end(), cause.end_known),
        (span.start(), end, true)
    );
    let before = instant("2099-03-31T23:00:00Z");
    assert_eq!(timeline.next_boundary(before), Some(end));
    assert!(timeline.at(end).is_empty(), "{timeline:#?}");
}

#[test]
fn a_membership_earns_nothing_before_it_begins() {
    let policy = parsed(&[
        ("acme.toml", ACME),
        ("shop.toml", SHOP),
        ("pay.toml", PAY),
        ("sre.toml", SRE),
    ]);
    let (snapshots, span) = bob_on_call("2098-11-30T12:00:00Z", "2098-12-02T00:00:00Z");
    let timeline = Timeline::build(&policy, &snapshots, &[], span);
    let begin = instant("2098-12-01T00:00:00Z");
    let mut borrowed = timeline.causes.iter().filter(|c| c.right.project.0 == "sre");
    assert_eq!(borrowed.next().map(|c| c.held.start()), Some(begin));
    assert_eq!(timeline.next_boundary(span.start()), Some(begin));
    let problem = timeline
        .problems
        .iter()
        .find(|p| p.kind == ProblemKind::NotAMember)
        .unwrap();
    assert_eq!(problem.during, Interval::new(span.start(), begin));
    assert_eq!(
        problem.message,
        "bob@example.com's membership of sre begins at 2098-12-01T00:00:00Z, after their duty for pay/admin does \
         (access.d/sre.toml:9)"
    );
    let bob = dutybound::model::Person::parse(BOB).unwrap();
    let admin = "pay/admin".to_owned().try_into().unwrap();
    let rules = policy.rules_by_entitlement();
    assert!(!rules.could_hold(&admin, &bob, span.start()) && rules.could_hold(&admin, &bob, begin));
}

#[tokio::test]
async fn the_tree_counts_and_tells_statements() {
    let stated = "\n[[invariant]]\nname = \"one-admin\"\nentitlements = [\"prod-admin\"]\nmax_holders = 1\n\
                  statement = \"Never two at a time.\"\n";
    let site = Site::new(organisation(), &format!("{PAYMENTS}{ON_CALL}{stated}")).await;
    let tree = site.run(&["tree"]).await.expect(0);
    tree.says(&[
        "rules states   standing h",
        "states    \"Never two at a time.\" (at most 1 holder; payments/prod-admin,\n             access.d/project.toml:",
    ]);
    let json = site.run(&["tree", "--format", "json"]).await.expect(0).json();
    assert_eq!(
        json["projects"][0]["statements"][0]["demands"], "at most 1 holder",
        "{json}"
    );
    assert_eq!(json["statements"], serde_json::json!([]));
}
