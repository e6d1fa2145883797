"""Referee: moto, an implementation of AWS that this project did not write, judges the real program end to end."""

import json

import boto3

from peers import ACCOUNT, READERS, Stage, main, need

REGION = "eu-central-1"
PEOPLE = ["alice", "bob", "mira"]


class Aws:
    """An instance in moto with the people, the group and the permission set that the policy names."""

    def __init__(self, url):
        keys = {"aws_access_key_id": "AKIAREFEREE", "aws_secret_access_key": "not-a-secret"}
        self.sso = boto3.client("sso-admin", region_name=REGION, endpoint_url=url, **keys)
        self.store = boto3.client("identitystore", region_name=REGION, endpoint_url=url, **keys)
        instance = self.sso.list_instances()["Instances"][0]
        self.instance, self.owner = instance["InstanceArn"], instance["OwnerAccountId"]
        self.store_id = instance["IdentityStoreId"]
        # Without a duration moto answers with a number, which no SDK reads.
        made = self.sso.create_permission_set(
            InstanceArn=self.instance, Name="AdministratorAccess", SessionDuration="PT1H"
        )
        self.permission_set = made["PermissionSet"]["PermissionSetArn"]
        self.group = self.store.create_group(IdentityStoreId=self.store_id, DisplayName=READERS)["GroupId"]
        # moto's lookup by e-mail fails as soon as one user has none.
        self.users = {
            name: self.store.create_user(
                IdentityStoreId=self.store_id,
                UserName=f"{name}@example.com",
                DisplayName=name.title(),
                Name={"GivenName": name.title(), "FamilyName": "Example"},
                Emails=[{"Value": f"{name}@example.com", "Type": "work", "Primary": True}],
            )["UserId"]
            for name in PEOPLE
        }
        self.names = {user: name for name, user in self.users.items()}

    def assign(self, name):
        self.sso.create_account_assignment(
            InstanceArn=self.instance,
            TargetId=ACCOUNT,
            TargetType="AWS_ACCOUNT",
            PermissionSetArn=self.permission_set,
            PrincipalType="USER",
            PrincipalId=self.users[name],
        )

    def rows(self):
        """Who holds what. moto keeps a row for every creation, so a second call that writes shows as a duplicate."""
        assigned = self.sso.list_account_assignments(
            InstanceArn=self.instance, AccountId=ACCOUNT, PermissionSetArn=self.permission_set
        )
        members = self.store.list_group_memberships(IdentityStoreId=self.store_id, GroupId=self.group)
        need("NextToken" not in assigned and "NextToken" not in members, "moto split a handful of rows into pages")
        return {
            "assignments": sorted(self.names[row["PrincipalId"]] for row in assigned["AccountAssignments"]),
            "members": sorted(self.names[row["MemberId"]["UserId"]] for row in members["GroupMemberships"]),
        }

    def expect(self, when, assignments, members):
        found = self.rows()
        need(
            found == {"assignments": assignments, "members": members},
            f"{when}, moto has {found} and not assignments {assignments}, members {members}",
        )


def take_turns(members):
    """Who is on call, in turns of twelve hours; nobody for an empty list."""

    def change(world):
        rotation = world["pagerduty"]["schedules"][0]["rotation"]
        world["pagerduty"]["schedules"][0]["rotation"] = rotation | {"members": members} if members else None

    return change


def refuses(ours, aws):
    """What cannot be carried out ends with a message that names it, and writes nothing."""
    ours.env["PAGERDUTY_TOKEN"] = "wrong"
    ours.refuses("apply", naming="credential")
    ours.env["PAGERDUTY_TOKEN"] = "test-key"
    for file, text, wrong in [
        (ours.config, aws.owner, "999999999999"),
        (ours.policy / "payments.toml", "AdministratorAccess", "NoSuchAccess"),
        (ours.policy / "payments.toml", READERS, "no-such-group"),
        (ours.policy / "payments.toml", "PABC123", "PNOSUCH"),
    ]:
        right = file.read_text()
        file.write_text(right.replace(f'{text}"', f'{wrong}"'))
        ours.refuses("apply", naming=wrong)
        file.write_text(right)
    aws.expect("after what was refused", ["mira"], [])


def referee(stage: Stage):
    sandbox, url = stage.sandbox(), stage.moto()
    aws = Aws(url)
    aws.assign("mira")  # Access that nobody asked dutybound for: drift, to be left alone.
    ours = stage.installation(
        pagerduty=sandbox.urls["pagerduty"], opsgenie=None, aws=url, account_id=aws.owner, region=REGION
    )

    ours.run("check", exits=[0])
    refuses(ours, aws)
    plan = ours.run("diff", "--format", "json", exits=[2])
    need("alice@example.com" in plan, f"diff does not name alice:\n{plan}")
    aws.expect("after diff", ["mira"], [])

    ours.run("apply", exits=[0])
    aws.expect("after the first apply", ["alice", "mira"], ["alice"])
    ours.run("apply", exits=[0])
    aws.expect("after the second apply", ["alice", "mira"], ["alice"])
    ours.run("diff", exits=[0])
    held = ours.run("explain", "alice@example.com", "payments/prod-admin", exits=[0])
    need("PABC123" in held, f"explain does not name the schedule:\n{held}")

    sandbox.change_world(take_turns(["PBOB002", "PALICE1"]))
    ours.run("apply", exits=[0])
    aws.expect("after bob took over", ["bob", "mira"], ["bob"])

    sandbox.change_world(take_turns([]))
    ours.run("apply", exits=[3])
    aws.expect("while the guard asks about the empty schedule", ["bob", "mira"], ["bob"])
    digest = json.loads(ours.run("diff", "--format", "json", exits=[3]))["digest"]
    ours.run("apply", "--approve", digest, exits=[0])
    aws.expect("after the empty schedule was approved", ["mira"], [])
    return "granted, handed over and revoked an account assignment and a group membership; drift was left alone"


main(referee)
