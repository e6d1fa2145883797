"""Referee: Prism stands between the daemon and the simulated providers and checks both sides against a specification."""

import datetime
import json
import os
import pathlib
import urllib.parse

from peers import Stage, fetch, main, need

SPECS = pathlib.Path(os.environ["SHARED"], "specs")
ESCALATION_POLICY = "PESC789"
SCHEDULE = "PABC123"
SHIFT_SCHEDULE = "PSHIFT1"
GENIE_SCHEDULE = "6fce1fd0-bbbb-4000-8000-000000000001"
GENIE_USER = "dave@example.com"


def complete(spec, stage):
    """Adds to the PagerDuty specification what it lacks: the one read of a policy, in the shape that we rely on."""
    document = json.loads(spec.read_text())
    answer = {
        "type": "object",
        "required": ["escalation_policy"],
        "properties": {
            "escalation_policy": {
                "type": "object",
                "required": ["id", "type", "name", "num_loops", "escalation_rules"],
                "properties": {
                    "id": {"type": "string"},
                    "type": {"type": "string", "enum": ["escalation_policy"]},
                    "name": {"type": "string"},
                    "num_loops": {"type": "integer"},
                    "escalation_rules": {"type": "array", "items": {"type": "object"}},
                },
            }
        },
    }
    like = document["paths"]["/users/{id}"]["get"]
    operation = json.loads(json.dumps(like))
    operation["responses"]["200"]["content"] = {"application/json": {"schema": answer}}
    operation.pop("operationId", None)
    document["paths"].setdefault("/escalation_policies/{id}", {"get": operation})
    completed = stage.dir / spec.name
    completed.write_text(json.dumps(document))
    return completed


def ask(base, headers, path, query, expected):
    """One request through a proxy; Prism answers a violation with a problem document of its own."""
    url = base + path + ("?" + urllib.parse.urlencode(query) if query else "")
    status, answered, text = fetch("GET", url, headers=headers)
    asked = f"GET {path}?{urllib.parse.urlencode(query)}"
    need("problem" not in answered.get("Content-Type", ""), f"{asked} breaks the specification: {text}")
    need(status == expected, f"{asked} was answered with {status} and not with {expected}: {text}")


def quiet(name, log):
    """Prism logs what it refuses even where the answer went to somebody else, such as the daemon."""
    bad = [line for line in log.read_text().splitlines() if "iolation" in line or "✖" in line]
    need(not bad, f"Prism saw {name} break its specification:\n" + "\n".join(bad))


def pagerduty(base, day):
    headers = {
        "Authorization": "Token token=test-key",
        "Accept": "application/vnd.pagerduty+json;version=2",
        "Content-Type": "application/json",
    }
    window = [("since", day(-1)), ("until", day(14)), ("time_zone", "UTC")]
    paging = [("limit", "100"), ("offset", "0")]
    calls = [
        ("/oncalls", [("escalation_policy_ids[]", ESCALATION_POLICY), *window, ("include[]", "users"), *paging, ("total", "true")]),
        ("/oncalls", [("schedule_ids[]", SCHEDULE), *window, *paging]),
        ("/oncalls", []),
        ("/schedules", paging),
        (f"/schedules/{SCHEDULE}", []),
        (f"/schedules/{SCHEDULE}", [*window, ("overflow", "true")]),
        (f"/schedules/{SCHEDULE}/users", window[:2]),
        ("/users", [*paging, ("query", "alice@example.com")]),
        ("/users/PALICE1", []),
        (f"/escalation_policies/{ESCALATION_POLICY}", []),
        ("/v3/schedules", paging),
        (f"/v3/schedules/{SHIFT_SCHEDULE}", [*window, ("overflow", "true"), ("include[]", "final_schedule")]),
    ]
    for path, query in calls:
        ask(base, headers, path, query, 200)
    for path in ["/schedules/PNOSUCH", "/users/PNOSUCH", "/v3/schedules/PNOSUCH", "/escalation_policies/PNOSUCH"]:
        ask(base, headers, path, [], 404)
    ask(base, headers, "/oncalls", [("since", day(14)), ("until", day(-1))], 400)
    ask(base, headers | {"Authorization": "Token token=wrong"}, "/oncalls", [], 401)
    return len(calls) + 6


def opsgenie(base, day):
    headers = {"Authorization": "GenieKey test-key"}
    schedule = f"/v2/schedules/{GENIE_SCHEDULE}"
    calls = [
        (f"{schedule}/timeline", [("identifierType", "id"), ("interval", "2"), ("intervalUnit", "weeks"), ("date", day(0))]),
        (schedule, [("identifierType", "id")]),
        ("/v2/schedules", []),
        (f"{schedule}/on-calls", [("scheduleIdentifierType", "id"), ("flat", "true"), ("date", day(0))]),
        (f"{schedule}/on-calls", [("scheduleIdentifierType", "id")]),
        (f"/v2/users/{GENIE_USER}", []),
        ("/v2/users", [("limit", "100"), ("offset", "0")]),
    ]
    for path, query in calls:
        ask(base, headers, path, query, 200)
    for path in ["/v2/schedules/00000000-0000-4000-8000-000000000000/timeline", "/v2/users/nobody@example.com"]:
        ask(base, headers, path, [], 404)
    ask(base, headers | {"Authorization": "GenieKey wrong"}, schedule, [], 401)
    return len(calls) + 3


def richer(world):
    """Adds what the small organisation lacks: a shift-based schedule, and every sort of override and recipient."""
    pager, genie = world["pagerduty"], world["opsgenie"]
    rotation = pager["schedules"][0]["rotation"]
    start = datetime.datetime.fromisoformat(rotation["start"].replace("Z", "+00:00"))

    def hour(offset):
        return (start + datetime.timedelta(hours=offset)).isoformat().replace("+00:00", "Z")

    def span(first, last):
        return {"start": hour(first), "end": hour(last)}

    pager["users"].append({"id": "PGONE04", "name": "Gone", "email": None, "deleted_at": hour(-100)})
    pager["schedules"][0]["overrides"] = [
        {"id": "PO0001", "user": "PCAROL3"} | span(20, 30),
        {"id": "PO0002", "user": "PGONE04"} | span(40, 41),
    ]
    pager["shift_schedules"] = [
        {
            "id": SHIFT_SCHEDULE,
            "name": "follow the sun",
            "rotations": [
                {"id": "PROT001", "rotation": rotation | {"members": ["PALICE1", "PBOB002"]}, "every_member": True},
                {
                    "id": "PROT002",
                    "rotation": rotation | {"members": ["PCAROL3", ""]},
                    "overrides": [{"id": "POVR001", "user": ""} | span(5, 6), {"id": "POVR002", "user": "PBOB002"} | span(7, 8)],
                },
            ],
            "custom_shifts": [{"id": "PCUS001", "members": ["PALICE1", ""]} | span(3, 4)],
        }
    ]
    dave = {"kind": "user", "id": genie["users"][0]["id"]}
    team = {"kind": "team", "id": "90098alp9-team"}
    genie["groups"] = [{**team, "name": "data", "members": [dave]}]
    genie["schedules"][0]["rotations"].append(
        {
            "id": "extra",
            "name": "extra",
            "order": 2.5,
            "periods": [
                {"recipient": team, "kind": "default"} | span(1, 2),
                {"recipient": dave, "kind": "forwarding", "from_user": genie["users"][1]["id"]} | span(2, 3),
                {"recipient": {"kind": "none"}, "kind": "override"} | span(3, 4),
                {"recipient": dave, "kind": "historical"} | span(-9, -8),
            ],
        }
    )
    genie["schedules"][0]["rotations"].append({"id": "none", "name": "none", "without_periods": True})


def referee(stage: Stage):
    sandbox = stage.sandbox()

    sandbox.change_world(richer)
    spec = complete(SPECS / "pagerduty-oncall-own.json", stage)
    pager, pager_log = stage.prism("pagerduty", spec, sandbox.urls["pagerduty"])
    genie, genie_log = stage.prism("opsgenie", SPECS / "opsgenie-oncall-mock.json", sandbox.urls["opsgenie"])

    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)

    def day(offset):
        return (now + datetime.timedelta(days=offset)).isoformat().replace("+00:00", "Z")

    calls = pagerduty(pager, day) + opsgenie(genie, day)

    aws = sandbox.control("GET", "/world")["aws"]
    ours = stage.installation(
        pagerduty=pager,
        opsgenie=genie,
        aws=sandbox.urls["aws"],
        account_id=aws["owner_account_id"],
        region=aws["region"],
    )
    sandbox.control("DELETE", "/journal")
    plan = ours.run("diff", "--format", "json", exits=[2])
    for person in ["alice@example.com", "dave@example.com"]:
        need(person in plan, f"diff through Prism does not name {person}:\n{plan}")
    quiet("PagerDuty", pager_log)
    quiet("Opsgenie", genie_log)
    through = [call for call in sandbox.journal() if call["service"].lower() in ("pagerduty", "opsgenie")]
    need(len(through) >= 4, f"the daemon made only {len(through)} calls to the providers through Prism")
    return f"passed {calls} calls of our own and the daemon's {len(through)}, both ways"


main(referee)
