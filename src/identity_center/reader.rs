//! The half of the connection that only looks.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::SignedDuration;

use super::limiter::Priority;
use super::{
    AwsError, AwsErrorKind, Client, Holders, Instance, ListOf, Operation, Progress, Read, Resolution, UserPin,
};
use crate::model::{Person, ResolvedTarget, Target};

/// Reads through a [`Client`].
pub(super) struct Reader {
    client: Client,
}

impl Reader {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    async fn holders_of(&self, target: &ResolvedTarget, priority: Priority) -> Result<Holders, AwsError> {
        let holders = self.client.holders(target, priority).await;
        if let Err(error) = &holders
            && error.kind == AwsErrorKind::NotFound
        {
            self.client.forget_target(target).await;
        }
        holders
    }
}

#[async_trait]
impl Read for Reader {
    async fn instance(&self) -> Result<Instance, AwsError> {
        self.client.instance().await.cloned()
    }

    async fn resolve_target(&self, target: &Target) -> Result<ResolvedTarget, AwsError> {
        self.client.instance().await?;
        self.client.resolve(target).await
    }

    async fn resolve_person(&self, person: &Person, pin: Option<&UserPin>) -> Result<Resolution, AwsError> {
        self.client.instance().await?;
        self.client.person(person, pin).await
    }

    async fn holders(&self, target: &ResolvedTarget) -> Result<Holders, AwsError> {
        self.holders_of(target, Priority::Look).await
    }

    async fn holders_before_change(&self, target: &ResolvedTarget) -> Result<Holders, AwsError> {
        self.holders_of(target, Priority::Change).await
    }

    async fn operation(&self, operation: &Operation) -> Result<Progress, AwsError> {
        self.client.progress(operation).await
    }

    fn last_answer(&self) -> Option<tokio::time::Instant> {
        self.client.shared.looks.last_answer()
    }

    fn last_page(&self, of: ListOf) -> Option<tokio::time::Instant> {
        self.client.shared.looks.last_page(of)
    }

    fn sessions(&self) -> BTreeMap<String, SignedDuration> {
        self.client.sessions()
    }
}
