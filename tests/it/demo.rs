//! The demo shows a newcomer what the README promises.

use std::path::Path;
use std::process::{Command, Stdio};

#[tokio::test]
async fn a_newcomer_sees_a_hand_off_and_what_to_type_next() {
    let binary = Path::new(env!("CARGO_BIN_EXE_dutybound"));
    let demo = binary.parent().unwrap().join("examples/demo");
    assert!(
        demo.exists(),
        "`cargo test` builds the examples; {} is not there",
        demo.display()
    );
    let mut command = Command::new(demo);
    command.args(["--hand-offs", "1"]).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    let (said, logged) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{said}\n{logged}");
    let line = |words: &[&str]| {
        let found = said
            .lines()
            .position(|line| words.iter().all(|word| line.contains(word)));
        found.unwrap_or_else(|| panic!("no line with {words:?} in:\n{said}\n{logged}"))
    };
    let alice = line(&["+ grant", "AdministratorAccess", "alice@example.com"]);
    let bob = line(&["+ grant", "AdministratorAccess", "bob@example.com"]);
    let end = line(&["- revoke", "AdministratorAccess", "alice@example.com"]);
    assert!(alice < bob && bob < end, "{said}");
    for command in ["status", "explain", "diff", "/metrics", "browser"] {
        assert!(line(&[command]) < alice, "{said}");
    }
}
