use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use async_trait::async_trait;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::accounting::fixtures::{policy, t};
use crate::config::Mode;
use crate::telemetry::ApiCalls;

/// A clock that tests set.
struct SetClock(Mutex<Timestamp>);

#[async_trait]
impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    async fn sleep(&self, _duration: Duration) {
        std::future::pending().await
    }
}

struct Server {
    address: SocketAddr,
    clock: Arc<SetClock>,
    health: Arc<Health>,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<io::Result<()>>,
    _dir: TempDir,
}

async fn start(bind: &str) -> Server {
    start_with(bind, None).await
}

async fn start_with(bind: &str, token: Option<&str>) -> Server {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("ledger.sqlite");
    let source = SourceName("pagerduty".into());
    let clock = Arc::new(SetClock(Mutex::new(t(0))));
    let (poll, operation) = (SignedDuration::from_secs(60), Duration::from_secs(120));
    let health = Arc::new(Health::new([source], poll, operation, t(0)));
    let in_use = InUse {
        policy: Arc::new(policy(Vec::new())),
        identities: Vec::new(),
        max_staleness: SignedDuration::from_hours(24),
        policy_refused: false,
    };
    let site = Site {
        metrics: Arc::new(Metrics::new(&ApiCalls::new().unwrap(), "1.2.3", Mode::Sync).unwrap()),
        health: Arc::clone(&health),
        ledger: Ledger::open(&path, "test", t(0)).await.unwrap(),
        ledger_path: path,
        snapshots: Arc::default(),
        in_use: watch::channel(Arc::new(in_use)).1,
        clock: clock.clone(),
        token: token.map(|token| SecretString::from(token.to_owned())),
    };
    let listener = TcpListener::bind(bind).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let ended = tokio::spawn(serve(listener, site, async move {
        // An error means that the test is over, which is as good a reason to stop.
        drop(stopped.await);
    }));
    Server {
        address,
        clock,
        health,
        stop,
        ended,
        _dir: dir,
    }
}

/// Sends bytes and returns everything that comes back.
async fn send(address: SocketAddr, request: String) -> String {
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    answer.await.unwrap()
}

async fn ask(address: SocketAddr, method: &str, path: &str, host: &str) -> (u16, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let answer = send(address, request).await;
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

#[tokio::test]
async fn a_scraper_that_asks_for_openmetrics_gets_it_whole() {
    let server = start("127.0.0.1:0").await;
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let request = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    let answer = send(server.address, request).await.to_ascii_lowercase();
    assert!(
        answer.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{answer}"
    );
    assert!(
        answer.contains("vary: accept") && answer.contains("# type dutybound_access_seconds counter"),
        "{answer}"
    );
    assert!(answer.contains("# eof\n"), "{answer}");
}

#[tokio::test]
async fn metrics_come_in_prometheus_text_format_and_carry_the_protective_headers() {
    let server = start("127.0.0.1:0").await;
    let (status, answer) = ask(server.address, "GET", "/metrics", "localhost:9464").await;
    assert_eq!(status, 200);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    assert!(
        head.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{head}"
    );
    assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    assert!(head.contains("cache-control: no-store"), "{head}");
    assert!(!head.contains("access-control-"), "{head}");
    assert!(body.contains("dutybound_build_info{version=\"1.2.3\"} 1"), "{body}");
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let server = start("127.0.0.1:0").await;
    for path in ["/metrics/", "/healthz/x", "/favicon.ico", "//metrics", "/../metrics"] {
        let (status, answer) = ask(server.address, "GET", path, "localhost").await;
        assert_eq!(status, 404, "{path}: {answer}");
        assert!(answer.to_ascii_lowercase().contains("nosniff"), "{answer}");
    }
    for path in ["/metrics", "/healthz", "/readyz"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
            let (status, answer) = ask(server.address, method, path, "localhost").await;
            assert_eq!(status, 405, "{method} {path}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_loopback_listener_answers_under_no_other_name() {
    let server = start("127.0.0.1:0").await;
    for host in [
        "localhost",
        "LOCALHOST:1",
        "127.0.0.1:9464",
        "127.8.9.1",
        "[::1]:80",
        "[::ffff:127.0.0.1]",
    ] {
        assert_eq!(ask(server.address, "GET", "/healthz", host).await.0, 200, "{host}");
    }
    for host in [
        "evil.example",
        "evil.example:9464",
        "localhost.evil.example",
        "10.0.0.1",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "user@localhost",
        "",
    ] {
        let (status, answer) = ask(server.address, "GET", "/metrics", host).await;
        assert!(matches!(status, 400 | 403), "{host}: {answer}");
        assert!(!answer.contains("dutybound_"), "{host}: {answer}");
    }
    for request in [
        "GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
        "GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ] {
        let answer = send(server.address, request.to_owned()).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{request}: {answer}");
    }
}

#[tokio::test]
async fn a_listener_that_the_operator_opened_to_others_answers_under_any_name() {
    let server = start("0.0.0.0:0").await;
    let address = SocketAddr::from(([127, 0, 0, 1], server.address.port()));
    assert_eq!(ask(address, "GET", "/healthz", "metrics.internal:9464").await.0, 200);
}

#[tokio::test]
async fn healthz_fails_once_no_pass_has_ended_for_three_polls_and_an_operation() {
    let server = start("127.0.0.1:0").await;
    let status_at = async |second| {
        *server.clock.0.lock().unwrap() = t(second);
        ask(server.address, "GET", "/healthz", "localhost").await
    };
    assert_eq!(status_at(300).await.0, 200, "the first pass may take as long");
    let (status, answer) = status_at(301).await;
    assert_eq!(status, 503);
    assert!(answer.contains("no pass has ended since the start at"), "{answer}");
    server.health.pass_ended(false, t(400));
    assert_eq!(status_at(700).await.0, 200, "a failed pass is a sign of life");
    assert_eq!(status_at(701).await.0, 503);
}

#[tokio::test]
async fn readyz_says_what_is_missing() {
    let server = start("127.0.0.1:0").await;
    let (status, answer) = ask(server.address, "GET", "/readyz", "localhost").await;
    assert_eq!(status, 503);
    assert!(
        answer.contains("no pass has been completed yet\nno schedule of pagerduty has been asked for yet"),
        "{answer}"
    );
    server.health.pass_ended(false, t(1));
    server.health.source_read(&SourceName("pagerduty".into()));
    let (status, answer) = ask(server.address, "GET", "/readyz", "localhost").await;
    assert_eq!(status, 503);
    assert!(answer.contains("no pass") && !answer.contains("pagerduty"), "{answer}");
    server.health.pass_ended(true, t(2));
    server.health.pass_ended(false, t(3));
    assert_eq!(
        ask(server.address, "GET", "/readyz", "localhost").await.0,
        200,
        "ready stays ready"
    );
}

#[tokio::test]
async fn serving_ends_when_it_is_told_to() {
    let server = start("127.0.0.1:0").await;
    assert_eq!(ask(server.address, "GET", "/healthz", "localhost").await.0, 200);
    server.stop.send(()).unwrap();
    server.ended.await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).is_err(), "the port is free again");
}

#[tokio::test]
async fn a_listener_with_a_token_answers_nobody_without_it() {
    use base64::Engine as _;
    let token = "0123456789abcdef0123";
    let server = start_with("127.0.0.1:0", Some(token)).await;
    let basic = |pair: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    let with = async |path: &str, lines: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}Connection: close\r\n\r\n");
        send(server.address, request).await
    };
    for given in [
        format!("Bearer {token}"),
        basic(&format!("anybody:{token}")),
        basic(&format!(":{token}")),
    ] {
        for path in ["/", "/metrics", "/style.css"] {
            let answer = with(path, &format!("Authorization: {given}\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{path} {given}: {answer}");
        }
    }
    for lines in [
        String::new(),
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization: Bearer 0123456789abcdef012\r\n".to_owned(),
        format!("Authorization: Token {token}\r\n"),
        format!("Authorization: {}\r\n", basic(token)),
        format!("Authorization: {}\r\n", basic(&format!("{token}:"))),
        format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n"),
    ] {
        for path in ["/", "/metrics", "/project/payments", "/nowhere", "/app.js"] {
            let answer = with(path, &lines).await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{path} {lines}: {answer}");
            let answer = answer.to_ascii_lowercase();
            assert!(
                answer.contains("www-authenticate: basic realm=") && !answer.contains("payments"),
                "{answer}"
            );
        }
    }
    assert!(with("/healthz", "").await.starts_with("HTTP/1.1 200 "));
    assert!(with("/readyz", "").await.starts_with("HTTP/1.1 503 "));
}

#[tokio::test]
async fn pages_come_with_a_policy_that_lets_nothing_in() {
    let server = start("127.0.0.1:0").await;
    for (path, expected) in [
        ("/", 200),
        ("/project/payments", 200),
        ("/person/alice%40example.com", 200),
        ("/project/%3Cscript%3Ealert(1)%3C%2Fscript%3E", 404),
        ("/person/eve%40example.com%3Cb%3E", 404),
        ("/person/..%2F..%2Fmetrics", 404),
    ] {
        let (status, answer) = ask(server.address, "GET", path, "localhost").await;
        assert_eq!(status, expected, "{path}: {answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let head = head.to_ascii_lowercase();
        for line in [
            "content-type: text/html; charset=utf-8",
            "content-security-policy: default-src 'none'; ",
            "frame-ancestors 'none'",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
        ] {
            assert!(head.contains(line), "{path}: {head}");
        }
        // Nothing inline that the policy would have to allow, and nothing of the path is repeated unescaped.
        assert!(
            !body.contains("<style") && !body.contains("style=") && !body.contains("<b>e"),
            "{body}"
        );
        assert_eq!(body.matches("<script").count(), 1, "{body}");
    }
    for path in ["/", "/project/payments", "/app.js"] {
        assert_eq!(ask(server.address, "POST", path, "localhost").await.0, 405, "{path}");
        assert_eq!(ask(server.address, "GET", path, "evil.example").await.0, 403, "{path}");
    }
}
