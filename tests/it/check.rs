//! `check`: what people read when a policy or configuration has mistakes.

use std::{collections::BTreeMap, fs, path::Path};

use dutybound::commands::check::{Format, check};
use tempfile::TempDir;

const CONFIG: &str = r#"mode = "observe"
owner_id = "acme"

[source.pagerduty]
kind = "pagerduty"
token = { credential = "pagerduty-token" }

[identity_center]
region = "eu-central-1"
expected_account_id = "111122223333"
"#;

const COMMERCE: &str = r#"[project]
name = "commerce"
owners = ["cto@example.com"]

[[entitlement]]
name = "billing"
group = "commerce-billing"
"#;

const PAYMENTS: &str = r#"[project]
name = "payments"
parent = "commerce"
owners = ["mira@example.com"]

[[entitlement]]
name = "prod-admin"
account = "111122223333"
permission_set = "AdministratorAccess"

[[member]]
email = "alice@example.com"
added_by = "mira@example.com"
completed = ["incident-training"]

[[rule]]
entitlement = "prod-admin"
on_call = "pagerduty/PABC123"
requires = ["member", "incident-training"]
lead = "10m"
"#;

const MISTAKES: &str = r#"[project]
name = "payments"
parent = "comerce"
owners = ["mira"]
contect = "PCI scope"

[[entitlement]]
name = "prod-admin"
account = 11122223333
permission_set = "AdministratorAccess"

[[member]]
email = "alice@example.com"
until = "2027-03-31"

[[rule]]
entitlement = "prod-admn"
on_call = "pagerdty/PABC123"
lead = "ten minutes"

[[rule]]
entitlement = "commerce/billing"
members = true
during = { cron = "0 0 30 2 *", for = "9h", zone = "Europe/Berln" }

[[rule]]
entitlement = "prod-admin"
"#;

/// An installation in a temporary directory: the configuration and the policy files.
fn installation(config: &str, policy: &[(&str, &[u8])]) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("config.toml"), config).unwrap();
    fs::create_dir(dir.path().join("access.d")).unwrap();
    for (name, content) in policy {
        fs::write(dir.path().join("access.d").join(name), content).unwrap();
    }
    dir
}

/// Runs the check as of a fixed day; the temporary directory's own path is cut out of the output.
fn run(dir: &Path, format: Format) -> (bool, String) {
    let mut out = Vec::new();
    let now = "2026-06-01T00:00:00Z".parse().unwrap();
    let env = BTreeMap::<String, String>::new();
    let ok = check(&dir.join("config.toml"), None, format, now, &env, &mut out).unwrap();
    let root = format!("{}/", dir.display());
    (ok, String::from_utf8(out).unwrap().replace(&root, ""))
}

const TEXT: Format = Format::Text {
    colour: false,
    width: None,
};

#[test]
fn a_sound_installation_is_one_line_and_needs_no_secrets() {
    let dir = installation(
        CONFIG,
        &[
            ("commerce.toml", COMMERCE.as_bytes()),
            ("payments.toml", PAYMENTS.as_bytes()),
        ],
    );
    let expected = "2 projects, 2 entitlements, 1 membership, 1 rule, 1 schedule; no mistakes\n";
    assert_eq!(run(dir.path(), TEXT), (true, expected.to_owned()));
    assert_eq!(run(dir.path(), Format::Json), (true, "[]\n".to_owned()));
}

#[test]
fn all_mistakes_of_both_files_are_shown_in_one_run() {
    let config = CONFIG
        .replace("owner_id", "owner")
        .replace("\"eu-central-1\"", "\"Frankfurt\"");
    let dir = installation(
        &config,
        &[
            ("commerce.toml", COMMERCE.as_bytes()),
            ("payments.toml", MISTAKES.as_bytes()),
        ],
    );
    let (ok, text) = run(dir.path(), TEXT);
    assert!(!ok);
    insta::assert_snapshot!(text);
    let (ok, json) = run(dir.path(), Format::Json);
    assert!(!ok);
    let json: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    assert_eq!(json.len(), text.matches("\nerror[").count() + 1);
    assert!(
        json.iter()
            .all(|d| d["line"].is_u64() && d["column"].is_u64() && d["message"].is_string())
    );
}

#[test]
fn bad_input_is_named_with_what_to_do() {
    let cases: [(&str, Vec<u8>, &str); 6] = [
        (
            "latin1",
            b"[project]\nname = \"caf\xe9\"\n".to_vec(),
            "byte 21 (0xe9) is not UTF-8",
        ),
        ("empty", Vec::new(), "the file has no [project]"),
        (
            "huge",
            vec![b'#'; 50 << 20],
            "the file has 52428800 bytes, the limit is 1048576",
        ),
        ("half", COMMERCE.as_bytes()[..45].to_vec(), "half.toml:3:"),
        ("escape", b"[project]\nname = \"\x1b[31mred\"\n".to_vec(), "error["),
        ("binary", vec![0; 100], "error["),
    ];
    for (name, content, expected) in cases {
        let dir = installation(
            CONFIG,
            &[
                ("commerce.toml", COMMERCE.as_bytes()),
                (&format!("{name}.toml"), &content),
            ],
        );
        let (ok, text) = run(dir.path(), TEXT);
        assert!(
            !ok && text.contains(expected) && text.contains(&format!("access.d/{name}.toml")),
            "{name}:\n{text}"
        );
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{name}:\n{text:?}");
    }
    let windows = format!("\u{feff}{}", PAYMENTS.replace('\n', "\r\n"));
    let config = format!("\u{feff}{}", CONFIG.replace('\n', "\r\n"));
    let dir = installation(
        &config,
        &[
            ("commerce.toml", COMMERCE.as_bytes()),
            ("payments.toml", windows.as_bytes()),
        ],
    );
    assert!(run(dir.path(), TEXT).0);
}

#[test]
fn directories_and_missing_files_are_named() {
    let dir = installation(CONFIG, &[]);
    let (ok, text) = run(dir.path(), TEXT);
    assert!(
        !ok && text.contains("there is no policy file in this directory"),
        "{text}"
    );
    fs::create_dir(dir.path().join("access.d/payments.toml")).unwrap();
    let (ok, text) = run(dir.path(), TEXT);
    assert!(!ok && text.contains("this is a directory, not a file"), "{text}");
    fs::remove_dir_all(dir.path().join("access.d")).unwrap();
    fs::remove_file(dir.path().join("config.toml")).unwrap();
    let (ok, text) = run(dir.path(), TEXT);
    assert!(
        !ok && text.contains("config.toml") && text.contains("no such file"),
        "{text}"
    );
    fs::create_dir(dir.path().join("config.toml")).unwrap();
    let (ok, text) = run(dir.path(), TEXT);
    assert!(!ok && text.contains("this is a directory, not a file"), "{text}");
}

#[test]
fn an_unreadable_configuration_does_not_hide_the_policy() {
    let dir = installation("mode = \n", &[("payments.toml", MISTAKES.as_bytes())]);
    let mut out = Vec::new();
    let now = "2026-06-01T00:00:00Z".parse().unwrap();
    let env = BTreeMap::<String, String>::new();
    let policy = dir.path().join("access.d");
    let ok = check(
        &dir.path().join("config.toml"),
        Some(&policy),
        TEXT,
        now,
        &env,
        &mut out,
    )
    .unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(
        !ok && text.contains("a value is missing") && text.contains("unknown key `contect`"),
        "{text}"
    );
    assert!(!text.contains("on-call source"), "the sources are not known:\n{text}");
}
