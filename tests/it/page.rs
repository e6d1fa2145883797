//! The status page of the running daemon, over HTTP.

use std::fs;

use crate::harness::*;

/// The text between two others, first of all after a third.
fn between<'a>(page: &'a str, after: &str, from: &str, to: &str) -> &'a str {
    let rest = page
        .split_once(after)
        .unwrap_or_else(|| panic!("{after:?} is missing in {page}"))
        .1;
    rest.split_once(from).unwrap().1.split_once(to).unwrap().0
}

#[tokio::test]
async fn the_page_says_what_stands_and_what_the_report_says() {
    let site = Site::payments().await;
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    eventually("the page shows the grant and its hours", async || {
        let (status, page) = daemon.get("/").await.unwrap();
        assert_eq!(status, 200, "{page}");
        page.contains("<a href=\"/person/alice%40example.com\">")
            && page.contains("on call in pagerduty/PABC123")
            && page.contains("of standing access was held")
    })
    .await;
    let (status, page) = daemon.get("/person/alice%40example.com").await.unwrap();
    assert!(status == 200 && page.contains("<h1>alice@example.com</h1>"), "{page}");
    assert_eq!(daemon.get("/person/nobody%40example.com").await.unwrap().0, 404);

    let (_, page) = daemon.get("/").await.unwrap();
    let held: i64 = between(&page, "of standing access was held", "value=\"", "\"")
        .parse()
        .unwrap();
    let (from, to) = (
        between(&page, "<caption>Access hours from", " ", " to"),
        between(&page, "<caption>Access hours from", " to ", "<"),
    );
    let report = site
        .run(&["report", "--from", from, "--to", to, "--format", "json"])
        .await;
    let reported = report.json()["total"]["held_seconds"].as_i64().unwrap();
    // The page counts to the instant, the report to the second that the page names.
    assert!((held - reported).abs() <= 2, "{held} {reported}");
}

#[tokio::test]
async fn a_listener_that_others_reach_demands_a_token() {
    let site = Site::payments().await;
    let config = fs::read_to_string(site.path("config.toml")).unwrap();
    let open = config.replace("127.0.0.1:0", "0.0.0.0:0");
    fs::write(site.path("config.toml"), &open).unwrap();
    site.run(&["run"]).await.expect(1).says(&["not-loopback", "token = {"]);

    fs::write(site.path("token"), "0123456789abcdef0123\n").unwrap();
    let with_token = open.replace("\"0.0.0.0:0\"", "\"0.0.0.0:0\"\ntoken = { file = \"token\" }");
    fs::write(site.path("config.toml"), with_token).unwrap();
    let daemon = site.ready_daemon().await;
    assert_eq!(daemon.get("/").await.unwrap().0, 401);
    assert_eq!(daemon.get("/metrics").await.unwrap().0, 401);
    assert_eq!(daemon.get("/healthz").await.unwrap().0, 200);
    assert!(!daemon.log().contains("0123456789abcdef0123"));
}

#[tokio::test]
async fn watching_is_for_terminals() {
    let site = Site::payments().await;
    site.run(&["status", "--watch"])
        .await
        .expect(1)
        .says(&["stdout is none"]);
    site.run(&["status", "--watch=5", "--format", "json"])
        .await
        .expect(1)
        .says(&["does not go with --format json"]);
}

/// A scripted history that is over: what the simulated AWS did, the record's report, the counters and the page are one.
#[tokio::test]
async fn report_metrics_page_and_what_aws_did_agree_to_the_second() {
    let readers_on_call =
        "\n[[rule]]\nentitlement = \"prod-readers\"\non_call     = \"pagerduty/PABC123\"\nlinger      = \"2s\"\n";
    let site = Site::new(organisation(), &format!("{PAYMENTS}{readers_on_call}")).await;
    site.shifts(&[
        ("PALICE1", from_now(-60), from_now(25)),
        ("PBOB002", from_now(25), from_now(40)),
    ]);
    let daemon = site.ready_daemon().await;
    site.until("both had it in turn", |view| {
        let ended = |name: &str| {
            view.journal
                .iter()
                .filter(|c| c.operation == name && c.status.is_some())
                .count()
        };
        ended("CreateGroupMembership") == 2 && ended("DeleteGroupMembership") == 2
    })
    .await;
    eventually("the record has both revokes", async || {
        site.intervals()
            .await
            .iter()
            .filter(|row| row.revoked_at.is_some())
            .count()
            == 2
    })
    .await;

    // What AWS did: everybody is added once and removed once, so the times of the calls add up to the time held.
    let calls = site.writes();
    let at = |name: &str| -> i64 {
        let calls = calls.iter().filter(|call| call.operation == name);
        calls.map(|call| call.at.as_millisecond()).sum()
    };
    let done = (at("DeleteGroupMembership") - at("CreateGroupMembership")) as f64 / 1000.0;
    assert!(10.0 < done, "two turns of {done} s");

    eventually("the page has the hours", async || {
        daemon.get("/").await.unwrap().1.contains("of standing access was held")
    })
    .await;
    let page = daemon.get("/").await.unwrap().1;
    let after = |words: &str| -> f64 { between(&page, words, "value=\"", "\"").parse().unwrap() };
    let held = after("of standing access was held");
    let standing = after(" of <data");
    let (from, to) = (
        between(&page, "<caption>Access hours from", " ", " to"),
        between(&page, "<caption>Access hours from", " to ", "<"),
    );
    let report = site
        .run(&["report", "--from", from, "--to", to, "--format", "json"])
        .await;
    let total = &report.expect(0).json()["total"];
    let reported = |key: &str| total[key].as_f64().unwrap();
    let mut counted = 0.0;
    for basis in ["on_call", "window", "membership", "overhang"] {
        let sample = format!(
            "dutybound_access_seconds_total{{basis=\"{basis}\",entitlement=\"prod-readers\",project=\"payments\"}}"
        );
        counted += daemon.metric(&sample).await.unwrap();
    }
    let figures = format!("AWS {done}, report {total}, metrics {counted}, page {held} of {standing}");
    // AWS's answer and its record lie a moment apart, and the report shows whole seconds.
    assert!((counted - done).abs() <= 1.0, "{figures}");
    assert!((reported("held_seconds") - counted).abs() <= 1.0, "{figures}");
    assert!((held - reported("held_seconds")).abs() <= 1.0, "{figures}");
    assert!((standing - reported("standing_seconds")).abs() <= 2.0, "{figures}");
    let overhang = daemon
        .metric("dutybound_access_seconds_total{basis=\"overhang\",entitlement=\"prod-readers\",project=\"payments\"}")
        .await
        .unwrap();
    assert!(
        (reported("overhang_seconds") - overhang).abs() <= 1.0 && 3.0 <= overhang,
        "{figures}"
    );
}

#[tokio::test]
async fn each_page_shows_its_own_and_the_first_how_much_there_is_of_all() {
    let site = Site::payments().await;
    let everybody = "\n[[rule]]\nentitlement = \"on-call\"\nmembers     = true\n";
    let (data, _) = DATA.split_once("\n[[rule]]").unwrap();
    site.policy("data.toml", format!("{data}{everybody}"));
    let daemon = site.ready_daemon().await;
    site.until("both groups have their members", |view| {
        view.world.aws.memberships.len() == 3
    })
    .await;
    site.until_admin(ALICE, true).await;
    let people = |page: &str| {
        let held = between(page, "<h2 id=\"now-title\">", ">", "</section>");
        let mut people: Vec<&str> = [ALICE, BOB, DAVE, ERIN].into();
        people.retain(|person| held.contains(person));
        people.join(" ")
    };
    eventually("the first page has all", async || {
        let (_, page) = daemon.get("/").await.unwrap();
        page.contains("Held now (4)")
    })
    .await;
    let (_, page) = daemon.get("/").await.unwrap();
    assert!(
        page.contains("<span class=\"faint\">grants, by 3 people</span>"),
        "{page}"
    );
    assert_eq!(people(&page), format!("{ALICE} {DAVE} {ERIN}"));
    let (_, projects) = page.split_once("id=\"projects\"").unwrap();
    for (project, held) in [("data", 2), ("payments", 2)] {
        let row = between(projects, &format!("/project/{project}\""), "<td>", "</tr>");
        assert!(row.contains(&format!("<td>{held}</td>")), "{row}");
    }
    for (path, count, who) in [
        ("/project/payments", 2, ALICE.to_owned()),
        ("/project/data", 2, format!("{DAVE} {ERIN}")),
        ("/person/dave@example.com", 1, DAVE.to_owned()),
        ("/person/bob@example.com", 0, String::new()),
    ] {
        let (status, page) = daemon.get(path).await.unwrap();
        assert!(
            status == 200 && page.contains(&format!("Held now ({count})")),
            "{path}: {page}"
        );
        assert_eq!(people(&page), who, "{path}");
    }
    for path in ["/project/nothing", "/person/nobody", "/person/nobody@example.com"] {
        assert_eq!(daemon.get(path).await.unwrap().0, 404, "{path}");
    }
}
