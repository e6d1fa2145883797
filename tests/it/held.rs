//! `audit access`: who held what in a period, answered from the record alone.

use jiff::Timestamp;

use crate::harness::*;

#[tokio::test]
async fn who_held_what_in_a_period_is_one_command() {
    let site = Site::payments().await;
    let before = Timestamp::now().to_string();
    site.run(&["apply"]).await.expect(0);
    site.shifts(&[("PBOB002", from_now(-60), from_now(3600))]);
    site.run(&["apply"]).await.expect(0);
    let all = site.run(&["audit", "access"]).await.expect(0);
    all.says(&[
        "Access from ",
        "NOTE  the record begins at ",
        "POLICY  ",
        ", mode sync, in force since ",
        "payments/prod-admin   today AdministratorAccess in account 111122223333",
        "  in AWS: arn:aws:sso:::permissionSet/",
        &format!("  {ALICE}  from "),
        ": revoked",
        &format!("  {BOB}  from "),
        "until now",
        "on call in pagerduty/PABC123 until ",
        ", added by mira@example.com",
        "4 intervals of access, 2 people, 2 entitlements.",
    ]);
    assert!(!all.stdout.contains("OUTLIVED"), "{}", all.stdout);

    // Of a person, of one of their entitlements, of an entitlement, of an account.
    let of = async |subject: &[&str]| {
        let arguments = [&["audit", "access"][..], subject, &["--format", "json"]].concat();
        let json = site.run(&arguments).await.expect(0).json();
        let held = json["held"].as_array().unwrap().iter();
        let line = |line: &serde_json::Value| {
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            format!("{} {}", text("entitlement"), text("person"))
        };
        held.map(line).collect::<Vec<_>>()
    };
    let admin = "payments/prod-admin";
    let (alice, bob) = (format!("{admin} {ALICE}"), format!("{admin} {BOB}"));
    let readers = format!("payments/prod-readers {ALICE}");
    assert_eq!(of(&[ALICE]).await, [alice.clone(), readers]);
    assert_eq!(of(&["Alice@Example.com", admin]).await, std::slice::from_ref(&alice));
    assert_eq!(of(&[admin]).await, [alice.clone(), bob.clone()]);
    assert_eq!(of(&[ACCOUNT]).await, [alice, bob]);

    // What is not there, and what cannot be asked.
    site.run(&["audit", "access", CAROL])
        .await
        .expect(2)
        .says(&["The record has no such access in this period."]);
    site.run(&["audit", "access", "--outlived"])
        .await
        .expect(2)
        .says(&["The record has no such access in this period."]);
    site.run(&["audit", "access", "--to", &before, "--from", "2099-01-01T00:00:00Z"])
        .await
        .expect(1)
        .says(&["before it begins at 2099-01-01T00:00:00Z; --from takes the earlier time"]);
    site.run(&["audit", "access", "payments"])
        .await
        .expect(1)
        .says(&["neither an e-mail address, nor an entitlement"]);
}
