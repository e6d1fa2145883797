//! Scripted faults: which calls they meet and what they do to them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::journal::Service;
use crate::request::{Answer, Content, Incoming};
use crate::wire::Wire;

/// What a fault does to the call that it meets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Answers with this status, these headers and this body; the operation is not performed.
    Status {
        /// The HTTP status.
        status: u16,
        /// Headers added to the answer.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// The body, sent as it is; a JSON string is sent without its quotes, null as no body at all.
        #[serde(default)]
        body: Value,
    },
    /// Performs the operation and answers as usual (for a fault that only delays or holds).
    Pass,
    /// Closes the connection without an answer; the operation is not performed.
    Cut,
    /// Performs the operation, sends half of the answer's body, then closes the connection.
    CutInBody,
    /// Performs the operation, then closes the connection without an answer.
    LostReply,
    /// Answers 200 with bytes that are neither JSON nor UTF-8; the operation is not performed.
    Garbage,
    /// Answers 200 with an HTML page, as a proxy's login page does; the operation is not performed.
    Html,
    /// Answers 200 with no body; the operation is not performed.
    EmptyBody,
    /// Performs the operation and answers 200 with the first half of the JSON, complete by its Content-Length.
    TruncatedJson,
    /// Performs the operation and empties every list in the answer; the status stays.
    EmptyList,
    /// Performs the operation and adds `next` links to this URL in all usual places.
    NextLink(
        /// The URL of the alleged next page.
        String,
    ),
    /// Answers 302 to this URL; the operation is not performed.
    Redirect(
        /// The value of `Location`.
        String,
    ),
    /// Performs the operation and answers with another Content-Type.
    ContentType(
        /// The value of `Content-Type`.
        String,
    ),
    /// Performs the operation and answers with this header set, such as another `Date`.
    Header {
        /// The header's name.
        name: String,
        /// Its value.
        value: String,
    },
}

/// A scripted fault. Built with [`Fault::on`]; without [`times`](Fault::times) it lasts until faults are cleared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The service it applies to.
    pub service: Service,
    /// The operation as the journal names it; a trailing `*` matches any rest, `*` alone matches all.
    pub operation: String,
    /// Calls that pass before the fault begins.
    #[serde(default)]
    pub after: u32,
    /// Calls that it meets; `None` is every call from then on.
    #[serde(default)]
    pub times: Option<u32>,
    /// Only this page of a paged read, from 1.
    #[serde(default)]
    pub page: Option<u64>,
    /// Only calls whose path, query or body contains this text.
    #[serde(default)]
    pub containing: Option<String>,
    /// Milliseconds to wait before anything else happens.
    #[serde(default)]
    pub delay_ms: u64,
    /// Holds the call, unperformed, until this fault is cleared.
    #[serde(default)]
    pub hold: bool,
    /// Holds the answer of a call that was performed until this fault is cleared.
    #[serde(default)]
    pub hold_reply: bool,
    /// What happens then.
    #[serde(default = "pass")]
    pub effect: Effect,
    /// Matching calls seen so far, counted by the sandbox.
    #[serde(default)]
    pub seen: u32,
}

fn pass() -> Effect {
    Effect::Pass
}

impl Fault {
    /// A fault on an operation: `Fault::on(Service::PagerDuty, "GET /schedules/PABC123")`,
    /// `Fault::on(Service::Aws, "CreateAccountAssignment")`.
    pub fn on(service: Service, operation: impl Into<String>) -> Self {
        Self {
            service,
            operation: operation.into(),
            after: 0,
            times: None,
            page: None,
            containing: None,
            delay_ms: 0,
            hold: false,
            hold_reply: false,
            effect: Effect::Pass,
            seen: 0,
        }
    }

    /// Lets the first `calls` matching calls pass.
    pub fn after(mut self, calls: u32) -> Self {
        self.after = calls;
        self
    }

    /// Meets `calls` calls and then stops.
    pub fn times(mut self, calls: u32) -> Self {
        self.times = Some(calls);
        self
    }

    /// Meets only this page of a paged read, from 1.
    pub fn page(mut self, page: u64) -> Self {
        self.page = Some(page);
        self
    }

    /// Meets only calls whose path, query or body contains `text`.
    pub fn containing(mut self, text: impl Into<String>) -> Self {
        self.containing = Some(text.into());
        self
    }

    /// Waits before the effect.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// Holds the call, unperformed, until faults are cleared; the journal shows it with no status meanwhile.
    pub fn hold(mut self) -> Self {
        self.hold = true;
        self
    }

    /// Performs the call and holds its answer until faults are cleared; the journal shows it as performed and with no
    /// status meanwhile. This is the moment to kill a client that must survive it.
    pub fn hold_reply(mut self) -> Self {
        self.hold_reply = true;
        self
    }

    /// Sets the effect.
    pub fn effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }

    /// Answers with a bare status.
    pub fn status(self, status: u16) -> Self {
        self.respond(status, &[], Value::Null)
    }

    /// Answers with a status, headers and a body (a JSON string is sent without its quotes).
    pub fn respond(self, status: u16, headers: &[(&str, &str)], body: Value) -> Self {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        self.effect(Effect::Status { status, headers, body })
    }

    /// Answers with an AWS error: 500 for `InternalServerException`, otherwise 400.
    pub fn aws_error(self, code: &str, message: &str) -> Self {
        let status = if code == "InternalServerException" { 500 } else { 400 };
        let body = json!({"__type": code, "message": message, "Message": message});
        self.respond(status, &[("content-type", "application/x-amz-json-1.1")], body)
    }

    /// Closes the connection without an answer.
    pub fn cut(self) -> Self {
        self.effect(Effect::Cut)
    }

    /// Performs the operation, then closes the connection without an answer.
    pub fn lost_reply(self) -> Self {
        self.effect(Effect::LostReply)
    }

    /// The label shown in the journal.
    pub fn label(&self) -> String {
        let name = match &self.effect {
            Effect::Status { status, .. } => format!("status {status}"),
            Effect::Pass => String::new(),
            Effect::Cut => "cut".to_owned(),
            Effect::CutInBody => "cut in body".to_owned(),
            Effect::LostReply => "lost reply".to_owned(),
            Effect::Garbage => "garbage".to_owned(),
            Effect::Html => "html".to_owned(),
            Effect::EmptyBody => "empty body".to_owned(),
            Effect::TruncatedJson => "truncated json".to_owned(),
            Effect::EmptyList => "empty list".to_owned(),
            Effect::NextLink(url) => format!("next link {url}"),
            Effect::Redirect(url) => format!("redirect {url}"),
            Effect::ContentType(kind) => format!("content type {kind}"),
            Effect::Header { name, value } => format!("{name}: {value}"),
        };
        let hold = match (self.hold, self.hold_reply) {
            (true, _) => "hold",
            (false, true) => "hold reply",
            (false, false) => "",
        };
        let delay = if self.delay_ms > 0 {
            format!("delay {} ms", self.delay_ms)
        } else {
            String::new()
        };
        let parts: Vec<&str> = [hold, delay.as_str(), name.as_str()]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect();
        parts.join(", ")
    }

    /// Whether the fault is meant for this call, leaving aside how many it met already.
    fn matches(&self, request: &Incoming, operation: &str) -> bool {
        let named = match self.operation.strip_suffix('*') {
            Some(prefix) => operation.starts_with(prefix),
            None => operation == self.operation,
        };
        let contains = |text: &String| {
            request.path_and_query.contains(text.as_str())
                || String::from_utf8_lossy(&request.body).contains(text.as_str())
        };
        self.service == request.service
            && named
            && self.page.is_none_or(|page| page == request.page())
            && self.containing.as_ref().is_none_or(contains)
    }

    /// Counts the call and tells whether the fault meets it.
    pub(crate) fn meets(&mut self, request: &Incoming, operation: &str) -> bool {
        if !self.matches(request, operation) {
            return false;
        }
        self.seen = self.seen.saturating_add(1);
        let past = self.seen.saturating_sub(self.after);
        past > 0 && self.times.is_none_or(|times| past <= times)
    }
}

/// The answer that leaves, and whether the operation was performed. `None` is a cut connection.
pub(crate) fn apply(effect: &Effect, wire: &Wire, perform: impl FnOnce() -> Answer) -> (Option<Answer>, bool) {
    match effect {
        Effect::Pass => (Some(perform()), true),
        Effect::Status { status, headers, body } => {
            let mut answer = match body {
                Value::Null => Answer::bytes(*status, "", Vec::new()),
                Value::String(text) => Answer::bytes(*status, "text/plain", text.as_bytes()),
                body => Answer::json(*status, body.clone()),
            };
            if let Some(code) = body.get("__type").and_then(Value::as_str) {
                answer.error = Some(code.to_owned());
            }
            for (name, value) in headers {
                answer = answer.header(name, value);
            }
            (Some(answer), false)
        }
        Effect::Cut => {
            wire.cut();
            (None, false)
        }
        Effect::LostReply => {
            perform();
            wire.cut();
            (None, true)
        }
        Effect::CutInBody => {
            let answer = perform();
            wire.cut_in_body(answer.clone().into_bytes().len() / 2);
            (Some(answer), true)
        }
        Effect::Garbage => (
            Some(Answer::bytes(
                200,
                "application/json",
                [0x00, 0xff, 0xfe, 0x7b, 0x80, 0x22, 0xc3, 0x28],
            )),
            false,
        ),
        Effect::Html => (
            Some(Answer::bytes(
                200,
                "text/html",
                "<!doctype html><title>Sign in</title><h1>Sign in</h1>",
            )),
            false,
        ),
        Effect::EmptyBody => (Some(Answer::bytes(200, "application/json", Vec::new())), false),
        Effect::TruncatedJson => {
            let mut answer = perform();
            let mut bytes = answer.clone().into_bytes();
            bytes.truncate(bytes.len() / 2);
            answer.body = Content::Bytes(bytes);
            (Some(answer), true)
        }
        Effect::EmptyList => {
            let mut answer = perform();
            if let Content::Json(value) = &mut answer.body {
                empty_lists(value);
            }
            (Some(answer), true)
        }
        Effect::NextLink(url) => {
            let mut answer = perform().header("link", format!("<{url}>; rel=\"next\""));
            if let Content::Json(Value::Object(fields)) = &mut answer.body {
                add_next(fields, url);
            }
            (Some(answer), true)
        }
        Effect::Redirect(url) => (
            Some(Answer::bytes(302, "text/html", Vec::new()).header("location", url)),
            false,
        ),
        Effect::ContentType(kind) => {
            let mut answer = perform();
            kind.clone_into(&mut answer.content_type);
            (Some(answer), true)
        }
        Effect::Header { name, value } => (Some(perform().header(name, value)), true),
    }
}

fn empty_lists(value: &mut Value) {
    match value {
        Value::Array(items) => items.clear(),
        Value::Object(fields) => {
            fields.remove("NextToken");
            for (key, field) in fields.iter_mut() {
                if key == "more" {
                    *field = json!(false);
                }
                empty_lists(field);
            }
        }
        _ => {}
    }
}

fn add_next(fields: &mut Map<String, Value>, url: &str) {
    fields.insert("next".to_owned(), json!(url));
    fields.insert("links".to_owned(), json!({"next": url}));
    fields.insert("paging".to_owned(), json!({"next": url}));
}
