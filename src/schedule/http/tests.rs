//! How calls behave when the provider does not: limits, faults, garbage, redirects, tokens.

mod limits;
mod tokens;

use std::{
    io::{Read, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use secrecy::SecretString;
use url::Url;

use crate::config::SourceApi;
use crate::schedule::testing::{
    Provider, Reply, TestClock, name, ok, opsgenie, pagerduty, policy, reply, schedule, source, span,
};
use crate::schedule::{ReadError, ReadErrorKind, Source, build};
use crate::telemetry::ApiCalls;

const NOW: &str = "2026-01-07T12:00:00Z";
const EMPTY: &str = r#"{"schedule":{"id":"PS","type":"schedule_v3",
    "final_schedule":{"computed_shift_assignments":[]}}}"#;

async fn read(source: &Arc<dyn Source>) -> Result<Vec<String>, ReadError> {
    let window = span("2026-01-07T00:00:00Z", "2026-01-21T00:00:00Z");
    source
        .read(&schedule("PS"), window)
        .await
        .map(|snapshot| snapshot.notices)
}

/// The first answer is `first`, all others are good.
async fn then_good(first: Reply) -> Provider {
    Provider::start(move |_, before| if before == 0 { first.clone() } else { ok(EMPTY) }).await
}

#[tokio::test]
async fn server_faults_are_tried_twice_more() {
    let failing = Arc::new(AtomicUsize::new(2));
    let left = Arc::clone(&failing);
    let provider = Provider::start(move |_, before| {
        if before < left.load(Ordering::SeqCst) {
            reply(502, "<html>bad gateway</html>")
        } else {
            ok(EMPTY)
        }
    })
    .await;
    let clock = TestClock::at(NOW);
    read(&pagerduty(&provider, &clock)).await.unwrap();
    assert_eq!(provider.lines().len(), 3);
    failing.store(99, Ordering::SeqCst);
    let error = read(&pagerduty(&provider, &clock)).await.unwrap_err();
    assert_eq!(error.kind, ReadErrorKind::Server);
    assert_eq!(provider.lines().len(), 6);
    assert!(!error.to_string().contains("html"), "{error}");
}

#[tokio::test]
async fn case_46_47_garbage_with_status_200_is_malformed() {
    let whole = EMPTY.to_owned();
    for (body, says) in [
        ("<html><body>Sign in</body></html>", "HTML"),
        ("", "an empty body"),
        ("  \n ", "an empty body"),
        (&whole[..whole.len() - 9], "JSON of an unexpected form"),
        ("[]", "JSON of an unexpected form"),
        ("null", "JSON of an unexpected form"),
    ] {
        let body = body.to_owned();
        let provider = Provider::start(move |_, _| ok(body.clone())).await;
        let error = read(&pagerduty(&provider, &TestClock::at(NOW))).await.unwrap_err();
        assert_eq!(error.kind, ReadErrorKind::Malformed, "{error}");
        assert!(error.message.contains(says), "{error}");
        assert_eq!(provider.lines().len(), 1);
    }
}

#[tokio::test]
async fn only_200_is_a_complete_answer() {
    for status in [201, 206] {
        let provider = Provider::start(move |_, _| reply(status, EMPTY)).await;
        let error = read(&pagerduty(&provider, &TestClock::at(NOW))).await.unwrap_err();
        assert_eq!(error.kind, ReadErrorKind::Malformed, "{error}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_not_read_to_its_end() {
    let provider = Provider::start(|_, _| ok(" ".repeat(17 * 1024 * 1024))).await;
    let error = read(&pagerduty(&provider, &TestClock::at(NOW))).await.unwrap_err();
    assert_eq!(error.kind, ReadErrorKind::Malformed);
    assert!(error.message.contains("more than 16 MiB"), "{error}");
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_only_its_host_is_shown() {
    let other = Provider::start(|_, _| ok(EMPTY)).await;
    let target = format!("{}v3/schedules/PS?token=s3cret", other.url);
    let provider = Provider::start(move |_, _| reply(302, "").header("location", &target)).await;
    let error = read(&pagerduty(&provider, &TestClock::at(NOW))).await.unwrap_err();
    assert_eq!(error.kind, ReadErrorKind::Refused);
    assert!(
        error.message.contains("127.0.0.1") && !error.message.contains("s3cret"),
        "{error}"
    );
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn refusals_have_their_kind_and_the_providers_words_on_one_line() {
    for (status, kind) in [
        (401, ReadErrorKind::Unauthorized),
        (402, ReadErrorKind::Forbidden),
        (403, ReadErrorKind::Forbidden),
        (404, ReadErrorKind::NotFound),
        (410, ReadErrorKind::Rejected),
        (422, ReadErrorKind::Rejected),
        (500, ReadErrorKind::Server),
    ] {
        let body = "{\"error\":{\"message\":\"no\\u001b[31m\\nk3y\",\"code\":7}}";
        let provider = Provider::start(move |_, _| reply(status, body)).await;
        let error = read(&pagerduty(&provider, &TestClock::at(NOW))).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(!error.to_string().contains(char::is_control), "{error}");
        assert!(
            !error.to_string().contains("k3y") && error.to_string().contains("[secret]"),
            "{error}"
        );
    }
}

/// Answers each connection with the same bytes and closes it.
fn cut_server(bytes: &'static [u8]) -> (Url, Arc<AtomicUsize>) {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let mut request = [0; 4096];
            let mut read = Vec::new();
            while !read.ends_with(b"\r\n\r\n") {
                match stream.read(&mut request).unwrap() {
                    0 => break,
                    n => read.extend_from_slice(&request[..n]),
                }
            }
            stream.write_all(bytes).unwrap();
        }
    });
    (url, connections)
}

#[tokio::test]
async fn case_46_cut_connections_are_tried_again_and_never_read_as_a_list() {
    for bytes in [
        b"".as_slice(),
        b"HTTP/1.1 200 OK\r\ncontent-length: 9000\r\n\r\n{\"schedule\":",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"sch\r\n",
    ] {
        let (url, connections) = cut_server(bytes);
        let key = SourceApi::PagerDutyKey(SecretString::from("k3y"));
        let error = read(&source(key, &url, &TestClock::at(NOW))).await.unwrap_err();
        assert_eq!(error.kind, ReadErrorKind::Unreachable, "{error}");
        assert_eq!(connections.load(Ordering::SeqCst), 3);
    }
}

#[tokio::test]
async fn nobody_listening_is_unreachable_and_says_why() {
    let url = {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        format!("http://{}", listener.local_addr().unwrap()).parse().unwrap()
    };
    let key = SourceApi::PagerDutyKey(SecretString::from("k3y"));
    let error = read(&source(key, &url, &TestClock::at(NOW))).await.unwrap_err();
    assert_eq!(error.kind, ReadErrorKind::Unreachable);
    for words in [
        "could not connect to 127.0.0.1 (Connection refused",
        "/schedules/",
        "asked again at the next poll",
    ] {
        assert!(error.message.contains(words), "{words}: {error}");
    }
    assert!(!error.message.contains("{id}"), "{error}");
}

#[tokio::test]
async fn case_44_an_answer_that_does_not_come_is_a_timeout() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let key = SourceApi::PagerDutyKey(SecretString::from("k3y"));
    let mut config = crate::schedule::testing::config(key, url);
    config.timeout = Duration::from_millis(50);
    let source = build(&name(), &config, ApiCalls::new().unwrap(), TestClock::at(NOW)).unwrap();
    let error = read(&source).await.unwrap_err();
    assert_eq!(error.kind, ReadErrorKind::Timeout);
    for words in ["from 127.0.0.1 within 50ms", "`timeout` of the source"] {
        assert!(error.message.contains(words), "{words}: {error}");
    }
}

#[tokio::test]
async fn case_40_the_providers_clock_is_compared_with_ours() {
    for (date, offset) in [
        ("Wed, 07 Jan 2026 12:00:00 GMT", 0),
        ("Wed, 07 Jan 2026 12:00:30 GMT", 30_000),
        ("Wed, 07 Jan 2026 11:59:00 GMT", -59_001),
    ] {
        let provider = Provider::start(move |_, _| ok(EMPTY).header("date", date)).await;
        let source = pagerduty(&provider, &TestClock::at(NOW));
        let window = span("2026-01-07T00:00:00Z", "2026-01-21T00:00:00Z");
        let snapshot = source.read(&schedule("PS"), window).await.unwrap();
        assert_eq!(snapshot.clock_offset_ms, Some(offset), "{date}");
    }
}

#[tokio::test]
async fn calls_are_counted_by_operation_and_outcome() {
    let provider = Provider::start(|_, before| match before {
        0 => reply(429, ""),
        1 => reply(500, ""),
        2 => ok("<html>"),
        _ => ok(EMPTY),
    })
    .await;
    let calls = ApiCalls::new().unwrap();
    let key = SourceApi::PagerDutyKey(SecretString::from("k3y"));
    let config = crate::schedule::testing::config(key, provider.url.clone());
    let source = build(&name(), &config, calls.clone(), TestClock::at(NOW)).unwrap();
    read(&source).await.unwrap_err();
    read(&source).await.unwrap();
    let count = |outcome| {
        let labels = ["src", "GET /v3/schedules/{id}", outcome];
        calls.collector().with_label_values(&labels).get()
    };
    assert_eq!([count("throttled"), count("error"), count("ok")], [1, 2, 1]);
}

#[tokio::test]
async fn ids_cannot_leave_their_place_in_the_path() {
    let provider = Provider::start(|_, _| reply(404, "")).await;
    let source = pagerduty(&provider, &TestClock::at(NOW));
    let window = span("2026-01-07T00:00:00Z", "2026-01-21T00:00:00Z");
    source.read(&schedule("../users?x#y"), window).await.unwrap_err();
    source.read(&policy("a&b=c"), window).await.unwrap_err();
    assert_eq!(provider.seen()[0].path, "/v3/schedules/..%2Fusers%3Fx%23y");
    assert_eq!(provider.seen()[2].query["escalation_policy_ids[]"], "a&b=c");
    let asked = provider.seen().len();
    let error = source.read(&schedule(".."), window).await.unwrap_err();
    assert_eq!((error.kind, provider.seen().len()), (ReadErrorKind::Rejected, asked));
}

#[test]
fn a_key_that_cannot_be_a_header_is_refused_and_not_shown() {
    let key = SourceApi::PagerDutyKey(SecretString::from("s3cret\nX-Other: 1"));
    let config = crate::schedule::testing::config(key, "http://127.0.0.1:1".parse().unwrap());
    let calls = ApiCalls::new().unwrap();
    let error = build(&name(), &config, calls, TestClock::at(NOW)).err().unwrap();
    assert!(
        error.to_string().contains("line break") && !error.to_string().contains("s3cret"),
        "{error}"
    );
}
