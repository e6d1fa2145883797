//! What cannot work ends with exit 1, a message that names the thing and what to do, and no write to AWS.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::*;

/// Every command that reads the world refuses with these words, and AWS is asked for no change.
async fn refused(site: &Site, words: &[&str]) {
    for command in ["diff", "apply"] {
        let output = site.run(&[command]).await.expect(1);
        output.says(words);
        assert!(!output.all().contains("test-key"), "{}", output.all());
    }
    assert_eq!(site.written(), [""; 0]);
}

#[tokio::test]
async fn a_wrong_token() {
    let site = Site::payments().await;
    site.secret("key", "wrong-key-of-mine\n");
    refused(&site, &["pagerduty/PABC123", "401", "the credential is wrong"]).await;
    let said = site.run(&["diff"]).await.all();
    assert!(!said.contains("wrong-key-of-mine"), "{said}");
    fs::remove_file(site.path("key")).unwrap();
    refused(&site, &["config.toml:", "key", "provide the secret there"]).await;
}

#[tokio::test]
async fn a_wrong_region() {
    let site = Site::payments().await;
    let url = site.sandbox.aws_url();
    site.configure(|s| {
        s.identity_center =
            format!("region = \"us-east-1\"\nexpected_account_id = \"999999999999\"\nendpoint_url = \"{url}\"");
    });
    refused(&site, &["us-east-1", "region"]).await;
}

#[tokio::test]
async fn a_wrong_account_id() {
    let site = Site::payments().await;
    let url = site.sandbox.aws_url();
    site.configure(|s| {
        s.identity_center =
            format!("region = \"eu-central-1\"\nexpected_account_id = \"123456789012\"\nendpoint_url = \"{url}\"");
    });
    refused(&site, &["999999999999", "123456789012", "expected_account_id"]).await;
}

#[tokio::test]
async fn an_endpoint_where_nobody_listens() {
    let site = Site::payments().await;
    site.configure(|s| {
        s.identity_center = "region = \"eu-central-1\"\nexpected_account_id = \"999999999999\"\n\
             endpoint_url = \"http://127.0.0.1:1\""
            .to_owned();
    });
    site.run(&["apply"])
        .await
        .expect(1)
        .says(&["127.0.0.1:1", "endpoint_url"]);
}

#[tokio::test]
async fn a_schedule_that_does_not_exist() {
    let site = Site::payments().await;
    site.policy(
        "project.toml",
        format!("{PAYMENTS}{ON_CALL}").replace("PABC123", "PNONE00"),
    );
    refused(&site, &["pagerduty/PNONE00", "404", "check the id"]).await;
    site.policy("project.toml", DATA.replace("6fce1fd0", "00000000"));
    refused(&site, &["opsgenie/00000000-bbbb-4000-8000-000000000001", "404"]).await;
}

#[tokio::test]
async fn an_unknown_permission_set_and_an_unknown_group() {
    let site = Site::payments().await;
    let policy = format!("{PAYMENTS}{ON_CALL}");
    site.policy(
        "project.toml",
        policy.replace("AdministratorAccess", "AdministratorAcess"),
    );
    refused(
        &site,
        &[
            "AdministratorAcess",
            "did you mean \"AdministratorAccess\"",
            "project.toml:",
        ],
    )
    .await;
    site.policy(
        "project.toml",
        policy.replace("payments-prod-readers", "payments-prod-reader"),
    );
    refused(&site, &["payments-prod-reader", "creates no groups", "project.toml:"]).await;
}

#[tokio::test]
async fn a_policy_with_ten_mistakes_shows_all_of_them() {
    let site = Site::payments().await;
    site.policy(
        "project.toml",
        r#"[project]
name = "Payments!"
owners = ["mira"]
contect = "PCI"

[[entitlement]]
name = "prod-admin"
account = 11122223333
permission_set = "AdministratorAccess"

[[entitlement]]
name = "nothing"

[[member]]
email = "alice"

[[rule]]
entitlement = "prod-admn"
on_call = "pagerdty/PABC123"
lead = "ten minutes"

[[rule]]
entitlement = "prod-admin"
members = true
during = { cron = "0 0 30 2 *", for = "9h", zone = "Europe/Berln" }
"#,
    );
    let words = [
        "Payments!",
        "mira",
        "contect",
        "11122223333",
        "does not say what it grants",
        "alice",
        "prod-admn",
        "pagerdty",
        "ten minutes",
        "Europe/Berln",
    ];
    let said = site.run(&["check"]).await.expect(1);
    said.says(&words);
    refused(&site, &words).await;
    let places = said.all().matches("project.toml:").count();
    assert!(10 <= places, "{places} places in\n{}", said.all());
}

#[tokio::test]
async fn files_that_are_no_policy() {
    let site = Site::payments().await;
    let file = site.path("access.d/project.toml");
    site.policy("project.toml", "");
    refused(&site, &["project.toml:1:1", "the file has no [project]"]).await;

    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    refused(&site, &["project.toml", "directory"]).await;
    fs::remove_dir(&file).unwrap();

    fs::File::create(&file).unwrap().set_len(50 * 1024 * 1024).unwrap();
    refused(&site, &["project.toml", "the limit is 1048576"]).await;

    let policy = format!("{PAYMENTS}{ON_CALL}");
    site.policy("project.toml", [policy.as_bytes(), b"# caf\xe9\n"].concat());
    refused(&site, &["project.toml:", "UTF-8"]).await;

    fs::remove_file(&file).unwrap();
    refused(&site, &["access.d"]).await;
    fs::remove_dir(site.path("access.d")).unwrap();
    refused(&site, &["access.d"]).await;
    assert!(
        site.sandbox.journal().is_empty(),
        "a policy that cannot be used asks nobody anything"
    );
}

#[tokio::test]
async fn files_that_are_no_configuration() {
    let site = Site::payments().await;
    let file = site.path("config.toml");
    let good = fs::read(&file).unwrap();
    fs::write(&file, "").unwrap();
    refused(&site, &["config.toml"]).await;
    fs::write(&file, [&good[..], b"# caf\xe9\n"].concat()).unwrap();
    refused(&site, &["config.toml:", "UTF-8"]).await;
    fs::File::create(&file).unwrap().set_len(50 * 1024 * 1024).unwrap();
    refused(&site, &["config.toml", "the limit is 1048576"]).await;
    fs::remove_file(&file).unwrap();
    refused(&site, &["config.toml"]).await;
    fs::create_dir(&file).unwrap();
    refused(&site, &["config.toml", "directory"]).await;
}

#[tokio::test]
async fn a_byte_order_mark_and_carriage_returns_are_fine() {
    let site = Site::payments().await;
    for name in ["config.toml", "access.d/project.toml"] {
        let text = fs::read_to_string(site.path(name)).unwrap();
        fs::write(site.path(name), format!("\u{feff}{}", text.replace('\n', "\r\n"))).unwrap();
    }
    site.run(&["check"]).await.expect(0);
    site.run(&["apply"]).await.expect(0);
    assert!(site.admin(ALICE));
}

#[tokio::test]
async fn a_ledger_that_cannot_be_used() {
    let site = Site::payments().await;
    fs::write(
        site.path("ledger.db"),
        "this is no database, whatever else it may be\n".repeat(100),
    )
    .unwrap();
    site.run(&["apply"]).await.expect(1).says(&["ledger"]);
    fs::remove_file(site.path("ledger.db")).unwrap();
    site.run(&["apply"]).await.expect(0);
    site.sandbox.clear_journal();
    let config = fs::read_to_string(site.path("config.toml")).unwrap();
    fs::write(
        site.path("config.toml"),
        config.replace("owner_id = \"test\"", "owner_id = \"somebody-else\""),
    )
    .unwrap();
    refused(&site, &["ledger.db", "somebody-else", "belongs to owner_id \"test\""]).await;
}

#[tokio::test]
async fn a_secret_that_others_can_read_is_named() {
    let site = Site::payments().await;
    fs::set_permissions(site.path("key"), fs::Permissions::from_mode(0o644)).unwrap();
    site.run(&["apply"]).await.expect(0).says(&["warning", "key"]);
}

#[tokio::test]
async fn a_slip_in_a_name_is_pointed_at() {
    let site = Site::payments().await;
    site.policy("data.tml", DATA);
    site.policy("README.md", "how we write policy");
    site.policy("data.toml.disabled", DATA);
    site.policy("CODEOWNERS", "* @mira");
    site.policy("more.toml", DATA.replace("dave@example.com", "d\u{430}ve@example.com"));
    let said = site.run(&["check"]).await.expect(0);
    said.says(&[
        "warning[not-read]: this file is not read, because its name does not end in .toml",
        "data.tml",
        "rename it, or move it out of the policy directory",
        "warning[look-alike]: d\u{430}ve@example.com has a character that may look like another: U+0430",
        "2 warnings",
    ]);
}
