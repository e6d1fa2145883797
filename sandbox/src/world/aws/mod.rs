//! What AWS IAM Identity Center knows.

mod operations;

pub use operations::{Failure, Matching, MissingAssignment, Operation, OperationKind, SlowOperation, Spread, Status};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub(crate) use operations::later;

/// An Identity Center instance with its identity store and accounts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Aws {
    /// The account that owns the instance.
    pub owner_account_id: String,
    /// The instance's ARN.
    pub instance_arn: String,
    /// The identity store's id.
    pub identity_store_id: String,
    /// The only region in which the instance is found.
    pub region: String,
    /// Accepted access key ids; `None` accepts any.
    pub access_key_ids: Option<Vec<String>>,
    /// Accounts of the organisation.
    pub accounts: Vec<Account>,
    /// Permission sets.
    pub permission_sets: Vec<PermissionSet>,
    /// People.
    pub users: Vec<User>,
    /// Groups.
    pub groups: Vec<Group>,
    /// Who is in which group.
    pub memberships: Vec<Membership>,
    /// Account assignments.
    pub assignments: Vec<Assignment>,
    /// Assignment operations, finished ones included.
    pub operations: Vec<Operation>,
    /// The largest page of any list.
    pub page_size: usize,
    /// Whether every list begins with an empty page that has a token.
    pub empty_first_page: bool,
    /// Requests per second over both services, as a bucket that holds one second's worth; 0 is unlimited.
    pub requests_per_second: u32,
    /// Assignment operations that may be in progress at once.
    pub outstanding_operations: usize,
    /// How long an assignment operation takes.
    pub operation_takes: SignedDuration,
    /// Durations drawn for each operation, in place of [`operation_takes`](Self::operation_takes).
    pub operation_spread: Option<Spread>,
    /// Exceptions from both, first match wins.
    pub slow_operations: Vec<SlowOperation>,
    /// Assignment operations that end FAILED, first match wins.
    pub failures: Vec<Failure>,
    /// How much later than the change itself lists show it.
    pub list_delay: SignedDuration,
    /// What the deletion of an assignment that does not exist does.
    pub missing_assignment: MissingAssignment,
    /// Whether ListAccountAssignmentsForPrincipal for a user shows rows of the user's groups too; unverified.
    pub principal_lists_group_rows: bool,
    /// Whether lookups by user name, e-mail and display name ignore case; undocumented.
    pub lookups_ignore_case: bool,
}

impl Default for Aws {
    fn default() -> Self {
        Self {
            owner_account_id: "999999999999".to_owned(),
            instance_arn: "arn:aws:sso:::instance/ssoins-7223b02f1ab4c5d6".to_owned(),
            identity_store_id: "d-9067f5a2b1".to_owned(),
            region: "eu-central-1".to_owned(),
            access_key_ids: None,
            accounts: Vec::new(),
            permission_sets: Vec::new(),
            users: Vec::new(),
            groups: Vec::new(),
            memberships: Vec::new(),
            assignments: Vec::new(),
            operations: Vec::new(),
            page_size: 100,
            empty_first_page: false,
            requests_per_second: 20,
            outstanding_operations: 10,
            operation_takes: SignedDuration::ZERO,
            operation_spread: None,
            slow_operations: Vec::new(),
            failures: Vec::new(),
            list_delay: SignedDuration::ZERO,
            missing_assignment: MissingAssignment::NotFound,
            principal_lists_group_rows: true,
            lookups_ignore_case: false,
        }
    }
}

/// An AWS account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Twelve digits.
    pub id: String,
    /// Shown name.
    pub name: String,
}

/// A permission set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PermissionSet {
    /// ARN.
    pub arn: String,
    /// Name.
    pub name: String,
    /// ISO 8601 duration, `PT1H` to `PT12H`.
    pub session_duration: String,
}

/// A person in the identity store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// A UUID.
    pub id: String,
    /// User name.
    pub user_name: String,
    /// Shown name.
    pub display_name: String,
    /// E-mail addresses, the primary one first.
    pub emails: Vec<String>,
    /// `UserStatus`.
    pub enabled: bool,
}

/// A group in the identity store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// A UUID.
    pub id: String,
    /// Shown name.
    pub display_name: String,
}

/// A person's membership in a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// Membership id, a UUID.
    pub id: String,
    /// Group id.
    pub group: String,
    /// User id.
    pub user: String,
    /// When it was made, if through the API.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// When it was removed; it stays until lists have caught up.
    #[serde(default)]
    pub removed: Option<Timestamp>,
}

/// `PrincipalType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PrincipalType {
    /// A person.
    User,
    /// A group.
    Group,
}

impl PrincipalType {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::User => "USER",
            Self::Group => "GROUP",
        }
    }
}

/// What an assignment is: one permission set for one principal in one account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssignmentKey {
    /// Account id.
    pub account: String,
    /// Permission set ARN.
    pub permission_set: String,
    /// User or group.
    pub principal_type: PrincipalType,
    /// Its id.
    pub principal: String,
}

/// An account assignment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// What is assigned.
    pub key: AssignmentKey,
    /// When it came into being, if through the API.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// When it was removed; it stays until lists have caught up.
    #[serde(default)]
    pub removed: Option<Timestamp>,
}

impl Aws {
    /// Adds an account.
    pub fn add_account(&mut self, id: &str, name: &str) {
        self.accounts.push(Account {
            id: id.to_owned(),
            name: name.to_owned(),
        });
    }

    /// Adds a permission set with sessions of an hour and gives its ARN.
    pub fn add_permission_set(&mut self, name: &str) -> String {
        let instance = self.instance_arn.rsplit('/').next().unwrap_or_default();
        let number = self.permission_sets.len() + 1;
        let arn = format!("arn:aws:sso:::permissionSet/{instance}/ps-{number:016x}");
        self.permission_sets.push(PermissionSet {
            arn: arn.clone(),
            name: name.to_owned(),
            session_duration: "PT1H".to_owned(),
        });
        arn
    }

    /// Adds an enabled user whose user name is the e-mail and gives the id.
    pub fn add_user(&mut self, display_name: &str, email: &str) -> String {
        let id = format!("b3c4d5e6-1111-4000-8000-{:012x}", self.users.len() + 1);
        self.users.push(User {
            id: id.clone(),
            user_name: email.to_owned(),
            display_name: display_name.to_owned(),
            emails: vec![email.to_owned()],
            enabled: true,
        });
        id
    }

    /// Adds a group and gives its id.
    pub fn add_group(&mut self, display_name: &str) -> String {
        let id = format!("c4d5e6f7-2222-4000-8000-{:012x}", self.groups.len() + 1);
        self.groups.push(Group {
            id: id.clone(),
            display_name: display_name.to_owned(),
        });
        id
    }

    /// Puts a user into a group behind the daemon's back and gives the membership id.
    pub fn add_member(&mut self, group: &str, user: &str) -> String {
        let id = format!("d5e6f7a8-3333-4000-8000-{:012x}", self.memberships.len() + 1);
        self.memberships.push(Membership {
            id: id.clone(),
            group: group.to_owned(),
            user: user.to_owned(),
            since: None,
            removed: None,
        });
        id
    }

    /// Assigns a permission set to a user behind the daemon's back.
    pub fn assign(&mut self, account: &str, permission_set: &str, user: &str) {
        let key = AssignmentKey {
            account: account.to_owned(),
            permission_set: permission_set.to_owned(),
            principal_type: PrincipalType::User,
            principal: user.to_owned(),
        };
        if !self.exists(&key) {
            self.assignments.push(Assignment {
                key,
                since: None,
                removed: None,
            });
        }
    }

    /// Lets matching operations fail from now on, for that reason.
    pub fn fail(&mut self, matching: Matching, reason: &str) {
        self.failures.push(Failure {
            matching,
            reason: reason.to_owned(),
        });
    }

    /// The id of the user with this user name.
    pub fn user_id(&self, user_name: &str) -> Option<&str> {
        self.users
            .iter()
            .find(|user| user.user_name == user_name)
            .map(|user| user.id.as_str())
    }

    /// The id of the group with this name.
    pub fn group_id(&self, display_name: &str) -> Option<&str> {
        self.groups
            .iter()
            .find(|group| group.display_name == display_name)
            .map(|group| group.id.as_str())
    }

    /// The ARN of the permission set with this name.
    pub fn permission_set_arn(&self, name: &str) -> Option<&str> {
        self.permission_sets
            .iter()
            .find(|set| set.name == name)
            .map(|set| set.arn.as_str())
    }

    /// Whether the user (by user name) truly holds the permission set (by name) in the account, directly.
    pub fn holds(&self, account: &str, permission_set: &str, user_name: &str) -> bool {
        let (Some(set), Some(user)) = (self.permission_set_arn(permission_set), self.user_id(user_name)) else {
            return false;
        };
        self.exists(&AssignmentKey {
            account: account.to_owned(),
            permission_set: set.to_owned(),
            principal_type: PrincipalType::User,
            principal: user.to_owned(),
        })
    }

    /// Whether the user (by user name) truly is in the group (by name).
    pub fn is_member(&self, group: &str, user_name: &str) -> bool {
        let (Some(group), Some(user)) = (self.group_id(group), self.user_id(user_name)) else {
            return false;
        };
        self.memberships
            .iter()
            .any(|member| member.removed.is_none() && member.group == group && member.user == user)
    }

    pub(crate) fn exists(&self, key: &AssignmentKey) -> bool {
        self.assignments
            .iter()
            .any(|row| row.removed.is_none() && row.key == *key)
    }

    /// Whether lists show a row now.
    pub(crate) fn listed(&self, since: Option<Timestamp>, removed: Option<Timestamp>, now: Timestamp) -> bool {
        since.is_none_or(|at| later(at, self.list_delay) <= now)
            && removed.is_none_or(|at| later(at, self.list_delay) > now)
    }
}
