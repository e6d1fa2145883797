//! A small world for the tests of everything that counts access time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::desired::Snapshots;
use crate::ledger::AccessRow;
use crate::ledger::history::RecordedCause;
use crate::model::{
    Basis, Cause, EntitlementId, GroupRef, Interval, MemberRef, Origin, Person, PrincipalId, ProjectName,
    ResolvedTarget, Right, ScheduleKey, ScheduleKind, Shift, Snapshot, SourceName, SourceUser, SourceUserState, Target,
};
use crate::policy::{Entitlement, Member, OnCall, Policy, Project, Rule, Trigger};

pub(crate) fn t(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

pub(crate) fn span(start: i64, end: i64) -> Interval {
    Interval::new(t(start), t(end)).unwrap()
}

pub(crate) fn schedule() -> ScheduleKey {
    ScheduleKey {
        source: SourceName("pagerduty".into()),
        kind: ScheduleKind::Schedule,
        id: "P1".into(),
    }
}

pub(crate) fn on_call() -> Basis {
    Basis::OnCall {
        schedule: schedule(),
        user_id: "U1".into(),
        level: None,
        via_override: None,
    }
}

pub(crate) fn id(text: &str) -> EntitlementId {
    EntitlementId::try_from(text.to_owned()).unwrap()
}

pub(crate) fn person(text: &str) -> Person {
    Person::parse(text).unwrap()
}

pub(crate) fn cause(basis: Basis, held: Interval, duty: Interval, recorded: i64, ended: Option<i64>) -> RecordedCause {
    RecordedCause {
        cause: Cause {
            right: Right {
                entitlement: id("payments/admin"),
                basis,
                project: ProjectName("payments".into()),
                rule: origin(7),
                delegation: None,
            }
            .into(),
            person: person("alice@example.com"),
            held,
            duty,
            end_known: true,
            member: None,
        },
        recorded_at: t(recorded),
        ended_at: ended.map(t),
    }
}

pub(crate) fn origin(line: u32) -> Origin {
    Origin {
        file: "access.d/payments.toml".into(),
        line,
    }
}

pub(crate) fn row(granted: i64, revoked: Option<i64>, causes: Vec<RecordedCause>) -> AccessRow {
    AccessRow {
        id: 1,
        entitlement: id("payments/admin"),
        target: ResolvedTarget::Group { group_id: "g-1".into() },
        principal: PrincipalId("u-1".into()),
        person: person("alice@example.com"),
        granted_at: t(granted),
        grant_reference: None,
        policy: "r".into(),
        revoked_at: revoked.map(t),
        end_reason: revoked.map(|_| "revoked".into()),
        causes,
    }
}

pub(crate) fn policy(rules: Vec<Rule>) -> Policy {
    let name = ProjectName("payments".into());
    let member = |who: &str, until| {
        let member = Member {
            person: person(who),
            entry: Arc::new(MemberRef {
                origin: origin(3),
                added_by: None,
            }),
            reason: None,
            since: None,
            until,
            completed: BTreeMap::new(),
        };
        (member.person.clone(), member)
    };
    let project = Project {
        name: name.clone(),
        parent: None,
        owners: vec![person("mira@example.com")],
        context: None,
        channel: None,
        zone: None,
        children: None,
        entitlements: [("admin", false)]
            .map(|(name, exclusive)| {
                (
                    name.to_owned(),
                    Entitlement {
                        min_holders: 0,
                        priority: 5,
                        id: id(&format!("payments/{name}")),
                        target: Target::Group(GroupRef::Name("admins".to_owned())),
                        exclusive,
                        delegate_to: Vec::new(),
                        origin: origin(2),
                    },
                )
            })
            .into(),
        members: [
            member("alice@example.com", None),
            member("bob@example.com", Some(t(50))),
        ]
        .into(),
        rules,
        origin: origin(1),
    };
    Policy {
        commit: None,
        revision: "r".to_owned(),
        projects: [(name, project)].into(),
        invariants: Vec::new(),
    }
}

pub(crate) fn on_call_rule(member: bool, until: Option<Timestamp>, line: u32) -> Rule {
    Rule {
        entitlement: id("payments/admin"),
        trigger: Trigger::OnCall(OnCall {
            schedule: schedule(),
            levels: None,
            permanent: false,
        }),
        member,
        trainings: BTreeSet::new(),
        lead: SignedDuration::ZERO,
        linger: SignedDuration::ZERO,
        until,
        delegation: None,
        origin: origin(line),
    }
}

pub(crate) fn snapshots() -> Snapshots {
    let shift = |start, end, user: &str| Shift {
        interval: span(start, end),
        start_known: true,
        end_known: true,
        user: SourceUser {
            id: user.into(),
            name: None,
            email: Some(format!("{user}@example.com")),
            state: SourceUserState::Active,
        }
        .into(),
        level: None,
        permanent: false,
        via_override: None,
    };
    let snapshot = Snapshot {
        schedule: schedule(),
        read_at: t(0),
        window: span(-1000, 1000),
        shifts: vec![shift(-1000, 0, "carol"), shift(0, 1000, "alice")],
        notices: Vec::new(),
        clock_offset_ms: None,
    };
    [(schedule(), snapshot.into())].into()
}
