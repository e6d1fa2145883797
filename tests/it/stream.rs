//! Events reach every kind of receiver, whatever happens to it or to the daemon, and no hand-off waits for one.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use dutybound::ledger::{Head, Ledger};
use dutybound::signing;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, UdpSocket, UnixDatagram};
use tokio::sync::Notify;

use crate::harness::*;

/// How a collector answers the next request. With nothing left it takes everything.
#[derive(Clone, Copy)]
enum Answer {
    Status(u16),
    RetryAfter(u16, &'static str),
    /// A redirect to itself.
    Redirect,
    /// Takes the batch, and never answers.
    Silence,
}

#[derive(Clone)]
struct Request {
    headers: HeaderMap,
    body: String,
    taken: bool,
}

impl Request {
    fn lines(&self) -> Vec<Value> {
        match serde_json::from_str(&self.body) {
            Ok(Value::Array(lines)) => lines,
            _ => lines(&self.body),
        }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap().to_str().unwrap()
    }
}

/// A collector over HTTP.
#[derive(Clone, Default)]
struct Collector {
    script: Arc<Mutex<VecDeque<Answer>>>,
    always: Arc<Mutex<Option<Answer>>>,
    requests: Arc<Mutex<Vec<Request>>>,
    news: Arc<Notify>,
}

impl Collector {
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/events", listener.local_addr().unwrap());
        let router = axum::Router::new().fallback(take).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        url
    }

    fn will(&self, answers: &[Answer]) {
        self.script.lock().unwrap().extend(answers);
    }

    fn always(&self, answer: Option<Answer>) {
        *self.always.lock().unwrap() = answer;
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// All that was confirmed, in the order in which it came.
    fn taken(&self) -> Vec<Value> {
        let requests = self.requests();
        requests
            .iter()
            .filter(|request| request.taken)
            .flat_map(Request::lines)
            .collect()
    }

    async fn until_requests(&self, count: usize) {
        eventually("the collector was asked", async || count <= self.requests().len()).await;
    }
}

async fn take(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> Response {
    let next = collector.script.lock().unwrap().pop_front();
    let answer = next
        .or(*collector.always.lock().unwrap())
        .unwrap_or(Answer::Status(204));
    let taken = matches!(answer, Answer::Status(200..=299));
    collector.requests.lock().unwrap().push(Request {
        headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
        taken,
    });
    collector.news.notify_waiters();
    let status = |code| StatusCode::from_u16(code).unwrap();
    match answer {
        Answer::Status(code) => status(code).into_response(),
        Answer::RetryAfter(code, after) => (status(code), [("retry-after", after)]).into_response(),
        Answer::Redirect => (StatusCode::TEMPORARY_REDIRECT, [("location", "/elsewhere")]).into_response(),
        Answer::Silence => std::future::pending().await,
    }
}

fn lines(text: &str) -> Vec<Value> {
    let read = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
    text.lines().map(read).collect()
}

/// An installation with alice on call and this sink.
async fn site_with(sink: &str) -> Site {
    let site = Site::payments().await;
    sink_of(&site, sink);
    site
}

fn sink_of(site: &Site, sink: &str) {
    site.secret("token", "t0ken\n");
    site.secret("signing", "k3y\n");
    site.configure(|settings| settings.more.push_str(&format!("[[sink]]\nname = \"siem\"\n{sink}\n")));
}

async fn head(site: &Site) -> Head {
    let ledger = Ledger::open_read_only(&site.path("ledger.db"), "test").await.unwrap();
    ledger.head().await.unwrap().unwrap()
}

fn is_event(line: &Value) -> bool {
    !["head", "stream_gap", "stream_restarted"].contains(&line["kind"].as_str().unwrap())
}

/// The numbers of the events, each once.
fn numbers(lines: &[Value]) -> BTreeSet<i64> {
    let events = lines.iter().filter(|line| is_event(line));
    events.map(|line| line["seq"].as_i64().unwrap()).collect()
}

/// Waits until everything that is on record has come, and checks that nothing is missing.
async fn complete(site: &Site, lines: impl Fn() -> Vec<Value>) -> Vec<Value> {
    eventually("every event has come", async || {
        let last = head(site).await.seq;
        numbers(&lines()).last() == Some(&last)
    })
    .await;
    let lines = lines();
    let numbers = numbers(&lines);
    assert!(
        numbers.iter().copied().eq(1..=*numbers.last().unwrap()),
        "not without gaps: {numbers:?}"
    );
    lines
}

async fn hand_off(site: &Site) {
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.until_admin(BOB, true).await;
    site.until_admin(ALICE, false).await;
}

#[tokio::test]
async fn a_collector_gets_every_event_in_order_signed_and_with_the_head() {
    let collector = Collector::default();
    let url = collector.start().await;
    let site = site_with(&format!(
        "kind = \"http\"\nurl = \"{url}\"\ntoken = {{ file = \"token\" }}\nsigning_key = {{ file = \"signing\" }}\n\
         header = {{ name = \"X-Api-Key\", value = {{ file = \"token\" }} }}"
    ))
    .await;
    let daemon = site.ready_daemon().await;
    hand_off(&site).await;
    complete(&site, || collector.taken()).await;
    eventually("the lag is nothing", async || {
        daemon.metric("dutybound_sink_lag_events{sink=\"siem\"}").await == Some(0.0)
    })
    .await;
    assert_eq!(
        daemon.metric("dutybound_sink_failures_total{sink=\"siem\"}").await,
        Some(0.0)
    );
    let log = daemon.term().await;
    assert!(!log.contains("t0ken") && !log.contains("k3y"), "{log}");
    let taken = collector.taken();
    let seqs: Vec<i64> = taken
        .iter()
        .filter(|line| is_event(line))
        .map(|l| l["seq"].as_i64().unwrap())
        .collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "each once and in order: {seqs:?}");
    let last = taken.last().unwrap();
    let head = head(&site).await;
    assert_eq!(last["kind"], "head", "one is sent at the end");
    assert_eq!(
        (&last["hash"], &last["seq"]),
        (&head.hash.as_str().into(), &head.seq.into())
    );
    assert_eq!(last["ledger"], head.ledger.unwrap());

    // What is streamed is what is exported.
    let exported = site
        .run(&["audit", "export", "--from", "2020-01-01T00:00:00Z", "--format", "jsonl"])
        .await
        .expect(0);
    let hashes = |lines: &[Value]| -> Vec<Value> {
        lines
            .iter()
            .filter(|line| is_event(line))
            .map(|line| line["hash"].clone())
            .collect()
    };
    assert_eq!(hashes(&lines(&exported.stdout)), hashes(&taken));
    for request in collector.requests() {
        assert_eq!(request.header("authorization"), "Bearer t0ken");
        assert_eq!(request.header("x-api-key"), "t0ken");
        assert_eq!(request.header("content-type"), "application/x-ndjson");
        let at: i64 = request.header(signing::TIMESTAMP_HEADER).parse().unwrap();
        let key = "k3y".into();
        let signed = signing::sign(&key, Timestamp::from_second(at).unwrap(), request.body.as_bytes()).unwrap();
        assert_eq!(request.header(signing::SIGNATURE_HEADER), signed.signature);
    }
    let keys: BTreeSet<_> = collector
        .requests()
        .iter()
        .map(|r| r.header("idempotency-key").to_owned())
        .collect();
    assert_eq!(keys.len(), collector.requests().len());
}

#[tokio::test]
async fn a_failing_collector_is_asked_again_with_the_same_key_and_misses_nothing() {
    let collector = Collector::default();
    let url = collector.start().await;
    collector.will(&[Answer::Status(503), Answer::RetryAfter(429, "1"), Answer::Status(413)]);
    let site = site_with(&format!("kind = \"http\"\nurl = \"{url}\"\nbody = \"array\"")).await;
    let daemon = site.ready_daemon().await;
    let taken = complete(&site, || collector.taken()).await;
    assert!(taken.iter().all(|line| line["hash"].as_str().unwrap().len() == 64));
    let requests = collector.requests();
    assert_eq!(requests[0].header("content-type"), "application/json");
    for again in &requests[1..3] {
        assert_eq!(again.header("idempotency-key"), requests[0].header("idempotency-key"));
        assert_eq!(again.body, requests[0].body);
    }
    assert!(requests[3].body.len() < requests[0].body.len(), "smaller after 413");
    assert_ne!(
        requests[3].header("idempotency-key"),
        requests[0].header("idempotency-key")
    );
    assert_eq!(
        daemon.metric("dutybound_sink_failures_total{sink=\"siem\"}").await,
        Some(3.0)
    );
    let log = daemon.term().await;
    assert_eq!(log.matches("events cannot be sent").count(), 1, "{log}");
    assert_eq!(log.matches("the sink takes events again").count(), 1, "{log}");
}

#[tokio::test]
async fn a_refusal_is_said_loudly_and_loses_nothing() {
    for (answer, words) in [
        (Answer::Status(401), "401"),
        (Answer::Redirect, "redirects are not followed"),
    ] {
        let collector = Collector::default();
        let url = collector.start().await;
        collector.always(Some(answer));
        let site = site_with(&format!("kind = \"http\"\nurl = \"{url}\"")).await;
        let daemon = site.ready_daemon().await;
        daemon.until_says("the sink refuses events").await;
        assert!(daemon.log().contains(words), "{}", daemon.log());
        hand_off(&site).await;
        let lag = daemon.metric("dutybound_sink_lag_events{sink=\"siem\"}").await;
        assert!(lag.is_some_and(|lag| 0.0 < lag), "{lag:?}");
        daemon.term().await;
        assert_eq!(collector.requests().len(), 1, "asked again seldom");
        assert!(!collector.requests()[0].headers.contains_key("authorization"));
        collector.always(None);
        let _daemon = site.ready_daemon().await;
        complete(&site, || collector.taken()).await;
    }
}

#[tokio::test]
async fn killed_before_the_answer_it_sends_again_and_leaves_no_gap() {
    let collector = Collector::default();
    let url = collector.start().await;
    let site = site_with(&format!("kind = \"http\"\nurl = \"{url}\"\ntimeout = \"2m\"")).await;
    let daemon = site.ready_daemon().await;
    complete(&site, || collector.taken()).await;
    // What comes now arrives, but the daemon never hears of it.
    let before = collector.requests().len();
    collector.always(Some(Answer::Silence));
    hand_off(&site).await;
    collector.until_requests(before + 1).await;
    daemon.kill();
    let unanswered = collector.requests()[before].lines();
    let (confirmed, unanswered) = (numbers(&collector.taken()), numbers(&unanswered));
    assert!(!unanswered.is_empty() && confirmed.is_disjoint(&unanswered));
    collector.always(None);
    let _daemon = site.ready_daemon().await;
    let taken = complete(&site, || collector.taken()).await;
    assert!(unanswered.is_subset(&numbers(&taken)), "sent again");
    let again = collector.requests()[before + 1..]
        .iter()
        .flat_map(Request::lines)
        .collect::<Vec<_>>();
    assert!(
        confirmed.is_disjoint(&numbers(&again)),
        "what was confirmed is not sent again"
    );
    site.run(&["audit", "verify"]).await.expect(0);
}

#[tokio::test]
async fn a_hand_off_waits_for_no_collector() {
    // One that takes connections and never answers, one where nobody listens, a directory for a file, no socket.
    let silent = Collector::default();
    silent.always(Some(Answer::Silence));
    let url = silent.start().await;
    // Bound for as long as it must refuse, so that no other test listens there.
    let reserved = tokio::net::TcpSocket::new_v4().unwrap();
    reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = reserved.local_addr().unwrap();
    let site = Site::payments().await;
    site.configure(|settings| {
        settings.more.push_str(&format!(
            "[[sink]]\nname = \"silent\"\nkind = \"http\"\nurl = \"{url}\"\ntimeout = \"2m\"\n\
             [[sink]]\nname = \"nobody\"\nkind = \"http\"\nurl = \"http://{nobody}/\"\n\
             [[sink]]\nname = \"tcp\"\nkind = \"syslog\"\nto = \"tcp://{nobody}\"\n\
             [[sink]]\nname = \"folder\"\nkind = \"file\"\npath = \"access.d\"\n\
             [[sink]]\nname = \"unix\"\nkind = \"syslog\"\nto = \"unix:///nowhere/log\"\n"
        ));
    });
    let daemon = site.ready_daemon().await;
    silent.until_requests(1).await;
    for sink in ["nobody", "tcp", "folder", "unix"] {
        daemon.until_says(&format!("\"sink\":\"{sink}\"")).await;
    }
    let boundary = from_now(5);
    site.shifts(&[
        ("PALICE1", from_now(-3600), boundary),
        ("PBOB002", boundary, from_now(3600)),
    ]);
    site.until_admin(BOB, true).await;
    site.until_admin(ALICE, false).await;
    let intervals = site.intervals().await;
    let begun = intervals.iter().find(|row| row.person.to_string() == BOB);
    assert!(boundary <= begun.unwrap().granted_at);
    let last = head(&site).await.seq;
    for sink in ["silent", "nobody", "tcp", "folder", "unix"] {
        eventually(&format!("{sink} lags"), async || {
            let lag = daemon
                .metric(&format!("dutybound_sink_lag_events{{sink=\"{sink}\"}}"))
                .await;
            lag.is_some_and(|lag| f64::from(i32::try_from(last).unwrap()) <= lag)
        })
        .await;
        let age = daemon
            .metric(&format!("dutybound_sink_lag_seconds{{sink=\"{sink}\"}}"))
            .await;
        assert!(age.is_some_and(|age| 0.0 < age), "{sink}: {age:?}");
    }
    let log = daemon.term().await;
    for sink in ["nobody", "tcp", "folder", "unix"] {
        let said = log
            .lines()
            .filter(|l| l.contains("events cannot be sent") && l.contains(&format!("\"{sink}\"")));
        assert_eq!(said.count(), 1, "{sink} is told of once:\n{log}");
    }
    site.run(&["audit", "verify"]).await.expect(0).says(&["Intact"]);
}

#[tokio::test]
async fn a_file_may_be_rotated_in_any_way() {
    let site = site_with("kind = \"file\"\npath = \"events.jsonl\"").await;
    let path = site.path("events.jsonl");
    let all = || {
        let read = |name| fs::read_to_string(site.path(name)).unwrap_or_default();
        ["events.1", "events.2", "events.jsonl"]
            .into_iter()
            .flat_map(|name| lines(&read(name)))
            .collect()
    };
    let daemon = site.ready_daemon().await;
    complete(&site, all).await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    fs::rename(&path, site.path("events.1")).unwrap();
    hand_off(&site).await;
    complete(&site, all).await;
    // Copied and cut to nothing.
    fs::copy(&path, site.path("events.2")).unwrap();
    fs::OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
    site.run(&["revoke", "--person", BOB, "--reason", "lost laptop"])
        .await
        .expect(0);
    complete(&site, all).await;
    daemon.kill();
    // A power cut in the midst of a line.
    let torn = fs::read_to_string(&path).unwrap() + "{\"seq\":1,\"ti";
    fs::write(&path, torn).unwrap();
    site.run(&["revoke", "--person", BOB, "--lift"]).await.expect(0);
    let _daemon = site.ready_daemon().await;
    complete(&site, all).await;
}

/// Splits what came over TCP by the octet counts, RFC 6587.
fn counted(mut bytes: &[u8]) -> Vec<String> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ').unwrap();
        let length: usize = std::str::from_utf8(&bytes[..space]).unwrap().parse().unwrap();
        let message = &bytes[space + 1..space + 1 + length];
        messages.push(String::from_utf8(message.to_vec()).unwrap());
        bytes = &bytes[space + 1 + length..];
    }
    messages
}

/// A message's header fields, structured data and text, read as RFC 5424 says.
#[derive(Debug)]
struct Message {
    header: Vec<String>,
    data: Vec<(String, String)>,
    text: String,
}

fn parse(message: &str) -> Message {
    let mut parts = message.splitn(7, ' ');
    let header: Vec<String> = parts.by_ref().take(6).map(str::to_owned).collect();
    let rest = parts.next().unwrap();
    let Some(mut rest) = rest.strip_prefix("[dutybound@32473") else {
        let text = rest.strip_prefix("- ").unwrap().to_owned();
        return Message {
            header,
            data: Vec::new(),
            text,
        };
    };
    let mut data = Vec::new();
    while let Some(pair) = rest.strip_prefix(' ') {
        let (name, value) = pair.split_once("=\"").unwrap();
        let mut out = String::new();
        let mut chars = value.char_indices();
        let end = loop {
            match chars.next().unwrap() {
                (_, '\\') => out.push(chars.next().unwrap().1),
                (at, '"') => break at,
                (_, ']') => panic!("a bracket that is not escaped: {message}"),
                (_, c) => out.push(c),
            }
        };
        data.push((name.to_owned(), out));
        rest = &value[end + 1..];
    }
    let text = rest.strip_prefix("] \u{feff}").unwrap().to_owned();
    Message { header, data, text }
}

impl Message {
    fn get(&self, name: &str) -> Option<&str> {
        self.data
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }

    /// As a line of JSON would have it.
    fn line(&self) -> Value {
        let seq: i64 = self.get("seq").unwrap().parse().unwrap();
        serde_json::json!({ "seq": seq, "kind": self.header[5], "hash": self.get("hash") })
    }
}

#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<String>>>);

impl Received {
    fn messages(&self) -> Vec<Message> {
        self.0.lock().unwrap().iter().map(|message| parse(message)).collect()
    }

    fn lines(&self) -> Vec<Value> {
        self.messages().iter().map(Message::line).collect()
    }
}

#[tokio::test]
async fn syslog_over_tcp_survives_hostile_text() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let received = Received::default();
    let all = received.clone();
    tokio::spawn(async move {
        // One that hangs up at once, and one that breaks off.
        drop(listener.accept().await.unwrap());
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 100]).await.unwrap();
        drop(stream);
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.unwrap();
            all.0.lock().unwrap().extend(counted(&bytes));
        }
    });
    let site = site_with(&format!(
        "kind = \"syslog\"\nto = \"tcp://{address}\"\nfacility = \"audit\""
    ))
    .await;
    let daemon = site.ready_daemon().await;
    let evil = "\"] <34>1 - evil\n<0>1 \\ \u{202e}\u{1b}[2J ]]\"\\";
    site.run(&["revoke", "--person", BOB, "--reason", evil]).await.expect(0);
    hand_off_to_nobody(&site).await;
    complete(&site, || received.lines()).await;
    daemon.term().await;
    let messages = received.messages();
    for message in &messages {
        assert!(
            message.header[0] == "<110>1" || message.header[0] == "<109>1",
            "{message:?}"
        );
        let at: Timestamp = message.header[1].parse().unwrap();
        assert_eq!(message.header[1].len(), "2026-01-01T00:00:00.000Z".len());
        assert!(at.duration_until(Timestamp::now()) < SignedDuration::from_hours(1));
        assert_eq!(message.header[3], "dutybound");
        let whole = format!("{message:?}");
        assert!(!message.text.contains(char::is_control), "{whole}");
        assert!(
            message.data.iter().all(|(_, value)| !value.contains(char::is_control)),
            "{whole}"
        );
    }
    let order = messages
        .iter()
        .find(|message| message.header[5] == "order_given")
        .unwrap();
    assert_eq!(order.get("person"), Some(BOB));
    let reason = order.get("reason").unwrap();
    assert!(
        reason.starts_with("\"] <34>1 - evil") && reason.ends_with("]]\"\\"),
        "{reason}"
    );
    let ended = messages
        .iter()
        .find(|message| message.header[5] == "access_ended")
        .unwrap();
    assert_eq!(ended.get("entitlement").map(|e| e.starts_with("payments/")), Some(true));
    assert_eq!(messages.last().unwrap().header[5], "head");
    site.run(&["audit", "verify"]).await.expect(0);
}

/// Alice's shift ends, and nobody follows.
async fn hand_off_to_nobody(site: &Site) {
    site.shifts(&[("PALICE1", from_now(-7200), from_now(-60))]);
    site.until_admin(ALICE, false).await;
}

#[tokio::test]
async fn syslog_by_datagram_reaches_network_and_socket() {
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    let site = Site::payments().await;
    let path = site.path("log.sock");
    let unix = UnixDatagram::bind(&path).unwrap();
    let (by_udp, by_unix) = (Received::default(), Received::default());
    let (all, also) = (by_udp.clone(), by_unix.clone());
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        loop {
            let length = udp.recv(&mut buffer).await.unwrap();
            all.0
                .lock()
                .unwrap()
                .push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        loop {
            let length = unix.recv(&mut buffer).await.unwrap();
            also.0
                .lock()
                .unwrap()
                .push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
    });
    site.configure(|settings| {
        settings.more.push_str(&format!(
            "[[sink]]\nname = \"udp\"\nkind = \"syslog\"\nto = \"udp://{address}\"\nformat = \"jsonl\"\n\
             [[sink]]\nname = \"unix\"\nkind = \"syslog\"\nto = \"unix://{}\"\n",
            path.display()
        ));
    });
    let _daemon = site.ready_daemon().await;
    hand_off(&site).await;
    complete(&site, || by_unix.lines()).await;
    let json = || {
        by_udp
            .messages()
            .iter()
            .flat_map(|message| lines(&message.text))
            .collect()
    };
    complete(&site, json).await;
}

#[tokio::test]
async fn ocsf_has_access_and_the_head() {
    let site = site_with("kind = \"file\"\npath = \"events.ocsf\"\nformat = \"ocsf\"").await;
    let daemon = site.ready_daemon().await;
    hand_off(&site).await;
    eventually("the sink has all", async || {
        daemon.metric("dutybound_sink_lag_events{sink=\"siem\"}").await == Some(0.0)
    })
    .await;
    daemon.term().await;
    let streamed = lines(&fs::read_to_string(site.path("events.ocsf")).unwrap());
    let (heads, events): (Vec<Value>, Vec<Value>) = streamed.into_iter().partition(|line| line["class_uid"] == 0);
    let exported = site
        .run(&["audit", "export", "--from", "2020-01-01T00:00:00Z", "--format", "ocsf"])
        .await
        .expect(0);
    assert_eq!(events, lines(&exported.stdout));
    let last = heads.last().unwrap();
    assert_eq!(last["metadata"]["event_code"], "head");
    assert_eq!(last["unmapped"]["hash"], head(&site).await.hash);
    if let Some(schema) = crate::audit::ocsf::Schema::load() {
        schema.check("base_event", last, "head");
    }
}

#[tokio::test]
async fn what_retention_removed_is_told_as_a_gap_and_another_chain_as_a_new_beginning() {
    let site = site_with("kind = \"file\"\npath = \"events.jsonl\"").await;
    let read = || lines(&fs::read_to_string(site.path("events.jsonl")).unwrap_or_default());
    let daemon = site.ready_daemon().await;
    complete(&site, read).await;
    daemon.term().await;
    let cursor = fs::read_to_string(site.path("ledger.db.sink-siem")).unwrap();
    let sent: Value = serde_json::from_str(&cursor).unwrap();
    let sent = sent["seq"].as_i64().unwrap();
    sink_of(&site, "kind = \"file\"\npath = \"other.jsonl\"");
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.run(&["apply"]).await.expect(0);
    // All events are too old then, and the last one stays because the chain goes on from it.
    let gone = head(&site).await.seq - 1;
    let later = Timestamp::now() + SignedDuration::from_hours(72);
    let ledger = Ledger::open(&site.path("ledger.db"), "test", Timestamp::now())
        .await
        .unwrap();
    ledger.remove_before(later, later).await.unwrap().unwrap();
    ledger.close().await;

    let other = || lines(&fs::read_to_string(site.path("other.jsonl")).unwrap_or_default());
    let daemon = site.ready_daemon().await;
    eventually("the rest has come", async || {
        numbers(&other()).last() == Some(&head(&site).await.seq)
    })
    .await;
    let first = &other()[0];
    assert_eq!(
        (&first["kind"], &first["seq"]),
        (&"stream_gap".into(), &sent.into()),
        "{first}, after {cursor}, in {:?}",
        head(&site).await.ledger
    );
    assert_eq!(first["events"], gone - sent);
    assert_eq!(numbers(&other()).first(), Some(&(gone + 1)));
    let lost = daemon.metric("dutybound_sink_lost_events_total{sink=\"siem\"}").await;
    assert_eq!(lost.map(|lost| lost.to_string()), Some((gone - sent).to_string()));
    daemon.term().await;

    // Somebody deletes what was not sent yet.
    for reason in ["one", "two"] {
        site.run(&["revoke", "--person", BOB, "--reason", reason])
            .await
            .expect(0);
        site.run(&["revoke", "--person", BOB, "--lift"]).await.expect(0);
    }
    let options = SqliteConnectOptions::new().filename(site.path("ledger.db"));
    let database = SqlitePool::connect_with(options).await.unwrap();
    sqlx::query("DROP TRIGGER event_stays")
        .execute(&database)
        .await
        .unwrap();
    sqlx::query("DELETE FROM event WHERE seq = (SELECT MAX(seq) - 1 FROM event)")
        .execute(&database)
        .await
        .unwrap();
    database.close().await;
    let daemon = site.ready_daemon().await;
    daemon.until_says("are missing in the ledger").await;
    eventually("the rest has come", async || {
        numbers(&other()).last() == Some(&head(&site).await.seq)
    })
    .await;
    let gaps: Vec<Value> = other()
        .into_iter()
        .filter(|line| line["kind"] == "stream_gap")
        .collect();
    assert_eq!((gaps.len(), &gaps[1]["events"]), (2, &1.into()));
    daemon.term().await;

    // A cursor that knows of an event which the ledger has not.
    let last = head(&site).await;
    let beyond = serde_json::json!({ "ledger": last.ledger, "seq": last.seq, "hash": "00".repeat(32) });
    fs::write(site.path("ledger.db.sink-siem"), beyond.to_string()).unwrap();
    let before = other().len();
    let _daemon = site.ready_daemon().await;
    eventually("all has come again", async || {
        numbers(&other()[before..]).last() == Some(&head(&site).await.seq)
    })
    .await;
    let again = &other()[before..];
    assert_eq!(again[0]["kind"], "stream_restarted");
    assert_eq!(numbers(again).first(), Some(&(gone + 1)));
}
