//! What `import` needs: to read everything of the instance, and to change nothing.

use serde_json::{Value, json};

use super::{IamPolicy, Names, Place};
use crate::identity_center::Call;

/// The policy for whoever runs `import`. The daemon does not need it.
#[must_use]
pub fn for_import(place: &Place<'_>) -> IamPolicy {
    let names = Names::of(place);
    let actions = |service: &str| -> Vec<&str> {
        let calls = Call::OF_IMPORT.iter().filter(|call| call.service() == service);
        let calls = calls.filter(|call| **call != Call::ListInstances);
        calls.map(|call| call.iam_action()).collect()
    };
    let statement = |sid: &str, actions: Value, resources: Value| json!({"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources});
    let store = format!(
        "arn:{}:identitystore::{}:identitystore/{}",
        names.partition, names.owner, names.store
    );
    let objects = ["group/*", "membership/*", "user/*"].map(|rest| names.in_store(rest));
    let objects: Vec<String> = std::iter::once(store).chain(objects).collect();
    let document = json!({"Version": "2012-10-17", "Statement": [
        statement("FindInstance", json!([Call::ListInstances.iam_action()]), json!("*")),
        statement(
            "ImportAssignments",
            json!(actions("ssoadmin")),
            json!([names.sso("account/*"), names.instance_arn, names.every_set()]),
        ),
        statement("ImportIdentities", json!(actions("identitystore")), json!(objects)),
    ]});
    IamPolicy {
        document,
        notes: vec![
            "This is for `import` alone, and reads every assignment and every user; take it away afterwards."
                .to_owned(),
        ],
    }
}
