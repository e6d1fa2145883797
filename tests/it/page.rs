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
