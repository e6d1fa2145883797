//! Everything that keeps somebody from what their duty would earn, as a value that is shown everywhere.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{EntitlementId, Interval, Origin, Person, ScheduleKey};

/// One thing a person should look at. Sorted by kind first, the gravest first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// What sort.
    pub kind: ProblemKind,
    /// The entitlement that somebody does not get.
    pub entitlement: Option<EntitlementId>,
    /// Who does not get it, where known.
    pub person: Option<Person>,
    /// The provider's user, where no person could be told.
    pub user: Option<String>,
    /// The schedule concerned.
    pub schedule: Option<ScheduleKey>,
    /// When it matters; `None` is now and until mended.
    pub during: Option<Interval>,
    /// How many further times the same thing happens within the horizon.
    #[serde(default)]
    pub more: usize,
    /// When the last of those ends; `None` where there is no further one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_ends: Option<Timestamp>,
    /// The rule concerned.
    pub rule: Option<Origin>,
    /// The statement concerned, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invariant: Option<String>,
    /// What happened and what to do, in one sentence.
    pub message: String,
    /// Since when every pass has seen it; only what is on record knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// Sorts of problems, the gravest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// AWS could not be asked, or is not the AWS that the configuration expects.
    AwsUnavailable,
    /// The ledger was an older copy of itself; says what is lost and what was found out.
    LedgerRestored,
    /// A permission set, account or group does not exist or could not be looked up.
    TargetUnresolved,
    /// A schedule was never read completely.
    ScheduleUnread,
    /// A schedule's last good snapshot is older than `max_staleness`.
    ScheduleStale,
    /// A schedule cannot be read now; the stored snapshot stands in.
    ScheduleFailing,
    /// The clocks of this host and of a provider disagree.
    ClockSkew,
    /// AWS works on a change and does not end it, or its answer never came.
    ChangeUnsettled,
    /// AWS refused a change, or it must wait for one that AWS refused.
    ChangeFailed,
    /// Access stands although its last cause ended a while ago.
    RevokeOverdue,
    /// Somebody has been on duty for a while without the access that it earns.
    GrantOverdue,
    /// Access that stands breaks a statement of an owner or the operator.
    InvariantBroken,
    /// An edit of the configuration is not in force before the daemon starts anew.
    RestartNeeded,
    /// Somebody came on duty out of the blue, for example by an override of his own just before its start.
    SurprisingDuty,
    /// Nobody in the identity store is this person.
    PersonUnknown,
    /// The person's user is disabled.
    PersonDisabled,
    /// Several users are this person.
    PersonAmbiguous,
    /// The identity store could not be asked about the person.
    PersonUnresolved,
    /// A provider's user has no usable e-mail.
    NoEmail,
    /// Several of a provider's users share an e-mail.
    AmbiguousUser,
    /// A provider's user has the e-mail of somebody mapped to another user.
    PinnedElsewhere,
    /// A person ordered that somebody holds nothing.
    Barred,
    /// On call without the second key.
    NotAMember,
    /// On call without a required training.
    MissingTraining,
    /// On call for longer than the membership lasts.
    MembershipEnds,
    /// The provider's user is deleted.
    UserDeleted,
    /// The provider's user is blocked.
    UserBlocked,
    /// A standing target that the rule does not allow.
    PermanentNotAllowed,
    /// What a provider's answer held besides shifts.
    ScheduleNotice,
}

impl ProblemKind {
    /// Whether the problem means that we do not know who is on duty, as opposed to knowing that somebody should not
    /// hold something. Not knowing must never revoke.
    #[must_use]
    pub fn is_not_knowing(self) -> bool {
        matches!(
            self,
            Self::ScheduleUnread | Self::NoEmail | Self::AmbiguousUser | Self::PinnedElsewhere
        )
    }

    /// Whether it says that the person lacks a key that one rule demands.
    #[must_use]
    pub fn is_lack_of_a_key(self) -> bool {
        matches!(self, Self::NotAMember | Self::MissingTraining | Self::MembershipEnds)
    }

    /// Whether it says that the identity store has no one user for a person, or could not be asked.
    #[must_use]
    pub fn is_about_the_user(self) -> bool {
        matches!(
            self,
            Self::PersonUnknown | Self::PersonDisabled | Self::PersonAmbiguous | Self::PersonUnresolved
        )
    }

    /// Whether somebody who is on duty cannot be granted what it earns, so that there is no incoming grant to wait for.
    #[must_use]
    pub fn keeps_from_duty(self) -> bool {
        self.is_not_knowing() || self.is_about_the_user()
    }

    /// Whether it says that something has been waited for too long.
    #[must_use]
    pub fn is_overdue(self) -> bool {
        matches!(self, Self::RevokeOverdue | Self::GrantOverdue)
    }

    /// Whether its message says itself since when.
    #[must_use]
    pub fn says_since(self) -> bool {
        self.is_overdue()
            || matches!(
                self,
                Self::AwsUnavailable
                    | Self::ScheduleFailing
                    | Self::ScheduleStale
                    | Self::ChangeUnsettled
                    | Self::ChangeFailed
            )
    }

    /// A stable word for labels and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AwsUnavailable => "aws_unavailable",
            Self::LedgerRestored => "ledger_restored",
            Self::TargetUnresolved => "target_unresolved",
            Self::ScheduleUnread => "schedule_unread",
            Self::ScheduleStale => "schedule_stale",
            Self::ScheduleFailing => "schedule_failing",
            Self::ClockSkew => "clock_skew",
            Self::ChangeUnsettled => "change_unsettled",
            Self::ChangeFailed => "change_failed",
            Self::RevokeOverdue => "revoke_overdue",
            Self::GrantOverdue => "grant_overdue",
            Self::InvariantBroken => "invariant_broken",
            Self::RestartNeeded => "restart_needed",
            Self::SurprisingDuty => "surprising_duty",
            Self::PersonUnknown => "person_unknown",
            Self::PersonDisabled => "person_disabled",
            Self::PersonAmbiguous => "person_ambiguous",
            Self::PersonUnresolved => "person_unresolved",
            Self::NoEmail => "no_email",
            Self::AmbiguousUser => "ambiguous_user",
            Self::PinnedElsewhere => "pinned_elsewhere",
            Self::Barred => "barred",
            Self::NotAMember => "not_a_member",
            Self::MissingTraining => "missing_training",
            Self::MembershipEnds => "membership_ends",
            Self::UserDeleted => "user_deleted",
            Self::UserBlocked => "user_blocked",
            Self::PermanentNotAllowed => "permanent_not_allowed",
            Self::ScheduleNotice => "schedule_notice",
        }
    }

    /// Every kind, for metrics that start at zero.
    pub const ALL: [Self; 29] = [
        Self::AwsUnavailable,
        Self::LedgerRestored,
        Self::TargetUnresolved,
        Self::ScheduleUnread,
        Self::ScheduleStale,
        Self::ScheduleFailing,
        Self::ClockSkew,
        Self::ChangeUnsettled,
        Self::ChangeFailed,
        Self::RevokeOverdue,
        Self::GrantOverdue,
        Self::InvariantBroken,
        Self::RestartNeeded,
        Self::SurprisingDuty,
        Self::PersonUnknown,
        Self::PersonDisabled,
        Self::PersonAmbiguous,
        Self::PersonUnresolved,
        Self::NoEmail,
        Self::AmbiguousUser,
        Self::PinnedElsewhere,
        Self::Barred,
        Self::NotAMember,
        Self::MissingTraining,
        Self::MembershipEnds,
        Self::UserDeleted,
        Self::UserBlocked,
        Self::PermanentNotAllowed,
        Self::ScheduleNotice,
    ];
}

/// Notes since when each problem has been there that does not say from when it matters, by what was on record of the
/// same ones `before`.
pub fn remember(problems: &mut [Problem], before: &[Problem], now: Timestamp) {
    let known: BTreeMap<_, _> = before.iter().map(|p| (p.subject(), p.since)).collect();
    for problem in problems {
        if !problem.kind.says_since() && problem.during.is_none() {
            problem.since = known.get(&problem.subject()).copied().flatten().or(Some(now));
        }
    }
}

/// What a problem is about, besides its words.
pub type Subject<'a> = (
    ProblemKind,
    Option<&'a EntitlementId>,
    Option<&'a Person>,
    Option<&'a str>,
    Option<&'a ScheduleKey>,
    Option<&'a str>,
);

impl Problem {
    /// A problem about nothing in particular yet.
    #[must_use]
    pub fn new(kind: ProblemKind, message: String) -> Self {
        Self {
            kind,
            entitlement: None,
            person: None,
            user: None,
            schedule: None,
            during: None,
            more: 0,
            last_ends: None,
            rule: None,
            invariant: None,
            message,
            since: None,
        }
    }

    /// What makes a problem the same one at another time, although its words, with times in them, may differ.
    #[must_use]
    pub fn subject(&self) -> Subject<'_> {
        (
            self.kind,
            self.entitlement.as_ref(),
            self.person.as_ref(),
            self.user.as_deref(),
            self.schedule.as_ref(),
            self.invariant.as_deref(),
        )
    }

    /// Whether it matters at `t`.
    #[must_use]
    pub fn holds_at(&self, t: Timestamp) -> bool {
        self.during.is_none_or(|d| d.contains(t))
    }
}

/// Makes one problem of those that say the same about the same at several times: the first, with how many follow.
#[must_use]
pub fn collapse(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort();
    problems.dedup();
    let mut collapsed: Vec<Problem> = Vec::new();
    for problem in problems {
        match collapsed.last_mut().filter(|last| last.subject() == problem.subject()) {
            Some(last) => {
                last.more += 1 + problem.more;
                let ends = [&*last, &problem].map(|p| p.last_ends.max(p.during.map(|during| during.end())));
                last.last_ends = ends.into_iter().max().flatten();
            }
            None => collapsed.push(problem),
        }
    }
    collapsed
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut notes = Vec::new();
        if let Some(during) = self.during.filter(|d| Timestamp::MIN < d.start()) {
            notes.push(format!("from {}", crate::text::instant(during.start())));
        }
        if let Some(since) = self.since {
            notes.push(format!("since {}", crate::text::instant(since)));
        }
        if 0 < self.more {
            notes.push(format!("{} more times", self.more));
        }
        notes.extend(self.rule.as_ref().map(|rule| format!("rule at {rule}")));
        if notes.is_empty() {
            Ok(())
        } else {
            write!(f, " ({})", notes.join("; "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_remembers_since_when_it_has_been_there() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let unread = |words: &str| Problem::new(ProblemKind::TargetUnresolved, words.to_owned());
        let mut first = [unread("could not be read: 500")];
        remember(&mut first, &[], at(10));
        let mut second = [
            unread("could not be read: 503"),
            Problem::new(ProblemKind::ClockSkew, "the clocks differ".to_owned()),
            Problem::new(ProblemKind::ScheduleFailing, "cannot be read since 5".to_owned()),
            Problem {
                during: Interval::new(at(50), at(60)),
                ..Problem::new(ProblemKind::NotAMember, "is no member".to_owned())
            },
        ];
        remember(&mut second, &first, at(20));
        assert_eq!(
            second.each_ref().map(|p| p.since),
            [Some(at(10)), Some(at(20)), None, None]
        );
        assert_eq!(
            second[0].to_string(),
            "could not be read: 503 (since 1970-01-01T00:00:10Z)"
        );
    }
}
