//! `GET /users` and `GET /users/{id}`.

use serde_json::{Value, json};

use super::{Outcome, Refusal, page};
use crate::request::Incoming;
use crate::world::pagerduty::{PagerDuty, User};

pub(crate) fn list(pager: &PagerDuty, request: &Incoming) -> Outcome {
    let query = request.parameter("query").unwrap_or_default().to_lowercase();
    let rows = pager
        .users
        .iter()
        .filter(|user| user.deleted_at.is_none())
        .filter(|user| user.name.to_lowercase().contains(&query))
        .map(full)
        .collect();
    page(request, "users", rows, 25, 100)
}

pub(crate) fn get(pager: &PagerDuty, id: &str) -> Outcome {
    pager
        .users
        .iter()
        .find(|user| user.id == id && user.deleted_at.is_none())
        .map(|user| json!({"user": full(user)}))
        .ok_or_else(Refusal::not_found)
}

/// A person in full; the e-mail is left out where there is none.
pub(crate) fn full(user: &User) -> Value {
    let mut full = json!({
        "id": user.id,
        "type": "user",
        "summary": user.name,
        "self": format!("https://api.pagerduty.com/users/{}", user.id),
        "html_url": format!("https://sandbox.pagerduty.com/users/{}", user.id),
        "name": user.name,
        "time_zone": "Etc/UTC",
        "color": "purple",
        "role": "limited_user",
        "description": null,
        "job_title": null,
        "billed": true,
        "invitation_sent": user.invitation_sent,
        "teams": [],
        "contact_methods": [],
        "notification_rules": [],
        "coordinated_incidents": [],
    });
    if let Some(email) = &user.email {
        full["email"] = json!(email);
    }
    full
}
