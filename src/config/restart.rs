//! Which keys of the configuration an edit touches that count from the next start on only.

use std::collections::{BTreeMap, BTreeSet};

/// Keys that a running daemon takes up. `mode` is among them, except for a change to or from `observe`.
const TAKEN_UP: [&str; 6] = ["mode", "identity", "invariant", "timing", "limits", "audit"];

/// What a configuration file says, key by key, as people name the keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written(BTreeMap<String, String>);

impl Written {
    /// Of a file's text; nothing of one that is no TOML.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut keys = BTreeMap::new();
        for (key, value) in toml::from_str::<toml::Table>(text).unwrap_or_default() {
            match value {
                toml::Value::Table(sources) if key == "source" => {
                    let named = sources.into_iter();
                    keys.extend(named.map(|(name, source)| (format!("[source.{name}]"), source.to_string())));
                }
                toml::Value::Table(_) => drop(keys.insert(format!("[{key}]"), value.to_string())),
                toml::Value::Array(ref all) if all.iter().all(toml::Value::is_table) => {
                    drop(keys.insert(format!("[[{key}]]"), value.to_string()));
                }
                _ => drop(keys.insert(key, value.to_string())),
            }
        }
        Self(keys)
    }

    /// The keys that differ in a newer file and that a running daemon does not take up.
    #[must_use]
    pub fn needing_restart(&self, newer: &Self) -> BTreeSet<String> {
        let differs = |key: &&String| self.0.get(*key) != newer.0.get(*key);
        let taken_up = |key: &str| TAKEN_UP.contains(&key.trim_matches(['[', ']']));
        let keys = self.0.keys().chain(newer.0.keys());
        keys.filter(|key| !taken_up(key)).filter(differs).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: &str = "mode = \"sync\"\nledger = \"l.db\"\n[source.pagerduty]\nkind = \"pagerduty\"\n\
        [http]\nlisten = \"127.0.0.1:1\"\n[limits]\nsurprising_grants = 3\n[[sink]]\nname = \"a\"\n";

    fn touched(edited: &str) -> Vec<String> {
        let keys = Written::new(RUNNING).needing_restart(&Written::new(edited));
        keys.into_iter().collect()
    }

    #[test]
    fn keys_are_named_as_they_are_written() {
        let edited = RUNNING
            .replace("l.db", "m.db")
            .replace("[source.pagerduty]", "[source.pd]")
            .replace("127.0.0.1:1", "127.0.0.1:2")
            .replace("\"a\"", "\"b\"")
            + "[notify]\nzone = \"UTC\"\n";
        assert_eq!(
            touched(&edited),
            [
                "[[sink]]",
                "[http]",
                "[notify]",
                "[source.pagerduty]",
                "[source.pd]",
                "ledger"
            ]
        );
    }

    #[test]
    fn what_is_taken_up_and_what_only_looks_different_needs_no_restart() {
        let edited = RUNNING
            .replace("\"sync\"", "\"observe\"")
            .replace("surprising_grants = 3", "surprising_grants = 4")
            .replace("[http]\n", "# where the page is\n[http]\n\n");
        assert_ne!(edited, RUNNING);
        assert_eq!(touched(&edited), [""; 0]);
    }
}
