//! The session tail: how long a role session may live on after AWS has taken the access away.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::ledger::AccessRow;
use crate::model::{EntitlementId, Interval, Person, PrincipalId, ResolvedTarget};

/// No role session lives longer: AWS's maximum for a permission set's session duration.
pub const LONGEST_SESSION: SignedDuration = SignedDuration::from_hours(12);

/// The session durations of permission sets, as they were found to be over time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sessions {
    /// By ARN: since when it was known to be this long, in order.
    known: BTreeMap<String, Vec<(Timestamp, SignedDuration)>>,
}

impl Sessions {
    /// Adds what was found at `at`; finds must be added in order.
    pub fn add(&mut self, permission_set_arn: &str, at: Timestamp, duration: SignedDuration) {
        let finds = self.known.entry(permission_set_arn.to_owned()).or_default();
        finds.push((at, duration));
    }

    /// The duration that sessions begun now have, where it is known.
    #[must_use]
    pub fn newest(&self, permission_set_arn: &str) -> Option<SignedDuration> {
        Some(self.known.get(permission_set_arn)?.last()?.1)
    }

    /// Until when a session opened inside `held` may live, at the most; `None` where the duration is not known, as for
    /// groups, whose permission sets are not ours to read. What was first found counts for the time before, too.
    #[must_use]
    pub fn effective_until(&self, target: &ResolvedTarget, held: Interval) -> Option<Timestamp> {
        let ResolvedTarget::Assignment { permission_set_arn, .. } = target else {
            return None;
        };
        let finds = self.known.get(permission_set_arn.as_str())?;
        let nexts = finds.iter().skip(1).map(|(at, _)| *at).chain([Timestamp::MAX]);
        let mut from = Timestamp::MIN;
        let mut latest = None;
        for ((_, duration), to) in finds.iter().zip(nexts) {
            let opened = Interval::new(from, to).and_then(|span| span.intersect(&held));
            let until = opened.map(|opened| opened.end().checked_add(*duration).unwrap_or(Timestamp::MAX));
            latest = latest.max(until);
            from = to;
        }
        latest
    }
}

/// How one interval of access ended, and for how much longer it may have been used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ending {
    /// Of which access.
    pub entitlement: EntitlementId,
    /// Whose.
    pub person: Person,
    /// When it began.
    pub granted_at: Timestamp,
    /// When AWS took it away.
    pub revoked_at: Timestamp,
    /// Until when a session opened before may live; `None` where the session duration is not known.
    pub effective_until: Option<Timestamp>,
    /// When the same access was granted again, if it was.
    pub granted_again: Option<Timestamp>,
}

impl Ending {
    /// The time after the revoke in which a session may live and the access is not held again.
    #[must_use]
    pub fn tail(&self) -> Option<Interval> {
        let end = self.effective_until?.min(self.granted_again.unwrap_or(Timestamp::MAX));
        Interval::new(self.revoked_at, end)
    }
}

/// How each ended interval ended, in the order of `rows`.
#[must_use]
pub fn endings(rows: &[&AccessRow], sessions: &Sessions) -> Vec<Ending> {
    let mut grants: BTreeMap<(&ResolvedTarget, &PrincipalId), Vec<Timestamp>> = BTreeMap::new();
    for row in rows {
        grants
            .entry((&row.target, &row.principal))
            .or_default()
            .push(row.granted_at);
    }
    let mut endings = Vec::new();
    for row in rows {
        let Some(revoked_at) = row.revoked_at else { continue };
        let again = grants.get(&(&row.target, &row.principal)).into_iter().flatten();
        let again = again.filter(|at| revoked_at <= **at && row.granted_at < **at).min();
        endings.extend(ending_of(row, again.copied(), sessions));
    }
    endings
}

/// How one interval ended, if it did, given when the same access was granted again.
pub(super) fn ending_of(row: &AccessRow, granted_again: Option<Timestamp>, sessions: &Sessions) -> Option<Ending> {
    let revoked_at = row.revoked_at?;
    let held = Interval::new(row.granted_at, revoked_at);
    Some(Ending {
        entitlement: row.entitlement.clone(),
        person: row.person.clone(),
        granted_at: row.granted_at,
        revoked_at,
        effective_until: held.and_then(|held| sessions.effective_until(&row.target, held)),
        granted_again,
    })
}

/// The tail of one interval, given when the same access was granted again; see [`Ending::tail`].
#[must_use]
pub fn tail_of(row: &AccessRow, granted_again: Option<Timestamp>, sessions: &Sessions) -> Option<Interval> {
    ending_of(row, granted_again, sessions)?.tail()
}

/// An entitlement whose sessions live longer than the time between two turns of one person, so that taking it away
/// between them takes nothing from who keeps a session open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outlasted {
    /// Which.
    pub entitlement: EntitlementId,
    /// How often in the period.
    pub times: usize,
    /// The shortest time between a revoke and the next grant, in seconds.
    #[serde(rename = "shortest_gap_seconds", serialize_with = "in_seconds")]
    pub shortest_gap: SignedDuration,
    /// How long a session may have lived on, in seconds, at the most.
    #[serde(rename = "longest_tail_seconds", serialize_with = "in_seconds")]
    pub longest_tail: SignedDuration,
}

fn in_seconds<S: serde::Serializer>(time: &SignedDuration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_i64(time.as_secs())
}

/// Where a session may have outlasted the gap between two turns of one person that began in `period`.
#[must_use]
pub fn outlasted(endings: &[Ending], period: Interval) -> Vec<Outlasted> {
    let mut found: BTreeMap<&EntitlementId, Outlasted> = BTreeMap::new();
    for ending in endings.iter().filter(|e| period.contains(e.revoked_at)) {
        let (Some(until), Some(again)) = (ending.effective_until, ending.granted_again) else {
            continue;
        };
        if until < again {
            continue;
        }
        let (gap, tail) = (
            ending.revoked_at.duration_until(again),
            ending.revoked_at.duration_until(until),
        );
        let entry = found.entry(&ending.entitlement).or_insert_with(|| Outlasted {
            entitlement: ending.entitlement.clone(),
            times: 0,
            shortest_gap: gap,
            longest_tail: tail,
        });
        entry.times += 1;
        entry.shortest_gap = entry.shortest_gap.min(gap);
        entry.longest_tail = entry.longest_tail.max(tail);
    }
    found.into_values().collect()
}
