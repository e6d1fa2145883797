//! Secrets named in the configuration and kept outside it: in the environment, in a file, or with systemd.

use std::{borrow::Cow, collections::BTreeMap, ffi::OsString, fmt, path::Path, path::PathBuf};

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{
    Deserialize, Deserializer,
    de::{self, value::MapAccessDeserializer},
};

use crate::document::At;

/// The process's environment, or a made-up one.
pub trait Env {
    /// The variable's value, if it is set.
    fn var(&self, name: &str) -> Option<OsString>;
}

/// The environment that this process was started with.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessEnv;

impl Env for ProcessEnv {
    fn var(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }
}

impl Env for BTreeMap<String, String> {
    fn var(&self, name: &str) -> Option<OsString> {
        self.get(name).map(OsString::from)
    }
}

/// Whether loading a configuration reads its secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// Read them; one that cannot be read is an error.
    Read,
    /// Leave them empty. For validation where the secrets are not at hand, such as in CI.
    Skip,
}

/// Where a secret is kept: exactly one of the three.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretTable {
    /// The name of an environment variable.
    pub env: Option<At<String>>,
    /// The path of a file that only the daemon's user can read.
    pub file: Option<At<String>>,
    /// The name of a systemd credential (`LoadCredential=`), found in `$CREDENTIALS_DIRECTORY`.
    pub credential: Option<At<String>>,
}

/// A [`SecretTable`] in the configuration. A secret written there directly is refused and its value not repeated.
#[derive(Debug, Clone)]
pub struct SecretValue(pub SecretTable);

impl<'de> Deserialize<'de> for SecretValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        fn refuse<E: de::Error>() -> Result<SecretValue, E> {
            Err(E::custom(
                "a secret does not belong in this file, which people share and keep in Git\n\
                 write where it is kept: { env = \"NAME\" }, { file = \"/path\" } or { credential = \"name\" }; \
                 and replace the secret if this file was shared",
            ))
        }
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = SecretValue;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table with `env`, `file` or `credential`")
            }
            fn visit_str<E: de::Error>(self, _: &str) -> Result<SecretValue, E> {
                refuse()
            }
            fn visit_i64<E: de::Error>(self, _: i64) -> Result<SecretValue, E> {
                refuse()
            }
            fn visit_f64<E: de::Error>(self, _: f64) -> Result<SecretValue, E> {
                refuse()
            }
            fn visit_bool<E: de::Error>(self, _: bool) -> Result<SecretValue, E> {
                refuse()
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<SecretValue, A::Error> {
                SecretTable::deserialize(MapAccessDeserializer::new(map)).map(SecretValue)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for SecretValue {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let mut schema = SecretTable::json_schema(generator);
        schema.insert("minProperties".to_owned(), 1.into());
        schema.insert("maxProperties".to_owned(), 1.into());
        schema
    }
}

/// Where one secret is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretPlace {
    /// In this environment variable.
    Env(String),
    /// In this file.
    File(PathBuf),
    /// In this systemd credential.
    Credential(String),
}

/// The largest secret that is read, in bytes.
const MAX_SECRET_BYTES: u64 = 64 << 10;

/// A secret, and what a person should know about how it is kept.
#[derive(Debug)]
pub struct Found {
    /// The secret, without one trailing line break.
    pub secret: SecretString,
    /// Such as a file that every user of the host can read.
    pub warning: Option<String>,
}

impl SecretPlace {
    /// Why no secret can be kept in such a place, whatever the host looks like.
    #[must_use]
    pub fn malformed(&self) -> Option<&'static str> {
        match self {
            Self::Env(name) if name.is_empty() || name.contains(['=', '\0']) => {
                Some("this is not the name of an environment variable")
            }
            Self::File(path) if path.as_os_str().as_encoded_bytes().contains(&0) => Some("this is not a path"),
            Self::Credential(name) if name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') => {
                Some("this is not the name of a systemd credential")
            }
            _ => None,
        }
    }

    /// Reads the secret.
    ///
    /// # Errors
    /// Why it cannot be used, never with any part of it.
    pub fn read(&self, env: &dyn Env) -> Result<Found, String> {
        match self {
            Self::Env(name) => {
                let value = env
                    .var(name)
                    .ok_or_else(|| format!("the environment variable {name} is not set"))?;
                let value = value
                    .into_string()
                    .map_err(|_| format!("the environment variable {name} is not UTF-8"))?;
                Ok(Found {
                    secret: usable(value, &format!("the environment variable {name}"))?,
                    warning: None,
                })
            }
            Self::File(path) => read_file(path),
            Self::Credential(name) => {
                let directory = env.var("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                    format!(
                        "CREDENTIALS_DIRECTORY is not set, so there is no credential {name}: \
                         it exists only in a systemd unit with LoadCredential={name}:/path"
                    )
                })?;
                read_file(&Path::new(&directory).join(name))
            }
        }
    }
}

fn read_file(path: &Path) -> Result<Found, String> {
    let shown = path.display();
    let failed = |error: std::io::Error| format!("cannot read the secret's file {shown}: {error}");
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(format!("{shown} is not a regular file"));
    }
    if metadata.len() > MAX_SECRET_BYTES {
        return Err(format!("{shown} has {} bytes; that is no secret", metadata.len()));
    }
    let text = String::from_utf8(std::fs::read(path).map_err(failed)?).map_err(|_| format!("{shown} is not UTF-8"))?;
    Ok(Found {
        secret: usable(text, &shown.to_string())?,
        warning: readable_by_all(&metadata)
            .then(|| format!("every user of this host can read {shown}; run chmod o-rwx on it")),
    })
}

#[cfg(unix)]
fn readable_by_all(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    metadata.mode() & 0o004 != 0
}

#[cfg(not(unix))]
fn readable_by_all(_: &std::fs::Metadata) -> bool {
    false
}

fn usable(mut text: String, place: &str) -> Result<SecretString, String> {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() {
        return Err(format!("{place} is empty"));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("{place} holds more than one line, or control characters"));
    }
    if text.trim() != text {
        return Err(format!("{place} begins or ends with white space"));
    }
    Ok(SecretString::from(text))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn one_trailing_line_break_is_dropped_and_nothing_else_is_forgiven() {
        let read = |text: &str| SecretPlace::Env("T".into()).read(&env(&[("T", text)]));
        assert_eq!(read("abc\n").unwrap().secret.expose_secret(), "abc");
        assert_eq!(read("abc\r\n").unwrap().secret.expose_secret(), "abc");
        for bad in ["", "\n", "abc\n\n", "a\nb", "a\u{1b}b", " abc", "abc "] {
            let error = read(bad).unwrap_err();
            assert!(!error.contains("abc"), "{error}");
        }
        assert_eq!(
            SecretPlace::Env("U".into()).read(&env(&[])).unwrap_err(),
            "the environment variable U is not set"
        );
    }

    #[test]
    #[cfg(unix)]
    fn credentials_come_from_systemds_directory_and_open_files_are_noticed() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pd");
        std::fs::write(&path, "s3cret\n").unwrap();
        let env = env(&[("CREDENTIALS_DIRECTORY", dir.path().to_str().unwrap())]);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let found = SecretPlace::Credential("pd".into()).read(&env).unwrap();
        assert_eq!(found.secret.expose_secret(), "s3cret");
        assert!(found.warning.unwrap().contains("every user of this host"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(SecretPlace::File(path).read(&env).unwrap().warning.is_none());
        assert!(SecretPlace::File(dir.path().to_owned()).read(&env).is_err());
        let none = SecretPlace::Credential("pd".into()).read(&BTreeMap::new()).unwrap_err();
        assert!(none.contains("LoadCredential=pd:"), "{none}");
    }
}
