//! `audit access`: who held what in a period, since when, until when, why, and how it ended.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use smol_str::SmolStr;

use crate::commands::explain::About;
use crate::ledger::{AccessRow, PolicyInForce};
use crate::model::{Cause, EntitlementId, Interval, Person, ResolvedTarget};
use crate::policy::Policy;
use crate::text::{cause, clean, instant, span};

/// Access that stood for less than this without a cause is no finding: AWS takes its time for a revoke.
const TAKES_ITS_TIME: SignedDuration = SignedDuration::from_mins(1);

/// The access of a period.
#[derive(Debug, Serialize)]
pub struct Held {
    /// The period.
    pub period: Interval,
    /// What was asked about; everything when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<About>,
    /// Said of a period that begins before the record: since when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_begins: Option<Timestamp>,
    /// The policies that were followed in the period, each with since when, the oldest first.
    pub policies: Vec<Policies>,
    /// Sorted by entitlement, then by when it began, then by person.
    pub held: Vec<Line>,
}

/// A policy and since when it was followed.
#[derive(Debug, Serialize)]
pub struct Policies {
    /// Since when.
    pub since: Timestamp,
    /// Which, and the mode.
    #[serde(flatten)]
    pub policy: PolicyInForce,
}

/// An interval of access that overlaps the period.
#[derive(Debug, Serialize)]
pub struct Line {
    /// Which entitlement.
    pub entitlement: EntitlementId,
    /// What it is in the words of today's policy, where that has it.
    pub by_policy: Option<String>,
    /// What it was in AWS.
    pub target: ResolvedTarget,
    /// Who.
    pub person: Person,
    /// Since when AWS confirmed it.
    pub from: Timestamp,
    /// Until when; it stands where this is missing.
    pub until: Option<Timestamp>,
    /// How it ended.
    pub ended: Option<SmolStr>,
    /// AWS's request or membership id.
    pub reference: Option<String>,
    /// Content hash of the policy under which it was granted.
    pub policy: SmolStr,
    /// What earned it, by the record, in order.
    pub causes: Vec<Cause>,
    /// Since when nothing called for it any more, where it stood on for a minute or longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlived: Option<Timestamp>,
}

impl Held {
    /// Picks what was asked about. `now` ends what stands.
    #[must_use]
    pub fn new(
        period: Interval,
        about: Option<About>,
        rows: Vec<AccessRow>,
        policy: Option<&Policy>,
        now: Timestamp,
    ) -> Self {
        let asked = |row: &AccessRow| match &about {
            None => true,
            Some(About::Person { person, only }) => {
                row.person == *person && only.as_ref().is_none_or(|id| row.entitlement == *id)
            }
            Some(About::Entitlement(id)) => row.entitlement == *id,
            Some(About::Account(wanted)) => {
                matches!(&row.target, ResolvedTarget::Assignment { account, .. } if account == wanted)
            }
        };
        let mut held: Vec<Line> = rows
            .into_iter()
            .filter(asked)
            .map(|row| Line::of(row, policy, now))
            .collect();
        held.sort_by(|a, b| (&a.entitlement, a.from, &a.person).cmp(&(&b.entitlement, b.from, &b.person)));
        Self {
            period,
            about,
            record_begins: None,
            policies: Vec::new(),
            held,
        }
    }

    /// Keeps only what stood on without a cause.
    pub fn only_outlived(&mut self) {
        self.held.retain(|line| line.outlived.is_some());
    }

    /// As text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = format!(
            "Access from {} to {}\n",
            instant(self.period.start()),
            instant(self.period.end())
        );
        if let Some(begins) = self.record_begins {
            out += &format!(
                "NOTE  the record begins at {}; who held what before is not known here\n",
                instant(begins)
            );
        }
        for then in &self.policies {
            out += &format!(
                "POLICY  {}, in force since {}\n",
                then.policy.label(),
                instant(then.since)
            );
        }
        let mut before = None;
        for line in &self.held {
            if before != Some((&line.entitlement, &line.target)) {
                let today = line.by_policy.as_ref();
                let today = today
                    .map(|target| format!("   today {}", clean(target)))
                    .unwrap_or_default();
                let then = clean(&line.target.to_string());
                out += &format!("\n{}{today}\n  in AWS: {then}\n", line.entitlement);
            }
            before = Some((&line.entitlement, &line.target));
            let end = match line.until {
                Some(until) => format!(
                    "until {} ({}): {}",
                    instant(until),
                    span(line.from.duration_until(until)),
                    clean(line.ended.as_deref().unwrap_or("revoked"))
                ),
                None => "until now".to_owned(),
            };
            out += &format!("  {}  from {} {end}\n", line.person, instant(line.from));
            for earned in &line.causes {
                let vouched = earned.member.as_ref().and_then(|member| member.added_by.as_ref());
                let vouched = vouched.map(|by| format!(", added by {by}")).unwrap_or_default();
                out += &format!("    {}{vouched}\n", cause(earned));
            }
            if let Some(since) = line.outlived {
                out += &format!(
                    "    OUTLIVED what earned it: nothing called for it since {}; `dutybound explain {} {} --at {}` says why\n",
                    instant(since),
                    line.person,
                    line.entitlement,
                    instant(since.max(line.from).saturating_add(TAKES_ITS_TIME).unwrap_or(since)),
                );
            }
        }
        let people: BTreeSet<&Person> = self.held.iter().map(|line| &line.person).collect();
        let entitlements: BTreeSet<&EntitlementId> = self.held.iter().map(|line| &line.entitlement).collect();
        let count = |n: usize, one: &str, more: &str| format!("{n} {}", if n == 1 { one } else { more });
        out += &if self.held.is_empty() {
            "\nThe record has no such access in this period.\n".to_owned()
        } else {
            format!(
                "\n{} of access, {}, {}.\n",
                count(self.held.len(), "interval", "intervals"),
                count(people.len(), "person", "people"),
                count(entitlements.len(), "entitlement", "entitlements")
            )
        };
        out
    }
}

impl Line {
    fn of(row: AccessRow, policy: Option<&Policy>, now: Timestamp) -> Self {
        // A cause that an edit ended earlier called for it until then.
        let last = row.causes.iter().map(|recorded| {
            let end = recorded.cause.held.end();
            recorded.ended_at.map_or(end, |ended| ended.min(end))
        });
        let last = last.max();
        let end = row.revoked_at.unwrap_or(now);
        let outlived = last.filter(|last| TAKES_ITS_TIME <= last.duration_until(end));
        let mut causes: Vec<Cause> = row.causes.into_iter().map(|recorded| recorded.cause).collect();
        causes.sort();
        causes.dedup();
        Self {
            by_policy: policy
                .and_then(|policy| policy.entitlement(&row.entitlement))
                .map(|entitlement| entitlement.target.to_string()),
            entitlement: row.entitlement,
            target: row.target,
            person: row.person,
            from: row.granted_at,
            until: row.revoked_at,
            ended: row.end_reason,
            reference: row.grant_reference,
            policy: row.policy,
            causes,
            outlived,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounting::fixtures::{cause, on_call, row, span, t};

    #[test]
    fn access_that_stood_on_without_a_cause_says_so() {
        let period = span(0, 100_000);
        let row = |revoked: Option<i64>, ended: Option<i64>| {
            let cause = cause(on_call(), span(1000, 5000), span(1000, 5000), 1000, ended);
            row(1000, revoked, vec![cause])
        };
        let outlived = |row: AccessRow, now: i64| Held::new(period, None, vec![row], None, t(now)).held[0].outlived;
        assert_eq!(outlived(row(Some(5059), Some(5059)), 9000), None, "AWS takes its time");
        assert_eq!(outlived(row(Some(5060), Some(5060)), 9000), Some(t(5000)));
        assert_eq!(outlived(row(None, None), 4000), None, "it is wanted still");
        assert_eq!(outlived(row(None, None), 9000), Some(t(5000)));
        assert_eq!(
            outlived(row(Some(9000), Some(2000)), 9999),
            Some(t(2000)),
            "an edit ended the duty"
        );

        let mut held = Held::new(
            period,
            None,
            vec![row(Some(5060), None), row(Some(5000), None)],
            None,
            t(9000),
        );
        held.only_outlived();
        assert_eq!(held.held.len(), 1);
        let text = held.text();
        let said = format!(
            "OUTLIVED what earned it: nothing called for it since {}",
            instant(t(5000))
        );
        assert!(text.contains(&said), "{text}");
    }
}
