//! How a snapshot is written: each user once, and instants as numbers. Of a large organisation there are hundreds of
//! thousands of turns, which commands read at every start.

use std::fmt;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use jiff::Timestamp;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;

use crate::model::{Interval, ScheduleKey, Shift, Snapshot, SourceUser};

/// A snapshot as the ledger has it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Written {
    schedule: ScheduleKey,
    read_at: Timestamp,
    window: Interval,
    /// What earlier versions wrote in place of users and turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shifts: Option<Vec<Shift>>,
    #[serde(default)]
    users: Option<Vec<Arc<SourceUser>>>,
    #[serde(default)]
    turns: Option<Vec<Turn>>,
    notices: Vec<String>,
    clock_offset_ms: Option<i64>,
}

/// A shift, in the order of its fields; the user by its place.
#[derive(Debug, Serialize, Deserialize)]
struct Turn(Instant, Instant, bool, bool, usize, Option<u32>, bool, Option<SmolStr>);

impl From<&Snapshot> for Written {
    fn from(snapshot: &Snapshot) -> Self {
        let mut users: Vec<Arc<SourceUser>> = Vec::new();
        let mut places = HashMap::default();
        let turn = |shift: &Shift| {
            let place = *places.entry(Arc::clone(&shift.user)).or_insert_with(|| {
                users.push(Arc::clone(&shift.user));
                users.len() - 1
            });
            Turn(
                Instant(shift.interval.start()),
                Instant(shift.interval.end()),
                shift.start_known,
                shift.end_known,
                place,
                shift.level,
                shift.permanent,
                shift.via_override.clone(),
            )
        };
        let turns = snapshot.shifts.iter().map(turn).collect();
        Self {
            schedule: snapshot.schedule.clone(),
            read_at: snapshot.read_at,
            window: snapshot.window,
            shifts: None,
            users: Some(users),
            turns: Some(turns),
            notices: snapshot.notices.clone(),
            clock_offset_ms: snapshot.clock_offset_ms,
        }
    }
}

impl Written {
    /// The snapshot, which shares with others the `known` users; `None` where it does not hold together. Less than all of it
    /// would be somebody whose duty is over.
    pub(super) fn snapshot(self, known: &mut HashSet<Arc<SourceUser>>) -> Option<Snapshot> {
        let shifts = match (self.shifts, self.users, self.turns) {
            (Some(mut shifts), None, None) => {
                for shift in &mut shifts {
                    shift.user = shared(&shift.user, known);
                }
                shifts
            }
            (None, Some(mut users), Some(turns)) => {
                for user in &mut users {
                    *user = shared(user, known);
                }
                let named: HashSet<usize> = turns.iter().map(|turn| turn.4).collect();
                let shifts = turns.into_iter().map(|turn| turn.shift(&users));
                let shifts = shifts.collect::<Option<_>>()?;
                // A user without a turn was never written: somebody's turns are missing.
                if named.len() != users.len() {
                    return None;
                }
                shifts
            }
            _ => return None,
        };
        Some(Snapshot {
            schedule: self.schedule,
            read_at: self.read_at,
            window: self.window,
            shifts,
            notices: self.notices,
            clock_offset_ms: self.clock_offset_ms,
        })
    }
}

/// One copy of each user: the one that is known, which this is from now on if none was.
pub(super) fn shared(user: &Arc<SourceUser>, known: &mut HashSet<Arc<SourceUser>>) -> Arc<SourceUser> {
    if let Some(known) = known.get(user) {
        return Arc::clone(known);
    }
    known.insert(Arc::clone(user));
    Arc::clone(user)
}

impl Turn {
    fn shift(self, users: &[Arc<SourceUser>]) -> Option<Shift> {
        let Self(Instant(start), Instant(end), start_known, end_known, user, level, permanent, via_override) = self;
        Some(Shift {
            interval: Interval::new(start, end)?,
            start_known,
            end_known,
            user: Arc::clone(users.get(user)?),
            level,
            permanent,
            via_override,
        })
    }
}

/// An instant as whole seconds since 1970, or as text where it is not whole.
#[derive(Debug)]
struct Instant(Timestamp);

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.subsec_nanosecond() {
            0 => serializer.serialize_i64(self.0.as_second()),
            _ => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either)
    }
}

struct Either;

impl Visitor<'_> for Either {
    type Value = Instant;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("seconds since 1970, or an instant as text")
    }

    fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Instant, E> {
        Timestamp::from_second(seconds).map(Instant).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Instant, E> {
        self.visit_i64(i64::try_from(seconds).map_err(E::custom)?)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Instant, E> {
        text.parse().map(Instant).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use serde_json::Value;

    use super::*;
    use crate::model::{ScheduleKind, SourceName, SourceUserState};

    fn t(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Two users of one id, instants of every kind, and no two flags alike.
    fn snapshot() -> Snapshot {
        let user = |email: Option<&str>| {
            Arc::new(SourceUser {
                id: "P1".into(),
                name: Some("Alice \"A\"".to_owned()),
                email: email.map(ToOwned::to_owned),
                state: SourceUserState::Active,
            })
        };
        let (one, two) = (user(Some("alice@example.com")), user(None));
        let part = SignedDuration::from_nanos(123_456_789);
        let shift = |user: &Arc<SourceUser>, from, to| Shift {
            interval: Interval::new(from, to).unwrap(),
            start_known: true,
            end_known: false,
            user: Arc::clone(user),
            level: Some(2),
            permanent: false,
            via_override: Some("POVERRIDE".into()),
        };
        let last = Shift {
            start_known: false,
            end_known: true,
            level: None,
            permanent: true,
            via_override: None,
            ..shift(&one, t(2), t(3))
        };
        Snapshot {
            schedule: ScheduleKey {
                source: SourceName("pagerduty".into()),
                kind: ScheduleKind::EscalationPolicy,
                id: "PABC123".into(),
            },
            read_at: t(5) + part,
            window: Interval::new(t(-9), t(9)).unwrap(),
            shifts: vec![shift(&one, t(-3), t(-2)), shift(&two, t(0), t(1) + part), last],
            notices: vec!["no escalation policy uses this schedule".to_owned()],
            clock_offset_ms: Some(-7),
        }
    }

    const HEAD: &str = r#"{"schedule":{"source":"pagerduty","kind":"escalation_policy","id":"PABC123"},"read_at":"1970-01-01T00:00:05.123456789Z","window":{"start":"1969-12-31T23:59:51Z","end":"1970-01-01T00:00:09Z"},"#;
    const ONE: &str = r#"{"id":"P1","name":"Alice \"A\"","email":"alice@example.com","state":"active"}"#;
    const TWO: &str = r#"{"id":"P1","name":"Alice \"A\"","email":null,"state":"active"}"#;
    const TAIL: &str = r#""notices":["no escalation policy uses this schedule"],"clock_offset_ms":-7}"#;

    /// What is in ledgers.
    fn text() -> String {
        let turns = r#"[[-3,-2,true,false,0,2,false,"POVERRIDE"],[0,"1970-01-01T00:00:01.123456789Z",true,false,1,2,false,"POVERRIDE"],[2,3,false,true,0,null,true,null]]"#;
        format!(r#"{HEAD}"users":[{ONE},{TWO}],"turns":{turns},{TAIL}"#)
    }

    fn read(text: &str) -> Option<Snapshot> {
        serde_json::from_str::<Written>(text)
            .unwrap()
            .snapshot(&mut HashSet::default())
    }

    #[test]
    fn a_snapshot_is_read_as_it_was_written_to_the_nanosecond() {
        assert_eq!(serde_json::to_string(&Written::from(&snapshot())).unwrap(), text());
        assert_eq!(read(&text()), Some(snapshot()));
        let always = Snapshot {
            window: Interval::ALWAYS,
            shifts: vec![Shift {
                interval: Interval::ALWAYS,
                ..snapshot().shifts[0].clone()
            }],
            ..snapshot()
        };
        let nobody = Snapshot {
            shifts: Vec::new(),
            ..snapshot()
        };
        for snapshot in [always, nobody] {
            let text = serde_json::to_string(&Written::from(&snapshot)).unwrap();
            assert_eq!(read(&text), Some(snapshot));
        }
    }

    #[test]
    fn what_earlier_versions_wrote_is_read_too() {
        let shift = |span: &str, flags: &str, user: &str, rest: &str| {
            format!(r#"{{"interval":{{{span}}},{flags},"user":{user},{rest}}}"#)
        };
        let (first, second) = (
            r#""start_known":true,"end_known":false"#,
            r#""start_known":false,"end_known":true"#,
        );
        let override_ = r#""level":2,"permanent":false,"via_override":"POVERRIDE""#;
        let shifts = [
            shift(
                r#""start":"1969-12-31T23:59:57Z","end":"1969-12-31T23:59:58Z""#,
                first,
                ONE,
                override_,
            ),
            shift(
                r#""start":"1970-01-01T00:00:00Z","end":"1970-01-01T00:00:01.123456789Z""#,
                first,
                TWO,
                override_,
            ),
            shift(
                r#""start":"1970-01-01T00:00:02Z","end":"1970-01-01T00:00:03Z""#,
                second,
                ONE,
                r#""level":null,"permanent":true,"via_override":null"#,
            ),
        ];
        let text = format!(r#"{HEAD}"shifts":[{}],{TAIL}"#, shifts.join(","));
        assert_eq!(read(&text), Some(snapshot()));
    }

    #[test]
    fn users_are_kept_once_however_many_schedules_name_them() {
        let mut known = HashSet::default();
        let twice = [(); 2].map(|()| serde_json::from_str::<Written>(&text()).unwrap().snapshot(&mut known));
        let [one, two] = twice.map(Option::unwrap);
        assert!(Arc::ptr_eq(&one.shifts[1].user, &two.shifts[1].user));
    }

    #[test]
    fn what_does_not_hold_together_is_no_schedule_without_anybody_on_call() {
        let whole: Value = serde_json::from_str(&text()).unwrap();
        let with = |change: &dyn Fn(&mut Value)| {
            let mut changed = whole.clone();
            change(&mut changed);
            changed
        };
        let without = |fields: &[&str]| {
            with(&|all| {
                for field in fields {
                    all.as_object_mut().unwrap().remove(*field);
                }
            })
        };
        for broken in [
            without(&["users"]),
            without(&["turns"]),
            without(&["users", "turns"]),
            with(&|all| all["shifts"] = Value::Array(Vec::new())),
            with(&|all| all["turns"] = Value::Array(Vec::new())),
            with(&|all| all["turns"][1][4] = 2.into()),
            with(&|all| all["turns"][1][4] = 0.into()),
            with(&|all| all["turns"][2][0] = all["turns"][2][1].clone()),
        ] {
            assert_eq!(read(&broken.to_string()), None, "{broken}");
        }
    }
}
