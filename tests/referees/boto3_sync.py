"""Access by duty as a scheduled function does it that somebody writes in an afternoon: for each rotation ask who is on
call, list who holds the permission set, create what is missing, delete what is too much, and wait for each to end.

    boto3_sync.py PAGERDUTY_URL AWS_URL TARGETS.json

TARGETS.json is a list of {"schedule", "account", "permission_set"}. Not part of dutybound: the measure in monday.py.
"""

import datetime
import json
import sys
import time
import urllib.request

import boto3

pagerduty, aws, targets = sys.argv[1], sys.argv[2], json.load(open(sys.argv[3]))
keys = {"region_name": "eu-central-1", "aws_access_key_id": "AKIASCRIPT", "aws_secret_access_key": "script"}
sso = boto3.client("sso-admin", endpoint_url=aws, **keys)
store = boto3.client("identitystore", endpoint_url=aws, **keys)
instance = sso.list_instances()["Instances"][0]


def on_call(schedule):
    now = datetime.datetime.now(datetime.UTC)
    window = f"since={now:%Y-%m-%dT%H:%M:%SZ}&until={now + datetime.timedelta(seconds=1):%Y-%m-%dT%H:%M:%SZ}"
    request = urllib.request.Request(
        f"{pagerduty}/schedules/{schedule}/users?{window}", headers={"Authorization": "Token token=test-key"}
    )
    with urllib.request.urlopen(request) as answer:
        return {user["email"] for user in json.load(answer)["users"]}


def user_id(email):
    attribute = {"UniqueAttribute": {"AttributePath": "emails.value", "AttributeValue": email}}
    found = store.get_user_id(IdentityStoreId=instance["IdentityStoreId"], AlternateIdentifier=attribute)
    return found["UserId"]


def permission_sets():
    found = {}
    for page in sso.get_paginator("list_permission_sets").paginate(InstanceArn=instance["InstanceArn"]):
        for arn in page["PermissionSets"]:
            one = sso.describe_permission_set(InstanceArn=instance["InstanceArn"], PermissionSetArn=arn)
            found[one["PermissionSet"]["Name"]] = arn
    return found


def finish(kind, status):
    describe = getattr(sso, f"describe_account_assignment_{kind}_status")
    name = f"AccountAssignment{kind.capitalize()}"
    while status["Status"] == "IN_PROGRESS":
        time.sleep(1)
        answer = describe(
            InstanceArn=instance["InstanceArn"], **{f"{name}RequestId": status["RequestId"]}
        )
        status = answer[f"{name}Status"]
    if status["Status"] != "SUCCEEDED":
        print(f"{kind} failed: {status}", file=sys.stderr)


sets = permission_sets()
for target in targets:
    arn = sets[target["permission_set"]]
    where = {"InstanceArn": instance["InstanceArn"], "PermissionSetArn": arn}
    wanted = {user_id(email) for email in on_call(target["schedule"])}
    held = set()
    for page in sso.get_paginator("list_account_assignments").paginate(AccountId=target["account"], **where):
        held |= {row["PrincipalId"] for row in page["AccountAssignments"] if row["PrincipalType"] == "USER"}
    change = where | {"TargetId": target["account"], "TargetType": "AWS_ACCOUNT", "PrincipalType": "USER"}
    for user in wanted - held:
        answer = sso.create_account_assignment(PrincipalId=user, **change)
        finish("creation", answer["AccountAssignmentCreationStatus"])
    for user in held - wanted:
        answer = sso.delete_account_assignment(PrincipalId=user, **change)
        finish("deletion", answer["AccountAssignmentDeletionStatus"])
