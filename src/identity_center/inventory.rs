//! Reads what there is to import: which permission set is in which account, which groups there are, who a user is.

use std::collections::BTreeMap;

use aws_sdk_identitystore::types::UserStatus;

use super::client::{Client, PAGE, required};
use super::limiter::Priority;
use super::{AwsError, AwsErrorKind, Call};
use crate::model::PrincipalId;

/// Asks for what there is. Has no way to change anything. Its reads are boxed, like those of a reader behind its trait:
/// unboxed, they nest deeper than the compiler follows.
#[derive(Debug, Clone)]
pub struct Inventory {
    client: Client,
}

/// A user as the identity store describes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Such as `mira`, or an e-mail address.
    pub user_name: Option<String>,
    /// For people to read.
    pub display_name: Option<String>,
    /// The primary one first.
    pub emails: Vec<String>,
    /// An administrator has not disabled them.
    pub enabled: bool,
}

impl Inventory {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The name of every permission set by its ARN.
    ///
    /// # Errors
    /// [`AwsError`]; a partial list is never returned, here and below.
    pub async fn permission_sets(&self) -> Result<BTreeMap<String, String>, AwsError> {
        Box::pin(self.client.all_sets()).await
    }

    /// The ARNs of the permission sets that are provisioned to an account.
    ///
    /// # Errors
    /// [`AwsError`].
    pub async fn sets_in(&self, account: &str) -> Result<Vec<String>, AwsError> {
        let client = &self.client;
        let instance = client.instance().await?;
        let call = Call::ListPermissionSetsProvisionedToAccount;
        let pages = client.pages(call, |token| async move {
            let page = client
                .run(call, Priority::Look, || {
                    let request = client.shared.admin.list_permission_sets_provisioned_to_account();
                    request
                        .instance_arn(&instance.arn)
                        .account_id(account)
                        .max_results(PAGE)
                        .set_next_token(token.clone())
                        .send()
                })
                .await?;
            Ok((page.permission_sets.unwrap_or_default(), page.next_token))
        });
        Box::pin(pages).await
    }

    /// The accounts to which a permission set is provisioned.
    ///
    /// # Errors
    /// [`AwsError`].
    pub async fn accounts_with(&self, permission_set_arn: &str) -> Result<Vec<String>, AwsError> {
        let client = &self.client;
        let instance = client.instance().await?;
        let call = Call::ListAccountsForProvisionedPermissionSet;
        let pages = client.pages(call, |token| async move {
            let page = client
                .run(call, Priority::Look, || {
                    let request = client.shared.admin.list_accounts_for_provisioned_permission_set();
                    request
                        .instance_arn(&instance.arn)
                        .permission_set_arn(permission_set_arn)
                        .max_results(PAGE)
                        .set_next_token(token.clone())
                        .send()
                })
                .await?;
            Ok((page.account_ids.unwrap_or_default(), page.next_token))
        });
        Box::pin(pages).await
    }

    /// The display name of every group by its id.
    ///
    /// # Errors
    /// [`AwsError`].
    pub async fn groups(&self) -> Result<BTreeMap<String, String>, AwsError> {
        let client = &self.client;
        let store = &client.instance().await?.identity_store_id;
        let call = Call::ListGroups;
        let pages = client.pages(call, |token| async move {
            let page = client
                .run(call, Priority::Look, || {
                    let request = client.shared.store.list_groups();
                    request
                        .identity_store_id(store)
                        .max_results(PAGE)
                        .set_next_token(token.clone())
                        .send()
                })
                .await?;
            Ok((page.groups, page.next_token))
        });
        let rows = Box::pin(pages).await?;
        let mut groups = BTreeMap::new();
        for row in rows {
            let id = required(call, "GroupId", Some(row.group_id()))?;
            groups.insert(id, row.display_name().unwrap_or_default().to_owned());
        }
        Ok(groups)
    }

    /// The display name of a group; `None` when there is no group with this id.
    ///
    /// # Errors
    /// [`AwsError`].
    pub async fn group_name(&self, id: &str) -> Result<Option<String>, AwsError> {
        let client = &self.client;
        let store = &client.instance().await?.identity_store_id;
        let answer = client.run(Call::DescribeGroup, Priority::Look, || {
            let request = client.shared.store.describe_group();
            request.identity_store_id(store).group_id(id).send()
        });
        match Box::pin(answer).await {
            Ok(group) => Ok(Some(group.display_name().unwrap_or_default().to_owned())),
            Err(error) if error.kind == AwsErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Who a user is; `None` when there is none with this id.
    ///
    /// # Errors
    /// [`AwsError`].
    pub async fn user(&self, id: &PrincipalId) -> Result<Option<User>, AwsError> {
        self.client.instance().await?;
        let Some(user) = Box::pin(self.client.describe_user(&id.0)).await? else {
            return Ok(None);
        };
        let mut emails: Vec<_> = user.emails().iter().collect();
        emails.sort_by_key(|email| !email.primary());
        Ok(Some(User {
            user_name: user.user_name().map(str::to_owned),
            display_name: user.display_name().map(str::to_owned),
            emails: emails
                .iter()
                .filter_map(|email| email.value())
                .map(str::to_owned)
                .collect(),
            enabled: user.user_status().is_none_or(|status| *status == UserStatus::Enabled),
        }))
    }
}
