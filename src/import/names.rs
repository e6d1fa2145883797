//! Names for projects, entitlements and groups, made from what AWS calls them, and the names of accounts.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::document::AccountId;

/// The longest name that a policy may have.
const LONGEST: usize = 64;

/// Names that are taken. Two that differ only in case are one: they would be one file on some disks.
#[derive(Debug, Default)]
pub(super) struct Taken(BTreeSet<String>);

impl Taken {
    pub(super) fn with(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().map(|name| name.to_lowercase()).collect())
    }

    /// A name that is valid in a policy and free: as near to `text` as can be, or `otherwise` if nothing of it can be used.
    pub(super) fn make(&mut self, text: &str, otherwise: &str) -> String {
        let named = identifier(text);
        let base = if named.is_empty() { identifier(otherwise) } else { named };
        let mut name = base.clone();
        let mut number = 1;
        while !self.0.insert(name.to_lowercase()) {
            number += 1;
            let suffix = format!("-{number}");
            name = base.chars().take(LONGEST - suffix.len()).collect::<String>() + &suffix;
        }
        name
    }
}

/// Letters, digits, dots, dashes and underscores, the first of them a letter or digit; all else becomes a dash.
pub(super) fn identifier(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        let valid = c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        match (valid, name.ends_with('-')) {
            (true, _) if name.is_empty() && !c.is_ascii_alphanumeric() => {}
            (true, _) => name.push(c),
            (false, false) if !name.is_empty() => name.push('-'),
            (false, _) => {}
        }
    }
    name.truncate(LONGEST);
    name.trim_end_matches('-').to_owned()
}

/// Reads the names of accounts from what `aws organizations list-accounts` prints.
///
/// # Errors
/// What is wrong with the text.
pub fn account_names(text: &str) -> Result<BTreeMap<String, String>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Listed {
        accounts: Vec<Account>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Account {
        id: String,
        name: String,
    }
    let listed: Listed = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut names = BTreeMap::new();
    for account in listed.accounts {
        if !AccountId(account.id.clone()).is_valid() {
            return Err(format!("{:?} is not an AWS account id", account.id));
        }
        names.insert(account.id, account.name);
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_becomes_a_valid_name_and_no_two_are_one() {
        let mut taken = Taken::with(["Payments".to_owned()]);
        assert_eq!(taken.make("payments", "x"), "payments-2");
        assert_eq!(taken.make("payments prod!", "x"), "payments-prod");
        assert_eq!(taken.make("-Zahlungen \"Übersicht\"\n", "x"), "Zahlungen-bersicht");
        assert_eq!(taken.make("\u{1f525}\u{202e}", "group-1"), "group-1");
        assert_eq!(taken.make("火", "group-1"), "group-1-2");
        let long = taken.make(&"a".repeat(100), "x");
        assert_eq!((long.len(), taken.make(&"a".repeat(100), "x").len()), (64, 64));
    }

    #[test]
    fn account_names_are_those_that_the_aws_cli_lists() {
        let text = r#"{"Accounts": [{"Id": "111122223333", "Name": "payments-prod", "State": "ACTIVE"}]}"#;
        let names = account_names(text).unwrap();
        assert_eq!(names["111122223333"], "payments-prod");
        assert!(account_names(r#"{"Accounts": [{"Id": "1", "Name": "x"}]}"#).is_err());
        assert!(account_names("[]").is_err());
    }
}
