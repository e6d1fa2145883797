"""Referee: promtool evaluates the recording rules and alerts. In a sound world no alert fires; with one thing broken that
alert fires and no other, and with the thing almost broken none does. The runbook has a section for each alert, and every
metric that the rules use is one that the program has."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = ROOT / "dashboards"
RULES = [DASHBOARDS / "prometheus" / name for name in ("alerts.rules.yml", "recording.rules.yml")]

ENTITLEMENT = 'entitlement="prod-admin",project="payments"'
MINUTES = 120
AT = "110m"

# Seconds of a scrape each minute: promtool's clock starts at 0, so an instant is a number of seconds.
NOW = "0+60x%d" % MINUTES
SOUND = {
    'dutybound_source_last_success_timestamp_seconds{source="pagerduty"}': NOW,
    "dutybound_last_success_timestamp_seconds": NOW,
    'dutybound_overdue_changes{kind="grant"}': "0x%d" % MINUTES,
    'dutybound_overdue_changes{kind="revoke"}': "0x%d" % MINUTES,
    'dutybound_oldest_hold_timestamp_seconds{guard="mode"}': "0x%d" % MINUTES,
    "dutybound_convergence_seconds": "300x%d" % MINUTES,
    "dutybound_convergence_lead_seconds": "600x%d" % MINUTES,
    f"dutybound_drift_holders{{{ENTITLEMENT}}}": "0x%d" % MINUTES,
    f"dutybound_uncovered_people{{{ENTITLEMENT}}}": "0x%d" % MINUTES,
    'dutybound_mode{mode="sync"}': "1x%d" % MINUTES,
    'dutybound_mode{mode="observe"}': "0x%d" % MINUTES,
    "dutybound_upcoming_gaps": "0x%d" % MINUTES,
    'dutybound_upcoming_problems{kind="not_a_member"}': "0x%d" % MINUTES,
    'dutybound_upcoming_problems{kind="schedule_notice"}': "3x%d" % MINUTES,
    'dutybound_problems{kind="clock_skew"}': "0x%d" % MINUTES,
    'dutybound_problems{kind="schedule_notice"}': "3x%d" % MINUTES,
    "dutybound_policy_reload_success": "1x%d" % MINUTES,
    "dutybound_config_reload_success": "1x%d" % MINUTES,
    "dutybound_ledger_writable": "1x%d" % MINUTES,
    "dutybound_ledger_up": "1x%d" % MINUTES,
    'dutybound_api_calls_total{operation="GET /oncalls",outcome="ok",service="pagerduty"}': "0+5x%d" % MINUTES,
    'dutybound_api_calls_total{operation="GET /oncalls",outcome="denied",service="pagerduty"}': "2x%d" % MINUTES,
    'dutybound_api_calls_total{operation="ListInstances",outcome="denied",service="ssoadmin"}': "0x%d" % MINUTES,
    'dutybound_credential_expiry_timestamp_seconds{source="pagerduty"}': "99999999x%d" % MINUTES,
    'dutybound_sink_lag_seconds{sink="siem"}': "20x%d" % MINUTES,
    'dutybound_sink_lost_events_total{sink="siem"}': "3x%d" % MINUTES,
}

PD_DENIED = 'dutybound_api_calls_total{operation="GET /oncalls",outcome="denied",service="pagerduty"}'
AWS_DENIED = 'dutybound_api_calls_total{operation="ListInstances",outcome="denied",service="ssoadmin"}'
AUDIT_DENIED = PD_DENIED.replace("GET /oncalls", "GET /schedules/{id}/audit/records")
LIST_DENIED = AWS_DENIED.replace("ListInstances", "ListUsers").replace("ssoadmin", "identitystore")
READ = 'dutybound_source_last_success_timestamp_seconds{source="pagerduty"}'
PASS = "dutybound_last_success_timestamp_seconds"
UNCOVERED = f"dutybound_uncovered_people{{{ENTITLEMENT}}}"
LAG = 'dutybound_sink_lag_seconds{sink="siem"}'
LOST = 'dutybound_sink_lost_events_total{sink="siem"}'
LATE = 'dutybound_overdue_changes{kind="grant"}'


def hold(guard):
    return f'dutybound_oldest_hold_timestamp_seconds{{guard="{guard}"}}'


def until(minute, after="_"):
    """An instant that follows the clock up to a minute and then stands."""
    return f"0+60x{minute} {minute * 60}x{MINUTES - minute}" if after == "_" else f"0+60x{minute} {after}"


def always(value):
    return f"{value}x{MINUTES}"


def lately(value, minutes):
    """Zero, and `value` for the last minutes before the look."""
    begin = int(AT[:-1]) - minutes
    return f"0x{begin} {value}x{MINUTES - begin}"


# What is broken: the alert, and the series that differ from the sound world. Each with the same, not quite broken.
CASES = {
    "DutyboundSourceStale": [{READ: until(80)}, {READ: always(0)}],
    "DutyboundHandOffLate": [{LATE: lately(1, 5)}, {LATE: lately(2, 30), UNCOVERED: lately(2, 30)}],
    "DutyboundHandOffWillBeLate": [
        {"dutybound_convergence_seconds": lately(900, 5)},
        {"dutybound_convergence_lead_seconds": lately(0, 5)},
    ],
    "DutyboundRevokeOverdue": [{'dutybound_overdue_changes{kind="revoke"}': lately(1, 10)}],
    "DutyboundHeldChangesAgeing": [{hold("limit"): always(600)}, {hold("pause"): always(600)}],
    "DutyboundDrift": [{f"dutybound_drift_holders{{{ENTITLEMENT}}}": lately(1, 90)}],
    "DutyboundUncoveredDuty": [{UNCOVERED: lately(1, 20)}],
    "DutyboundGapAhead": [
        {"dutybound_upcoming_gaps": lately(1, 60)},
        {'dutybound_upcoming_problems{kind="not_a_member"}': lately(1, 60)},
    ],
    "DutyboundConfigRefused": [
        {"dutybound_policy_reload_success": f"1x90 0x{MINUTES - 90}"},
        {"dutybound_config_reload_success": f"1x90 0x{MINUTES - 90}"},
    ],
    "DutyboundLedgerNotWritable": [
        {"dutybound_ledger_writable": f"1x90 0x{MINUTES - 90}", PASS: until(90)},
        {"dutybound_ledger_up": f"1x90 0x{MINUTES - 90}"},
    ],
    "DutyboundClockSkew": [{'dutybound_problems{kind="clock_skew"}': lately(1, 10), hold("clock_skew"): always(600)}],
    "DutyboundCredentialRefused": [
        {PD_DENIED: f"0x80 0+1x{MINUTES - 80}", READ: until(80)},
        {AWS_DENIED: f"0x80 0+1x{MINUTES - 80}", PASS: until(80)},
    ],
    "DutyboundCredentialExpires": [
        {'dutybound_credential_expiry_timestamp_seconds{source="pagerduty"}': always(86400)}
    ],
    "DutyboundSinkBehind": [{LAG: lately(2000, 15)}],
    "DutyboundSinkLostEvents": [{LOST: f"3x80 7x{MINUTES - 80}"}],
    "DutyboundNothingReconciled": [{PASS: until(80)}, {PASS: None}, {PASS: always(0)}],
}
ALMOST = [
    {READ: until(100)},
    {LATE: f"0x80 1x5 0x{MINUTES - 85}"},
    {LATE: f"0x{MINUTES - 10} 1x0 0x10"},
    {"dutybound_convergence_seconds": lately(900, 1)},
    {"dutybound_convergence_seconds": always(9000), "dutybound_convergence_lead_seconds": always(10**9)},
    {'dutybound_overdue_changes{kind="revoke"}': lately(1, 3)},
    {AUDIT_DENIED: lately(1, 8)},
    {LIST_DENIED: lately(1, 8)},
    {hold("limit"): always(4000)},
    {hold("mode"): always(60), hold("protected"): always(60), hold("min_holders"): always(60)},
    {f"dutybound_drift_holders{{{ENTITLEMENT}}}": lately(1, 40)},
    {UNCOVERED: lately(1, 8)},
    {UNCOVERED: lately(1, 60), 'dutybound_mode{mode="observe"}': always(1), 'dutybound_mode{mode="sync"}': always(0)},
    {"dutybound_upcoming_gaps": lately(1, 20)},
    {'dutybound_upcoming_problems{kind="schedule_notice"}': always(9)},
    {"dutybound_policy_reload_success": f"1x107 0x{MINUTES - 107}"},
    {"dutybound_ledger_writable": f"1x109 0x{MINUTES - 109}"},
    {'dutybound_problems{kind="clock_skew"}': lately(1, 1)},
    {PD_DENIED: f"0x20 5x{MINUTES - 20}"},
    {'dutybound_credential_expiry_timestamp_seconds{source="pagerduty"}': always(15 * 86400 + 7200)},
    {PASS: until(100)},
    {LAG: lately(2000, 8)},
    {LAG: always(1700)},
]


def need(condition, message):
    if not condition:
        sys.exit(message)


def world(name, changes):
    series = {**SOUND, **changes}
    found = [{"series": s, "values": v} for s, v in series.items() if v is not None]
    return {"name": name, "interval": "1m", "input_series": found}


def firing(name, changes, expected):
    """promtool wants labels and annotations of what fires word for word, so only names are asked for."""
    names = sorted(CASES)
    tests = [{"expr": f'count(ALERTS{{alertstate="firing",alertname="{alert}"}}) > bool 0', "eval_time": AT,
              "exp_samples": [{"labels": "{}", "value": 1}] if alert == expected else []} for alert in names]
    return {**world(name, changes), "promql_expr_test": tests}


def shares():
    """Ten of eighty people hold access, a fifth of it off duty, and a ninth of duty is uncovered. Prometheus has seen only
    a quarter of the four weeks, and of a second entitlement only the last quarter of that: both count for what they were."""
    hours, labels, late = 24 * 7, 'entitlement="prod-admin",project="payments"', 'entitlement="new",project="payments"'

    def counted(people, missing=0):
        # Every five minutes, as the rules are evaluated, and so over ten of them.
        return ("_x%d " % (missing - 1) if missing else "") + f"0+{people * 300}x{hours * 12 - missing}"

    def holds(expr, value):
        labels = '{project="payments"}' if expr.startswith("project:") else ""
        samples = [{"labels": labels or "{}", "value": value}]
        return {"expr": f"round({expr}, 0.005)", "eval_time": f"{hours}h", "exp_samples": samples}

    three_quarters = hours * 12 * 3 // 4
    return {
        "interval": "5m",
        "input_series": [
            {"series": f'dutybound_access_seconds_total{{basis="on_call",{labels}}}', "values": counted(8)},
            {"series": f'dutybound_access_seconds_total{{basis="overhang",{labels}}}', "values": counted(2)},
            {"series": f'dutybound_overhang_seconds_total{{part="lead",{labels}}}', "values": counted(2)},
            {"series": f"dutybound_uncovered_seconds_total{{{labels}}}", "values": counted(1)},
            {"series": f"dutybound_standing_people{{{labels}}}", "values": f"76x{hours * 12}"},
            {"series": f'dutybound_access_seconds_total{{basis="on_call",{late}}}', "values": counted(0, three_quarters)},
            {"series": f'dutybound_overhang_seconds_total{{part="lead",{late}}}', "values": counted(0, three_quarters)},
            {"series": f"dutybound_uncovered_seconds_total{{{late}}}", "values": counted(0, three_quarters)},
            {"series": f"dutybound_standing_people{{{late}}}", "values": f"_x{three_quarters - 1} 16x{hours * 12 - three_quarters}"},
        ],
        "promql_expr_test": [
            holds("dutybound:access_share:ratio_avg4w", 0.125),
            holds("project:dutybound_access_share:ratio_avg4w", 0.125),
            holds("sum(project_entitlement:dutybound_access_held:avg4w)", 10),
            holds("dutybound:coverage:ratio_avg4w", 0.89),
        ],
    }


def main():
    text = "\n".join(path.read_text() for path in RULES)
    alerts = re.findall(r"alert: (\w+)", text)
    need(sorted(alerts) == sorted(CASES), f"alerts and cases differ: {set(alerts) ^ set(CASES)}")
    runbook = (DASHBOARDS / "RUNBOOK.md").read_text()
    for block in re.split(r"\n +- alert: ", RULES[0].read_text())[1:]:
        alert = block.split()[0]
        for key in ("summary", "description", "runbook", "severity"):
            need(re.search(rf"\b{key}:", block), f"{alert} has no {key}")
        need(f'"dashboards/RUNBOOK.md#{alert.lower()}"' in block, f"{alert} names no section of the runbook")
        need(f"\n## {alert}\n" in runbook, f"the runbook has no section {alert}")
    metrics = set(re.findall(r"^\| `(dutybound_\w+)` ", (DASHBOARDS / "METRICS.md").read_text(), re.M))
    used = {name for name in re.findall(r"\bdutybound_\w+", re.sub(r"\w*:dutybound_\w+:\w+", "", text)) if not name.endswith("_")}
    need(used <= metrics, f"the program has no {sorted(used - metrics)}")

    groups = [firing("sound", {}, None)]
    for alert, broken in CASES.items():
        groups += [firing(f"{alert} {n}", changes, alert) for n, changes in enumerate(broken)]
    groups += [firing(f"almost {n}", changes, None) for n, changes in enumerate(ALMOST)]
    with tempfile.TemporaryDirectory() as directory:
        # JSON is YAML, too.
        path, weeks, wider = (Path(directory) / name for name in ("test.json", "weeks.json", "recording.yml"))
        path.write_text(json.dumps({"rule_files": [str(RULES[0])], "tests": groups}))
        # A sample a minute would take promtool several times as long and say the same; a rate needs two.
        wider.write_text(RULES[1].read_text().replace("[5m]", "[10m]"))
        weeks.write_text(json.dumps({"rule_files": [str(wider)], "evaluation_interval": "5m", "tests": [shares()]}))
        for command in (["check", "rules", "--lint=all", *map(str, RULES)], ["test", "rules", str(path), str(weeks)]):
            judged = subprocess.run(["promtool", *command], capture_output=True, text=True)
            need(judged.returncode == 0, f"promtool {command[0]} rules:\n{judged.stdout}{judged.stderr}")
    print(f"{len(alerts)} alerts fire alone when their thing breaks, in {len(groups)} worlds, and shares are as counted")


main()
