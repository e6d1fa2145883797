//! The validated operator configuration, read from `config.toml`.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use jiff::SignedDuration;
use secrecy::SecretString;
use url::Url;

use crate::identity_center::UserPin;
use crate::model::{Person, SourceName};

/// Everything the operator decides.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the daemon may write. Required, without a default.
    pub mode: Mode,
    /// Names this installation in its ledger; a ledger of another owner is refused. Required.
    pub owner_id: String,
    /// The directory with one TOML file per project.
    pub policy_dir: PathBuf,
    /// The SQLite file.
    pub ledger: PathBuf,
    /// On-call sources by name.
    pub sources: BTreeMap<SourceName, SourceConfig>,
    /// AWS.
    pub identity_center: IdentityCenterConfig,
    /// People whose ids differ from plain e-mail equality.
    pub identities: Vec<Identity>,
    /// When things happen.
    pub timing: Timing,
    /// What the guard lets through.
    pub limits: Limits,
    /// The HTTP listener; `None` turns it off.
    pub http: Option<SocketAddr>,
}

/// What the daemon may write to AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nothing.
    Observe,
    /// Grants only.
    GrantOnly,
    /// Revokes only.
    RevokeOnly,
    /// Both.
    Sync,
}

impl Mode {
    /// As written in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::GrantOnly => "grant-only",
            Self::RevokeOnly => "revoke-only",
            Self::Sync => "sync",
        }
    }
}

/// One on-call source.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// Which API, with its credentials.
    pub api: SourceApi,
    /// Base URL: the region's, or an override. Never ends in a slash.
    pub base_url: Url,
    /// Our own limit, kept below the provider's.
    pub requests_per_minute: u32,
    /// Time for one request, body included.
    pub timeout: Duration,
}

/// A provider's API and how to sign in to it.
#[derive(Debug, Clone)]
pub enum SourceApi {
    /// PagerDuty with an API key.
    PagerDutyKey(SecretString),
    /// PagerDuty with an OAuth app (client credentials).
    PagerDutyOauth {
        /// The app's client id.
        client_id: String,
        /// The app's secret.
        client_secret: SecretString,
        /// Where tokens are asked for.
        token_url: Url,
        /// `as_account-us.subdomain` plus the read scopes.
        scope: String,
    },
    /// Opsgenie with an API key.
    Opsgenie(SecretString),
}

/// AWS.
#[derive(Debug, Clone)]
pub struct IdentityCenterConfig {
    /// The region that hosts the instance.
    pub region: String,
    /// The account that must own the instance; compared before anything else happens.
    pub expected_account_id: String,
    /// Which instance, when the account sees several.
    pub instance_arn: Option<String>,
    /// A profile of the ordinary AWS configuration files.
    pub profile: Option<String>,
    /// Replaces both services' endpoints (tests, proxies).
    pub endpoint_url: Option<Url>,
    /// Process-wide, over both services; at most 19 because AWS allows 20 for the whole instance.
    pub requests_per_second: u32,
    /// Assignment operations under way at once; at most 8 because AWS allows 10.
    pub assignments_in_flight: u32,
    /// How long one assignment operation may take before it is left to the next pass.
    pub operation_timeout: Duration,
    /// Time for one request.
    pub call_timeout: Duration,
}

/// A person's ids elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The canonical person.
    pub person: Person,
    /// User ids (or, for Opsgenie, user names) by source.
    pub sources: BTreeMap<SourceName, String>,
    /// The user in Identity Center.
    pub identity_center: Option<UserPin>,
}

/// When things happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// Time between reads of every schedule, which notice edits.
    pub poll: SignedDuration,
    /// How far ahead schedules are read.
    pub horizon: SignedDuration,
    /// How long a stored snapshot may stand in for a source that cannot be read.
    pub max_staleness: SignedDuration,
    /// A change of the schedule counts as predicted once it has been known this long.
    pub notice: SignedDuration,
    /// How long an outgoing grant waits for the incoming one to be confirmed.
    pub patience: SignedDuration,
    /// Time between complete reads of the live state, which notice drift.
    pub audit: SignedDuration,
    /// New grants wait while a provider's clock and ours differ by more.
    pub max_clock_skew: SignedDuration,
}

/// What the guard lets through without a person's approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Surprising grants in one pass.
    pub surprising_grants: u32,
    /// Surprising revokes in one pass.
    pub surprising_revokes: u32,
    /// Surprising revokes as a percentage of all grants we own, looked at from ten owned grants on.
    pub surprising_revokes_percent: u32,
    /// Surprising grants of one entitlement in one pass.
    pub surprising_grants_per_entitlement: u32,
    /// Surprising revokes of one entitlement in one pass.
    pub surprising_revokes_per_entitlement: u32,
    /// Nobody protected is ever revoked.
    pub protected: Vec<Person>,
}
