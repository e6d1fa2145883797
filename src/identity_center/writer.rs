//! The half of the connection that changes things: one request per change, repeated only where that is safe.

use async_trait::async_trait;
use aws_sdk_identitystore::types::MemberId;
use aws_sdk_ssoadmin::types::{AccountAssignmentOperationStatus, PrincipalType, TargetType};

use super::client::{required, unreadable};
use super::limiter::Priority;
use super::{AwsError, AwsErrorKind, Call, ChangeKind, Client, Operation, Progress, Started, Write};
use crate::model::{PrincipalId, ResolvedTarget};

/// Writes through a [`Client`].
pub(super) struct Writer {
    client: Client,
}

impl Writer {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl Write for Writer {
    async fn start(
        &self,
        change: ChangeKind,
        target: &ResolvedTarget,
        principal: &PrincipalId,
    ) -> Result<Started, AwsError> {
        let user = principal.0.as_str();
        let result = match (change, target) {
            (
                ChangeKind::Grant,
                ResolvedTarget::Assignment {
                    account,
                    permission_set_arn,
                },
            ) => self.client.assign(account, permission_set_arn, user).await,
            (
                ChangeKind::Revoke,
                ResolvedTarget::Assignment {
                    account,
                    permission_set_arn,
                },
            ) => self.client.unassign(account, permission_set_arn, user).await,
            (ChangeKind::Grant, ResolvedTarget::Group { group_id }) => self.client.join(group_id, user).await,
            (ChangeKind::Revoke, ResolvedTarget::Group { group_id }) => self.client.leave(group_id, user).await,
        };
        if let Err(error) = &result
            && error.kind == AwsErrorKind::NotFound
        {
            // What was looked up earlier is gone, so the next pass must look again.
            self.client.forget_target(target).await;
            self.client.shared.people.forget(principal);
        }
        result
    }
}

impl Client {
    async fn assign(&self, account: &str, set: &str, user: &str) -> Result<Started, AwsError> {
        let instance = self.instance().await?;
        let call = Call::CreateAccountAssignment;
        let answer = self
            .run(call, Priority::Change, || {
                let request = self.shared.admin.create_account_assignment();
                request
                    .instance_arn(&instance.arn)
                    .target_type(TargetType::AwsAccount)
                    .target_id(account)
                    .permission_set_arn(set)
                    .principal_type(PrincipalType::User)
                    .principal_id(user)
                    .send()
            })
            .await?;
        let status = answer.account_assignment_creation_status;
        self.started(call, ChangeKind::Grant, status).await
    }

    async fn unassign(&self, account: &str, set: &str, user: &str) -> Result<Started, AwsError> {
        let instance = self.instance().await?;
        let call = Call::DeleteAccountAssignment;
        let answer = self
            .run(call, Priority::Change, || {
                let request = self.shared.admin.delete_account_assignment();
                request
                    .instance_arn(&instance.arn)
                    .target_type(TargetType::AwsAccount)
                    .target_id(account)
                    .permission_set_arn(set)
                    .principal_type(PrincipalType::User)
                    .principal_id(user)
                    .send()
            })
            .await;
        match answer {
            Ok(answer) => {
                let mut status = answer.account_assignment_deletion_status;
                // So that a failure can be compared with the live state even if the answer is sparse.
                if let Some(status) = &mut status {
                    status.target_id = Some(account.to_owned());
                    status.permission_set_arn = Some(set.to_owned());
                    status.principal_id = Some(user.to_owned());
                }
                self.started(call, ChangeKind::Revoke, status).await
            }
            // The assignment, its permission set or its account is gone, and the access with it.
            Err(error) if error.kind == AwsErrorKind::NotFound => Ok(Started::Done { reference: None }),
            Err(error) => Err(error),
        }
    }

    async fn started(
        &self,
        call: Call,
        kind: ChangeKind,
        status: Option<AccountAssignmentOperationStatus>,
    ) -> Result<Started, AwsError> {
        let status = status.ok_or_else(|| unreadable(call, "the answer has no status"))?;
        match self.judge(kind, &status).await? {
            Progress::Succeeded => Ok(Started::Done {
                reference: status.request_id,
            }),
            Progress::Failed(reason) => Err(AwsError {
                operation: call.label(),
                kind: AwsErrorKind::Rejected,
                message: format!("AWS accepted the request and then failed it: {reason}"),
                outcome_unknown: false,
            }),
            Progress::InProgress | Progress::Forgotten => Ok(Started::Pending(Operation {
                kind,
                request_id: required(call, "RequestId", status.request_id())?,
            })),
        }
    }

    async fn join(&self, group: &str, user: &str) -> Result<Started, AwsError> {
        let store = &self.instance().await?.identity_store_id;
        let call = Call::CreateGroupMembership;
        let mut patience = self.patience(call);
        loop {
            let send = || {
                let request = self.shared.store.create_group_membership();
                request
                    .identity_store_id(store)
                    .group_id(group)
                    .member_id(MemberId::UserId(user.to_owned()))
                    .send()
            };
            let failure = match self.attempt(call, Priority::Change, send).await {
                Ok(answer) => {
                    return Ok(Started::Done {
                        reference: Some(answer.membership_id).filter(|id| !id.is_empty()),
                    });
                }
                Err(failure) => failure,
            };
            // One exception means both "already a member" and "somebody else is changing this group".
            if failure.kind == AwsErrorKind::Conflict {
                let membership = self.membership(store, group, user).await.map_err(|mut error| {
                    error.outcome_unknown |= patience.outcome_unknown;
                    error
                })?;
                if membership.is_some() {
                    return Ok(Started::Done { reference: membership });
                }
            }
            self.pause(&mut patience, failure)
                .await
                .map_err(|failure| failure.into_error(&self.shared.site))?;
        }
    }

    async fn leave(&self, group: &str, user: &str) -> Result<Started, AwsError> {
        let store = &self.instance().await?.identity_store_id;
        let Some(membership) = self.membership(store, group, user).await? else {
            return Ok(Started::Done { reference: None });
        };
        let deleted = self
            .run(Call::DeleteGroupMembership, Priority::Change, || {
                let request = self.shared.store.delete_group_membership();
                request.identity_store_id(store).membership_id(&membership).send()
            })
            .await;
        match deleted {
            Ok(_) => Ok(Started::Done {
                reference: Some(membership),
            }),
            Err(error) if error.kind == AwsErrorKind::NotFound => Ok(Started::Done { reference: None }),
            Err(error) => Err(error),
        }
    }

    /// The id of a user's membership; `None` when there is none, or no such group.
    async fn membership(&self, store: &str, group: &str, user: &str) -> Result<Option<String>, AwsError> {
        let call = Call::GetGroupMembershipId;
        let answer = self
            .run(call, Priority::Change, || {
                let request = self.shared.store.get_group_membership_id();
                request
                    .identity_store_id(store)
                    .group_id(group)
                    .member_id(MemberId::UserId(user.to_owned()))
                    .send()
            })
            .await;
        match answer {
            Ok(answer) => required(call, "MembershipId", Some(answer.membership_id())).map(Some),
            Err(error) if error.kind == AwsErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
