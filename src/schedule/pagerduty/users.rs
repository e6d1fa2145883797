//! Decodes PagerDuty users: references, full users and `GET /users/{id}`.

use serde::Deserialize;
use serde_json::Value;

use crate::model::{SourceUser, SourceUserState};
use crate::schedule::wire::{self, DecodeError, Id, one_line};

/// A user as other objects carry one: a reference, or everything where the call included users.
#[derive(Debug, Clone, Deserialize)]
pub struct Reference {
    pub(super) id: Id,
    #[serde(rename = "type")]
    kind: Option<String>,
    summary: Option<String>,
    name: Option<String>,
    email: Option<String>,
    /// Not in the published schema, but sent for deleted users
    /// (<https://github.com/app-sre/qontract-reconcile/pull/2074>).
    deleted_at: Option<Value>,
}

impl Reference {
    /// The user, when this alone tells who and in which state: marked as deleted, or complete.
    pub(super) fn settled(&self) -> Option<SourceUser> {
        if self.deleted_at.is_some() {
            return Some(self.with_state(SourceUserState::Deleted));
        }
        (self.name.is_some() && self.email.is_some()).then(|| self.with_state(SourceUserState::Active))
    }

    /// A user of whom nothing but a reference is left: deleted or deactivated.
    pub(super) fn gone(&self) -> SourceUser {
        self.with_state(SourceUserState::Deleted)
    }

    fn with_state(&self, state: SourceUserState) -> SourceUser {
        SourceUser {
            id: self.id.0.clone().into(),
            name: self.name.as_ref().or(self.summary.as_ref()).map(|name| one_line(name)),
            email: self.email.clone(),
            state,
        }
    }

    /// Whether it is a user at all.
    pub(super) fn check(&self) -> Result<(), DecodeError> {
        match self.kind.as_deref() {
            None | Some("user" | "user_reference") => Ok(()),
            Some(other) => Err(DecodeError::new(&format!(
                "somebody on call of the unknown type {other:?}"
            ))),
        }
    }
}

#[derive(Deserialize)]
struct Body {
    user: Reference,
}

/// Reads the answer of `GET /users/{id}`. A deactivated user comes back as a bare reference, with a `summary` but
/// neither name nor e-mail (seen in github.com/PagerDuty/pd-oncall-chat-topic).
///
/// # Errors
/// [`DecodeError`] for another user and everything that is not the documented form.
pub fn decode(body: &[u8], id: &str) -> Result<SourceUser, DecodeError> {
    let Body { user } = wire::json(body)?;
    if user.id.0 != id {
        return Err(DecodeError::new(&format!("another user ({})", user.id)));
    }
    user.check()?;
    let bare = user.name.is_none() && user.email.is_none();
    Ok(if user.deleted_at.is_some() || bare {
        user.gone()
    } else {
        user.with_state(SourceUserState::Active)
    })
}
