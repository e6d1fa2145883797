//! Validates the `[[sink]]` tables: where the ledger's events are sent, in which form and with which credential.

use std::{
    collections::HashMap,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::header::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use super::{
    check::Checking,
    file::{ConfigFile, HeaderTable, SinkTable},
};
use crate::document::{At, Entry};

/// Headers that are ours, or that would change how the request is read.
const OWN_HEADERS: &[&str] = &[
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "host",
    "idempotency-key",
    "transfer-encoding",
    crate::signing::SIGNATURE_HEADER,
    crate::signing::TIMESTAMP_HEADER,
];

/// Where the ledger's events are sent.
#[derive(Debug, Clone)]
pub struct SinkConfig {
    /// Its name, which is unique and part of a file's name.
    pub name: String,
    /// In which form.
    pub format: SinkFormat,
    /// Where to.
    pub target: SinkTarget,
}

/// In which form events are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SinkFormat {
    /// One JSON object a line, as `audit export` has it.
    Jsonl,
    /// OCSF events, one JSON object a line.
    Ocsf,
    /// Syslog's structured data.
    Structured,
}

/// Which kind of receiver it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SinkKind {
    /// A file that other programs rotate.
    File,
    /// A receiver of syslog (RFC 5424).
    Syslog,
    /// A collector or webhook over HTTPS.
    Http,
}

/// Where events are sent to.
#[derive(Debug, Clone)]
pub enum SinkTarget {
    /// Lines are appended to this file.
    File(PathBuf),
    /// A receiver of syslog.
    Syslog {
        /// How it is reached.
        address: SyslogAddress,
        /// The facility's code.
        facility: Facility,
    },
    /// A collector or webhook.
    Http(HttpSink),
}

/// How a receiver of syslog is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyslogAddress {
    /// Host and port; one datagram a message (RFC 5426).
    Udp(String),
    /// Host and port; octet counting (RFC 6587).
    Tcp(String),
    /// A datagram socket such as `/dev/log`.
    Unix(PathBuf),
}

/// A collector or webhook.
#[derive(Debug, Clone)]
pub struct HttpSink {
    /// Where batches are posted.
    pub url: Url,
    /// How the events of a batch are put together.
    pub body: HttpBody,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<SecretString>,
    /// A further header.
    pub header: Option<(HeaderName, SecretString)>,
    /// The key that bodies are signed with.
    pub signing_key: Option<SecretString>,
    /// Time for one request.
    pub timeout: Duration,
}

/// How the events of a batch are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HttpBody {
    /// One JSON object a line.
    Ndjson,
    /// A JSON array.
    Array,
}

/// A facility of syslog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "they are the names that syslog gives them")]
pub enum Facility {
    User = 1,
    Daemon = 3,
    Auth = 4,
    Authpriv = 10,
    Audit = 13,
    Local0 = 16,
    Local1 = 17,
    Local2 = 18,
    Local3 = 19,
    Local4 = 20,
    Local5 = 21,
    Local6 = 22,
    Local7 = 23,
}

impl Checking<'_> {
    pub(super) fn sinks(&mut self, file: &ConfigFile, ledger: &Path) -> Vec<SinkConfig> {
        let mut taken: HashMap<&str, Range<usize>> = HashMap::new();
        self.sink_files(file, ledger);
        let mut sinks = Vec::new();
        for table in &file.sink {
            let name = table.value.name.as_ref();
            let name = self.found.required(name, table.span(), "[[sink]]", "name", "\"siem\"");
            let valid = name.and_then(|name| self.found.name(&name.value, name.span()));
            if let (Some(at), Some(name)) = (name, valid) {
                if let Some(first) = taken.get(name) {
                    let line = self.found.source.line(first.start);
                    let hint = format!("the first is in line {line}; what a sink has confirmed is kept under its name");
                    let message = format!("there is a sink `{name}` already");
                    self.found.error("duplicate-sink", at.span(), message, hint);
                } else {
                    taken.insert(name, at.span().clone());
                }
            }
            if let Some((format, target)) = self.sink(table)
                && let Some(name) = valid
            {
                sinks.push(SinkConfig {
                    name: name.to_owned(),
                    format,
                    target,
                });
            }
        }
        sinks
    }

    fn sink(&mut self, table: &Entry<SinkTable>) -> Option<(SinkFormat, SinkTarget)> {
        let (at, t) = (table.span(), &table.value);
        let example = "\"file\", \"syslog\" or \"http\"";
        let kind = self.found.required(t.kind.as_ref(), at, "[[sink]]", "kind", example)?;
        self.idle_sink_keys(t, kind.value);
        let usual = match kind.value {
            SinkKind::Syslog => SinkFormat::Structured,
            SinkKind::File | SinkKind::Http => SinkFormat::Jsonl,
        };
        let format = t.format.as_ref().map_or(usual, |format| format.value);
        if let Some(written) = &t.format
            && format == SinkFormat::Structured
            && kind.value != SinkKind::Syslog
        {
            let hint = "write \"jsonl\" or \"ocsf\"";
            let message = "structured data belongs to syslog";
            self.found.error("idle-key", written.span(), message, hint);
        }
        let target = match kind.value {
            SinkKind::File => {
                let example = "\"/var/log/dutybound/events.jsonl\"";
                let path = self.found.required(t.path.as_ref(), at, "the sink", "path", example)?;
                self.path(path)?;
                SinkTarget::File(self.base.join(&path.value))
            }
            SinkKind::Syslog => {
                let example = "\"udp://127.0.0.1:514\"";
                let to = self.found.required(t.to.as_ref(), at, "the sink", "to", example)?;
                SinkTarget::Syslog {
                    address: self.syslog_address(to)?,
                    facility: t.facility.as_ref().map_or(Facility::Authpriv, |f| f.value),
                }
            }
            SinkKind::Http => SinkTarget::Http(self.http_sink(table)?),
        };
        Some((format, target))
    }

    /// Two that append to one file would mend each other's lines, and the ledger's own files are no place for any.
    fn sink_files(&mut self, file: &ConfigFile, ledger: &Path) {
        let heads = file.audit.as_ref().and_then(|table| table.value.heads.as_ref());
        let mut taken: Vec<PathBuf> = heads.map(|path| self.base.join(&path.value)).into_iter().collect();
        for written in file.sink.iter().flat_map(|table| &table.value.path) {
            let path = self.base.join(&written.value);
            let name = |path: &Path| path.file_name().map(|name| name.as_encoded_bytes().to_vec());
            let own = path.parent() == ledger.parent()
                && matches!((name(&path), name(ledger)), (Some(path), Some(ledger)) if path.starts_with(&ledger));
            let message = if own {
                "this is a file of the ledger itself"
            } else if taken.contains(&path) {
                "something else is appended to this file already"
            } else {
                taken.push(path);
                continue;
            };
            self.found
                .error("taken-file", written.span(), message, "write another path");
        }
    }

    fn path(&mut self, path: &At<String>) -> Option<()> {
        let valid = !path.value.is_empty() && !path.value.ends_with('/') && !crate::document::unprintable(&path.value);
        if !valid {
            self.found
                .error("bad-path", path.span(), "this is not a file's path", "");
        }
        valid.then_some(())
    }

    /// A key that has no meaning for this kind of sink would be believed to have one.
    fn idle_sink_keys(&mut self, t: &SinkTable, kind: SinkKind) {
        let keys = [
            ("path", t.path.as_ref().map(At::span), SinkKind::File),
            ("to", t.to.as_ref().map(At::span), SinkKind::Syslog),
            ("facility", t.facility.as_ref().map(At::span), SinkKind::Syslog),
            ("url", t.url.as_ref().map(At::span), SinkKind::Http),
            ("body", t.body.as_ref().map(At::span), SinkKind::Http),
            ("token", t.token.as_ref().map(At::span), SinkKind::Http),
            ("header", t.header.as_ref().map(Entry::span), SinkKind::Http),
            ("signing_key", t.signing_key.as_ref().map(At::span), SinkKind::Http),
            ("timeout", t.timeout.as_ref().map(At::span), SinkKind::Http),
        ];
        for (key, span, of) in keys {
            if let Some(span) = span
                && of != kind
            {
                let of = match of {
                    SinkKind::File => "file",
                    SinkKind::Syslog => "syslog",
                    SinkKind::Http => "http",
                };
                let message = format!("`{key}` belongs to a sink of kind \"{of}\"");
                self.found
                    .error("idle-key", span, message, "remove it, or change `kind`");
            }
        }
    }

    fn syslog_address(&mut self, to: &At<String>) -> Option<SyslogAddress> {
        let address = || {
            let (scheme, rest) = to.value.split_once("://")?;
            if scheme == "unix" {
                let path = rest.starts_with('/') && !crate::document::unprintable(rest);
                return path.then(|| SyslogAddress::Unix(PathBuf::from(rest)));
            }
            let url = Url::parse(&to.value).ok()?;
            let host = url.host_str().filter(|host| !host.is_empty())?;
            let bare = url.path().is_empty() && url.query().is_none() && url.fragment().is_none();
            let place = format!("{host}:{}", url.port()?);
            match scheme {
                _ if !bare || !url.username().is_empty() || url.password().is_some() => None,
                "udp" => Some(SyslogAddress::Udp(place)),
                "tcp" => Some(SyslogAddress::Tcp(place)),
                _ => None,
            }
        };
        let address = address();
        if address.is_none() {
            let hint = "write \"udp://host:port\", \"tcp://host:port\" or \"unix:///dev/log\"";
            self.found.error(
                "bad-address",
                to.span(),
                "this is not an address of a syslog receiver",
                hint,
            );
        }
        address
    }

    fn http_sink(&mut self, table: &Entry<SinkTable>) -> Option<HttpSink> {
        let (at, t) = (table.span(), &table.value);
        let example = "\"https://collector.example.com/events\"";
        let url = self.found.required(t.url.as_ref(), at, "the sink", "url", example);
        let url = url.and_then(|url| self.sink_url(url));
        let mut secret = |value| match value {
            Some(value) => self.secret(value).map(Some),
            None => Some(None),
        };
        let token = secret(t.token.as_ref());
        let signing_key = secret(t.signing_key.as_ref());
        let header = match &t.header {
            Some(header) => self.header(header).map(Some),
            None => Some(None),
        };
        if let (Some(Some(token)), Some(written)) = (&token, &t.token) {
            self.sendable(token, written.span());
        }
        let timeout = self.wait(
            t.timeout.as_ref(),
            jiff::SignedDuration::from_secs(1)..=jiff::SignedDuration::from_mins(2),
            jiff::SignedDuration::from_secs(10),
        );
        Some(HttpSink {
            url: url?,
            body: t.body.as_ref().map_or(HttpBody::Ndjson, |body| body.value),
            token: token?,
            header: header?,
            signing_key: signing_key?,
            timeout,
        })
    }

    /// Other than a source's base URL it is used as it stands.
    fn sink_url(&mut self, text: &At<String>) -> Option<Url> {
        self.url(text)?;
        Url::parse(&text.value).ok()
    }

    fn header(&mut self, table: &Entry<HeaderTable>) -> Option<(HeaderName, SecretString)> {
        let (at, t) = (table.span(), &table.value);
        let name = self
            .found
            .required(t.name.as_ref(), at, "`header`", "name", "\"DD-API-KEY\"");
        let example = "{ credential = \"siem-key\" }";
        let value = self.found.required(t.value.as_ref(), at, "`header`", "value", example);
        let name = name.and_then(|name| {
            let parsed = HeaderName::try_from(name.value.as_str()).ok();
            let parsed = parsed.filter(|parsed| !OWN_HEADERS.contains(&parsed.as_str()));
            if parsed.is_none() {
                let message = "this is not the name of a header that a sink may have";
                let hint = "for a bearer token write `token`, for a signature `signing_key`";
                self.found.error("bad-header", name.span(), message, hint);
            }
            parsed
        });
        let secret = value.and_then(|value| {
            let secret = self.secret(value)?;
            self.sendable(&secret, value.span());
            Some(secret)
        });
        Some((name?, secret?))
    }

    fn sendable(&mut self, secret: &SecretString, at: &Range<usize>) {
        if HeaderValue::from_str(secret.expose_secret()).is_err() {
            let message = "the secret has characters that cannot be sent in a header";
            self.found.error("bad-secret", at, message, "");
        }
    }
}
