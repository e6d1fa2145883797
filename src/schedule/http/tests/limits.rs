//! Rate limits: the provider's and our own.

use super::*;

#[tokio::test]
async fn case_41_429_with_reset_is_obeyed_to_the_second() {
    let throttled = reply(429, r#"{"error":{"message":"Rate Limit Exceeded","code":2020}}"#);
    for (header, value, seconds) in [
        ("ratelimit-reset", "20", 20),
        ("retry-after", "3", 3),
        ("retry-after", "Wed, 07 Jan 2026 12:00:07 GMT", 7),
        ("x-ratelimit-period-in-sec", "9", 9),
    ] {
        let provider = then_good(throttled.clone().header(header, value)).await;
        let clock = TestClock::at(NOW);
        read(&pagerduty(&provider, &clock)).await.unwrap();
        let told = Duration::from_secs(seconds);
        assert!(
            clock.slept() >= told && clock.slept() < told + Duration::from_secs(2),
            "{header}: {value}"
        );
    }
}

#[tokio::test]
async fn case_42_429_without_headers_backs_off_and_gives_up_within_the_budget() {
    let provider = Provider::start(|_, _| reply(429, "")).await;
    let clock = TestClock::at(NOW);
    let error = read(&pagerduty(&provider, &clock)).await.unwrap_err();
    assert_eq!(error.kind, ReadErrorKind::RateLimited);
    assert!(clock.slept() > Duration::from_secs(5) && clock.slept() <= Duration::from_secs(30));
    assert!((3..=6).contains(&provider.lines().len()), "{:?}", provider.lines());
}

#[tokio::test]
async fn case_41_a_wait_over_the_budget_fails_the_read_and_holds_the_next_one_without_a_call() {
    let provider = then_good(reply(429, "").header("ratelimit-reset", "55")).await;
    let clock = TestClock::at(NOW);
    let source = pagerduty(&provider, &clock);
    for _ in 0..2 {
        assert_eq!(read(&source).await.unwrap_err().kind, ReadErrorKind::RateLimited);
    }
    assert_eq!(provider.lines().len(), 1);
    clock.advance(jiff::SignedDuration::from_secs(57));
    read(&source).await.unwrap();
}

#[tokio::test]
async fn case_43_nothing_remaining_slows_down_before_a_429() {
    let spent = ok(EMPTY)
        .header("ratelimit-remaining", "0")
        .header("ratelimit-reset", "12");
    let provider = then_good(spent).await;
    let clock = TestClock::at(NOW);
    let source = pagerduty(&provider, &clock);
    read(&source).await.unwrap();
    assert_eq!(clock.slept(), Duration::ZERO);
    read(&source).await.unwrap();
    assert_eq!(clock.slept(), Duration::from_secs(12));

    let throttled = reply(200, "{}").header("X-RateLimit-State", "THROTTLED");
    let provider = Provider::start(move |_, _| throttled.clone().header("X-RateLimit-Period-In-Sec", "60")).await;
    let clock = TestClock::at(NOW);
    let source = opsgenie(&provider, &clock);
    read(&source).await.unwrap_err();
    read(&source).await.unwrap_err();
    assert_eq!(clock.slept(), Duration::from_secs(5));
}

#[tokio::test]
async fn our_own_limit_holds_in_every_minute() {
    let provider = Provider::start(|_, _| ok(EMPTY)).await;
    let clock = TestClock::at(NOW);
    let source = pagerduty(&provider, &clock);
    for _ in 0..650 {
        read(&source).await.unwrap();
    }
    // The test's limit is 600: the 601st call leaves in the second minute.
    assert!(clock.slept() > Duration::from_secs(60), "{:?}", clock.slept());
    assert!(clock.slept() < Duration::from_secs(90), "{:?}", clock.slept());
}
