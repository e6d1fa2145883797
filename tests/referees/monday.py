"""A Monday on which many rotations hand over in one second, carried out by dutybound and by a plain boto3 script, each
against its own simulated AWS with AWS's limits over HTTP. Prints a table. Run by monday.sh; not a test.

The same organisation for both: one account for every second rotation, everybody known to AWS, who was on call holds the
permission set. dutybound has granted that itself before; for the script it stands there already.
"""

import argparse
import collections
import datetime
import json
import os
import pathlib
import time

from peers import Sandbox, Stage, free_port, need

SETS = ["AdministratorAccess", "Operator"]


def instant(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def organisation(count, takes, at, granted):
    """A world whose `count` schedules hand over at `at`, and what each of them earns."""
    arns = {name: f"arn:aws:sso:::permissionSet/ssoins-7223b02f1ab4c5d6/ps-{n:016x}" for n, name in enumerate(SETS)}
    people, schedules, targets, assignments = [], [], [], []
    turn = 7 * 86400
    for n in range(count):
        members = []
        for who in ("old", "new"):
            number = len(people) + 1
            people.append((f"P{number:06}", f"b3c4d5e6-1111-4000-8000-{number:012x}", f"{who}{n}@example.com"))
            members.append(f"P{number:06}")
        rotation = {"members": members, "start": instant(at - turn), "turn": "PT168H", "turns": 8}
        schedules.append({"id": f"PS{n:05}", "name": f"rotation {n}", "time_zone": "Etc/UTC", "entries": [],
                          "rotation": rotation, "overrides": []})
        target = {"schedule": f"PS{n:05}", "account": str(100_000_000_000 + n // 2), "permission_set": SETS[n % 2]}
        targets.append(target)
        assignments.append({"key": {"account": target["account"], "permission_set": arns[target["permission_set"]],
                                    "principal_type": "USER", "principal": people[-2][1]}})
    world = {
        "pagerduty": {
            "users": [{"id": p, "name": e, "email": e, "deleted_at": None, "invitation_sent": False} for p, _, e in people],
            "schedules": schedules,
        },
        "aws": {
            "accounts": [{"id": a, "name": f"account {a}"} for a in sorted({t["account"] for t in targets})],
            "permission_sets": [{"arn": a, "name": n, "session_duration": "PT1H"} for n, a in arns.items()],
            "users": [{"id": i, "user_name": e, "display_name": e, "emails": [e], "enabled": True} for _, i, e in people],
            "assignments": assignments if granted else [],
            "operation_takes": f"PT{takes}S",
        },
    }
    return world, targets


def start_sandbox(stage, name, world):
    file = stage.dir / f"{name}.json"
    file.write_text(json.dumps(world))
    process, log = stage.start(name, [os.environ["SANDBOX"], "--world", file])

    def urls():
        found = dict(line.split() for line in log.read_text().splitlines() if len(line.split()) == 2)
        return found if "control" in found else None

    return Sandbox(stage.comes_up(name, process, log, urls))


def holders(sandbox):
    rows = sandbox.control("GET", "/world")["aws"]["assignments"]
    return {(row["key"]["account"], row["key"]["permission_set"], row["key"]["principal"])
            for row in rows if not row.get("removed")}


def outcome(sandbox, since):
    """Calls and the end of the last operation since an instant."""
    calls = [call for call in sandbox.journal() if parse(call["at"]) >= since]
    aws = [call for call in calls if call["service"] == "aws"]
    operations = [o for o in sandbox.control("GET", "/world")["aws"]["operations"] if parse(o["created"]) >= since]
    print("requests:", dict(collections.Counter(call["operation"] for call in aws).most_common()))
    return {
        "AWS requests": len(aws),
        "of them refused (throttle, conflict)": sum(call["error"] is not None for call in aws),
        "on-call requests": len(calls) - len(aws),
        "operations": len(operations),
        "converged": max((parse(o["due"]) for o in operations), default=since) - since,
    }


def used(pid):
    """Seconds of CPU and MiB of peak memory of a process."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    peak = next(line for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), int(peak.split()[1]) / 1024


def by_dutybound(stage, count, takes):
    # Time for the first reads and for what is to be granted before.
    at = int(time.time()) + 120 + int(count * max(takes, 1) / 10 * 1.3) + count // 8
    world, targets = organisation(count, takes, at, granted=False)
    sandbox = start_sandbox(stage, "sandbox-dutybound", world)
    folder = stage.dir / "dutybound"
    (folder / "access.d").mkdir(parents=True)
    port = free_port()
    (folder / "key").write_text("test-key\n")
    (folder / "key").chmod(0o600)
    (folder / "config.toml").write_text(f"""\
mode = "sync"
owner_id = "monday"
ledger = "ledger.db"
source.pagerduty = {{ kind = "pagerduty", base_url = "{sandbox.urls["pagerduty"]}", token = {{ file = "key" }} }}
http = {{ listen = "127.0.0.1:{port}" }}
[identity_center]
region = "eu-central-1"
expected_account_id = "999999999999"
endpoint_url = "{sandbox.urls["aws"]}"
requests_per_second = 19
[timing]
notice = "5s"
[limits]
surprising_grants = 100000
surprising_grants_per_entitlement = 1000
""")
    policy = ['[project]\nname = "all"\nowners = ["mira@example.com"]\n']
    for n, target in enumerate(targets):
        policy.append(f'[[entitlement]]\nname = "e{n}"\naccount = "{target["account"]}"\n'
                      f'permission_set = "{target["permission_set"]}"\n'
                      f'[[rule]]\nentitlement = "e{n}"\non_call = "pagerduty/{target["schedule"]}"\nrequires = []\n')
    (folder / "access.d" / "all.toml").write_text("\n".join(policy))
    env = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "DUTYBOUND_"))}
    env |= {"AWS_ACCESS_KEY_ID": "AKIAMONDAY", "AWS_SECRET_ACCESS_KEY": "monday", "AWS_EC2_METADATA_DISABLED": "true"}
    process, log = stage.start("dutybound", [os.environ["DUTYBOUND"], "--config", folder / "config.toml", "run"], env)
    while len(holders(sandbox)) < count:
        need(time.time() < at - 3, f"what is to stand before the hand-over was not granted in time:\n{log.read_text()[-3000:]}")
        need(process.poll() is None, log.read_text())
        time.sleep(1)
    time.sleep(max(0, at - 2 - time.time()))
    cpu, _ = used(process.pid)
    wanted = {(t["account"], n) for n, t in enumerate(targets)}
    news = {user["id"] for user in world["aws"]["users"] if user["user_name"].startswith("new")}
    need(len(wanted) == count, "each rotation has its own entitlement")
    while True:
        now = holders(sandbox)
        if len(now) == count and all(principal in news for _, _, principal in now):
            break
        need(time.time() < at + 60 + count * takes, f"the hand-over did not end:\n{log.read_text()[-3000:]}")
        time.sleep(0.5)
    time.sleep(3)
    after, peak = used(process.pid)
    return outcome(sandbox, at) | {"CPU": after - cpu, "memory": peak}


def by_script(stage, count, takes):
    at = int(time.time()) - 5
    world, targets = organisation(count, takes, at, granted=True)
    sandbox = start_sandbox(stage, "sandbox-script", world)
    file = stage.dir / "targets.json"
    file.write_text(json.dumps(targets))
    script = pathlib.Path(__file__).with_name("boto3_sync.py")
    began = time.time()
    process, log = stage.start("script", [os.environ["PYTHON"], script, sandbox.urls["pagerduty"], sandbox.urls["aws"], file])
    cpu, peak = 0.0, 0.0
    while process.poll() is None:
        try:
            cpu, peak = used(process.pid)
        except (FileNotFoundError, StopIteration):
            break
        time.sleep(0.1)
    need(process.wait() == 0, log.read_text())
    news = {user["id"] for user in world["aws"]["users"] if user["user_name"].startswith("new")}
    now = holders(sandbox)
    need(len(now) == count and all(principal in news for _, _, principal in now), "the script did not hand over")
    return outcome(sandbox, began) | {"CPU": cpu, "memory": peak}


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("hand_overs", type=int, nargs="?", default=100)
    arguments.add_argument("--takes", type=float, default=3, help="seconds of an operation (default: 3)")
    arguments = arguments.parse_args()
    count, takes = arguments.hand_overs, arguments.takes
    with Stage() as stage:
        ours = by_dutybound(stage, count, takes)
        script = by_script(stage, count, takes)
    least = {"AWS requests": 4 * count, "operations": 2 * count,
             "converged": max(2 * count * takes / 10, 4 * takes, 4 * count / 20)}
    print(f"{count} hand-overs in one second, operations of {takes:g} s, {datetime.date.today()}\n")
    print("| | dutybound | boto3 script | ratio | least possible |\n|---|---|---|---|---|")
    units = {"converged": " s", "CPU": " s", "memory": " MiB"}
    for key in ours:
        unit = units.get(key, "")
        digits = 1 if unit else 0
        ratio = f"{script[key] / ours[key]:.1f}" if ours[key] else "-"
        bound = f"{least[key]:.{digits}f}{unit}" if key in least else ""
        print(f"| {key} | {ours[key]:.{digits}f}{unit} | {script[key]:.{digits}f}{unit} | {ratio} | {bound} |")


main()
