//! Events in the Open Cybersecurity Schema Framework, <https://schema.ocsf.io>.
//!
//! Access that begins or ends, and changes that AWS refused, are of the class User Access Management (3005). A person's
//! order that somebody holds nothing, and its end, are of the class Account Change (3001), as lock and unlock.

use serde_json::{Value, json};

use crate::ledger::{ExportedCause, ExportedEvent};

/// Identity & Access Management.
const CATEGORY: i64 = 3;
const ACCOUNT_CHANGE: i64 = 3001;
const USER_ACCESS: i64 = 3005;
/// The first version of the schema that has all attributes used here.
pub const VERSION: &str = "1.5.0";

const INFORMATIONAL: i64 = 1;
const SUCCESS: i64 = 1;
const FAILURE: i64 = 2;
const ASSIGN_PRIVILEGES: i64 = 1;
const REVOKE_PRIVILEGES: i64 = 2;
const LOCK: i64 = 9;
const UNLOCK: i64 = 12;
/// A user, as opposed to an administrator or a system; an AWS account among types of accounts.
const USER: i64 = 1;
const AWS_ACCOUNT: i64 = 10;

/// The event in this schema; `None` for what it has no class for.
#[must_use]
pub fn event(event: &ExportedEvent, ledger: &str) -> Option<Value> {
    let (class, activity, name) = match (event.kind.as_str(), event.asked.as_deref()) {
        ("access_begun", _) => (USER_ACCESS, ASSIGN_PRIVILEGES, "Assign Privileges"),
        ("access_ended", _) => (USER_ACCESS, REVOKE_PRIVILEGES, "Revoke Privileges"),
        ("intent_completed", Some("grant")) => (USER_ACCESS, ASSIGN_PRIVILEGES, "Assign Privileges"),
        ("intent_completed", Some(_)) => (USER_ACCESS, REVOKE_PRIVILEGES, "Revoke Privileges"),
        ("order_given", _) => (ACCOUNT_CHANGE, LOCK, "Lock"),
        ("order_lifted", _) => (ACCOUNT_CHANGE, UNLOCK, "Unlock"),
        _ => return None,
    };
    // What succeeded is told of by the access that began or ended with it.
    let failed = event.kind == "intent_completed";
    if failed && event.outcome.as_deref() == Some("succeeded") {
        return None;
    }
    let unknown = failed && event.outcome.as_deref() == Some("unknown");
    let said = |column: &str| event.says.get(column).and_then(Value::as_str).map(str::to_owned);
    // Access counts from when AWS confirmed it, which is not always when that was recorded.
    let effective = ["granted_at", "revoked_at"]
        .into_iter()
        .find_map(|c| event.says.get(c)?.as_i64());
    let mut out = json!({
        "class_uid": class,
        "class_name": if class == USER_ACCESS { "User Access Management" } else { "Account Change" },
        "category_uid": CATEGORY,
        "category_name": "Identity & Access Management",
        "activity_id": activity,
        "activity_name": name,
        "type_uid": class * 100 + activity,
        "severity_id": INFORMATIONAL,
        "severity": "Informational",
        "status_id": if unknown { 0 } else if failed { FAILURE } else { SUCCESS },
        "status": if unknown { "Unknown" } else if failed { "Failure" } else { "Success" },
        "time": effective.unwrap_or(event.time.as_millisecond()),
        "message": message(event, name),
        "metadata": {
            "version": VERSION,
            "product": { "name": "dutybound", "vendor_name": "dutybound", "version": env!("CARGO_PKG_VERSION") },
            "log_name": ledger,
            "uid": format!("{ledger}:{}", event.seq),
            "sequence": event.seq,
            "event_code": event.kind,
            "logged_time": event.time.as_millisecond(),
        },
        "actor": actor(said("ordered_by").or_else(|| said("lifted_by"))),
        "user": user(event),
        "unmapped": {
            "entitlement": event.entitlement,
            "asked": event.asked,
            "intent": event.intent,
            "reference": event.reference,
            "policy": event.policy,
            "context": event.context,
            "causes": event.causes,
            "reason": said("reason"),
            "hash": event.hash,
        },
    });
    let mut put = |key: &str, value: Option<Value>| {
        if let (Some(object), Some(value)) = (out.as_object_mut(), value) {
            object.insert(key.to_owned(), value);
        }
    };
    put("status_detail", event.detail.clone().map(Value::String));
    if class == USER_ACCESS {
        put("privileges", Some(json!(privileges(event))));
        put("resources", resource(event).map(|resource| json!([resource])));
    }
    Some(out)
}

fn message(event: &ExportedEvent, activity: &str) -> String {
    let who = event
        .person
        .as_deref()
        .or(event.principal.as_deref())
        .unwrap_or("somebody");
    let why: Vec<_> = event.causes.iter().map(because).collect();
    let what = event
        .entitlement
        .as_deref()
        .map_or_else(String::new, |e| format!(": {e}"));
    let why = if why.is_empty() {
        String::new()
    } else {
        format!(" ({})", why.join("; "))
    };
    format!("{activity} for {who}{what}{why}")
}

fn because(cause: &ExportedCause) -> String {
    match &cause.schedule {
        Some(schedule) => format!("{} of {schedule} by {}", cause.basis, cause.rule),
        None => format!("{} by {}", cause.basis, cause.rule),
    }
}

fn actor(person: Option<String>) -> Value {
    match person {
        Some(name) => json!({ "app_name": "dutybound", "user": { "name": name, "type_id": USER, "type": "User" } }),
        None => json!({ "app_name": "dutybound" }),
    }
}

fn user(event: &ExportedEvent) -> Value {
    let mut user = json!({ "type_id": USER, "type": "User" });
    let Some(fields) = user.as_object_mut() else {
        return user;
    };
    let person = event.person.clone().or_else(|| event.principal.clone());
    fields.insert(
        "name".to_owned(),
        json!(person.unwrap_or_else(|| "somebody".to_owned())),
    );
    if let Some(person) = event.person.as_ref().filter(|person| person.contains('@')) {
        fields.insert("email_addr".to_owned(), json!(person));
    }
    if let Some(principal) = &event.principal {
        fields.insert("uid".to_owned(), json!(principal));
    }
    if let Some(account) = &event.account {
        let account = json!({ "uid": account, "type_id": AWS_ACCOUNT, "type": "AWS Account" });
        fields.insert("account".to_owned(), account);
    }
    user
}

fn privileges(event: &ExportedEvent) -> Vec<String> {
    let all = [&event.entitlement, &event.permission_set_arn];
    all.into_iter().flatten().cloned().collect()
}

fn resource(event: &ExportedEvent) -> Option<Value> {
    let (uid, kind) = match (&event.account, &event.group_id) {
        (Some(account), _) => (account, "AWS account"),
        (None, Some(group)) => (group, "IAM Identity Center group"),
        (None, None) => return None,
    };
    let mut resource = json!({ "uid": uid, "type": kind });
    if let (Some(fields), Some(project)) = (resource.as_object_mut(), event.project()) {
        fields.insert("namespace".to_owned(), json!(project));
    }
    Some(resource)
}
