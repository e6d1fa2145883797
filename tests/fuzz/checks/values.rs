//! Small values: people, ids, lengths of time, and text that is made safe to show.

use dutybound::{
    document,
    model::Person,
    schedule::wire::{self, Id},
    text,
};

use super::assert_harmless;

/// One text, as everything that a single text can be.
pub(crate) fn text(input: &[u8]) {
    let said = wire::refusal(input, &["hunter2"]);
    if let Some(refusal) = said {
        assert_harmless(&refusal.text);
        assert!(refusal.text.chars().count() <= super::LONGEST_LINE, "{refusal:?}");
        assert!(!refusal.text.contains("hunter2"), "{refusal:?}");
    }
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    person(text);
    cleaned(text);
    if let Some(Id(id)) = Id::new(text.to_owned()) {
        assert_harmless_id(&id);
    }
    if let Ok(length) = document::duration(text) {
        // As messages show it to people, who copy it.
        assert_eq!(document::duration(&format!("{length:#}")), Ok(length), "{text:?}");
    }
}

fn assert_harmless_id(id: &str) {
    assert!(!id.is_empty() && id.len() <= 200, "{id:?}");
    assert!(!id.chars().any(|c| c.is_control() || c.is_whitespace()), "{id:?}");
}

fn person(text: &str) {
    let parts: Vec<&str> = text.split('@').collect();
    let is_address = text.len() <= 254
        && parts.len() == 2
        && parts.iter().all(|part| !part.is_empty())
        && !text.chars().any(|c| c.is_whitespace() || c.is_control());
    match Person::parse(text) {
        Ok(person) => {
            assert!(is_address, "{text:?} is nobody");
            let canonical = person.as_str();
            // Nothing but the case of ASCII letters may make two texts one person.
            assert!(canonical.eq_ignore_ascii_case(text), "{text:?} became {canonical:?}");
            assert!(!canonical.contains(|c: char| c.is_ascii_uppercase()), "{canonical:?}");
            for same in [canonical.to_owned(), text.to_ascii_uppercase()] {
                assert_eq!(Person::parse(&same).as_ref(), Ok(&person));
            }
        }
        Err(error) => {
            assert!(!is_address, "{text:?} is somebody: {error}");
            assert!(!error.to_string().contains(char::is_control), "{error}");
        }
    }
}

fn cleaned(text: &str) {
    let clean = text::clean(text);
    assert_harmless(&clean);
    assert_eq!(text::clean(&clean), clean, "clean text stays as it is");
    let line = wire::one_line(text);
    assert_harmless(&line);
    assert!(line.chars().count() <= super::LONGEST_LINE, "{line:?}");
}
