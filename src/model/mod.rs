//! The vocabulary that every other module may use: people, intervals, schedules, shifts, entitlements, causes.

mod cause;
mod change;
mod duty;
mod entitlement;
pub mod spans;
mod texts;

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

pub use cause::{Basis, Cause, MemberRef, Origin, Right};
pub use change::{Actor, Attribution, Authorship, NewTurn, ScheduleChange, Sighting};
pub use duty::{ScheduleKey, ScheduleKind, Shift, Snapshot, SourceName, SourceUser, SourceUserState};
pub use entitlement::{EntitlementId, GroupRef, PermissionSetRef, PrincipalId, ProjectName, ResolvedTarget, Target};
pub(crate) use texts::Texts;

/// A human, named by a canonical e-mail address: the ASCII letters in lower case, nothing else changed.
///
/// Two people are the same exactly when these strings are equal. There is no trimming, no removal of
/// plus-addresses and no Unicode folding, because a look-alike must never earn somebody else's access.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Person(SmolStr);

/// Why a text is not a canonical e-mail address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an e-mail address: {reason}")]
pub struct NotAnEmail {
    text: String,
    reason: &'static str,
}

impl Person {
    /// Reads an address as written by a person or a provider.
    ///
    /// # Errors
    /// [`NotAnEmail`] for anything without exactly one `@` between two non-empty parts, with white space or
    /// control characters, or longer than 254 bytes (the longest address that mail can carry, RFC 5321).
    pub fn parse(text: &str) -> Result<Self, NotAnEmail> {
        let refuse = |reason| {
            Err(NotAnEmail {
                text: text.chars().take(100).collect(),
                reason,
            })
        };
        if text.len() > 254 {
            return refuse("it is longer than 254 bytes");
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return refuse("it contains white space or control characters");
        }
        match text.split_once('@') {
            Some((local, domain)) if !local.is_empty() && !domain.is_empty() && !domain.contains('@') => {
                Ok(Self(text.to_ascii_lowercase().into()))
            }
            _ => refuse("it needs one @ with something on both sides"),
        }
    }

    /// The canonical address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Person {
    type Error = NotAnEmail;
    fn try_from(text: String) -> Result<Self, NotAnEmail> {
        Self::parse(&text)
    }
}

impl From<Person> for String {
    fn from(person: Person) -> Self {
        person.0.into()
    }
}

/// A non-empty half-open span of time, `[start, end)`.
///
/// `Timestamp::MIN` and `Timestamp::MAX` stand for "since always" and "for ever".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawInterval", into = "RawInterval")]
pub struct Interval {
    start: Timestamp,
    end: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct RawInterval {
    start: Timestamp,
    end: Timestamp,
}

impl From<Interval> for RawInterval {
    fn from(i: Interval) -> Self {
        Self {
            start: i.start,
            end: i.end,
        }
    }
}

impl TryFrom<RawInterval> for Interval {
    type Error = String;
    fn try_from(raw: RawInterval) -> Result<Self, String> {
        Self::new(raw.start, raw.end)
            .ok_or_else(|| format!("an interval must end after it starts: {} .. {}", raw.start, raw.end))
    }
}

impl Interval {
    /// All of time.
    pub const ALWAYS: Self = Self {
        start: Timestamp::MIN,
        end: Timestamp::MAX,
    };

    /// `None` when the span would be empty or reversed.
    #[must_use]
    pub fn new(start: Timestamp, end: Timestamp) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    /// The first instant inside.
    #[must_use]
    pub fn start(&self) -> Timestamp {
        self.start
    }

    /// The first instant after.
    #[must_use]
    pub fn end(&self) -> Timestamp {
        self.end
    }

    /// Whether `t` lies inside; the end does not.
    #[must_use]
    pub fn contains(&self, t: Timestamp) -> bool {
        self.start <= t && t < self.end
    }

    /// The part that both spans share, if any.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }

    /// The same span, begun `lead` earlier and ended `linger` later, saturating at the ends of time.
    #[must_use]
    pub fn widen(&self, lead: SignedDuration, linger: SignedDuration) -> Self {
        Self {
            start: self.start.checked_sub(lead).unwrap_or(Timestamp::MIN),
            end: self.end.checked_add(linger).unwrap_or(Timestamp::MAX),
        }
    }

    /// How long it lasts.
    #[must_use]
    pub fn duration(&self) -> SignedDuration {
        self.start.duration_until(self.end)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_equal_by_ascii_case_only() {
        assert_eq!(Person::parse("Alice@Example.COM"), Person::parse("alice@example.com"));
        assert_ne!(Person::parse("alice+x@example.com"), Person::parse("alice@example.com"));
        for bad in ["", "alice", "@x", "a@", "a@b@c", " a@b", "a@b\n", "a b@c"] {
            assert!(Person::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn intervals_are_half_open_and_never_empty() {
        let t = |s: &str| s.parse::<Timestamp>().unwrap();
        let (a, b) = (t("2026-03-02T09:00:00Z"), t("2026-03-02T10:00:00Z"));
        let i = Interval::new(a, b).unwrap();
        assert!(i.contains(a) && !i.contains(b));
        assert!(Interval::new(b, a).is_none() && Interval::new(a, a).is_none());
        assert!(
            serde_json::from_str::<Interval>(r#"{"start":"2026-03-02T10:00:00Z","end":"2026-03-02T09:00:00Z"}"#)
                .is_err()
        );
        assert_eq!(
            Interval::ALWAYS.widen(SignedDuration::from_secs(1), SignedDuration::from_secs(1)),
            Interval::ALWAYS
        );
    }
}
