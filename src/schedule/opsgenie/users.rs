//! Decodes Opsgenie users: recipients of a timeline and `GET /v2/users/{id}`.

use serde::Deserialize;

use crate::model::{SourceUser, SourceUserState};
use crate::schedule::wire::{self, DecodeError, Id, one_line};

/// Who receives: a user, a team, an escalation, another schedule, or nobody.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub struct Recipient {
    id: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    /// For users the e-mail.
    name: Option<String>,
    username: Option<String>,
}

impl Recipient {
    /// A user known by the e-mail only.
    pub(super) fn named(username: String) -> Self {
        Self {
            id: None,
            kind: "user".to_owned(),
            name: Some(username),
            username: None,
        }
    }

    /// Whether it is one person.
    ///
    /// # Errors
    /// [`DecodeError`] for a type that we do not know, and for a user without id and name.
    pub(super) fn is_user(&self) -> Result<bool, DecodeError> {
        match self.kind.as_str() {
            "user" if self.key().is_none() => Err(DecodeError::new("a user on call without a usable id")),
            "user" => Ok(true),
            "none" | "noone" | "team" | "escalation" | "schedule" | "group" | "all" => Ok(false),
            other => Err(DecodeError::new(&format!(
                "a recipient of the unknown type {other:?}, so that it cannot be told who is on call"
            ))),
        }
    }

    /// Whether it stands for nobody on purpose.
    pub(super) fn is_nobody(&self) -> bool {
        matches!(self.kind.as_str(), "none" | "noone")
    }

    /// What the user is asked for by: the id, or the e-mail where that is all there is.
    pub(super) fn key(&self) -> Option<String> {
        let texts = [self.id.as_ref(), self.username.as_ref(), self.name.as_ref()];
        texts
            .into_iter()
            .flatten()
            .find_map(|text| Id::new(text.clone()))
            .map(|id| id.0)
    }

    /// The user as far as this tells, taken to be in good standing.
    pub(super) fn as_user(&self, key: &str) -> SourceUser {
        SourceUser {
            id: key.into(),
            name: None,
            email: self.username.as_ref().or(self.name.as_ref()).cloned(),
            state: SourceUserState::Active,
        }
    }

    /// How to call it in front of people.
    pub(super) fn shown(&self) -> String {
        let name = self.name.as_deref().or(self.id.as_deref()).unwrap_or("?");
        format!("{} {}", one_line(&self.kind), one_line(name))
    }
}

#[derive(Deserialize)]
struct Body {
    data: User,
}

#[derive(Deserialize)]
struct User {
    id: Id,
    username: Option<String>,
    #[serde(rename = "fullName")]
    full_name: Option<String>,
    blocked: Option<bool>,
}

/// Reads the answer of `GET /v2/users/{id or e-mail}`. The `username` is the e-mail.
///
/// # Errors
/// [`DecodeError`] for another user and everything that is not the documented form.
pub fn decode(body: &[u8], key: &str) -> Result<SourceUser, DecodeError> {
    let Body { data } = wire::json(body)?;
    let is_asked = |text: &str| text.eq_ignore_ascii_case(key);
    if !is_asked(&data.id.0) && !data.username.as_deref().is_some_and(is_asked) {
        return Err(DecodeError::new(&format!("another user ({})", data.id)));
    }
    Ok(SourceUser {
        id: data.id.0.into(),
        name: data.full_name.map(|name| one_line(&name)),
        email: data.username,
        state: if data.blocked == Some(true) {
            SourceUserState::Blocked
        } else {
            SourceUserState::Active
        },
    })
}
