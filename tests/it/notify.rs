//! People are told: through a simulated Slack and a simulated receiver of signed JSON, with the faults of both.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use dutybound::notify::outbox::{Batch, Outbox};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::harness::{ADMIN_ON_CALL, ALICE, BOB, PAYMENTS, Site, eventually, from_now, organisation};

/// One request that came.
#[derive(Debug, Clone)]
struct Got {
    path: String,
    query: String,
    headers: HeaderMap,
    raw: Bytes,
    /// What it was answered with; `None` while it is kept waiting.
    status: Option<u16>,
    body: Value,
}

/// How a path is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    Hangs,
    Broken,
    /// 429 this often, with this many seconds of `Retry-After`.
    Limited(u32, u32),
    /// `ok: false` with this error.
    Refuses(&'static str),
}

#[derive(Debug, Default)]
struct Inner {
    got: Vec<Got>,
    moods: Vec<(String, Mood)>,
}

#[derive(Debug, Clone, Default)]
struct Receiver {
    inner: Arc<Mutex<Inner>>,
    url: String,
}

impl Receiver {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            ..Self::default()
        };
        let app = Router::new().fallback(serve).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        receiver
    }

    fn mood(&self, path: &str, mood: Mood) {
        let mut inner = self.inner.lock().unwrap();
        inner.moods.retain(|(known, _)| known != path);
        inner.moods.push((path.to_owned(), mood));
    }

    /// Everything that came to the path.
    fn asked(&self, path: &str) -> Vec<Got> {
        let inner = self.inner.lock().unwrap();
        inner.got.iter().filter(|got| got.path == path).cloned().collect()
    }

    /// What was taken at the path.
    fn taken(&self, path: &str) -> Vec<Got> {
        self.asked(path)
            .into_iter()
            .filter(|got| got.status == Some(200))
            .collect()
    }

    async fn until_taken(&self, site: &Site, path: &str, what: &str, so: impl Fn(&Got) -> bool) -> Got {
        let began = std::time::Instant::now();
        loop {
            if let Some(got) = self.taken(path).into_iter().find(|got| so(got)) {
                return got;
            }
            assert!(
                began.elapsed() < crate::harness::PATIENCE,
                "waited in vain for {what}; got {:#?}\n{}",
                self.inner.lock().unwrap().got,
                site.story()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn serve(State(receiver): State<Receiver>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let raw = to_bytes(body, 1 << 20).await.unwrap();
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let (index, mood) = {
        let mut inner = receiver.inner.lock().unwrap();
        let mood = inner.moods.iter_mut().find(|(known, _)| *known == path);
        let now = match mood {
            Some((_, mood)) => {
                let now = *mood;
                if let Mood::Limited(left, seconds) = now {
                    *mood = if left <= 1 {
                        Mood::Well
                    } else {
                        Mood::Limited(left - 1, seconds)
                    };
                }
                now
            }
            None => Mood::Well,
        };
        inner.got.push(Got {
            path: path.clone(),
            query: query.clone(),
            headers: parts.headers,
            body: serde_json::from_slice(&raw).unwrap_or(Value::Null),
            raw,
            status: None,
        });
        (inner.got.len() - 1, now)
    };
    let slack = path.starts_with("/api/");
    let mut refused = false;
    let response = match mood {
        Mood::Hangs => std::future::pending().await,
        Mood::Broken => StatusCode::BAD_GATEWAY.into_response(),
        Mood::Limited(_, seconds) => (
            StatusCode::TOO_MANY_REQUESTS,
            [("retry-after", seconds.to_string())],
            "{\"ok\":false,\"error\":\"ratelimited\"}",
        )
            .into_response(),
        Mood::Refuses(error) => {
            refused = true;
            axum::Json(json!({ "ok": false, "error": error })).into_response()
        }
        Mood::Well if path == "/api/users.lookupByEmail" => {
            let id = if query.contains("alice") { "UALICE" } else { "UOTHER" };
            axum::Json(json!({ "ok": true, "user": { "id": id, "tz": "America/New_York" } })).into_response()
        }
        Mood::Well if slack => axum::Json(json!({ "ok": true, "ts": "1" })).into_response(),
        Mood::Well => "ok".into_response(),
    };
    let status = if refused { 0 } else { response.status().as_u16() };
    receiver.inner.lock().unwrap().got[index].status = Some(status);
    response
}

const QUICK: &str = "digest = \"0s\"\nhealth_after = \"0s\"\nzone = \"Europe/Berlin\"\n";
const POST: &str = "/api/chat.postMessage";

fn bot(receiver: &Receiver) -> String {
    format!(
        "[notify.destination.slack]\nkind = \"slack-bot\"\ntoken = {{ file = \"key\" }}\nchannel = \"#ops\"\nbase_url = \"{}/api\"\n",
        receiver.url
    )
}

fn hook(receiver: &Receiver) -> String {
    format!(
        "[notify.destination.siem]\nkind = \"webhook\"\nurl = \"{}/hook\"\nkey = {{ file = \"key\" }}\n",
        receiver.url
    )
}

fn configure(site: &Site, notify: &str) {
    site.configure(|settings| settings.more.push_str(&format!("\n[notify]\n{QUICK}{notify}")));
}

/// alice hands over to bob in a moment.
fn hand_over(site: &Site) {
    let edge = from_now(3);
    site.shifts(&[("PALICE1", from_now(-3600), edge), ("PBOB002", edge, from_now(36_000))]);
}

/// alice is on call for hours.
async fn site(notify: &str) -> Site {
    let policy = PAYMENTS.replace("[project]", "[project]\nchannel = \"#payments\"\nzone = \"Asia/Tokyo\"");
    let site = Site::new(organisation(), &format!("{policy}{ADMIN_ON_CALL}")).await;
    site.shifts(&[("PALICE1", from_now(-3600), from_now(36_000))]);
    configure(&site, notify);
    site
}

fn text(got: &Got) -> String {
    got.body["text"].as_str().unwrap_or_default().to_owned() + &got.body["blocks"].to_string()
}

#[tokio::test]
async fn a_grant_is_told_to_the_person_and_the_hand_off_to_the_channel() {
    let slack = Receiver::start().await;
    let site = site(&bot(&slack)).await;
    let _daemon = site.ready_daemon().await;
    let direct = slack
        .until_taken(&site, POST, "the direct message", |got| got.body["channel"] == "UALICE")
        .await;
    let said = text(&direct);
    for words in [
        "You have payments/prod-admin until",
        "(America/New_York)",
        "being on call in pagerduty/PABC123",
        "context: PCI scope",
    ] {
        assert!(said.contains(words), "{words:?} is missing in {said}");
    }
    let lookup = &slack.asked("/api/users.lookupByEmail")[0];
    assert_eq!(lookup.query, "email=alice%40example.com");
    assert_eq!(direct.headers["authorization"], "Bearer test-key");
    let digest = slack
        .until_taken(&site, POST, "the digest", |got| {
            got.body["channel"] == "#payments" && text(got).contains("hand-off")
        })
        .await;
    let said = text(&digest);
    for words in [
        "payments: hand-off, 1 granted, 0 revoked",
        "+ alice@example.com until",
        "(Asia/Tokyo)",
    ] {
        assert!(said.contains(words), "{words:?} is missing in {said}");
    }
    let gap = slack
        .until_taken(&site, POST, "the gap", |got| {
            got.body["channel"] == "#payments" && text(got).contains("gap ahead")
        })
        .await;
    assert!(
        text(&gap).contains("nobody is on call in pagerduty/PABC123"),
        "{}",
        gap.body
    );
}

#[tokio::test]
async fn a_webhook_gets_signed_json() {
    let receiver = Receiver::start().await;
    let site = site(&hook(&receiver)).await;
    let _daemon = site.ready_daemon().await;
    let grant = receiver
        .until_taken(&site, "/hook", "the grant", |got| got.body["kind"] == "grant")
        .await;
    assert_eq!(
        (&grant.body["person"], &grant.body["project"]),
        (&json!(ALICE), &json!("payments"))
    );
    assert!(
        grant.body["text"]
            .as_str()
            .unwrap()
            .starts_with("alice@example.com has payments/prod-admin until ")
    );
    let stamp = grant.headers["x-dutybound-timestamp"].to_str().unwrap();
    let age = stamp.parse::<i64>().unwrap() - Timestamp::now().as_second();
    assert!((-600..=5).contains(&age), "{age}");
    let mut signed = format!("{stamp}.").into_bytes();
    signed.extend_from_slice(&grant.raw);
    let expected = format!("v1={}", hmac_by_hand(b"test-key", &signed));
    assert_eq!(grant.headers["x-dutybound-signature"].to_str().unwrap(), expected);
}

/// HMAC-SHA256 as RFC 2104 writes it, for keys of at most 64 bytes, so that the test does not ask the code it judges.
fn hmac_by_hand(key: &[u8], text: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    let pad = |with: u8| -> Vec<u8> { (0..64).map(|i| key.get(i).copied().unwrap_or(0) ^ with).collect() };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    let outer = Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize();
    outer.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_hand_off_does_not_wait_for_a_receiver_that_hangs_and_one_that_is_dead_holds_up_no_other() {
    let (hanging, well) = (Receiver::start().await, Receiver::start().await);
    hanging.mood("/hook", Mood::Hangs);
    let dead =
        "[notify.destination.dead]\nkind = \"webhook\"\nurl = \"http://127.0.0.1:9/hook\"\nkey = { file = \"key\" }\n";
    let site = site(&format!("{dead}{}{}", hook(&hanging), bot(&well))).await;
    let _daemon = site.ready_daemon().await;
    eventually("a message hangs", async || !hanging.asked("/hook").is_empty()).await;
    site.until_admin(ALICE, true).await;
    hand_over(&site);
    site.until_admin(BOB, true).await;
    site.until_admin(ALICE, false).await;
    assert!(hanging.taken("/hook").is_empty(), "nothing was answered all the time");
    well.until_taken(&site, POST, "bob's message", |got| got.body["channel"] == "UOTHER")
        .await;
    hanging.mood("/hook", Mood::Well);
    let revoked = hanging
        .until_taken(&site, "/hook", "the revoke", |got| got.body["kind"] == "revoke")
        .await;
    assert!(
        revoked.body["text"]
            .as_str()
            .unwrap()
            .starts_with("alice@example.com no longer has payments/prod-admin")
    );
    let kinds: Vec<Value> = hanging
        .taken("/hook")
        .iter()
        .map(|got| got.body["kind"].clone())
        .collect();
    let first = |kind: &str| kinds.iter().position(|k| k == kind);
    assert!(first("grant") < first("revoke"), "in order: {kinds:?}");
}

#[tokio::test]
async fn a_killed_daemon_delivers_what_waited_and_repeats_nothing() {
    let receiver = Receiver::start().await;
    receiver.mood("/hook", Mood::Broken);
    let site = site(&hook(&receiver)).await;
    let daemon = site.ready_daemon().await;
    eventually("a try failed", async || !receiver.asked("/hook").is_empty()).await;
    daemon.kill();
    assert!(receiver.taken("/hook").is_empty());
    receiver.mood("/hook", Mood::Well);
    let daemon = site.ready_daemon().await;
    receiver
        .until_taken(&site, "/hook", "the grant", |got| got.body["kind"] == "grant")
        .await;
    // A kill between the receiver's answer and the mark would rightly send it once more.
    eventually("what was taken is marked", async || {
        let delivered = daemon
            .metric("dutybound_notifications_total{destination=\"siem\",outcome=\"delivered\"}")
            .await;
        delivered == Some(receiver.taken("/hook").len() as f64)
    })
    .await;
    daemon.kill();
    let daemon = site.ready_daemon().await;
    site.until_polled("GET /schedules/PABC123").await;
    site.shifts(&[("PBOB002", from_now(-3600), from_now(36_000))]);
    receiver
        .until_taken(&site, "/hook", "the next grant", |got| got.body["person"] == BOB)
        .await;
    let log = daemon.term().await;
    let taken = receiver.taken("/hook");
    let ids: Vec<&Value> = taken.iter().map(|got| &got.body["id"]).collect();
    let grants = taken
        .iter()
        .filter(|got| got.body["kind"] == "grant" && got.body["person"] == ALICE)
        .count();
    assert_eq!(grants, 1, "{ids:?}\n{log}");
    assert_eq!(
        ids.iter().map(|id| id.to_string()).collect::<BTreeSet<_>>().len(),
        ids.len(),
        "{ids:?}"
    );
}

#[tokio::test]
async fn slack_is_asked_again_as_it_says_and_a_channel_that_is_missing_holds_up_nobody() {
    let slack = Receiver::start().await;
    slack.mood(POST, Mood::Limited(2, 1));
    let site = site(&bot(&slack)).await;
    let daemon = site.ready_daemon().await;
    slack
        .until_taken(&site, POST, "the direct message", |got| got.body["channel"] == "UALICE")
        .await;
    let tries: Vec<Option<u16>> = slack.asked(POST).iter().map(|got| got.status).collect();
    assert_eq!(tries[..2], [Some(429), Some(429)], "{tries:?}");
    eventually("the count is right", async || {
        daemon
            .metric("dutybound_notifications_total{destination=\"slack\",outcome=\"failed\"}")
            .await
            == Some(2.0)
    })
    .await;
    slack.mood(POST, Mood::Refuses("channel_not_found"));
    site.shifts(&[("PBOB002", from_now(-3600), from_now(36_000))]);
    daemon.until_says("channel_not_found").await;
    let before = slack.asked(POST).len();
    eventually("it was tried again", async || before + 2 < slack.asked(POST).len()).await;
    slack.mood(POST, Mood::Well);
    slack
        .until_taken(&site, POST, "bob's message", |got| got.body["channel"] == "UOTHER")
        .await;
    let log = daemon.term().await;
    let said = log
        .lines()
        .filter(|line| line.contains("channel_not_found") && line.contains("person:bob"))
        .count();
    assert_eq!(said, 1, "{log}");
    assert!(log.contains("invite the app"), "{log}");
}

#[tokio::test]
async fn trouble_and_holds_are_told_once_when_they_begin_and_once_when_they_are_over() {
    let receiver = Receiver::start().await;
    let site = site(&hook(&receiver)).await;
    let daemon = site.ready_daemon().await;
    receiver
        .until_taken(&site, "/hook", "the grant", |got| got.body["kind"] == "grant")
        .await;
    let policy = std::fs::read_to_string(site.path("access.d/project.toml")).unwrap();
    site.policy(
        "project.toml",
        format!("{policy}\n[[rule]]\nentitlement = \"<!channel> & *x*\"\n"),
    );
    let begun = receiver
        .until_taken(&site, "/hook", "the trouble", |got| got.body["kind"] == "health")
        .await;
    assert!(
        begun.body["text"]
            .as_str()
            .unwrap()
            .contains("an edit of the policy was refused"),
        "{}",
        begun.body
    );
    site.policy("project.toml", &policy);
    receiver
        .until_taken(&site, "/hook", "its end", |got| {
            got.body["kind"] == "health" && got.body["content"]["matters"]["over"] != json!([])
        })
        .await;
    let health = receiver
        .taken("/hook")
        .iter()
        .filter(|got| got.body["kind"] == "health")
        .count();
    assert_eq!(health, 2);
    drop(daemon);
}

#[tokio::test]
async fn what_owners_write_is_no_markup_in_slack() {
    let slack = Receiver::start().await;
    let site = site(&bot(&slack)).await;
    let policy = std::fs::read_to_string(site.path("access.d/project.toml")).unwrap();
    let hostile = r#"<!channel> <https://evil.example|here> & *bold* \u202e"#;
    site.policy(
        "project.toml",
        policy.replace("PCI scope: card data never leaves the account.", hostile),
    );
    let _daemon = site.ready_daemon().await;
    let direct = slack
        .until_taken(&site, POST, "the direct message", |got| got.body["channel"] == "UALICE")
        .await;
    let section = direct.body["blocks"][0]["text"]["text"].as_str().unwrap();
    assert!(
        section.contains("&lt;!channel&gt; &lt;https://evil.example|here&gt; &amp; ∗bold∗ \\u{202e}"),
        "{section}"
    );
    assert!(!section.contains('<') && !section.contains('\u{202e}'));
    assert_eq!(direct.body["blocks"][0]["text"]["verbatim"], true);
}

#[tokio::test]
async fn a_report_and_a_review_that_were_missed_are_made_up_for_once() {
    let receiver = Receiver::start().await;
    let jobs = "[[notify.review]]\ncron = \"0 0 1 1 *\"\ndirectory = \"out\"\n\
                [[notify.report]]\ncron = \"0 0 1 * *\"\ndirectory = \"out\"\nformats = [\"csv\", \"text\"]\n";
    let site = site(&format!("{}{jobs}", hook(&receiver))).await;
    let daemon = site.ready_daemon().await;
    receiver
        .until_taken(&site, "/hook", "the grant", |got| got.body["kind"] == "grant")
        .await;
    daemon.kill();
    // A kill before the queue has noted a delivery makes it again, under the same id: at least once.
    let kinds = |kind: &str| {
        let taken = receiver.taken("/hook");
        let of_kind = taken.iter().filter(|got| got.body["kind"] == kind);
        of_kind
            .map(|got| got.body["id"].to_string())
            .collect::<BTreeSet<_>>()
            .len()
    };
    assert_eq!(
        (kinds("report"), kinds("review")),
        (0, 0),
        "nothing was missed before it was asked for"
    );
    // As if the daemon had been down for two years.
    let outbox = Outbox::open(&site.path("ledger.db.outbox"), 10, SignedDuration::from_hours(24))
        .await
        .unwrap();
    let mut batch = Batch::default();
    for name in outbox
        .marks()
        .await
        .unwrap()
        .into_keys()
        .filter(|name| name.starts_with("re"))
    {
        batch.marks.insert(name, from_now(-2 * 365 * 86_400));
    }
    assert_eq!(batch.marks.len(), 2);
    outbox.write(&batch, Timestamp::now()).await.unwrap();
    drop(outbox);
    let daemon = site.ready_daemon().await;
    receiver
        .until_taken(&site, "/hook", "the report", |got| got.body["kind"] == "report")
        .await;
    let review = receiver
        .until_taken(&site, "/hook", "the review", |got| got.body["kind"] == "review")
        .await;
    assert_eq!(review.body["person"], "mira@example.com");
    assert!(
        review.body["content"]["review"]["markdown"]
            .as_str()
            .unwrap()
            .contains("To: mira@example.com")
    );
    daemon.kill();
    let daemon = site.ready_daemon().await;
    site.until_polled("GET /schedules/PABC123").await;
    drop(daemon);
    assert_eq!((kinds("report"), kinds("review")), (1, 1));
    let mut files: Vec<String> = std::fs::read_dir(site.path("out"))
        .unwrap()
        .map(|f| f.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let ends: Vec<&str> = files.iter().map(|f| f.rsplit('.').next().unwrap()).collect();
    assert_eq!(ends, ["csv", "txt", "md"], "{files:?}");
    assert!(files[2].contains("mira@example.com"), "{files:?}");
}

#[tokio::test]
async fn a_queue_that_cannot_be_opened_delays_no_grant() {
    let receiver = Receiver::start().await;
    let site = site(&hook(&receiver)).await;
    std::fs::create_dir(site.path("ledger.db.outbox")).unwrap();
    let daemon = site.ready_daemon().await;
    daemon.until_says("the queue of messages cannot be opened").await;
    site.until_admin(ALICE, true).await;
    hand_over(&site);
    site.until_admin(BOB, true).await;
    site.until_admin(ALICE, false).await;
    assert!(receiver.asked("/hook").is_empty());
}

#[tokio::test]
async fn an_incoming_webhook_tells_its_channel_about_its_projects_and_never_shows_its_url() {
    let slack = Receiver::start().await;
    slack.mood("/services/T0/B0/hunter2", Mood::Broken);
    let webhook = |name: &str, project: &str, secret: &str| {
        format!(
            "[notify.destination.{name}]\nkind = \"slack-webhook\"\nsecret_url = {{ file = \"{secret}\" }}\nprojects = [\"{project}\"]\n"
        )
    };
    let site = site(&(webhook("mine", "payments", "mine") + &webhook("other", "data", "other"))).await;
    site.secret("mine", &format!("{}/services/T0/B0/hunter2\n", slack.url));
    site.secret("other", &format!("{}/services/T0/B0/other\n", slack.url));
    let daemon = site.ready_daemon().await;
    daemon.until_says("messages wait; they are tried again").await;
    slack.mood("/services/T0/B0/hunter2", Mood::Well);
    let digest = slack
        .until_taken(&site, "/services/T0/B0/hunter2", "the digest", |got| {
            text(got).contains("hand-off")
        })
        .await;
    assert!(text(&digest).contains("+ alice@example.com until"), "{}", digest.body);
    let log = daemon.term().await;
    assert!(log.contains("messages are delivered again"), "{log}");
    assert!(!log.contains("hunter2"), "{log}");
    assert!(
        slack.asked("/services/T0/B0/other").is_empty(),
        "nothing concerns that project"
    );
}

#[tokio::test]
async fn a_held_change_is_told_when_it_is_held_and_when_it_is_released() {
    let receiver = Receiver::start().await;
    let protected = "\n[limits]\nprotected = [\"alice@example.com\"]\n";
    let site = site(&(hook(&receiver) + protected)).await;
    let daemon = site.ready_daemon().await;
    site.until_admin(ALICE, true).await;
    hand_over(&site);
    let held = receiver
        .until_taken(&site, "/hook", "the hold", |got| got.body["kind"] == "held")
        .await;
    let said = held.body["text"].as_str().unwrap();
    assert!(
        said.starts_with(
            "payments: 1 change held\nrevoking payments/prod-admin from alice@example.com is held by protected"
        ),
        "{said}"
    );
    configure(&site, &hook(&receiver));
    let over = |got: &Got| got.body["kind"] == "held" && got.body["content"]["matters"]["over"] != json!([]);
    receiver.until_taken(&site, "/hook", "the release", over).await;
    site.until_admin(ALICE, false).await;
    drop(daemon);
    let holds = receiver
        .taken("/hook")
        .iter()
        .filter(|got| got.body["kind"] == "held")
        .count();
    assert_eq!(holds, 2);
}
