//! The README says what the program says.

use dutybound::iam_policy::{Place, iam_policy};
use dutybound::model::{GroupRef, PermissionSetRef, ResolvedTarget, Target};

fn readme() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap()
}

#[test]
fn the_iam_policy_is_the_one_that_the_command_prints() {
    let permission_set_arn = "arn:aws:sso:::permissionSet/ssoins-1234567890abcdef/ps-1234567890abcdef";
    let group_id = "906745cd-1111-2222-3333-444455556666";
    let admin = Target::Assignment {
        account: "111122223333".into(),
        permission_set: PermissionSetRef::Name("AdministratorAccess".into()),
    };
    let resolved = ResolvedTarget::Assignment {
        account: "111122223333".into(),
        permission_set_arn: permission_set_arn.into(),
    };
    let readers = Target::Group(GroupRef::Name("payments-prod-readers".into()));
    let group = ResolvedTarget::Group {
        group_id: group_id.into(),
    };
    let place = Place {
        region: "eu-central-1",
        owner_account_id: "999999999999",
        instance_arn: Some("arn:aws:sso:::instance/ssoins-1234567890abcdef"),
        identity_store_id: Some("d-1234567890"),
    };
    let expected = iam_policy(&place, &[(admin, Some(resolved)), (readers, Some(group))]).document;
    let text = readme();
    let block = text
        .split("```json")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("a JSON block");
    let shown: serde_json::Value = serde_json::from_str(block).unwrap();
    assert_eq!(shown, expected, "the README should show:\n{expected:#}");
}

#[test]
fn every_command_of_the_program_is_in_the_readme() {
    let text = readme();
    for command in dutybound::cli::command().get_subcommands() {
        assert!(
            text.contains(&format!("`{}", command.get_name())),
            "{}",
            command.get_name()
        );
    }
}
