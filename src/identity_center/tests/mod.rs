//! The client against a scripted server on loopback, with a clock that the tests own.

mod directory;
mod faults;
mod groups;
mod lookups;
mod server;
mod waiting;
mod writes;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ssoadmin::config::{Credentials, SharedCredentialsProvider};
use jiff::Timestamp;

use self::server::Server;
use super::Client;
use super::retry::Bounds;
use crate::clock::Clock;
use crate::config::IdentityCenterConfig;
use crate::model::{PermissionSetRef, Person, PrincipalId, ResolvedTarget, Target};
use crate::telemetry::ApiCalls;

const OWNER: &str = "111122223333";
const ACCOUNT: &str = "444455556666";
const INSTANCE: &str = "arn:aws:sso:::instance/ssoins-1111222233334444";
const ADMIN: &str = "arn:aws:sso:::permissionSet/ssoins-1111222233334444/ps-aaaaaaaaaaaaaaaa";

/// A client with its clock and counters, connected to a scripted server.
struct Rig {
    client: Client,
    clock: Arc<SimClock>,
    calls: ApiCalls,
}

impl Rig {
    fn new(server: &Server) -> Self {
        Self::with(server, |_| {})
    }

    fn with(server: &Server, change: impl FnOnce(&mut IdentityCenterConfig)) -> Self {
        let credentials = Credentials::new("AKIDEXAMPLE", "very-secret-key", None, None, "tests");
        let sdk = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .region(Region::new("eu-central-1"))
            .build();
        Self::over(&sdk, server, change)
    }

    fn over(sdk: &SdkConfig, server: &Server, change: impl FnOnce(&mut IdentityCenterConfig)) -> Self {
        let mut config = IdentityCenterConfig {
            region: "eu-central-1".to_owned(),
            expected_account_id: OWNER.to_owned(),
            instance_arn: None,
            profile: None,
            endpoint_url: Some(server.url()),
            // So fast that the limiter's own pauses cannot be taken for pauses between attempts.
            requests_per_second: 1_000_000,
            assignments_in_flight: 8,
            operation_timeout: Duration::from_secs(60),
            call_timeout: Duration::from_secs(20),
        };
        change(&mut config);
        let clock = Arc::new(SimClock::default());
        let calls = ApiCalls::new().unwrap();
        let client = Client::build(sdk, &config, calls.clone(), clock.clone(), Bounds::default());
        Self { client, clock, calls }
    }

    /// The pauses between attempts, in order.
    fn pauses(&self) -> Vec<Duration> {
        let mut slept = self.clock.slept();
        slept.retain(|pause| *pause > Duration::from_millis(1));
        slept
    }

    fn counted(&self, service: &str, operation: &str, outcome: &str) -> u64 {
        self.calls
            .collector()
            .with_label_values(&[service, operation, outcome])
            .get()
    }
}

fn admin() -> ResolvedTarget {
    ResolvedTarget::Assignment {
        account: ACCOUNT.into(),
        permission_set_arn: ADMIN.into(),
    }
}

fn group() -> ResolvedTarget {
    ResolvedTarget::Group { group_id: "g-1".into() }
}

fn set_named(name: &str) -> Target {
    Target::Assignment {
        account: ACCOUNT.to_owned(),
        permission_set: PermissionSetRef::Name(name.to_owned()),
    }
}

fn alice() -> Person {
    Person::parse("alice@example.com").unwrap()
}

fn user(id: &str) -> PrincipalId {
    PrincipalId(id.into())
}

/// A clock whose sleeps end at once and move it forward.
pub(crate) struct SimClock {
    now: Mutex<Timestamp>,
    slept: Mutex<Vec<Duration>>,
}

impl Default for SimClock {
    fn default() -> Self {
        Self {
            now: Mutex::new("2026-03-02T09:00:00Z".parse().unwrap()),
            slept: Mutex::default(),
        }
    }
}

impl SimClock {
    pub(crate) fn advance(&self, by: Duration) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        *now = now.checked_add(by).unwrap();
    }

    pub(crate) fn set(&self, to: &str) {
        *self.now.lock().unwrap() = to.parse().unwrap();
    }

    pub(crate) fn slept(&self) -> Vec<Duration> {
        self.slept.lock().unwrap().clone()
    }
}

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        *self.now.lock().unwrap()
    }

    async fn sleep(&self, duration: Duration) {
        self.slept.lock().unwrap().push(duration);
        self.advance(duration);
        tokio::task::yield_now().await;
    }
}
