//! Reads who holds a target now, and how operations under way stand.

use aws_sdk_ssoadmin::types::{AccountAssignmentOperationStatus, PrincipalType, StatusValues};

use super::client::{Client, PAGE, required, unreadable};
use super::failure::sanitise;
use super::limiter::Priority;
use super::{AwsError, AwsErrorKind, Call, ChangeKind, Holders, Operation, Progress};
use crate::model::{PrincipalId, ResolvedTarget};

impl Client {
    pub(super) async fn holders(&self, target: &ResolvedTarget, priority: Priority) -> Result<Holders, AwsError> {
        match target {
            ResolvedTarget::Assignment {
                account,
                permission_set_arn,
            } => self.assigned(account, permission_set_arn, priority).await,
            ResolvedTarget::Group { group_id } => self.members(group_id, priority).await,
        }
    }

    async fn assigned(&self, account: &str, set: &str, priority: Priority) -> Result<Holders, AwsError> {
        let instance = self.instance().await?;
        let call = Call::ListAccountAssignments;
        let rows = self
            .pages(call, |token| async move {
                let page = self
                    .run(call, priority, || {
                        let request = self.shared.admin.list_account_assignments();
                        request
                            .instance_arn(&instance.arn)
                            .account_id(account)
                            .permission_set_arn(set)
                            .max_results(PAGE)
                            .set_next_token(token.clone())
                            .send()
                    })
                    .await?;
                Ok((page.account_assignments.unwrap_or_default(), page.next_token))
            })
            .await?;
        let mut holders = Holders::default();
        for row in rows {
            let is_ours = row.account_id().is_none_or(|id| id == account)
                && row.permission_set_arn().is_none_or(|arn| arn == set);
            if !is_ours {
                return Err(unreadable(
                    call,
                    "the list contains a row of another account or permission set",
                ));
            }
            let id = required(call, "PrincipalId", row.principal_id())?;
            match row.principal_type() {
                Some(PrincipalType::User) => {
                    holders.users.insert(PrincipalId(id.into()));
                }
                Some(_) => holders.groups.push(id),
                None => return Err(unreadable(call, "a row has no PrincipalType")),
            }
        }
        holders.groups.sort();
        holders.groups.dedup();
        Ok(holders)
    }

    async fn members(&self, group: &str, priority: Priority) -> Result<Holders, AwsError> {
        let store = &self.instance().await?.identity_store_id;
        let call = Call::ListGroupMemberships;
        let rows = self
            .pages(call, |token| async move {
                let page = self
                    .run(call, priority, || {
                        let request = self.shared.store.list_group_memberships();
                        request
                            .identity_store_id(store)
                            .group_id(group)
                            .max_results(PAGE)
                            .set_next_token(token.clone())
                            .send()
                    })
                    .await?;
                Ok((page.group_memberships, page.next_token))
            })
            .await?;
        let mut holders = Holders::default();
        for row in rows {
            if row.group_id().is_some_and(|id| id != group) {
                return Err(unreadable(call, "the list contains a row of another group"));
            }
            let Some(Ok(user)) = row.member_id().map(|member| member.as_user_id()) else {
                return Err(unreadable(call, "a row has no UserId"));
            };
            let user = required(call, "UserId", Some(user))?;
            holders.users.insert(PrincipalId(user.into()));
        }
        Ok(holders)
    }

    pub(super) async fn progress(&self, operation: &Operation) -> Result<Progress, AwsError> {
        let status = match operation.kind {
            ChangeKind::Grant => self.creation_status(&operation.request_id).await,
            ChangeKind::Revoke => self.deletion_status(&operation.request_id).await,
        };
        let status = match status {
            Ok(status) => status,
            Err(error) if error.kind == AwsErrorKind::NotFound => return Ok(Progress::Forgotten),
            Err(error) => return Err(error),
        };
        self.judge(operation.kind, &status).await
    }

    /// What a status means. A deletion that failed although nobody holds the assignment is a success: whether AWS
    /// reports a deletion of what is gone as FAILED is not documented, and the live state is what counts.
    pub(super) async fn judge(
        &self,
        kind: ChangeKind,
        status: &AccountAssignmentOperationStatus,
    ) -> Result<Progress, AwsError> {
        match status.status() {
            Some(StatusValues::Succeeded) => return Ok(Progress::Succeeded),
            Some(StatusValues::Failed) => {}
            _ => return Ok(Progress::InProgress),
        }
        let reason = sanitise(status.failure_reason().unwrap_or("AWS gave no reason"));
        if kind == ChangeKind::Revoke
            && let (Some(account), Some(set), Some(user)) =
                (status.target_id(), status.permission_set_arn(), status.principal_id())
        {
            let user = PrincipalId(user.into());
            match self.assigned(account, set, Priority::Change).await {
                Ok(holders) if !holders.users.contains(&user) => return Ok(Progress::Succeeded),
                Err(error) if error.kind == AwsErrorKind::NotFound => return Ok(Progress::Succeeded),
                // Still held, or not known: then the failure stands.
                _ => {}
            }
        }
        Ok(Progress::Failed(format!(
            "{reason}{}",
            super::failure::pitfall(&reason)
        )))
    }

    async fn creation_status(&self, request_id: &str) -> Result<AccountAssignmentOperationStatus, AwsError> {
        let instance = self.instance().await?;
        let call = Call::DescribeAccountAssignmentCreationStatus;
        let answer = self
            .run(call, Priority::Poll, || {
                let request = self.shared.admin.describe_account_assignment_creation_status();
                request
                    .instance_arn(&instance.arn)
                    .account_assignment_creation_request_id(request_id)
                    .send()
            })
            .await?;
        answer
            .account_assignment_creation_status
            .ok_or_else(|| unreadable(call, "the answer has no status"))
    }

    async fn deletion_status(&self, request_id: &str) -> Result<AccountAssignmentOperationStatus, AwsError> {
        let instance = self.instance().await?;
        let call = Call::DescribeAccountAssignmentDeletionStatus;
        let answer = self
            .run(call, Priority::Poll, || {
                let request = self.shared.admin.describe_account_assignment_deletion_status();
                request
                    .instance_arn(&instance.arn)
                    .account_assignment_deletion_request_id(request_id)
                    .send()
            })
            .await?;
        answer
            .account_assignment_deletion_status
            .ok_or_else(|| unreadable(call, "the answer has no status"))
    }
}
