//! OAuth tokens.

use super::*;

fn app(token_url: Url) -> SourceApi {
    SourceApi::PagerDutyOauth {
        client_id: "app".to_owned(),
        client_secret: SecretString::from("s3cret"),
        token_url,
        scope: "as_account-us.acme oncalls.read schedules.read users.read".to_owned(),
    }
}

fn token(n: usize, scope: &str) -> Reply {
    ok(format!(
        r#"{{"access_token":"pdus+{n}","token_type":"bearer","expires_in":86400,"scope":"{scope}"}}"#
    ))
}

const ALL: &str = "oncalls.read schedules.read users.read";

#[tokio::test]
async fn case_50_an_expired_token_is_renewed_once() {
    let provider = Provider::start(|seen, before| match seen.path.as_str() {
        "/oauth/token" => token(before, ALL),
        _ if seen.headers["authorization"] == "Bearer pdus+0" => reply(401, ""),
        _ => ok(EMPTY),
    })
    .await;
    let token_url = provider.url.join("/oauth/token").unwrap();
    let source = source(app(token_url), &provider.url, &TestClock::at(NOW));
    read(&source).await.unwrap();
    read(&source).await.unwrap();
    assert_eq!(
        provider.lines(),
        [
            "POST /oauth/token",
            "GET /v3/schedules/PS",
            "POST /oauth/token",
            "GET /v3/schedules/PS",
            "GET /v3/schedules/PS"
        ]
    );
    let asked = &provider.seen()[0];
    assert_eq!(
        asked.body,
        "grant_type=client_credentials&client_id=app&client_secret=s3cret\
         &scope=as_account-us.acme+oncalls.read+schedules.read+users.read"
    );
    assert_eq!(asked.headers["content-type"], "application/x-www-form-urlencoded");
    assert!(!asked.headers.contains_key("authorization"));
}

#[tokio::test]
async fn case_50_a_token_is_asked_for_anew_before_it_ends() {
    let provider = Provider::start(|seen, before| match seen.path.as_str() {
        "/oauth/token" => token(before, ALL),
        _ => ok(EMPTY),
    })
    .await;
    let token_url = provider.url.join("/oauth/token").unwrap();
    let clock = TestClock::at(NOW);
    let source = source(app(token_url), &provider.url, &clock);
    read(&source).await.unwrap();
    clock.advance(jiff::SignedDuration::from_secs(86_400 - 30));
    read(&source).await.unwrap();
    assert_eq!(provider.lines()[2], "POST /oauth/token");
}

#[tokio::test]
async fn case_50_refused_credentials_are_said_after_one_renewal_and_a_key_at_once() {
    let provider = Provider::start(|seen, before| match seen.path.as_str() {
        "/oauth/token" => token(before, ALL),
        _ => reply(401, r#"{"error":{"message":"Authentication failed","code":2006}}"#),
    })
    .await;
    let token_url = provider.url.join("/oauth/token").unwrap();
    let clock = TestClock::at(NOW);
    let error = read(&source(app(token_url), &provider.url, &clock)).await.unwrap_err();
    assert_eq!(error.kind, ReadErrorKind::Unauthorized);
    assert_eq!(provider.lines().len(), 4);
    let error = read(&pagerduty(&provider, &clock)).await.unwrap_err();
    assert_eq!(error.kind, ReadErrorKind::Unauthorized);
    assert_eq!(provider.lines().len(), 5);
}

#[tokio::test]
async fn case_50_partial_scopes_and_a_wrong_secret_are_named() {
    let provider = Provider::start(|_, before| token(before, "schedules.read users.read")).await;
    let clock = TestClock::at(NOW);
    let error = read(&source(app(provider.url.clone()), &provider.url, &clock))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ReadErrorKind::Forbidden);
    assert!(error.message.contains("without the scope oncalls.read;"), "{error}");

    let provider = Provider::start(|_, _| {
        reply(
            400,
            r#"{"error":"invalid_client","error_description":"wrong secret s3cret"}"#,
        )
    })
    .await;
    let error = read(&source(app(provider.url.clone()), &provider.url, &clock))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ReadErrorKind::Unauthorized);
    assert!(
        error.message.contains("invalid_client") && !error.message.contains("s3cret"),
        "{error}"
    );
}
