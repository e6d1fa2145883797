//! What is said for people fits the width that everything fits, also where no terminal says how wide it is.

use crate::harness::*;

/// Runs a command as a script would, with nothing said of a width, and gives the lines that are too long. An event of the
/// log is one line, however long.
async fn too_long(site: &Site, arguments: &[&str]) -> Vec<String> {
    let mut command = site.command(arguments);
    command.env_remove("COLUMNS");
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(!said.is_empty(), "{arguments:?} says nothing");
    let is_log = |line: &str| line.contains("Z  INFO ") || line.contains("Z  WARN ");
    let lines = said.lines().filter(|line| 100 < line.chars().count() && !is_log(line));
    lines.map(|line| format!("{arguments:?}: {line}")).collect()
}

#[tokio::test]
async fn lines_of_every_command_fit_a_hundred_columns_in_a_pipe() {
    let site = Site::payments().await;
    let mut found = Vec::new();
    for arguments in [
        &["diff"][..],
        &["apply"],
        &["status"],
        &["explain", ALICE],
        &["explain", CAROL, "payments/prod-admin"],
        &["forecast", "--days", "60"],
        &["forecast", "payments/prod-admn"],
        &["review"],
        &["report"],
        &["tree"],
        &["backtest"],
        &["audit", "verify"],
        &["audit", "access"],
        &["backup", "copy.db"],
        &["revoke", "--person", ALICE, "--reason", "to see what is said about it"],
        &["check"],
    ] {
        found.extend(too_long(&site, arguments).await);
    }
    site.policy(
        "wrong.toml",
        "[project]\nname = \"payments\"\nowners = [\"somebody.with.a.long.name@example.com\", \"another.person@example.com\", \"x\"]\n\
         \n[[rule]]\nentitlement = \"payments/prod-admin\"\nmembers = true\nduring = { cron = \"0 9 * * XXX\", for = \"9h\" }\n",
    );
    found.extend(too_long(&site, &["check"]).await);
    found.extend(too_long(&site, &["status"]).await);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[tokio::test]
async fn many_schedules_are_one_line_and_those_that_fail_one_each() {
    let mut world = organisation();
    let mut policy = PAYMENTS.to_owned();
    for number in 0..10 {
        let id = format!("PMANY{number:02}");
        policy += &format!("\n[[rule]]\nentitlement = \"prod-admin\"\non_call = \"pagerduty/{id}\"\n");
        if number < 9 {
            let schedule = dutybound_sandbox::world::pagerduty::Schedule::new(&id, &id);
            world.pagerduty.schedules.push(schedule);
        }
    }
    let site = Site::new(world, &policy).await;
    let said = site.run(&["diff"]).await.expect(1);
    said.says(&["  9 schedules  read 0s before", "  pagerduty/PMANY09  "]);
    assert!(!said.stdout.contains("  pagerduty/PMANY03  "), "{}", said.stdout);
}
