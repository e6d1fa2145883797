"""Referee: a real Prometheus scrapes the real daemon, and what it recorded is what the ledger says.

Eight hours of history are made first, with a shifted clock, so that late grants, late revokes and session tails are over;
then hand-offs happen while Prometheus looks. Times in rules are cut to seconds; with_rules.py judges the real ones."""

import contextlib
import datetime
import json
import os
import re
import signal
import sqlite3
import subprocess
import time
import urllib.parse
from pathlib import Path

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from peers import PATIENCE, Stage, answers, fetch, free_port, main, need, until

DASHBOARDS = Path(__file__).resolve().parents[2] / "dashboards"
HOUR = 3600
LAG = 300
"""Seconds that tails, uncovered time and the overhang of standing access count behind."""

PAYMENTS = """\
project = { name = "payments", owners = ["mira@example.com"] }
entitlement = [
  { name = "prod-admin", account = "111122223333", permission_set = "AdministratorAccess" },
  { name = "prod-readers", group = "payments-prod-readers" },
]
member = [
  { email = "alice@example.com" },
  { email = "bob@example.com" },
  { email = "carol@example.com" },
]
rule = [
  { entitlement = "prod-admin", on_call = "pagerduty/PABC123", lead = "3s", linger = "2s" },
  { entitlement = "prod-readers", members = true },
]
"""
CAROL = '  { email = "carol@example.com" },\n'
ERIN = '{ email = "erin@example.com" }'
MIRA = ', { email = "mira@example.com" }'
DATA = """\
project = { name = "data", owners = ["mira@example.com"] }
entitlement = [
  { name = "admin", account = "444455556666", permission_set = "ReadOnlyAccess" },
  { name = "on-call", group = "data-oncall" },
]
member = [{ email = "dave@example.com" }, { email = "erin@example.com" }]
rule = [
  { entitlement = "admin", members = true, during = { cron = "0 0 * * *", for = "24h", zone = "UTC" } },
  { entitlement = "on-call", on_call = "opsgenie/6fce1fd0-bbbb-4000-8000-000000000001" },
]
"""
# The audit is how drift is seen; with a notice of a second hand-offs count as known in advance.
TIMING = '\n[timing]\npoll = "1s"\naudit = "3s"\nnotice = "1s"\n'

# What waits for minutes in the rules waits for seconds here; each must be there to be cut. Not the last alert, which fires
# when the daemon is not there: a scrape that a busy machine misses is no finding.
CUT = {
    "alerts.rules.yml": [
        (r"for: \w+(?=[\s\S]*- alert:)", "for: 2s"),
        # A change counts as overdue after a minute, and until then these two must wait as they do for real.
        (r"(- alert: Dutybound(?:HandOffWillBeLate|UncoveredDuty)\b[\s\S]*?)for: 2s", r"\1for: 70s"),
        (r"> 900\b", "> 8"),
        (r"> 3600\b", "> 4"),
        (r"\[(10|30)m\]", "[10s]"),
    ],
    "recording.rules.yml": [(r"interval: 5m", "interval: 1s"), (r"\[5m\]", "[10s]")],
}

LEDGER_COUNTERS = ["access", "overhang", "uncovered", "session_tail"]


def stamp(seconds):
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Prometheus:
    """The distribution's Prometheus, scraping the daemon every second."""

    def __init__(self, stage, daemon_url):
        self.url = f"http://127.0.0.1:{free_port()}"
        rules = []
        for name, cuts in CUT.items():
            text = (DASHBOARDS / "prometheus" / name).read_text()
            for pattern, short in cuts:
                text, count = re.subn(pattern, short, text)
                need(count, f"{name} has nothing like {pattern} any more")
            rules.append(str(stage.dir / name))
            (stage.dir / name).write_text(text)
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": rules,
            "scrape_configs": [
                {"job_name": "dutybound", "static_configs": [{"targets": [daemon_url.removeprefix("http://")]}]}
            ],
        }
        # JSON is YAML, too.
        (stage.dir / "prometheus.yml").write_text(json.dumps(config))
        command = [
            "prometheus",
            f"--config.file={stage.dir}/prometheus.yml",
            f"--storage.tsdb.path={stage.dir}/tsdb",
            f"--web.listen-address={self.url.removeprefix('http://')}",
            "--log.level=warn",
        ]
        process, log = stage.start("prometheus", command)
        stage.comes_up("prometheus", process, log, lambda: answers(f"{self.url}/-/ready") == 200)

    def get(self, path, **parameters):
        status, _, text = fetch("GET", f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        need(status == 200, f"Prometheus answers {path} {parameters} with {status}: {text}")
        return json.loads(text)["data"]

    def now(self, expr):
        return self.get("query", query=expr)["result"]

    def number(self, expr):
        found = self.now(expr)
        return float(found[0]["value"][1]) if found else None

    def over(self, expr, start, end, step):
        return self.get("query_range", query=expr, start=start, end=end, step=step)["result"]

    def firing(self, seconds=None):
        """The names of the alerts that fire, or did within so many seconds."""
        found = 'ALERTS{alertname=~"Dutybound.*",alertstate="firing"}'
        found = f"max_over_time({found}[{seconds}s])" if seconds else found
        return {one["metric"]["alertname"] for one in self.now(f"max by (alertname) ({found})")}


class History:
    """The world as it goes on, and the daemon in it."""

    def __init__(self, stage):
        self.stage = stage
        self.sandbox = stage.sandbox()
        aws = self.sandbox.control("GET", "/world")["aws"]
        urls = self.sandbox.urls
        self.ours = stage.installation(
            pagerduty=urls["pagerduty"],
            opsgenie=urls["opsgenie"],
            aws=urls["aws"],
            account_id=aws["owner_account_id"],
            region=aws["region"],
        )
        expires = datetime.date.today() + datetime.timedelta(days=300)
        config = self.ours.config.read_text()
        config = config.replace('kind = "pagerduty"\n', f'kind = "pagerduty"\nexpires = {expires}\n')
        self.ours.config.write_text(config + TIMING)
        self.policy("payments.toml", PAYMENTS)
        self.policy("data.toml", DATA)
        self.began = time.time()
        self.turns([])

    def policy(self, name, text):
        (self.ours.policy / name).write_text(text)

    def turns(self, coming, days=60):
        """Alice, bob and alice were on call; then who is given, with the seconds from the beginning at which they end; then
        alice for so many days."""
        ends = [("PALICE1", -6 * HOUR), ("PBOB002", -3 * HOUR), *coming, ("PALICE1", days * 24 * HOUR)]
        starts = [-12 * HOUR, *(end for _, end in ends)]

        def change(world):
            schedule = world["pagerduty"]["schedules"][0]
            schedule["rotation"] = None
            schedule["entries"] = [
                {"user": user, "start": stamp(self.began + start), "end": stamp(self.began + end)}
                for (user, end), start in zip(ends, starts)
            ]

        self.sandbox.change_world(change)

    def past(self, hours, exits):
        """One guarded pass, with both clocks set back by so many hours."""
        self.sandbox.control("POST", "/now", {"now": stamp(time.time() - hours * HOUR)})
        back = {
            "LD_PRELOAD": os.environ["FAKETIME_LIBRARY"],
            "FAKETIME": f"-{hours * HOUR}s",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        here = self.ours.env
        self.ours.env = here | back
        self.ours.run("apply", exits=exits)
        self.ours.env = here
        self.sandbox.control("POST", "/now", {"now": None})

    def start(self):
        self.daemon, log = self.stage.start("dutybound", [os.environ["DUTYBOUND"], "run"], env=self.ours.env)
        self.stage.comes_up("dutybound", self.daemon, log, lambda: answers(f"{self.ours.url}/readyz") == 200)

    def stop(self):
        self.daemon.send_signal(signal.SIGTERM)
        need(self.daemon.wait(PATIENCE) == 0, f"dutybound ended with {self.daemon.returncode}")

    def report(self, to):
        """The rows of the report from before the history to an instant, by entitlement."""
        text = self.ours.run(
            "report", "--format", "json", "--from", stamp(self.began - 24 * HOUR), "--to", stamp(to), exits=[0]
        )
        return {row["name"]: row for row in json.loads(text)["rows"]}

    def ledger(self, to):
        """Seconds of access by entitlement, read from the ledger as it is, and of them the lead that counters leave out for
        now: of access that stands, overhang of the last minutes may yet turn out to have been duty."""
        held, waits = {}, {}
        rows = (
            "SELECT a.id, entitlement, granted_at, revoked_at, c.body "
            "FROM access a JOIN cause c ON c.access_id = a.id ORDER BY c.id DESC"
        )
        with contextlib.closing(sqlite3.connect(f"file:{self.stage.dir}/ledger.sqlite?mode=ro", uri=True)) as ledger:
            found = {row[0]: row[1:] for row in ledger.execute(rows)}
        for name, granted, revoked, cause in found.values():
            stands = revoked is None or revoked > to * 1000
            end = to if stands else revoked / 1000
            held[name] = held.get(name, 0) + max(0, end - granted / 1000)
            duty = json.loads(cause)["duty"]["start"]
            if stands and duty.startswith("2"):
                begins = datetime.datetime.fromisoformat(duty.replace("Z", "+00:00")).timestamp()
                waits[name] = waits.get(name, 0) + max(0, min(begins, to) - max(granted / 1000, to - LAG))
        return held, waits


def instant(prometheus, expr):
    """The newest sample of every series as it was recorded, and when, which must be one scrape."""

    def one_scrape():
        found = prometheus.now(f"{expr}[5s]")
        times = {float(one["values"][-1][0]) for one in found}
        return (times.pop(), found) if len(times) == 1 else None

    at, found = until(f"one scrape of all of {expr}", one_scrape)
    return at, [(one["metric"], float(one["values"][-1][1])) for one in found]


def agree(history, prometheus):
    """What Prometheus recorded at one instant is what the report and the ledger say of that instant, to the second."""
    # A change that is under way is recorded when it ends, from when it began: not at the instants between.
    under_way = "max_over_time((dutybound_in_flight_changes + dutybound_open_intents + changes(dutybound_next_boundary_timestamp_seconds[3s]))[3s:1s])"
    until("an instant without a change", lambda: prometheus.number(under_way) == 0)
    names = "|".join(f"dutybound_{name}_seconds_total" for name in LEDGER_COUNTERS)
    at, samples = instant(prometheus, f'{{__name__=~"{names}|dutybound_active_grants|scrape_duration_seconds"}}')
    seen, active, took = {}, {}, None
    for labels, value in samples:
        name, entitlement = labels["__name__"], f"{labels.get('project')}/{labels.get('entitlement')}"
        if name == "scrape_duration_seconds":
            took = value
        elif name == "dutybound_active_grants":
            active[entitlement] = value
        else:
            key = name.removeprefix("dutybound_").removesuffix("_seconds_total")
            seen[entitlement, key, labels.get("basis") or labels.get("part")] = value
    # What belongs to that instant is in the ledger a moment later.
    until("a second", lambda: at + 1 < time.time())
    report, settled, (ledger, waits) = history.report(at), history.report(at - LAG), history.ledger(at)
    need(set(active) == set(report), f"Prometheus knows {sorted(active)}, and the report {sorted(report)}")
    for name, row in report.items():
        # The daemon reads its clock within the scrape, and the report shows whole seconds.
        allowed = 1 + active[name] * took
        expected = {
            ("access", basis): row[f"{basis}_seconds"] for basis in ("on_call", "window", "membership", "overhang")
        }
        expected |= {("overhang", part): row[f"{part}_seconds"] for part in ("lead", "linger", "late")}
        expected["uncovered", None] = settled[name]["uncovered_seconds"]
        expected["session_tail", None] = settled[name]["tail_seconds"]
        for key in (("access", "overhang"), ("overhang", "lead")):
            expected[key] -= waits.get(name, 0)
        for key, value in expected.items():
            found = seen[name, *key]
            need(
                abs(found - value) <= allowed,
                f"{name} {key}: Prometheus has {found} s and the report {value} s at {stamp(at)}",
            )
        held = sum(value for key, value in seen.items() if key[:2] == (name, "access"))
        there = ledger.get(name, 0) - waits.get(name, 0)
        need(abs(held - there) <= allowed, f"{name}: Prometheus has {held} s and the ledger {there} s at {stamp(at)}")
    return {
        key: sum(value for where, value in seen.items() if where[1:] == key) for key in {where[1:] for where in seen}
    }


def foreign_parser(history):
    """prometheus_client's strict parser reads the page as OpenMetrics, and promtool as text; both say the same."""
    accept = {"Accept": "application/openmetrics-text;version=1.0.0"}
    status, headers, page = fetch("GET", f"{history.ours.url}/metrics", headers=accept)
    need(
        status == 200 and headers["Content-Type"].startswith("application/openmetrics-text"),
        f"{status} {headers['Content-Type']}",
    )
    families = {family.name: family for family in text_string_to_metric_families(page)}
    types = {f"{name}_total" if family.type == "counter" else name: family.type for name, family in families.items()}
    _, _, text = fetch("GET", f"{history.ours.url}/metrics")
    plain = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE "))
    need(types == plain, f"as OpenMetrics {types}, as text {plain}")
    judged = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    need(judged.returncode == 0 and not judged.stdout + judged.stderr, f"promtool:\n{judged.stdout}{judged.stderr}")
    return len(families)


def substituted(text, span, project, entitlement):
    """As Grafana puts values in for variables."""
    values = {
        "$__rate_interval": "5s",
        "$__range": f"{span}s",
        "$__interval": "5s",
        "$project": project,
        "$entitlement": entitlement,
    }
    for name, value in values.items():
        text = text.replace(name, value)
    need("$" not in re.sub(r"\$\d", "", text), f"nothing was put in for a variable: {text}")
    return text


def ask_every_panel(prometheus, start):
    """Every query of every dashboard gives data, for everything and for a choice; gives how many there are."""
    end = time.time()
    span, asked, empty = int(end - start), 0, []
    for file in sorted((DASHBOARDS / "grafana").glob("*.json")):
        board = json.loads(file.read_text())
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]).groups()
                found = prometheus.get(f"label/{label}/values", **{"match[]": substituted(series, span, ".*", ".*")})
                need(found, f"{file.name}: the variable {variable['name']} offers nothing")
        for one in board["annotations"]["list"]:
            need(prometheus.over(one["expr"], start, end, 1), f"{file.name}: nothing for the annotation {one['name']}")
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                for chosen in ((".*", ".*"), ("payments", "(prod-admin|prod-readers)")):
                    expr = substituted(target["expr"], span, *chosen)
                    found = prometheus.now(expr) if target["instant"] else prometheus.over(expr, start, end, 2)
                    values = [value for one in found for _, value in one.get("values", [one.get("value")])]
                    if all(value == "NaN" for value in values):
                        empty.append(f"{file.name}: {panel['title']}: {expr}")
                    asked += 1
    need(not empty, "no data:\n" + "\n".join(empty))
    return asked


def alone(history, prometheus, alert, break_it, mend_it):
    """With this broken the alert fires, and no other; mended it ends."""
    began = time.time()
    break_it()
    until(f"the alert {alert}", lambda: alert in prometheus.firing(), 3 * PATIENCE)
    mend_it()
    until(f"the end of {alert}", lambda: not prometheus.firing())
    fired = prometheus.firing(int(time.time() - began) + 1)
    need(fired == {alert}, f"with one thing broken {sorted(fired)} fired and not only {alert}")


def break_things(history, prometheus, coming):
    """Most of the alerts with the real daemon; all of them, by their real times, are with_rules.py's."""
    control, pause = history.sandbox.control, history.stage.dir / "pause"
    # A restart that takes longer than the cut times is one more thing that fires.
    until("a sound world, in which nothing fires,", lambda: not prometheus.firing(6))

    down = {"service": "pagerduty", "operation": "*", "effect": {"status": {"status": 503}}}
    alone(
        history,
        prometheus,
        "DutyboundSourceStale",
        lambda: control("POST", "/faults", down),
        lambda: control("DELETE", "/faults"),
    )

    refused = {"service": "pagerduty", "operation": "*", "effect": {"status": {"status": 401}}}
    alone(
        history,
        prometheus,
        "DutyboundCredentialRefused",
        lambda: control("POST", "/faults", refused),
        lambda: control("DELETE", "/faults"),
    )

    alone(
        history,
        prometheus,
        "DutyboundGapAhead",
        lambda: history.turns(coming, days=2),
        lambda: history.turns(coming),
    )

    broken = PAYMENTS.replace("prod-readers", "prod-writers", 1)
    alone(
        history,
        prometheus,
        "DutyboundConfigRefused",
        lambda: history.policy("payments.toml", broken),
        lambda: history.policy("payments.toml", PAYMENTS),
    )

    def take_carol_out():
        pause.touch()
        history.policy("payments.toml", PAYMENTS.replace(CAROL, ""))

    alone(history, prometheus, "DutyboundHeldChangesAgeing", take_carol_out, pause.unlink)

    def by_hand(world):
        # As somebody at the console would: the group's first membership, for somebody else.
        mira = next(user["id"] for user in world["aws"]["users"] if user["user_name"] == "mira@example.com")
        world["aws"]["memberships"].append(world["aws"]["memberships"][0] | {"id": MEMBERSHIP, "user": mira})

    def undone(world):
        world["aws"]["memberships"] = [one for one in world["aws"]["memberships"] if one["id"] != MEMBERSHIP]

    change = history.sandbox.change_world
    alone(history, prometheus, "DutyboundDrift", lambda: change(by_hand), lambda: change(undone))

    def refuses(operation):
        control("POST", "/faults", {"service": "aws", "operation": operation, "effect": {"status": {"status": 500}}})

    def mira_comes():
        refuses("CreateAccountAssignment")
        history.policy("data.toml", DATA.replace(ERIN, ERIN + MIRA))

    def mira_goes():
        refuses("DeleteAccountAssignment")
        history.policy("data.toml", DATA)

    alone(history, prometheus, "DutyboundHandOffLate", mira_comes, lambda: control("DELETE", "/faults"))
    alone(history, prometheus, "DutyboundRevokeOverdue", mira_goes, lambda: control("DELETE", "/faults"))

    stranger = CAROL + CAROL.replace("carol", "nobody-knows-me")
    alone(
        history,
        prometheus,
        "DutyboundUncoveredDuty",
        lambda: history.policy("payments.toml", PAYMENTS.replace(CAROL, stranger)),
        lambda: history.policy("payments.toml", PAYMENTS),
    )

    ledger = sqlite3.connect(history.stage.dir / "ledger.sqlite", isolation_level=None)
    alone(
        history,
        prometheus,
        "DutyboundLedgerNotWritable",
        lambda: ledger.execute("BEGIN IMMEDIATE"),
        lambda: ledger.execute("ROLLBACK"),
    )
    ledger.close()

    ahead = lambda: {"now": stamp(time.time() + HOUR)}
    alone(
        history,
        prometheus,
        "DutyboundClockSkew",
        lambda: control("POST", "/now", ahead()),
        lambda: control("POST", "/now", {"now": None}),
    )

    def key_expires_in(days):
        config = history.ours.config.read_text()
        expires = datetime.date.today() + datetime.timedelta(days=days)
        history.ours.config.write_text(re.sub(r"expires = \S+", f"expires = {expires}", config))
        history.stop()
        history.start()

    alone(
        history,
        prometheus,
        "DutyboundCredentialExpires",
        lambda: key_expires_in(10),
        lambda: key_expires_in(300),
    )


def queue_up(history, prometheus):
    """Two grants in one account, of which AWS takes its time for the first: a plan with a grant lasts until it is scraped."""

    def takes(span):
        def edit(world):
            world["aws"]["operation_takes"] = span

        return edit

    before = history.sandbox.control("GET", "/world")["aws"]["operation_takes"]
    history.sandbox.change_world(takes("PT6S"))
    two = ERIN + MIRA + ", " + CAROL.strip().rstrip(",")
    history.policy("data.toml", DATA.replace(ERIN, two))
    # Without a grant it is +Inf. Panels are asked for every other second.
    scrapes = "count_over_time((dutybound_convergence_lead_seconds < Inf)[10s:1s])"
    until("three scrapes of a plan with a grant", lambda: (prometheus.number(scrapes) or 0) >= 3)
    history.sandbox.change_world(takes(before))
    history.policy("data.toml", DATA)


MEMBERSHIP = "d5e6f7a8-3333-4000-8000-000000000009"


def referee(stage: Stage):
    history = History(stage)
    pause = stage.dir / "pause"
    pause.touch()
    history.past(9, exits=[3])
    pause.unlink()
    history.past(8, exits=[0])
    history.past(5, exits=[0])
    history.past(2, exits=[0])

    history.start()
    families = foreign_parser(history)
    prometheus = Prometheus(stage, history.ours.url)
    start = time.time()
    until("a scrape", lambda: prometheus.number("dutybound_last_success_timestamp_seconds"))
    # Only OpenMetrics tells units.
    told = prometheus.get("metadata", metric="dutybound_access_seconds_total") or prometheus.get(
        "metadata", metric="dutybound_access_seconds"
    )
    need(
        [one["unit"] for ones in told.values() for one in ones] == ["seconds"],
        f"Prometheus did not ask for OpenMetrics: {told}",
    )

    now = time.time() - history.began
    coming = [("PALICE1", now + 10), ("PBOB002", now + 26)]
    history.turns(coming)
    confirmed = 'sum(dutybound_changes_total{kind="revoke",outcome="confirmed"})'
    until("the first hand-off", lambda: (prometheus.number(confirmed) or 0) >= 1)
    agree(history, prometheus)
    history.stop()
    history.start()
    until(
        "the second hand-off",
        lambda: (prometheus.number(confirmed) or 0) >= 1 and time.time() - history.began > now + 29,
    )
    queue_up(history, prometheus)
    break_things(history, prometheus, coming)
    sums = agree(history, prometheus)
    nothing = sorted(" ".join(filter(None, key)) for key, value in sums.items() if value == 0)
    need(not nothing, f"nothing was counted as {nothing}, so that comparing it says nothing")
    for name in LEDGER_COUNTERS:
        resets = prometheus.number(f"sum(resets(dutybound_{name}_seconds_total[1h]))")
        need(resets == 0, f"dutybound_{name}_seconds_total went backwards {resets} times")
    need(prometheus.number("sum(resets(dutybound_passes_total[1h]))") > 0, "Prometheus saw no restart of the daemon")
    shown = prometheus.number("dutybound:access_share:ratio_avg4w")
    span = f"[{int(time.time() - start)}s]"
    share = prometheus.number(
        f"sum(avg_over_time(dutybound_active_grants{span})) / sum(avg_over_time(dutybound_standing_people{span}))"
    )
    need(
        abs(shown - share) < 0.05 * share,
        f"the rules say that {shown} of standing access was held, and the grants {share}",
    )
    asked = ask_every_panel(prometheus, start)
    held = " and ".join(
        f"{round(sum(v for k, v in sums.items() if k[0] == key))} s {word}"
        for key, word in (("access", "of access"), ("session_tail", "of tail"))
    )
    return (
        f"agrees with report and ledger on {held}, over a restart; {asked} queries of panels give data; 12 alerts fire alone; "
        f"prometheus_client reads {families} families"
    )


main(referee)
