//! Sends one request until there is an answer that neither waiting nor trying again can better.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use jiff::Timestamp;
use reqwest::{
    RequestBuilder, StatusCode,
    header::{HeaderMap, LOCATION},
};

use super::oauth::Token;
use super::pace::Pace;
use super::{Answer, CONNECT_TIMEOUT, Failure, Reading, Transport, outcome, pace};
use crate::schedule::ReadErrorKind;
use crate::schedule::wire::DecodeError;
use crate::telemetry::CallOutcome;

/// No answer is longer; a year of a busy schedule is a hundredth of it.
const LONGEST_BODY: usize = 16 * 1024 * 1024;
/// How long one read may wait in all because the provider asks for it.
const WAIT_BUDGET: Duration = Duration::from_secs(30);

impl Transport {
    /// Sends until there is an answer that waiting and trying again cannot better. Counts every answer but it.
    pub(super) async fn send(
        &self,
        token: Option<&Token>,
        reading: &mut Reading,
        operation: &'static str,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<Answer, Failure> {
        let mut again = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(200))
            .with_factor(3.0)
            .with_max_times(2)
            .with_jitter()
            .build();
        let mut throttled = ExponentialBuilder::new()
            .with_min_delay(Duration::from_secs(1))
            .with_max_delay(Duration::from_secs(8))
            .with_max_times(5)
            .with_jitter()
            .build();
        loop {
            self.wait_for_turn(reading, operation).await?;
            let failure = match self.exchange(reading, operation, request()).await {
                Ok((answer, headers)) if answer.status == StatusCode::TOO_MANY_REQUESTS => {
                    self.count(operation, CallOutcome::Throttled);
                    let Some(step) = throttled.next() else {
                        return Err(rate_limited(operation, "again and again"));
                    };
                    let now = self.clock.now();
                    let wait = match pace::told_to_wait(now, &headers) {
                        Some(told) => told + step / 4,
                        None => step,
                    };
                    self.pace().hold_for(now, wait);
                    continue;
                }
                Ok((answer, _)) if answer.status.is_server_error() || answer.status == StatusCode::REQUEST_TIMEOUT => {
                    self.count(operation, outcome(answer.status));
                    Failure::answered(operation, answer.status, &answer.body, &self.secrets(token))
                }
                Ok((answer, _)) => return Ok(answer),
                Err(failure) => {
                    let outcome = match failure.kind {
                        ReadErrorKind::Timeout => CallOutcome::Timeout,
                        _ => CallOutcome::Error,
                    };
                    self.count(operation, outcome);
                    if failure.kind != ReadErrorKind::Unreachable {
                        return Err(failure);
                    }
                    failure
                }
            };
            match again.next() {
                Some(pause) => self.clock.sleep(pause).await,
                None => return Err(failure),
            }
        }
    }

    /// Waits as the provider asked, if the read's budget allows, and as our own limit asks.
    async fn wait_for_turn(&self, reading: &mut Reading, operation: &'static str) -> Result<(), Failure> {
        let mut booked = false;
        loop {
            let now = self.clock.now();
            let hold = self.pace().hold(now);
            if !hold.is_zero() {
                if reading.waited + hold > WAIT_BUDGET {
                    return Err(rate_limited(
                        operation,
                        &format!("for another {} s", hold.as_secs() + 1),
                    ));
                }
                reading.waited += hold;
                self.clock.sleep(hold).await;
                continue;
            }
            if booked {
                return Ok(());
            }
            let wait = self.pace().book(now);
            booked = true;
            if !wait.is_zero() {
                self.clock.sleep(wait).await;
            }
        }
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One request and its whole answer.
    async fn exchange(
        &self,
        reading: &mut Reading,
        operation: &'static str,
        request: RequestBuilder,
    ) -> Result<(Answer, HeaderMap), Failure> {
        // Known beforehand, because the error of a body does not say where it came from.
        let request = request
            .build()
            .map_err(|error| Failure::transport(operation, error, "the provider", self.timeout))?;
        let host = request.url().host_str().unwrap_or("the provider").to_owned();
        let cut = |error: reqwest::Error| {
            let limit = if error.is_connect() {
                CONNECT_TIMEOUT.min(self.timeout)
            } else {
                self.timeout
            };
            Failure::transport(operation, error, &host, limit)
        };
        let before = self.clock.now();
        let mut response = self.client.execute(request).await.map_err(&cut)?;
        let after = self.clock.now();
        let headers = response.headers().clone();
        reading.offsets_ms.extend(clock_offset_ms(before, after, &headers));
        self.pace().observe(after, &headers);
        let status = response.status();
        if status.is_redirection() {
            let target = headers.get(LOCATION).and_then(|to| to.to_str().ok());
            let host = target.and_then(|to| response.url().join(to).ok()?.host_str().map(str::to_owned));
            return Err(Failure::redirected(operation, status, host));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(&cut)? {
            if body.len() + chunk.len() > LONGEST_BODY {
                let error = DecodeError::new(&format!("more than {} MiB", LONGEST_BODY / 1024 / 1024));
                return Err(Failure::malformed(operation, &error));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((Answer { status, body }, headers))
    }
}

fn rate_limited(operation: &str, how_long: &str) -> Failure {
    let message = format!(
        "{operation} is being rate limited {how_long}; the next poll asks again, and a lower requests_per_minute \
         leaves room for others that share the limit"
    );
    Failure::new(ReadErrorKind::RateLimited, message)
}

/// The smallest difference between the provider's clock and ours that the `Date` header allows: it is cut to
/// whole seconds, and was written about midway between the request and the answer.
fn clock_offset_ms(before: Timestamp, after: Timestamp, headers: &HeaderMap) -> Option<i64> {
    let date = pace::http_date(headers, "date")?;
    let midway = before.as_millisecond().midpoint(after.as_millisecond());
    let earliest = date.as_millisecond();
    let latest = earliest + 999;
    Some(if midway < earliest {
        earliest - midway
    } else if midway > latest {
        latest - midway
    } else {
        0
    })
}
