"""Four weeks of history for pictures: an organisation of four projects, handed over in the past by the real program.

Every pass is `dutybound apply` with its clock and the simulated services' clock set back. One pass is late, so that a
revoke and a grant are late, too.
"""

import datetime
import os
import time

DAY = 24 * 3600
HOUR = 3600
WEEKS = 4

PEOPLE = ["alice", "bob", "carol", "chen", "dave", "erin", "fatima", "goran", "hanna", "ivan", "jamila", "kofi", "mira", "vera"]
ACCOUNTS = {"111122223333": "payments-prod", "222233334444": "checkout-prod", "444455556666": "data-prod"}
SETS = {"AdministratorAccess": "PT1H", "ReadOnlyAccess": "PT4H", "DatabaseOperator": "PT8H"}
GROUPS = ["payments-prod-readers", "platform-oncall"]

SCHEDULES = {
    "PPAYMNT": ("payments primary", ["alice", "bob", "carol"], 12 * HOUR),
    "PCHECKO": ("checkout", ["chen", "erin", "fatima"], DAY),
    "PDATA01": ("data", ["dave", "goran", "hanna"], DAY),
    "PPLATFM": ("platform", ["ivan", "jamila", "kofi"], 7 * DAY),
}

COMMERCE = """\
[project]
name = "commerce"
owners = ["vera@example.com"]
"""

PAYMENTS = """\
project = { name = "payments", parent = "commerce", owners = ["mira@example.com"], context = "PCI scope: card data never leaves the account." }
entitlement = [
  { name = "prod-admin", account = "111122223333", permission_set = "AdministratorAccess" },
  { name = "prod-readers", group = "payments-prod-readers" },
]
member = [
  { email = "alice@example.com", added_by = "mira@example.com", reason = "payments engineer" },
  { email = "bob@example.com", added_by = "mira@example.com", reason = "payments engineer" },
  { email = "carol@example.com", added_by = "vera@example.com", reason = "payments lead" },
]
rule = [
  { entitlement = "prod-admin", on_call = "pagerduty/PPAYMNT", lead = "15m", linger = "30m" },
  { entitlement = "prod-readers", members = true, during = { cron = "45 7 * * MON-FRI", for = "12h", zone = "UTC" } },
]
"""

CHECKOUT = """\
project = { name = "checkout", parent = "commerce", owners = ["chen@example.com"] }
entitlement = [
  { name = "prod-admin", account = "222233334444", permission_set = "AdministratorAccess" },
  { name = "prod-logs", account = "222233334444", permission_set = "ReadOnlyAccess" },
]
member = [
  { email = "chen@example.com", added_by = "chen@example.com" },
  { email = "fatima@example.com", added_by = "chen@example.com" },
]
rule = [
  { entitlement = "prod-admin", on_call = "pagerduty/PCHECKO", lead = "15m" },
  { entitlement = "prod-logs", members = true },
]
"""

DATA = """\
project = { name = "data", owners = ["hanna@example.com"], context = "Customer data: no export without a ticket." }
entitlement = [{ name = "database", account = "444455556666", permission_set = "DatabaseOperator" }]
member = [
  { email = "dave@example.com", added_by = "hanna@example.com" },
  { email = "goran@example.com", added_by = "hanna@example.com" },
  { email = "hanna@example.com", added_by = "hanna@example.com" },
]
rule = [{ entitlement = "database", on_call = "pagerduty/PDATA01", lead = "15m", linger = "30m" }]
"""

PLATFORM = """\
project = { name = "platform", owners = ["ivan@example.com"] }
entitlement = [
  { name = "on-call", group = "platform-oncall" },
]
member = [
  { email = "ivan@example.com", added_by = "ivan@example.com" },
  { email = "jamila@example.com", added_by = "ivan@example.com" },
  { email = "kofi@example.com", added_by = "ivan@example.com" },
]
rule = [{ entitlement = "on-call", on_call = "pagerduty/PPLATFM", lead = "15m", linger = "30m" }]
"""

POLICY = {
    "commerce.toml": COMMERCE,
    "payments.toml": PAYMENTS,
    "checkout.toml": CHECKOUT,
    "data.toml": DATA,
    "platform.toml": PLATFORM,
}

# Access that somebody gave by hand, so that there is something to look at; and erin, who is on call, is no member.
BY_HAND = ("222233334444", "AdministratorAccess", "kofi")


def stamp(seconds):
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def world(sandbox, first):
    """Fills the simulated services."""

    def change(world):
        pagerduty, aws = world["pagerduty"], world["aws"]
        pagerduty["users"] = [
            {"id": f"P{name.upper()}", "name": name.title(), "email": f"{name}@example.com",
             "deleted_at": None, "invitation_sent": False}
            for name in PEOPLE
        ]
        # Monday at eight, so that turns of a week begin as people's weeks do.
        monday = first - (datetime.datetime.fromtimestamp(first, datetime.timezone.utc).weekday() + 7) * DAY + 8 * HOUR
        pagerduty["schedules"] = [
            {"id": key, "name": name, "time_zone": "Etc/UTC", "entries": [], "overrides": [],
             "rotation": {"members": [f"P{who.upper()}" for who in turns], "start": stamp(monday),
                          "turn": f"PT{length // HOUR}H", "turns": None}}
            for key, (name, turns, length) in SCHEDULES.items()
        ]
        pagerduty["escalation_policies"] = [
            {"id": f"E{key}", "name": name, "levels": [[{"schedule": key}]]} for key, (name, _, _) in SCHEDULES.items()
        ]
        aws["accounts"] = [{"id": key, "name": name} for key, name in ACCOUNTS.items()]
        arn = aws["instance_arn"].replace("instance", "permissionSet")
        aws["permission_sets"] = [
            {"arn": f"{arn}/ps-{n:016}", "name": name, "session_duration": length}
            for n, (name, length) in enumerate(SETS.items())
        ]
        aws["users"] = [
            {"id": f"b3c4d5e6-1111-4000-8000-{n:012}", "user_name": f"{name}@example.com", "display_name": name.title(),
             "emails": [f"{name}@example.com"], "enabled": True}
            for n, name in enumerate(PEOPLE)
        ]
        aws["groups"] = [
            {"id": f"c4d5e6f7-2222-4000-8000-{n:012}", "display_name": name} for n, name in enumerate(GROUPS)
        ]

    sandbox.change_world(change)


def add_by_hand(sandbox):
    def change(world):
        aws = world["aws"]
        account, name, who = BY_HAND
        key = {
            "account": account,
            "permission_set": next(one["arn"] for one in aws["permission_sets"] if one["name"] == name),
            "principal_type": "USER",
            "principal": next(one["id"] for one in aws["users"] if one["user_name"].startswith(who)),
        }
        aws["assignments"].append({"key": key})

    sandbox.change_world(change)


def instants(first, now):
    """When something begins or ends: a quarter of an hour before eight and half an hour after it, twice a day."""
    day = first
    while day < now:
        for hour, minute in ((7, 45), (8, 30), (19, 45), (20, 30)):
            at = day + hour * HOUR + minute * 60 + 4
            late = (at - first) // DAY == 17 and hour == 19
            yield at + 50 * 60 if late else at
        day += DAY


def live_through(stage):
    """Gives an installation with four weeks behind it."""
    sandbox = stage.sandbox()
    now = time.time()
    first = now - now % DAY - WEEKS * 7 * DAY
    world(sandbox, first)
    aws = sandbox.control("GET", "/world")["aws"]
    ours = stage.installation(
        pagerduty=sandbox.urls["pagerduty"], opsgenie=None, aws=sandbox.urls["aws"],
        account_id=aws["owner_account_id"], region=aws["region"],
    )
    for name, text in POLICY.items():
        (ours.policy / name).write_text(text)
    ours.config.write_text(ours.config.read_text() + '\n[timing]\nnotice = "1s"\n')
    here = ours.env
    for at in instants(first, now - 60):
        back = int(time.time() - at)
        sandbox.control("POST", "/now", {"now": stamp(time.time() - back)})
        ours.env = here | {
            "LD_PRELOAD": os.environ["FAKETIME_LIBRARY"],
            "FAKETIME": f"-{back}s",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        ours.run("apply", exits=[0, 3])
    ours.env = here
    sandbox.control("POST", "/now", {"now": None})
    add_by_hand(sandbox)
    return ours
