//! Entitlements, what they are in AWS, and who holds them there.

use std::fmt;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// The name of a project, unique in `access.d`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProjectName(pub SmolStr);

impl fmt::Display for ProjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An entitlement by its owner's project and its name there, written `payments/prod-admin`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EntitlementId {
    /// The project that owns it.
    pub project: ProjectName,
    /// Its name in that project.
    pub name: SmolStr,
}

impl fmt::Display for EntitlementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.name)
    }
}

impl From<EntitlementId> for String {
    fn from(id: EntitlementId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for EntitlementId {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once('/') {
            Some((project, name)) if !project.is_empty() && !name.is_empty() => Ok(Self {
                project: ProjectName(project.into()),
                name: name.into(),
            }),
            _ => Err(format!("{text:?} is not of the form project/entitlement")),
        }
    }
}

/// What an entitlement grants, as its owner wrote it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A permission set in an AWS account.
    Assignment {
        /// Twelve digits.
        account: String,
        /// Which permission set.
        permission_set: PermissionSetRef,
    },
    /// Membership of an Identity Center group.
    Group(GroupRef),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Assignment {
                account,
                permission_set,
            } => write!(f, "{permission_set} in account {account}"),
            Self::Group(group) => write!(f, "group {group}"),
        }
    }
}

/// A permission set by name or by ARN.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PermissionSetRef {
    /// Its name, unique in the instance.
    Name(String),
    /// Its ARN.
    Arn(String),
}

impl fmt::Display for PermissionSetRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Name(text) | Self::Arn(text)) = self;
        f.write_str(text)
    }
}

/// An Identity Center group by display name or by id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupRef {
    /// Its display name.
    Name(String),
    /// Its id in the identity store.
    Id(String),
}

impl fmt::Display for GroupRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Name(text) | Self::Id(text)) = self;
        f.write_str(text)
    }
}

/// What an entitlement grants, with every name looked up: the key under which AWS knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResolvedTarget {
    /// A permission set in an AWS account.
    Assignment {
        /// Twelve digits.
        account: SmolStr,
        /// The permission set's ARN.
        permission_set_arn: SmolStr,
    },
    /// Membership of a group.
    Group {
        /// The group's id in the identity store.
        group_id: SmolStr,
    },
}

impl fmt::Display for ResolvedTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Assignment {
                account,
                permission_set_arn,
            } => write!(f, "{permission_set_arn} in account {account}"),
            Self::Group { group_id } => write!(f, "group {group_id}"),
        }
    }
}

/// The id of a user in the identity store.
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PrincipalId(pub SmolStr);

impl fmt::Display for PrincipalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
