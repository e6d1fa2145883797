//! Keeps a source's calls under the provider's rate limit, and obeys when the provider asks to wait.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use reqwest::header::HeaderMap;

/// No hint of a provider holds calls longer than this, so that one odd header cannot blind us for a day.
const LONGEST_HOLD: SignedDuration = SignedDuration::from_mins(5);
/// Below this many remaining calls they are spread over the time until the limit is renewed. Higher than one,
/// because others may share the limit (<https://github.com/port-labs/ocean/pull/2683>).
const FEW_REMAINING: u64 = 15;
/// How long to go slow when Opsgenie says that it throttles already, but still answers.
const THROTTLED_PAUSE: SignedDuration = SignedDuration::from_secs(5);

/// More calls than ever wait for their turn at the same time: a source's schedules are read four beside each other.
const WAITING: i32 = 16;

/// When the next call may leave.
#[derive(Debug)]
pub(super) struct Pace {
    /// Between two calls in the long run: a tenth more than the limit asks for.
    spacing: SignedDuration,
    /// How far ahead of that a burst may run.
    burst: SignedDuration,
    /// When the calls made so far would have ended, had they been spaced.
    booked: Timestamp,
    /// Nothing leaves before, because the provider said so.
    held: Timestamp,
}

impl Pace {
    /// In no 60 seconds do more than `per_minute` calls leave.
    pub(super) fn new(per_minute: u32) -> Self {
        let per_minute = i64::from(per_minute.max(1));
        let spacing = SignedDuration::from_nanos(60_000_000_000 / per_minute * 10 / 9);
        let extra = i32::try_from((per_minute / 10).saturating_sub(1)).unwrap_or(i32::MAX);
        Self {
            spacing,
            burst: spacing.saturating_mul(extra),
            booked: Timestamp::MIN,
            held: Timestamp::MIN,
        }
    }

    /// How long the provider wants us to wait from `now` on.
    pub(super) fn hold(&self, now: Timestamp) -> Duration {
        let left = now.duration_until(self.held);
        if left > LONGEST_HOLD {
            // Nothing holds that long: the clock was set back.
            return Duration::ZERO;
        }
        Duration::try_from(left).unwrap_or(Duration::ZERO)
    }

    /// Lets nothing leave for `wait` from `now` on.
    pub(super) fn hold_for(&mut self, now: Timestamp, wait: Duration) {
        let wait = SignedDuration::try_from(wait).map_or(LONGEST_HOLD, |wait| wait.min(LONGEST_HOLD));
        let until = now.checked_add(wait).unwrap_or(now);
        if self.hold(now).is_zero() || until > self.held {
            self.held = until;
        }
    }

    /// Books one call and says how long to wait before it may leave.
    pub(super) fn book(&mut self, now: Timestamp) -> Duration {
        let ahead = now.duration_until(self.booked);
        // Ahead by more than a full burst and all who wait means that the clock was set back.
        let most = self.burst.saturating_add(self.spacing.saturating_mul(WAITING));
        let ahead = ahead.clamp(SignedDuration::ZERO, most);
        let wait = (ahead - self.burst).max(SignedDuration::ZERO);
        self.booked = now
            .checked_add(ahead.saturating_add(self.spacing))
            .unwrap_or(Timestamp::MAX);
        Duration::try_from(wait).unwrap_or(Duration::ZERO)
    }

    /// Slows down when an answer says that the limit is near.
    ///
    /// PagerDuty gives `ratelimit-remaining` and `ratelimit-reset` in seconds; Opsgenie `X-RateLimit-State` and
    /// the period in seconds.
    pub(super) fn observe(&mut self, now: Timestamp, headers: &HeaderMap) {
        if let (Some(remaining), Some(reset)) = (
            number(headers, "ratelimit-remaining"),
            number(headers, "ratelimit-reset"),
        ) && remaining < FEW_REMAINING
        {
            self.hold_for(now, Duration::from_millis(reset.saturating_mul(1000) / (remaining + 1)));
        }
        let state = headers.get("x-ratelimit-state").and_then(|value| value.to_str().ok());
        if state.is_some_and(|state| state.eq_ignore_ascii_case("throttled")) {
            let period = number(headers, "x-ratelimit-period-in-sec").unwrap_or(1);
            let pause = Duration::from_secs(period);
            self.hold_for(now, pause.min(THROTTLED_PAUSE.unsigned_abs()));
        }
    }
}

/// How long a 429 asks us to wait, where it says so: `Retry-After` in seconds or as a date, PagerDuty's
/// `ratelimit-reset`, Opsgenie's `X-RateLimit-Period-In-Sec`.
pub(super) fn told_to_wait(now: Timestamp, headers: &HeaderMap) -> Option<Duration> {
    if let Some(seconds) = number(headers, "retry-after")
        .or_else(|| number(headers, "ratelimit-reset"))
        .or_else(|| number(headers, "x-ratelimit-period-in-sec"))
    {
        return Some(Duration::from_secs(seconds));
    }
    let at = http_date(headers, "retry-after")?;
    Some(Duration::try_from(now.duration_until(at)).unwrap_or(Duration::ZERO))
}

/// A header with a date as HTTP writes it.
pub(super) fn http_date(headers: &HeaderMap, name: &str) -> Option<Timestamp> {
    let text = headers.get(name)?.to_str().ok()?;
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

/// A header with a whole number, at most an hour's worth of seconds.
fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    let number: u64 = headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
    Some(number.min(3600))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by measuring: of four who waited for their turn each was let go as if it were the only one, so that 1,414 calls
    /// left in a minute where 960 may.
    #[test]
    fn the_limit_holds_in_every_minute_however_many_wait_for_their_turn() {
        for (per_minute, callers) in [(960, 1), (960, 4), (480, 4), (120, 8), (1, 4)] {
            let mut pace = Pace::new(per_minute);
            // Each calls again as soon as its call has left.
            let mut next = vec![Timestamp::UNIX_EPOCH; callers];
            let many = usize::try_from(per_minute).unwrap();
            let mut left = Vec::new();
            while left.len() < 3 * many {
                let caller = next.iter_mut().min().unwrap();
                *caller += SignedDuration::try_from(pace.book(*caller)).unwrap();
                left.push(*caller);
            }
            left.sort();
            for (begin, end) in left.iter().zip(&left[many..]) {
                let took = begin.duration_until(*end);
                assert!(
                    SignedDuration::from_mins(1) <= took,
                    "{per_minute} for {callers}: {took}"
                );
            }
            let all = left[0].duration_until(left[left.len() - 1]);
            assert!(
                all < SignedDuration::from_mins(4),
                "{per_minute} for {callers} take {all}"
            );
        }
    }

    #[test]
    fn a_clock_set_back_stops_nothing() {
        let mut pace = Pace::new(960);
        let now = Timestamp::from_second(1_000_000).unwrap();
        for _ in 0..200 {
            pace.book(now);
        }
        assert!(pace.book(now - SignedDuration::from_hours(1)) < Duration::from_secs(2));
    }
}
