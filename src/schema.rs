//! The JSON Schemas of both files that people write, for their editors; generated from the parsed types.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

use crate::{config::file::ConfigFile, policy::file::PolicyFile};

/// The schema of `config.toml`, as pretty JSON with a line break at the end.
#[must_use]
pub fn config() -> String {
    schema_of::<ConfigFile>()
}

/// The schema of a policy file, as pretty JSON with a line break at the end.
#[must_use]
pub fn project() -> String {
    schema_of::<PolicyFile>()
}

fn schema_of<T: JsonSchema>() -> String {
    // Draft 7 is what the TOML language servers (taplo, tombi) understand best.
    let schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<T>();
    let mut schema = schema.to_value();
    drop_null(&mut schema);
    format!("{schema:#}\n")
}

/// A key that may be left out is `null` to schemars, which TOML cannot say and editors should not offer.
fn drop_null(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
                choices.retain(|choice| choice["type"] != "null");
            }
            object.values_mut().for_each(drop_null);
        }
        Value::Array(values) => values.iter_mut().for_each(drop_null),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The committed schemas are the generated ones. `DUTYBOUND_BLESS=1 cargo test schema` rewrites them.
    #[test]
    fn the_committed_schemas_are_current() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/schema");
        for (name, generated) in [("config.schema.json", config()), ("project.schema.json", project())] {
            let path = folder.join(name);
            if std::env::var_os("DUTYBOUND_BLESS").is_some() {
                std::fs::write(&path, &generated).unwrap();
            }
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                committed == generated,
                "{name} is out of date; run DUTYBOUND_BLESS=1 cargo test schema"
            );
        }
    }

    #[test]
    fn required_keys_and_unknown_keys_are_known_to_editors() {
        let project: Value = serde_json::from_str(&project()).unwrap();
        assert_eq!(project["additionalProperties"], false);
        assert_eq!(project["required"], serde_json::json!(["project"]));
        let rule = &project["definitions"]["RuleEntry"];
        assert_eq!(rule["required"], serde_json::json!(["entitlement"]));
        assert!(
            rule["properties"]["lead"]["description"]
                .as_str()
                .unwrap()
                .contains("At most 24 hours")
        );
        let during = &project["definitions"]["DuringEntry"];
        assert_eq!(during["required"], serde_json::json!(["cron", "zone"]));
        assert_eq!(during["properties"]["for"]["type"], "string");
        assert!(!super::project().contains("\"null\"") && !super::config().contains("\"null\""));
        let config: Value = serde_json::from_str(&config()).unwrap();
        assert_eq!(
            config["required"],
            serde_json::json!(["mode", "owner_id", "identity_center"])
        );
    }
}
