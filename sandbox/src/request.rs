//! A request as the services see it, and the answer that they give.

use axum::extract::Query;
use axum::http::{HeaderMap, Uri, request::Parts};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::journal::Service;

/// A request, read whole.
pub(crate) struct Incoming {
    pub(crate) service: Service,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) path_and_query: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Incoming {
    pub(crate) fn new(service: Service, parts: &Parts, body: Vec<u8>) -> Self {
        Self {
            service,
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            path_and_query: parts
                .uri
                .path_and_query()
                .map_or_else(|| parts.uri.path().to_owned(), ToString::to_string),
            query: pairs(&parts.uri),
            headers: parts.headers.clone(),
            body,
        }
    }

    /// The name by which faults and the journal know this call.
    pub(crate) fn operation(&self) -> String {
        match (self.service, self.header("x-amz-target")) {
            (Service::Aws, Some(target)) => target.rsplit('.').next().unwrap_or(target).to_owned(),
            _ => format!("{} {}", self.method, self.path),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The first query parameter of that name.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Every query parameter of that name: `user_ids[]=A&user_ids[]=B`.
    pub(crate) fn parameters(&self, name: &str) -> Vec<&str> {
        self.query
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The path's segments with percent-encoding undone.
    pub(crate) fn segments(&self) -> Vec<String> {
        self.path
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(percent_decode)
            .collect()
    }

    /// The body as form fields.
    pub(crate) fn form(&self) -> Vec<(String, String)> {
        format!("/?{}", String::from_utf8_lossy(&self.body))
            .parse::<Uri>()
            .map(|uri| pairs(&uri))
            .unwrap_or_default()
    }

    /// The body as JSON; null when it is not JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The page asked for, from 1, as far as the query or the AWS token tells.
    pub(crate) fn page(&self) -> u64 {
        if self.service == Service::Aws {
            let body = self.json();
            return body
                .get("NextToken")
                .and_then(Value::as_str)
                .and_then(|token| token.split('_').nth(1))
                .and_then(|page| page.parse().ok())
                .unwrap_or(1);
        }
        let number = |name: &str| self.parameter(name).and_then(|n| n.parse::<u64>().ok());
        let limit = number("limit").unwrap_or(if self.service == Service::PagerDuty { 25 } else { 100 });
        number("offset").unwrap_or(0) / limit.max(1) + 1
    }

    /// What the journal keeps of the body.
    pub(crate) fn body_summary(&self) -> Value {
        if self.body.is_empty() {
            return Value::Null;
        }
        if let Ok(value) = serde_json::from_slice(&self.body) {
            return value;
        }
        let fields: Map<String, Value> = self
            .form()
            .into_iter()
            .map(|(key, value)| {
                let shown = if key == "client_secret" {
                    json!("***")
                } else {
                    json!(value)
                };
                (key, shown)
            })
            .collect();
        Value::Object(fields)
    }

    /// What the journal keeps of the credential: its kind, or the AWS access key id, never the secret.
    pub(crate) fn credential_summary(&self) -> Option<String> {
        let value = self.header("authorization")?;
        if self.service == Service::Aws {
            return Some(credential_scope(value).map_or_else(String::new, |scope| scope.access_key_id));
        }
        Some(value.split([' ', '=']).next().unwrap_or_default().to_owned())
    }
}

/// The parts of a SigV4 credential scope that matter here.
pub(crate) struct CredentialScope {
    pub(crate) access_key_id: String,
    pub(crate) region: String,
}

/// Reads `Credential=AKID/date/region/service/aws4_request` out of a SigV4 header.
pub(crate) fn credential_scope(header: &str) -> Option<CredentialScope> {
    let start = header.find("Credential=")? + "Credential=".len();
    let mut parts = header[start..].split([',', ' ']).next()?.split('/');
    let access_key_id = parts.next()?.to_owned();
    let region = parts.nth(1)?.to_owned();
    Some(CredentialScope { access_key_id, region })
}

fn pairs(uri: &Uri) -> Vec<(String, String)> {
    Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map(|Query(pairs)| pairs)
        .unwrap_or_default()
}

fn percent_decode(segment: &str) -> String {
    let bytes = segment.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = segment
            .get(at + 1..at + 3)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What a service answers.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Content,
    /// The error code for the journal.
    pub(crate) error: Option<String>,
}

/// The body of an answer: JSON as long as a fault may still edit it, bytes otherwise.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    Json(Value),
    Bytes(Vec<u8>),
}

impl Answer {
    pub(crate) fn json(status: u16, body: Value) -> Self {
        Self {
            status,
            content_type: "application/json; charset=utf-8".to_owned(),
            headers: Vec::new(),
            body: Content::Json(body),
            error: None,
        }
    }

    pub(crate) fn bytes(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            content_type: content_type.to_owned(),
            headers: Vec::new(),
            body: Content::Bytes(body.into()),
            error: None,
        }
    }

    pub(crate) fn with_error(mut self, code: impl ToString) -> Self {
        self.error = Some(code.to_string());
        self
    }

    pub(crate) fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// With the body as it is sent, so that it is written once.
    pub(crate) fn rendered(mut self) -> Self {
        if let Content::Json(value) = &self.body {
            self.body = Content::Bytes(value.to_string().into_bytes());
        }
        self
    }

    /// Bytes of a rendered body.
    pub(crate) fn size(&self) -> u64 {
        match &self.body {
            Content::Bytes(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            Content::Json(_) => 0,
        }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        match self.body {
            Content::Json(value) => value.to_string().into_bytes(),
            Content::Bytes(bytes) => bytes,
        }
    }
}

/// Reads an instant as the providers accept it: RFC 3339 with any offset, or a civil date (time) in `zone`.
pub(crate) fn instant(text: &str, zone: &jiff::tz::TimeZone) -> Option<Timestamp> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp);
    }
    let civil: jiff::civil::DateTime = text.parse().ok()?;
    civil.to_zoned(zone.clone()).map(|zoned| zoned.timestamp()).ok()
}

/// Writes an instant with the zone's offset, `Z` for UTC.
pub(crate) fn rendered(at: Timestamp, zone: &jiff::tz::TimeZone) -> String {
    let offset = zone.to_offset(at);
    if offset.seconds() == 0 {
        return at.to_string();
    }
    at.display_with_offset(offset).to_string()
}
