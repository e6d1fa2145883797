//! Finds the Identity Center instance and compares it with what the operator expects, before anything else happens.

use std::sync::{MutexGuard, PoisonError};

use aws_sdk_ssoadmin::types::{InstanceMetadata, InstanceStatus};
use jiff::Timestamp;

use super::client::{Client, FAILED_FOR, PAGE};
use super::failure::sanitise;
use super::limiter::Priority;
use super::targets::fresh;
use super::{AwsError, AwsErrorKind, Call, Instance};

impl Client {
    /// The instance. Looked up once per process.
    pub(super) async fn instance(&self) -> Result<&Instance, AwsError> {
        if let Some(instance) = self.shared.instance.get() {
            return Ok(instance);
        }
        let find = || Box::pin(self.find_instance_anew());
        self.shared.instance.get_or_try_init(find).await
    }

    async fn find_instance_anew(&self) -> Result<Instance, AwsError> {
        let recent = self.instance_failure().clone();
        if let Some((error, at)) = recent
            && fresh(at, FAILED_FOR, self.shared.clock.now())
        {
            return Err(error);
        }
        let found = self.find_instance().await;
        *self.instance_failure() = found
            .as_ref()
            .err()
            .map(|error| (error.clone(), self.shared.clock.now()));
        found
    }

    fn instance_failure(&self) -> MutexGuard<'_, Option<(AwsError, Timestamp)>> {
        let failure = self.shared.instance_failure.lock();
        failure.unwrap_or_else(PoisonError::into_inner)
    }

    async fn find_instance(&self) -> Result<Instance, AwsError> {
        let call = Call::ListInstances;
        let seen = self
            .pages(call, |token| async move {
                let page = self
                    .run(call, Priority::Change, || {
                        self.shared
                            .admin
                            .list_instances()
                            .max_results(PAGE)
                            .set_next_token(token.clone())
                            .send()
                    })
                    .await?;
                Ok((page.instances.unwrap_or_default(), page.next_token))
            })
            .await?;
        self.choose_instance(&seen)
    }

    fn choose_instance(&self, seen: &[InstanceMetadata]) -> Result<Instance, AwsError> {
        let region = &self.shared.site.region;
        let arns = || {
            let arns: Vec<_> = seen.iter().map(|i| sanitise(i.instance_arn().unwrap_or("?"))).collect();
            arns.join(", ")
        };
        let found = match (&self.shared.instance_arn, seen) {
            (_, []) => {
                return Err(misconfigured(format!(
                    "there is no Identity Center instance in region {region}: an instance is visible only in its \
                     own region and to its management account or delegated administrator; correct \
                     identity_center.region or the credentials"
                )));
            }
            (Some(arn), _) => match seen.iter().find(|i| i.instance_arn() == Some(arn)) {
                Some(found) => found,
                None => {
                    return Err(misconfigured(format!(
                        "identity_center.instance_arn is {arn}, but region {region} shows only {}; correct it or \
                         leave it out",
                        arns()
                    )));
                }
            },
            (None, [only]) => only,
            (None, _) => {
                return Err(misconfigured(format!(
                    "region {region} shows several instances; set identity_center.instance_arn to one of {}",
                    arns()
                )));
            }
        };
        let text = |name: &str, value: Option<&str>| super::client::required(Call::ListInstances, name, value);
        let instance = Instance {
            arn: text("InstanceArn", found.instance_arn())?,
            identity_store_id: text("IdentityStoreId", found.identity_store_id())?,
            owner_account_id: text("OwnerAccountId", found.owner_account_id())?,
        };
        let expected = &self.shared.expected_account_id;
        if instance.owner_account_id != *expected {
            return Err(misconfigured(format!(
                "the instance {} belongs to account {}, but identity_center.expected_account_id is {expected}; \
                 nothing else was read and nothing was written. Use the credentials of the right organisation, or \
                 correct expected_account_id",
                sanitise(&instance.arn),
                sanitise(&instance.owner_account_id)
            )));
        }
        match found.status() {
            None | Some(InstanceStatus::Active) => Ok(instance),
            Some(status) => Err(misconfigured(format!(
                "the instance {} is {} and not ACTIVE; wait until it is, or see the Identity Center console",
                sanitise(&instance.arn),
                sanitise(status.as_str())
            ))),
        }
    }
}

fn misconfigured(message: String) -> AwsError {
    AwsError {
        operation: Call::ListInstances.label(),
        kind: AwsErrorKind::Misconfigured,
        message,
        outcome_unknown: false,
    }
}
