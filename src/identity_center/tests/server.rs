//! A tiny HTTP server whose answers each test scripts, faults included.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::identity_center::Call;

/// What to answer.
pub(super) enum Reply {
    /// 200.
    Ok(Value),
    /// 400 with an error code and a message.
    Error(&'static str, &'static str),
    /// Any status, content type and body.
    Raw(u16, &'static str, String),
    /// Close the connection without an answer.
    Cut,
    /// Begin an answer of 1000 bytes, then close the connection.
    CutBody,
    /// Say nothing until the client goes away.
    Silence,
}

impl Reply {
    /// The same answer, without one member of its only object.
    pub(super) fn without(mut self, member: &str) -> Self {
        if let Self::Ok(Value::Object(outer)) = &mut self {
            for inner in outer.values_mut() {
                if let Value::Object(inner) = inner {
                    inner.remove(member);
                }
            }
        }
        self
    }
}

type Script = dyn Fn(&str, &Value, usize) -> Option<Reply> + Send + Sync;

struct State {
    script: Box<Script>,
    journal: Mutex<Vec<(String, Value)>>,
}

/// The server. Its threads end with the connections and with the process.
pub(super) struct Server {
    address: SocketAddr,
    state: Arc<State>,
}

impl Server {
    /// The script gets the operation, the request's body and how often the operation was called before; where it
    /// says nothing, a healthy instance answers.
    pub(super) fn start(script: impl Fn(&str, &Value, usize) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            script: Box::new(script),
            journal: Mutex::default(),
        });
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Self { address, state }
    }

    pub(super) fn url(&self) -> url::Url {
        format!("http://{}/", self.address).parse().unwrap()
    }

    /// The operations called so far, in order.
    pub(super) fn operations(&self) -> Vec<String> {
        let journal = self.state.journal.lock().unwrap();
        journal.iter().map(|(operation, _)| operation.clone()).collect()
    }

    /// How often an operation was called.
    pub(super) fn count(&self, operation: &str) -> usize {
        self.operations().iter().filter(|called| *called == operation).count()
    }

    /// The bodies with which an operation was called.
    pub(super) fn bodies(&self, operation: &str) -> Vec<Value> {
        let journal = self.state.journal.lock().unwrap();
        let of_it = journal.iter().filter(|(called, _)| called == operation);
        of_it.map(|(_, body)| body.clone()).collect()
    }
}

fn serve(stream: TcpStream, state: &State) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    while let Some((target, body)) = request(&mut reader) {
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        // Whatever the client sends must be on the list that the IAM policy is made of.
        let listed = Call::ALL.iter().any(|call| call.name() == operation);
        assert!(listed, "{target} is not on the list of calls");
        let nth = {
            let mut journal = state.journal.lock().unwrap();
            let mut counts: HashMap<&str, usize> = HashMap::new();
            for (called, _) in journal.iter() {
                *counts.entry(called).or_default() += 1;
            }
            let nth = counts.get(operation.as_str()).copied().unwrap_or(0);
            journal.push((operation.clone(), body.clone()));
            nth
        };
        let reply = (state.script)(&operation, &body, nth).unwrap_or_else(|| healthy(&operation, &body));
        let (status, kind, text) = match reply {
            Reply::Ok(value) => (200, "application/x-amz-json-1.1", value.to_string()),
            Reply::Error(code, message) => {
                let text = json!({"__type": code, "Message": message}).to_string();
                (400, "application/x-amz-json-1.1", text)
            }
            Reply::Raw(status, kind, text) => (status, kind, text),
            Reply::Cut => return,
            Reply::CutBody => {
                let head =
                    "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: 1000\r\n\r\n{";
                writer.write_all(head.as_bytes()).unwrap();
                return;
            }
            Reply::Silence => {
                let mut rest = Vec::new();
                let _gone = reader.read_to_end(&mut rest);
                return;
            }
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            text.len()
        );
        if writer.write_all((head + &text).as_bytes()).is_err() {
            return;
        }
    }
}

/// One request's `X-Amz-Target` and JSON body; `None` when the client went away.
fn request(reader: &mut impl BufRead) -> Option<(String, Value)> {
    let (mut target, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            match name.to_ascii_lowercase().as_str() {
                "x-amz-target" => target = value.trim().to_owned(),
                "content-length" => length = value.trim().parse().unwrap(),
                _ => {}
            }
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((target, serde_json::from_slice(&body).unwrap()))
}

/// An instance with one permission set, one group and one user.
fn healthy(operation: &str, body: &Value) -> Reply {
    let value = match operation {
        "ListInstances" => json!({"Instances": [{
            "InstanceArn": super::INSTANCE,
            "IdentityStoreId": "d-1234567890",
            "OwnerAccountId": super::OWNER,
            "Status": "ACTIVE",
        }]}),
        "ListPermissionSets" => json!({"PermissionSets": [super::ADMIN]}),
        "DescribePermissionSet" => json!({"PermissionSet": {"Name": "Admin", "PermissionSetArn": super::ADMIN}}),
        "GetUserId" => json!({"UserId": "u-alice", "IdentityStoreId": "d-1234567890"}),
        "GetGroupId" => json!({"GroupId": "g-1", "IdentityStoreId": "d-1234567890"}),
        "DescribeGroup" => json!({"GroupId": body["GroupId"], "IdentityStoreId": "d-1234567890"}),
        "DescribeUser" => person(&body["UserId"], "alice@example.com", "ENABLED"),
        "DeleteGroupMembership" => json!({}),
        "GetGroupMembershipId" | "CreateGroupMembership" => {
            json!({"MembershipId": "m-1", "IdentityStoreId": "d-1234567890"})
        }
        "ListAccountAssignments" => json!({"AccountAssignments": []}),
        "ListGroupMemberships" => json!({"GroupMemberships": []}),
        _ => return Reply::Error("UnknownOperationException", "not scripted"),
    };
    Reply::Ok(value)
}

/// A user whose name and e-mail are `address`.
pub(super) fn person(id: &Value, address: &str, status: &str) -> Value {
    json!({
        "UserId": id,
        "IdentityStoreId": "d-1234567890",
        "UserName": address,
        "Emails": [{"Value": address, "Type": "work", "Primary": true}],
        "UserStatus": status,
    })
}

/// The status object of an assignment operation, under its key.
pub(super) fn status(key: &str, state: &str, reason: Option<&str>) -> Reply {
    let mut status = json!({"Status": state, "RequestId": "r-1"});
    if let Some(reason) = reason {
        status["FailureReason"] = reason.into();
    }
    Reply::Ok(json!({ key: status }))
}
