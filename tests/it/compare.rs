//! `diff --base`: what a policy edit changes, as its reviewers read it.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::{BOB, CAROL, PAYMENTS, Site, from_now, organisation};
use serde_json::json;

const ON_CALL: &str = "\n[[rule]]\nentitlement = \"prod-admin\"\non_call = \"pagerduty/PABC123\"\n";
const CAROL_JOINS: &str = "\n[[member]]\nemail = \"carol@example.com\"\nadded_by = \"mira@example.com\"\n";

fn before() -> String {
    format!("{PAYMENTS}{ON_CALL}")
}

/// The policy as edited: carol joins, bob leaves, and reading is for members.
fn after() -> String {
    let bob = "[[member]]\nemail    = \"bob@example.com\"\nadded_by = \"mira@example.com\"\n";
    assert!(before().contains(bob));
    let reading = "\n[[rule]]\nentitlement = \"prod-readers\"\nmembers = true\n";
    format!("{}{CAROL_JOINS}{reading}", before().replace(bob, ""))
}

fn git(dir: &Path, arguments: &[&str]) {
    let output = Command::new("git")
        .arg("-C")
        .arg(dir)
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.com",
            "-c",
            "commit.gpgsign=false",
        ])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A site whose policy directory is a Git checkout with the former policy committed and the edit made.
async fn edited() -> Site {
    let site = Site::new(organisation(), &before()).await;
    let (hand_off, end) = (from_now(86_400), from_now(40 * 86_400));
    site.shifts(&[("PCAROL3", from_now(-60), hand_off), ("PBOB002", hand_off, end)]);
    let folder = site.path("access.d");
    git(&folder, &["init", "-q", "-b", "main"]);
    git(&folder, &["add", "."]);
    git(&folder, &["commit", "-q", "-m", "before"]);
    site.policy("project.toml", after());
    site
}

#[tokio::test]
async fn an_edit_is_compared_with_what_git_has() {
    let site = edited().await;
    let said = site
        .run(&["diff", "--base", "HEAD", "--days", "7", "--format", "json"])
        .await
        .expect(2);
    let comparison = said.json()["comparison"].clone();
    let people: Vec<_> = comparison["people"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| {
            let count = |key: &str| line[key].as_array().unwrap().len();
            (
                line["entitlement"].as_str().unwrap().to_owned(),
                line["person"].as_str().unwrap().to_owned(),
                count("gains"),
                count("loses"),
            )
        })
        .collect();
    let line =
        |entitlement: &str, person: &str, gains, loses| (entitlement.to_owned(), person.to_owned(), gains, loses);
    assert_eq!(
        people,
        [
            line("payments/prod-admin", BOB, 0, 1),
            line("payments/prod-admin", CAROL, 1, 0),
            line("payments/prod-readers", "alice@example.com", 1, 0),
            line("payments/prod-readers", CAROL, 1, 0),
        ]
    );
    // Two members read all of the week's 168 hours; of the on-call week a day is carol's now and six are nobody's.
    let held: Vec<_> = comparison["hours"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["held"].clone())
        .collect();
    let whole_week = 7 * 86_400;
    let (bobs, carols) = (held[0]["before"].as_i64().unwrap(), held[0]["after"].as_i64().unwrap());
    assert!((whole_week - 2..=whole_week).contains(&(bobs + carols)), "{held:?}");
    assert_eq!(held[1], json!({ "before": 0, "after": 2 * whole_week }));
    assert_eq!(comparison["new_gaps"][0]["person"], BOB);
    assert_eq!(comparison["closed_gaps"][0]["person"], CAROL);
    assert_eq!(comparison["consent"][0]["owners"], json!(["mira@example.com"]));
    let aws: Vec<_> = site
        .sandbox
        .journal()
        .into_iter()
        .filter(|call| call.service == dutybound_sandbox::Service::Aws)
        .collect();
    assert!(aws.is_empty(), "AWS is not asked: {aws:?}");
}

#[tokio::test]
async fn text_and_markdown_say_who_gains_and_loses_and_who_must_consent() {
    let site = edited().await;
    let said = site.run(&["diff", "--base", "main", "--days", "7"]).await.expect(2);
    said.says(&[
        "Edits (3)",
        "+ member carol@example.com, added by mira@example.com  (access.d/project.toml:",
        "- member bob@example.com, added by mira@example.com  (access.d/project.toml:",
        "+ rule: payments/prod-readers for every member, always  (access.d/project.toml:",
        "+ carol@example.com gains it from ",
        "- bob@example.com loses it from ",
        "- bob@example.com can no longer hold it at all",
        "Gaps that it brings (1)",
        "Gaps that it closes (1)",
        "Consent needed from (1)\n  payments: mira@example.com",
    ]);
    let said = site
        .run(&["diff", "--base", "main", "--days", "7", "--format", "markdown"])
        .await
        .expect(2);
    said.says(&[
        "### What this changes about access",
        "carol&#64;example.com gains it",
        "| total |",
    ]);
    assert!(
        !said.stdout.contains('@'),
        "nobody is mentioned by accident: {}",
        said.stdout
    );
}

#[tokio::test]
async fn a_directory_is_a_base_as_well_and_no_edit_is_no_difference() {
    let site = edited().await;
    let former = site.path("former");
    fs::create_dir(&former).unwrap();
    fs::write(former.join("project.toml"), before()).unwrap();
    site.run(&["diff", "--base", "former"])
        .await
        .expect(2)
        .says(&["Edits (3)"]);
    site.policy("project.toml", before());
    site.run(&["diff", "--base", "former"])
        .await
        .expect(0)
        .says(&["Nothing changes."]);
    site.run(&["diff", "--base", "HEAD", "--format", "markdown"])
        .await
        .expect(0)
        .says(&["Nothing."]);
}

#[tokio::test]
async fn without_the_providers_the_ledger_is_enough() {
    let site = edited().await;
    site.policy("project.toml", before());
    site.run(&["apply"]).await.expect(0);
    site.policy("project.toml", after());
    fs::remove_file(site.path("key")).unwrap();
    site.sandbox.clear_journal();
    let said = site.run(&["diff", "--base", "HEAD", "--offline"]).await.expect(2);
    said.says(&["carol@example.com gains it from "]);
    assert!(site.sandbox.journal().is_empty());
}

#[tokio::test]
async fn what_cannot_be_compared_is_said() {
    let site = edited().await;
    site.run(&["diff", "--base", "no-such-thing"])
        .await
        .expect(1)
        .says(&["\"no-such-thing\" is no directory, and no Git revision of"]);
    site.run(&["diff", "--base", "--output=x"]).await.expect(64);
    site.run(&["diff", "--base=--output=x"]).await.expect(1);
    assert!(!site.path("access.d/x").exists() && !site.path("x").exists());
    site.run(&["diff", "--format", "markdown"])
        .await
        .expect(1)
        .says(&["goes with --base"]);
    site.policy("project.toml", format!("{}\nowner = 1\n", before()));
    git(&site.path("access.d"), &["commit", "-q", "-a", "-m", "broken"]);
    site.policy("project.toml", before());
    let said = site.run(&["diff", "--base", "HEAD"]).await.expect(1);
    said.says(&["the policy to compare with cannot be used", "unknown key"]);
}

#[tokio::test]
async fn whoever_holds_an_entitlement_that_becomes_something_else_gains_and_loses() {
    let site = edited().await;
    site.policy(
        "project.toml",
        before().replace("AdministratorAccess", "ReadOnlyAccess"),
    );
    let said = site.run(&["diff", "--base", "HEAD"]).await.expect(2);
    said.says(&[
        "+ bob@example.com gains ReadOnlyAccess in account 111122223333 from ",
        "- bob@example.com loses AdministratorAccess in account 111122223333 from ",
        "+ alice@example.com could hold ReadOnlyAccess in account 111122223333 from now on, and AdministratorAccess in account \
         111122223333 no longer",
    ]);
    let json = site
        .run(&["diff", "--base", "HEAD", "--format", "json"])
        .await
        .expect(2)
        .json();
    assert_eq!(
        json["comparison"]["people"][0]["becomes"],
        json!({"before": "AdministratorAccess in account 111122223333", "after": "ReadOnlyAccess in account 111122223333"}),
        "{json}"
    );
}
