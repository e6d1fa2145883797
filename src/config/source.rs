//! Validates one `[source.NAME]`: which API, where, and with which credential.

use secrecy::SecretString;
use url::Url;

use super::{
    Provider, SourceApi, SourceConfig,
    check::Checking,
    file::{OauthTable, ServiceRegion, SourceTable},
};
use crate::{
    diagnostics::Diagnostic,
    document::{At, Entry},
    secret::{SecretPlace, SecretValue, Secrets},
};

/// PagerDuty allows 960 requests a minute for each key.
const MOST_REQUESTS_PER_MINUTE: u32 = 960;

const TOKEN_URL: &str = "https://identity.pagerduty.com/oauth/token";

impl ServiceRegion {
    fn base_url(self, provider: Provider) -> &'static str {
        match (provider, self) {
            (Provider::Pagerduty, Self::Us) => "https://api.pagerduty.com",
            (Provider::Pagerduty, Self::Eu) => "https://api.eu.pagerduty.com",
            (Provider::Opsgenie, Self::Us) => "https://api.opsgenie.com",
            (Provider::Opsgenie, Self::Eu) => "https://api.eu.opsgenie.com",
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Us => "us",
            Self::Eu => "eu",
        }
    }
}

impl Checking<'_> {
    pub(super) fn source(&mut self, table: &Entry<SourceTable>) -> Option<SourceConfig> {
        let (at, t) = (table.span(), &table.value);
        let kind = self.found.required(
            t.kind.as_ref(),
            at,
            "the source",
            "kind",
            "\"pagerduty\" or \"opsgenie\"",
        );
        let region = t.region.as_ref().map_or(ServiceRegion::Us, |region| region.value);
        let timeout = self.wait(
            t.timeout.as_ref(),
            jiff::SignedDuration::from_secs(1)..=jiff::SignedDuration::from_mins(5),
            jiff::SignedDuration::from_secs(30),
        );
        let expires = t.expires.as_ref().and_then(|expires| match expires.value.instant() {
            Ok(instant) => Some(instant),
            Err(problem) => {
                self.found
                    .error("bad-date", expires.span(), problem, "write a date such as 2027-03-31");
                None
            }
        });
        let given = t.base_url.as_ref().map(|url| self.url(url));
        let provider = kind?.value;
        let requests_per_minute = self.number(
            t.requests_per_minute.as_ref(),
            1..=MOST_REQUESTS_PER_MINUTE,
            match provider {
                Provider::Pagerduty => 480,
                Provider::Opsgenie => 120,
            },
        );
        let api = match provider {
            Provider::Pagerduty => self.pagerduty(table, region),
            Provider::Opsgenie => self.opsgenie(table),
        };
        let base_url = match given {
            Some(url) => url,
            None => Url::parse(region.base_url(provider)).ok(),
        };
        Some(SourceConfig {
            api: api?,
            base_url: base_url?,
            requests_per_minute,
            timeout,
            expires,
        })
    }

    fn pagerduty(&mut self, table: &Entry<SourceTable>, region: ServiceRegion) -> Option<SourceApi> {
        let (at, t) = (table.span(), &table.value);
        if let Some(api_key) = &t.api_key {
            let hint = "PagerDuty's API key goes under `token`";
            self.found
                .error("idle-key", api_key.span(), "`api_key` belongs to Opsgenie", hint);
        }
        match (&t.token, &t.oauth) {
            (Some(token), None) => self.secret(token).map(SourceApi::PagerDutyKey),
            (None, Some(oauth)) => self.oauth(oauth, region),
            (Some(_), Some(oauth)) => {
                let message = "`token` and `oauth` are two ways to sign in";
                self.found.error("two-credentials", oauth.span(), message, "keep one");
                None
            }
            (None, None) => {
                let explained = ["token", "oauth"].iter().any(|key| self.found.holes.explain(at, key));
                if !explained && t.api_key.is_none() {
                    let hint = "add token = { env = \"PAGERDUTY_TOKEN\" }, or `oauth`";
                    self.found
                        .error("missing-key", at, "the source has no credential", hint);
                }
                None
            }
        }
    }

    fn opsgenie(&mut self, table: &Entry<SourceTable>) -> Option<SourceApi> {
        let (at, t) = (table.span(), &table.value);
        let pagerduty = [
            ("token", t.token.as_ref().map(At::span)),
            ("oauth", t.oauth.as_ref().map(Entry::span)),
        ];
        for (key, span) in pagerduty {
            if let Some(span) = span {
                let hint = "Opsgenie's API key goes under `api_key`";
                self.found
                    .error("idle-key", span, format!("`{key}` belongs to PagerDuty"), hint);
            }
        }
        if t.token.is_some() && t.api_key.is_none() {
            return None;
        }
        let key = self.found.required(
            t.api_key.as_ref(),
            at,
            "the source",
            "api_key",
            "{ env = \"OPSGENIE_KEY\" }",
        );
        key.and_then(|key| self.secret(key)).map(SourceApi::Opsgenie)
    }

    fn oauth(&mut self, table: &Entry<OauthTable>, region: ServiceRegion) -> Option<SourceApi> {
        let (at, t) = (table.span(), &table.value);
        let client_id = self
            .found
            .required(t.client_id.as_ref(), at, "`oauth`", "client_id", "\"the app's id\"");
        if let Some(client_id) = client_id {
            self.id(client_id, "a client id");
        }
        let example = "{ env = \"PAGERDUTY_CLIENT_SECRET\" }";
        let secret = self
            .found
            .required(t.client_secret.as_ref(), at, "`oauth`", "client_secret", example);
        let secret = secret.and_then(|secret| self.secret(secret));
        let subdomain = self
            .found
            .required(t.subdomain.as_ref(), at, "`oauth`", "subdomain", "\"acme\"");
        let subdomain = subdomain.and_then(|subdomain| {
            let text = &subdomain.value;
            let valid = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            if !valid {
                let hint = "write acme for acme.pagerduty.com";
                self.found
                    .error("bad-subdomain", subdomain.span(), "this is not a subdomain", hint);
            }
            valid.then_some(text)
        });
        let token_url = match &t.token_url {
            Some(url) => self.url(url),
            None => Url::parse(TOKEN_URL).ok(),
        };
        Some(SourceApi::PagerDutyOauth {
            client_id: client_id?.value.clone(),
            client_secret: secret?,
            token_url: token_url?,
            scope: format!(
                "as_account-{}.{} oncalls.read schedules.read users.read escalation_policies.read",
                region.code(),
                subdomain?
            ),
        })
    }

    /// Reads a secret, unless they are to be skipped.
    pub(super) fn secret(&mut self, value: &At<SecretValue>) -> Option<SecretString> {
        let at = value.span();
        let table = &value.value.0;
        let given: Vec<SecretPlace> = [
            table.env.as_ref().map(|name| SecretPlace::Env(name.value.clone())),
            table
                .file
                .as_ref()
                .map(|path| SecretPlace::File(self.base.join(&path.value))),
            table
                .credential
                .as_ref()
                .map(|name| SecretPlace::Credential(name.value.clone())),
        ]
        .into_iter()
        .flatten()
        .collect();
        let [place] = given.as_slice() else {
            let explained = ["env", "file", "credential"]
                .iter()
                .any(|key| self.found.holes.explain(at, key));
            if !given.is_empty() || !explained {
                let hint = "write one of { env = \"NAME\" }, { file = \"/path\" } and { credential = \"name\" }";
                self.found
                    .error("bad-secret", at, "a secret is kept in exactly one place", hint);
            }
            return None;
        };
        if let Some(problem) = place.malformed() {
            self.found.error("bad-secret", at, problem, "");
            return None;
        }
        if self.secrets == Secrets::Skip {
            return Some(SecretString::default());
        }
        match place.read(self.env) {
            Ok(found) => {
                if let Some(warning) = found.warning {
                    let warning = Diagnostic::warning("open-secret", self.found.source, at.clone(), warning);
                    self.found.report.push(warning);
                }
                Some(found.secret)
            }
            Err(problem) => {
                let hint = "provide the secret there, or name the place where it is";
                self.found.error("bad-secret", at, problem, hint);
                None
            }
        }
    }
}
