//! Reads a schedule's audit records: `GET /schedules/{id}/audit/records`, and the same below `/v3`.
//!
//! The form is that of `AuditRecord` in <https://github.com/PagerDuty/api-schema>. How a record speaks about an override
//! is documented nowhere, so nothing is concluded from it but who changed the schedule, when, how, and which ids it names.

use serde::Deserialize;

use super::{Generation, PagerDuty, whole_seconds};
use crate::model::{Actor, Interval, ScheduleChange};
use crate::schedule::http::{Call, Failure, Reading};
use crate::schedule::wire::{self, DecodeError, Id, Instant, one_line};

/// What a token must be allowed.
pub(super) const SCOPE: &str = "audit_records.read";
/// A handful of records is looked up after an edit; whoever edits hundreds of schedules at once can wait.
pub(super) const PER_MINUTE: u32 = 60;
/// How many pages are read, each of up to a hundred records.
const PAGES: usize = 5;

#[derive(Deserialize)]
struct Body {
    records: Vec<Record>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Record {
    id: Id,
    execution_time: Instant,
    actors: Option<Vec<Reference>>,
    method: Method,
    root_resource: Reference,
    action: String,
    details: Option<Details>,
}

#[derive(Deserialize)]
struct Reference {
    id: Option<Id>,
    summary: Option<String>,
}

#[derive(Deserialize)]
struct Method {
    #[serde(rename = "type")]
    kind: String,
    truncated_token: Option<String>,
}

#[derive(Deserialize)]
struct Details {
    resource: Option<Reference>,
    references: Option<Vec<Affected>>,
}

#[derive(Deserialize)]
struct Affected {
    added: Option<Vec<Reference>>,
}

/// One page: the changes of this schedule, and the cursor to the next page.
fn decode(body: &[u8], id: &str) -> Result<(Vec<ScheduleChange>, Option<String>), DecodeError> {
    let Body { records, next_cursor } = wire::json(body)?;
    let of_this = |record: &Record| record.root_resource.id.as_ref().is_some_and(|root| root.0 == id);
    let changes = records.into_iter().filter(of_this).map(ScheduleChange::from).collect();
    Ok((changes, next_cursor.filter(|cursor| !cursor.is_empty())))
}

impl From<Record> for ScheduleChange {
    fn from(record: Record) -> Self {
        let actor = |actor: Reference| Actor {
            id: actor.id.map_or_else(|| "no id".to_owned(), |id| one_line(&id.0)),
            name: actor.summary.map(|name| one_line(&name)),
        };
        let mut names = Vec::new();
        if let Some(details) = record.details {
            let added = details.references.into_iter().flatten();
            let added = added.flat_map(|affected| affected.added.unwrap_or_default());
            let named = details.resource.into_iter().chain(added);
            names.extend(named.flat_map(|reference| reference.id).map(|id| id.0));
            names.sort_unstable();
            names.dedup();
        }
        Self {
            record: record.id.0,
            at: record.execution_time.0,
            by: record.actors.into_iter().flatten().map(actor).collect(),
            method: one_line(&record.method.kind),
            key: record.method.truncated_token.map(|key| one_line(&key)),
            action: one_line(&record.action),
            names,
        }
    }
}

impl PagerDuty {
    /// The changes within `span`, the latest first.
    pub(super) async fn changes_of(&self, id: &str, span: Interval) -> Result<Vec<ScheduleChange>, Failure> {
        let mut reading = Reading::default();
        let first = self.remembered(id).unwrap_or(Generation::V2);
        match self.records(&mut reading, id, span, first).await {
            // The other kind of schedule, as with the schedules themselves.
            Err(failure) if matches!(failure.status, Some(400 | 404)) => {
                let second = match first {
                    Generation::V2 => Generation::V3,
                    Generation::V3 => Generation::V2,
                };
                self.records(&mut reading, id, span, second).await.map_err(|_| failure)
            }
            found => found,
        }
    }

    async fn records(
        &self,
        reading: &mut Reading,
        id: &str,
        span: Interval,
        generation: Generation,
    ) -> Result<Vec<ScheduleChange>, Failure> {
        let span = whole_seconds(span);
        let (since, until) = (span.start().to_string(), span.end().to_string());
        let (mut found, mut cursor) = (Vec::new(), None::<String>);
        for _ in 0..PAGES {
            let mut query = vec![("since", since.as_str()), ("until", until.as_str()), ("limit", "100")];
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let v2 = ["schedules", id, "audit", "records"];
            let v3 = ["v3", "schedules", id, "audit", "records"];
            let call = match generation {
                Generation::V2 => Call {
                    operation: "GET /schedules/{id}/audit/records",
                    path: &v2,
                    query: &query,
                },
                Generation::V3 => Call {
                    operation: "GET /v3/schedules/{id}/audit/records",
                    path: &v3,
                    query: &query,
                },
            };
            let (changes, next) = self.audit.get(reading, &call, |body| decode(body, id)).await?;
            found.extend(changes);
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        found.retain(|change| span.start() <= change.at && change.at <= span.end());
        found.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.record.cmp(&b.record)));
        found.dedup_by(|a, b| a.record == b.record);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn record(change: impl FnOnce(&mut Value)) -> Value {
        let mut record = json!({
            "id": "R1",
            "self": null,
            "execution_time": "2026-11-21T13:00:00.272Z",
            "execution_context": null,
            "actors": [{"id": "PUSER", "type": "user_reference", "summary": "Mira\u{1b}[31m Stone"}],
            "method": {"type": "browser", "description": null, "truncated_token": null},
            "root_resource": {"id": "PABC123", "type": "schedule_reference", "summary": null},
            "action": "create",
            "details": {
                "resource": {"id": "PO77", "type": "override_reference", "summary": null},
                "fields": [{"name": "start", "value": "2026", "before_value": null}],
                "references": [{"name": "users", "added": [{"id": "PBOB002", "type": "user_reference"}], "removed": null}],
            },
        });
        change(&mut record);
        record
    }

    fn read(records: Value) -> Result<(Vec<ScheduleChange>, Option<String>), DecodeError> {
        let body = json!({"records": records, "next_cursor": null, "limit": 100});
        decode(body.to_string().as_bytes(), "PABC123")
    }

    #[test]
    fn a_record_says_who_when_how_and_what_it_names() {
        let (changes, next) = read(json!([record(|_| {})])).unwrap();
        assert_eq!(next, None);
        let change = &changes[0];
        assert_eq!(change.at.to_string(), "2026-11-21T13:00:00.272Z");
        assert_eq!(change.by[0].id, "PUSER");
        let name = change.by[0].name.as_deref().unwrap();
        assert!(name.contains("Stone") && !name.contains('\u{1b}'), "{name:?}");
        assert_eq!((change.method.as_str(), change.action.as_str()), ("browser", "create"));
        assert_eq!(change.names, ["PBOB002", "PO77"]);
    }

    /// Everything that the schema calls nullable or does not require.
    #[test]
    fn what_may_be_null_or_missing_is_no_mistake() {
        let (changes, _) = read(json!([
            record(|r| r["actors"] = Value::Null),
            record(|r| r["details"] = Value::Null),
            record(|r| r["details"]["references"] = Value::Null),
            record(|r| {
                r.as_object_mut().unwrap().remove("details");
            }),
            record(|r| r["actors"] = json!([{"type": "app_reference"}])),
        ]))
        .unwrap();
        assert_eq!(changes.len(), 5);
        assert_eq!(changes[0].by, []);
        assert_eq!(changes[1].names, [""; 0]);
    }

    #[test]
    fn a_record_of_something_else_is_none_of_this_schedule() {
        let other = record(|r| r["root_resource"]["id"] = json!("POTHER1"));
        assert_eq!(read(json!([other])).unwrap().0, []);
        assert!(read(json!([record(|r| r["execution_time"] = json!("yesterday"))])).is_err());
        assert!(decode(b"<html>", "PABC123").is_err());
    }
}
