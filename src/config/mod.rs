//! The validated operator configuration, read from `config.toml`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use url::Url;

use crate::{
    diagnostics::{Diagnostic, Report, SourceFile},
    document::{self, Findings},
    identity_center::UserPin,
    invariant::Written,
    model::{Person, ProjectName, SourceName},
    secret::{Env, Secrets},
};

mod check;
pub mod file;
mod mask;
pub mod notify;
pub mod restart;
mod sink;
mod source;

pub(crate) use check::is_loopback;
pub use sink::{Facility, HttpBody, HttpSink, SinkConfig, SinkFormat, SinkKind, SinkTarget, SyslogAddress};

/// Everything the operator decides.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the daemon may write. Required, without a default.
    pub mode: Mode,
    /// Names this installation in its ledger; a ledger of another owner is refused. Required.
    pub owner_id: String,
    /// The directory with one TOML file per project.
    pub policy_dir: PathBuf,
    /// The only projects that may stand without a parent; `None` is any.
    pub roots: Option<BTreeSet<ProjectName>>,
    /// The SQLite file.
    pub ledger: PathBuf,
    /// While a file exists here, nothing is written to AWS.
    pub pause_file: PathBuf,
    /// On-call sources by name.
    pub sources: BTreeMap<SourceName, SourceConfig>,
    /// AWS.
    pub identity_center: IdentityCenterConfig,
    /// People whose ids differ from plain e-mail equality.
    pub identities: Vec<Identity>,
    /// The operator's statements, to be held against the policy.
    pub invariants: Vec<Written>,
    /// When things happen.
    pub timing: Timing,
    /// What the guard lets through.
    pub limits: Limits,
    /// The HTTP listener; `None` turns it off.
    pub http: Option<Http>,
    /// How the record is kept and its heads are published.
    pub audit: Audit,
    /// Where the ledger's events are sent.
    pub sinks: Vec<SinkConfig>,
    /// Who is told what.
    pub notify: notify::Notify,
    /// What the file says, to tell what an edit touches. Secrets do not stand in it.
    pub written: restart::Written,
}

/// The HTTP listener.
#[derive(Debug, Clone)]
pub struct Http {
    /// Where it listens; anything but loopback only with a token.
    pub address: SocketAddr,
    /// What whoever asks must show.
    pub token: Option<SecretString>,
}

/// How the record is kept and its heads are published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// How long what has ended is kept; `None` is for ever.
    pub retention: Option<SignedDuration>,
    /// To which file heads are appended.
    pub heads: Option<PathBuf>,
    /// Time between heads.
    pub heads_every: SignedDuration,
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

/// Which API an on-call source speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// PagerDuty.
    Pagerduty,
    /// Opsgenie.
    Opsgenie,
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
    /// When the credential expires, as the operator states it.
    pub expires: Option<Timestamp>,
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

impl SourceApi {
    /// Whose API it is.
    #[must_use]
    pub fn provider(&self) -> Provider {
        match self {
            Self::PagerDutyKey(_) | Self::PagerDutyOauth { .. } => Provider::Pagerduty,
            Self::Opsgenie(_) => Provider::Opsgenie,
        }
    }
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

impl Default for Timing {
    fn default() -> Self {
        Self {
            poll: SignedDuration::from_mins(1),
            horizon: SignedDuration::from_hours(14 * 24),
            max_staleness: SignedDuration::from_hours(24),
            notice: SignedDuration::from_mins(15),
            patience: SignedDuration::from_mins(10),
            audit: SignedDuration::from_mins(10),
            max_clock_skew: SignedDuration::from_secs(60),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            surprising_grants: 10,
            surprising_revokes: 5,
            surprising_revokes_percent: 25,
            surprising_grants_per_entitlement: 5,
            surprising_revokes_per_entitlement: 3,
            protected: Vec::new(),
        }
    }
}

/// Everything that can be learnt from a configuration file, however broken.
#[derive(Debug)]
pub struct Inspection {
    /// The configuration, if there is no error.
    pub config: Option<Config>,
    /// The policy directory that it names; `None` when the file could not be understood.
    pub policy_dir: Option<PathBuf>,
    /// The sources that it names, with the API where that is known; `None` when the file could not be understood.
    pub sources: Option<BTreeMap<SourceName, Option<Provider>>>,
    /// The only projects that may stand without a parent, where it names them.
    pub roots: Option<BTreeSet<ProjectName>>,
    /// The operator's statements, as far as they are understood.
    pub invariants: Vec<Written>,
    /// Every mistake and warning.
    pub report: Report,
}

impl Inspection {
    fn unread(report: Report) -> Self {
        Self {
            config: None,
            policy_dir: None,
            sources: None,
            roots: None,
            invariants: Vec::new(),
            report,
        }
    }
}

/// Reads and checks the configuration at `path`. Returns it with the warnings about it.
///
/// With [`Secrets::Skip`] the secrets are empty and the result serves for validation only.
///
/// # Errors
/// A [`Report`] of every mistake, with the warnings.
pub fn load(path: &Path, env: &dyn Env, secrets: Secrets) -> Result<(Config, Vec<Diagnostic>), Report> {
    let inspection = inspect(path, env, secrets);
    match inspection.config {
        Some(config) => Ok((config, inspection.report.into_diagnostics())),
        None => Err(inspection.report),
    }
}

/// Like [`load`], but keeps what could be understood of a broken file, so that the policy can be checked as well.
#[must_use]
pub fn inspect(path: &Path, env: &dyn Env, secrets: Secrets) -> Inspection {
    match document::read(path) {
        Ok(bytes) => inspect_bytes(path, bytes, env, secrets),
        Err(report) => Inspection::unread(report),
    }
}

/// Like [`inspect`], but of a file's content that is in memory: with [`Secrets::Skip`] it reads nothing.
#[must_use]
pub fn inspect_bytes(path: &Path, bytes: Vec<u8>, env: &dyn Env, secrets: Secrets) -> Inspection {
    let mut report = Report::default();
    let name = path.display().to_string();
    let text = match document::decode(&name, bytes) {
        Ok(text) => text,
        Err(report) => return Inspection::unread(report),
    };
    let source = Arc::new(SourceFile::new(name.clone(), &text, &mask::mask(&text)));
    let parsed = document::parse::<file::ConfigFile>(source, &text, &mut report);
    let base = path.parent().unwrap_or(Path::new(""));
    let found = Findings {
        source: &parsed.source,
        holes: &parsed.holes,
        report: &mut report,
    };
    let mut checking = check::Checking {
        found,
        base,
        env,
        secrets,
    };
    let origin = path
        .file_name()
        .map_or_else(|| name.clone(), |file| file.to_string_lossy().into_owned());
    let invariants = checking.invariants(&parsed.value, &origin);
    let config = checking.config(&parsed.value, invariants.clone(), restart::Written::new(&text));
    report.sort();
    let understood = !parsed.holes.broken();
    let config = config.filter(|_| !report.has_errors());
    if config.is_none() && !report.has_errors() {
        // Unreachable as far as we know; a configuration that is neither here nor wrong must not pass for checked.
        let message = "the configuration was not understood, and the reason was lost: this is a defect of dutybound";
        report.push(Diagnostic::whole_file("defect", &path.display().to_string(), message));
    }
    Inspection {
        config,
        policy_dir: understood.then(|| check::policy_dir(&parsed.value, base)),
        sources: understood.then(|| check::providers(&parsed.value)),
        roots: check::roots(&parsed.value),
        invariants,
        report,
    }
}

#[cfg(test)]
mod tests;
