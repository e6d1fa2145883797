#!/usr/bin/env python3
"""Writes the Grafana dashboards beside this file: what is the same for every panel is said once, here.

    dashboards/grafana/make.py            writes them
    dashboards/grafana/make.py --check    ends with 1 where a file is not what this would write
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
PICKED = 'project=~"$project",entitlement=~"$entitlement"'
HOURS = "suffix: h"
PEOPLE = "suffix: people"

GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"


def steps(*pairs):
    """Colours from each value on; the first holds from the beginning."""
    return [{"value": value, "color": color} for value, color in pairs]


CALM = steps((None, BLUE))
NONE_IS_GOOD = steps((None, GREEN), (1, RED))
FEW_ARE_GOOD = steps((None, GREEN), (1, YELLOW))
ONE_IS_GOOD = steps((None, RED), (1, GREEN))


def query(expr, legend="", instant=False, table=False):
    found = {"expr": " ".join(expr.split()), "legendFormat": legend or "__auto", "range": not instant, "instant": instant}
    return found | {"format": "table" if table else "time_series"}


def now(expr, legend=""):
    return query(expr, legend, instant=True)


def options(kind):
    looks = {"values": False, "calcs": ["lastNotNull"], "fields": ""}
    if kind == "stat":
        return {"reduceOptions": looks, "colorMode": "value", "graphMode": "none", "textMode": "auto", "justifyMode": "center"}
    if kind == "bargauge":
        return {"reduceOptions": looks, "orientation": "horizontal", "displayMode": "basic", "showUnfilled": True}
    if kind == "timeseries":
        return {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    if kind == "state-timeline":
        return {"mergeValues": True, "showValue": "never", "rowHeight": 0.8, "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}}
    return {"showHeader": True, "cellHeight": "sm"}


def panel(kind, title, description, queries, *, size, unit="short", thresholds=CALM, decimals=None, low=None, high=None,
          mappings=(), none=None, custom=None, overrides=(), looks=None, transformations=()):
    for number, one in enumerate(queries):
        one |= {"refId": "ABCDEFGHIJ"[number], "datasource": SOURCE}
    defaults = {
        "unit": unit,
        "thresholds": {"mode": "absolute", "steps": thresholds},
        "color": {"mode": "palette-classic-by-name" if kind == "timeseries" else "thresholds"},
        "mappings": list(mappings),
        "custom": custom or {},
    }
    optional = {"decimals": decimals, "min": low, "max": high, "noValue": none}
    defaults |= {key: value for key, value in optional.items() if value is not None}
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "targets": queries,
        "fieldConfig": {"defaults": defaults, "overrides": list(overrides)},
        "options": options(kind) | (looks or {}),
        "transformations": list(transformations),
        "gridPos": {"w": size[0], "h": size[1]},
    }


def stat(title, description, expr, *, size=(4, 4), legend="", **more):
    queries = [now(expr, legend)] if isinstance(expr, str) else [now(one, name) for name, one in expr.items()]
    return panel("stat", title, description, queries, size=size, **more)


def bars(title, description, expr, legend, *, size=(12, 8), low=0, **more):
    return panel("bargauge", title, description, [now(expr, legend)], size=size, low=low, **more)


STACKED = {"drawStyle": "line", "fillOpacity": 40, "lineWidth": 1, "showPoints": "never", "stacking": {"mode": "normal", "group": "A"}}
LINES = {"drawStyle": "line", "fillOpacity": 8, "lineWidth": 2, "showPoints": "never"}
STEPS = LINES | {"lineInterpolation": "stepAfter"}


def over_time(title, description, queries, *, size=(12, 8), custom=LINES, low=0, **more):
    return panel("timeseries", title, description, [query(expr, legend) for expr, legend in queries], size=size, custom=custom, low=low, **more)


def coloured(name, thresholds):
    """Colours of its own for one series. Grafana's schema takes only objects as matchers and values here."""
    matcher = {"id": "byNames", "options": {"mode": "include", "names": [name]}}
    return {"matcher": matcher, "properties": [{"id": "thresholds", "value": {"mode": "absolute", "steps": thresholds}}]}


def words(pairs):
    """What numbers mean."""
    return [{"type": "value", "options": {str(value): {"text": text, "color": color, "index": index}
                                          for index, (value, (text, color)) in enumerate(pairs.items())}}]


def row(title):
    return {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"w": 24, "h": 1}}


def laid_out(panels):
    """From left to right, and down where the line is full."""
    x = y = tall = 0
    for number, one in enumerate(panels, 1):
        grid = one["gridPos"]
        if 24 < x + grid["w"]:
            x, y, tall = 0, y + tall, 0
        grid |= {"x": x, "y": y}
        one["id"] = number
        x, tall = x + grid["w"], max(tall, grid["h"])
    return panels


def picks(name, label, description, expr):
    return {
        "type": "query", "name": name, "label": label, "description": description, "datasource": SOURCE,
        "query": expr, "definition": expr, "refresh": 2, "sort": 1,
        "multi": True, "includeAll": True, "allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]},
    }


VARIABLES = [
    {"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus", "description": "The Prometheus that scrapes dutybound."},
    picks("project", "Project", "Owners of the access shown.", "label_values(dutybound_access_seconds_total, project)"),
    picks("entitlement", "Entitlement", "The access shown.", 'label_values(dutybound_access_seconds_total{project=~"$project"}, entitlement)'),
]


def dashboard(uid, title, description, span, panels, variables=VARIABLES, annotations=()):
    link = {
        "type": "dashboards", "title": "dutybound", "icon": "external link", "tooltip": "Access hours, operations, and what to do about each alert",
        "tags": ["dutybound"], "asDropdown": False, "targetBlank": False, "includeVars": True, "keepTime": False,
    }
    return {
        "uid": uid, "title": title, "description": description, "tags": ["dutybound"], "timezone": "browser", "editable": True,
        "graphTooltip": 1, "time": {"from": f"now-{span}", "to": "now"}, "refresh": "1m", "schemaVersion": 39, "version": 1,
        "links": [link], "templating": {"list": variables}, "annotations": {"list": list(annotations)}, "panels": laid_out(panels),
    }


def four_weeks(what, by=""):
    """People at a time, on average over four weeks or as much of them as Prometheus has."""
    total = f"sum {f'by ({by}) ' if by else ''}"
    return f"{total}(project_entitlement:dutybound_{what}:avg4w{{{PICKED}}})"


def covered(by=""):
    """Of the time on duty, the part with access."""
    held, off_duty, without = (four_weeks(what, by) for what in ("access_held", "access_overhang", "uncovered"))
    return f"1 - {without} / ({held} - {off_duty} + {without} > 0)"


def hours(metric, by="", more=""):
    total = f"sum {f'by ({by}) ' if by else ''}"
    return f"{total}(increase(dutybound_{metric}_seconds_total{{{PICKED}{more}}}[$__range])) / 3600"


def flow(metric, by, more=""):
    return f"sum by ({by}) (rate(dutybound_{metric}_seconds_total{{{PICKED}{more}}}[$__rate_interval]))"


BOTH = "project, entitlement"
NAME = "{{project}}/{{entitlement}}"
SHARE = steps((None, GREEN), (0.25, YELLOW), (0.5, RED))
COVERED = steps((None, RED), (0.95, YELLOW), (0.99, GREEN))


def entitlements_table():
    columns = {
        "A": ("held, h", hours("access", BOTH)),
        "B": ("of it off duty, h", hours("overhang", BOTH)),
        "C": ("on duty without, h", hours("uncovered", BOTH)),
        "D": ("session tail, h", hours("session_tail", BOTH)),
        "E": ("holders now", f"sum by ({BOTH}) (dutybound_active_grants{{{PICKED}}})"),
        "F": ("could hold it", f"sum by ({BOTH}) (dutybound_standing_people{{{PICKED}}})"),
        "G": ("share in four weeks, %", f"100 * {four_weeks('access_held', BOTH)} / ({four_weeks('standing_people', BOTH)} > 0)"),
    }
    return panel(
        "table", "Every entitlement", "Hours in the period chosen above, people now, and the share of standing access in the last four weeks. Click a column to sort.",
        [query(expr, instant=True, table=True) for _, expr in columns.values()], size=(24, 9),
        custom={"filterable": True, "align": "auto"},
        looks={"sortBy": [{"displayName": "held, h", "desc": True}]},
        transformations=[
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {
                "excludeByName": {"Time": True},
                "renameByName": {f"Value #{ref}": name for ref, (name, _) in columns.items()},
                "indexByName": {"project": 0, "entitlement": 1} | {f"Value #{ref}": 2 + at for at, ref in enumerate(columns)},
            }},
        ],
    )


def access_hours():
    share = f"{four_weeks('access_held')} / ({four_weeks('standing_people')} > 0)"
    by_project = f"{four_weeks('access_held', 'project')} / ({four_weeks('standing_people', 'project')} > 0)"
    return dashboard("dutybound-access-hours", "dutybound: access hours", "How much access people hold, against standing access and against duty.", "28d", [
        stat("Of standing access, people held this much in the last four weeks",
             "Standing access would be: everyone who could ever earn an entitlement under the policy holds it all the time. 100 % is that; people on call in a working rotation come to a small part of it. Taken over four weeks, so that every weekday counts alike, or over as much of them as Prometheus has seen. It follows the choice of projects and entitlements, not the period.",
             share, size=(10, 9), unit="percentunit", decimals=1, low=0, high=1, thresholds=SHARE, legend="share of standing access",
             looks={"textMode": "value", "colorMode": "background", "text": {"valueSize": 120}}, none="no data yet"),
        stat("Access hours a week", "Hours of access that people hold in a week, on average over the last four weeks, beside what standing access would be: every person who could earn it, 168 hours each.",
             {"held": f"168 * {four_weeks('access_held')}", "standing access": f"168 * {four_weeks('standing_people')}"},
             size=(7, 5), unit=HOURS, decimals=0),
        stat("Duty covered", "Of the time that people were on duty in the last four weeks, the part in which they held the access that it earns.",
             covered(), size=(7, 5), unit="percentunit", decimals=2, low=0, high=1, thresholds=COVERED, legend="covered", none="no duty yet"),
        stat("Off duty", "Of the access held in the last four weeks, the part held off duty: lead and linger as the rules ask for, and revokes that came late.",
             f"{four_weeks('access_overhang')} / ({four_weeks('access_held')} > 0)", size=(7, 4), unit="percentunit", decimals=1, low=0, high=1,
             thresholds=steps((None, GREEN), (0.1, YELLOW), (0.25, RED)), legend="off duty", none="nothing held"),
        stat("Holders now", "People times entitlements that stand now and that dutybound granted, and of people on duty those who lack it.",
             {"hold access": f"sum(dutybound_active_grants{{{PICKED}}})", "on duty without": f"sum(dutybound_uncovered_people{{{PICKED}}})"},
             size=(7, 4), decimals=0, overrides=[coloured("on duty without", NONE_IS_GOOD)]),
        over_time("Who holds access, and why", "People who hold access at a time: by what earned it (on call, a window, membership), and off duty. One person with two entitlements counts twice.",
                  [(flow("access", "basis"), "{{basis}}")], custom=STACKED, unit=PEOPLE, decimals=1),
        over_time("Share of standing access by project", "People who hold access at a time, of those who could ever earn it.",
                  [(f"sum by (project) (rate(dutybound_access_seconds_total{{{PICKED}}}[$__rate_interval])) / (sum by (project) (dutybound_standing_people{{{PICKED}}}) > 0)", "{{project}}")],
                  unit="percentunit", decimals=1),
        row("By project and entitlement"),
        bars("Share of standing access by project, last four weeks", "The projects furthest from access only while on duty stand on top.", f"sort_desc({by_project})", "{{project}}", unit="percentunit", decimals=1, high=1, thresholds=SHARE),
        bars("Entitlements with the most access hours", "The ten that people held for longest in the period chosen above.", f"topk(10, {hours('access', BOTH)})", NAME, unit=HOURS, decimals=1),
        entitlements_table(),
        row("Overhang and session tail: access that duty did not call for"),
        over_time("Held off duty", "People who hold access off duty at a time. Lead and linger are what rules ask for; late is a revoke that came after the last cause had ended.",
                  [(flow("overhang", "part"), "{{part}}")], custom=STACKED, unit=PEOPLE, decimals=2, size=(8, 8)),
        bars("Most hours off duty", "Hours of overhang in the period chosen above; the ten longest.", f"topk(10, {hours('overhang', BOTH)})", NAME, unit=HOURS, decimals=1, size=(8, 8)),
        bars("Session tail", "After a revoke AWS lets role sessions that were open live on. This is for how long they can have, at the most, in the period chosen above; it is in no other figure here. Groups have none. It counts five minutes behind.",
             f"topk(10, {hours('session_tail', BOTH)})", NAME, unit=HOURS, decimals=1, size=(8, 8)),
        bars("Session duration", "The permission set's session duration: the longer, the longer the tail. Nothing for groups.", f"sort_desc(max by ({BOTH}) (dutybound_session_duration_seconds{{{PICKED}}}))", NAME,
             unit="s", size=(24, 5), thresholds=steps((None, GREEN), (4 * 3600 + 1, YELLOW), (8 * 3600 + 1, RED)), none="no permission set was granted yet"),
        row("Coverage: duty without access"),
        over_time("On duty without access", "People on duty at the last pass who lack the access that it earns. Anything but zero needs somebody: the alert fires after ten minutes.",
                  [(f"sum by ({BOTH}) (dutybound_uncovered_people{{{PICKED}}})", NAME)], custom=STEPS, unit=PEOPLE, decimals=0, size=(8, 8)),
        bars("Hours on duty without access", "In the period chosen above; the ten longest. It counts five minutes behind.", f"topk(10, {hours('uncovered', BOTH)})", NAME,
             unit=HOURS, decimals=1, size=(8, 8), thresholds=steps((None, GREEN), (0.1, YELLOW), (1, RED))),
        bars("Duty covered by project, last four weeks", "Of the time on duty, the part with the access that it earns; the worst on top.",
             f"sort({covered('project')})",
             "{{project}}", unit="percentunit", decimals=2, high=1, thresholds=COVERED, size=(8, 8)),
    ])


def operations():
    age = "time() - dutybound_source_last_success_timestamp_seconds"
    yes_no = words({0: ("no", RED), 1: ("yes", GREEN)})
    in_force = words({0: ("refused", RED), 1: ("in force", GREEN)})
    quiet = 'label_replace(vector(0), "{label}", "none", "", "")'

    def or_none(expr, label):
        return f"({expr}) or ({quiet.format(label=label)} unless on () ({expr}))"

    def within(quantile):
        return f"histogram_quantile({quantile}, sum by (le, kind) (increase(dutybound_change_delay_seconds_bucket[$__range])))"

    def passes(quantile):
        return f"histogram_quantile({quantile}, sum by (le) (increase(dutybound_pass_duration_seconds_bucket[$__range])))"

    return dashboard("dutybound-operations", "dutybound: operations", "Whether the daemon does its work: sources, hand-offs, what waits, and what lies ahead.", "24h", [
        stat("Since the last pass", "Time since a pass came to a plan. The alert fires at ten minutes.", {"ago": "time() - dutybound_last_success_timestamp_seconds"},
             unit="s", decimals=0, thresholds=steps((None, GREEN), (180, YELLOW), (600, RED)), none="no daemon"),
        stat("Next hand-off", "Time until the next known shift, window or membership begins or ends. Below zero it is under way.", {"in": "dutybound_next_boundary_timestamp_seconds - time()"},
             unit="s", none="none known"),
        stat("Grants overdue", "People on duty who wait for access although no guard objects: AWS refuses it, works on it or does not answer.", 'sum(dutybound_overdue_changes{kind="grant"})', decimals=0, thresholds=NONE_IS_GOOD, legend="grants"),
        stat("Held changes", "Changes that a guard refuses for now. `dutybound diff` shows each and what releases it.", "sum(dutybound_held_changes)", decimals=0, thresholds=FEW_ARE_GOOD, legend="held"),
        stat("Problems now", "All problems at the last pass. `dutybound status` names the person, the schedule and the line.", "sum(dutybound_problems)", decimals=0, thresholds=FEW_ARE_GOOD, legend="problems"),
        stat("Gaps ahead", "Times within the horizon at which nobody will be on call for something that earns access. `dutybound forecast` shows when.", "sum(dutybound_upcoming_gaps)", decimals=0, thresholds=FEW_ARE_GOOD, legend="gaps"),
        stat("Mode", "What the daemon may write to AWS.", "dutybound_mode == 1", legend="{{mode}}", looks={"textMode": "name"}, size=(4, 3)),
        stat("Version", "Of the running daemon.", "dutybound_build_info", legend="{{version}}", looks={"textMode": "name"}, size=(4, 3)),
        stat("Policy and configuration", "Whether the last edit was put in force. A refused edit counts for nothing: what was in force before goes on.",
             {"policy": "dutybound_policy_reload_success", "configuration": "dutybound_config_reload_success"}, mappings=in_force, thresholds=ONE_IS_GOOD, size=(6, 3)),
        stat("Ledger", "Without a record no change is made.", {"readable": "dutybound_ledger_up", "writable": "dutybound_ledger_writable"}, mappings=yes_no, thresholds=ONE_IS_GOOD, size=(6, 3)),
        stat("Outcome unknown", "Changes that AWS has not answered for, and changes under way.", {"unknown": "dutybound_open_intents", "under way": "dutybound_in_flight_changes"}, decimals=0, size=(4, 3)),
        bars("Alerts that fire", "By the rules in dashboards/prometheus. The runbook, linked above, says what to do about each.",
             or_none('count by (alertname) (ALERTS{alertname=~"Dutybound.*",alertstate="firing"})', "alertname"), "{{alertname}}", size=(12, 6), thresholds=NONE_IS_GOOD, decimals=0),
        bars("Problems by kind", "At the last pass.", or_none("sum by (kind) (dutybound_problems) > 0", "kind"), "{{kind}}", size=(12, 6), thresholds=FEW_ARE_GOOD, decimals=0),
        row("On-call sources"),
        panel("state-timeline", "Sources that answer", "Whether the last read of at least one schedule of the source was complete.", [query("dutybound_source_up", "{{source}}")], size=(8, 7), mappings=yes_no, thresholds=ONE_IS_GOOD,
              custom={"fillOpacity": 70, "lineWidth": 0}),
        over_time("Age of what is known", "Time since the last complete read of the schedule that waits longest. The alert fires at 15 minutes; hand-offs go on from the stored snapshot until max_staleness.",
                  [(age, "{{source}}")], unit="s", size=(8, 7), thresholds=steps((None, GREEN), (900, RED)), custom=LINES | {"thresholdsStyle": {"mode": "dashed"}}),
        over_time("Clock of the source minus ours", "Beyond max_clock_skew (60 seconds by default) new grants wait, because a wrong clock is a wrong grant.", [("dutybound_source_clock_offset_seconds", "{{source}}")], unit="s", low=None, size=(8, 7)),
        bars("Schedules read", "Schedules that the policy names.", "dutybound_source_schedules", "{{source}}", size=(8, 5), decimals=0),
        bars("Schedules that fail", "Of them those whose last read failed.", "dutybound_schedules_failing", "{{source}}", size=(8, 5), decimals=0, thresholds=NONE_IS_GOOD),
        bars("Credentials expire in", "As the configuration states it under `expires`; no provider tells. The alert fires two weeks before.", "(dutybound_credential_expiry_timestamp_seconds - time()) / 86400", "{{source}}", size=(8, 5), unit="suffix: days",
             decimals=0, high=90, thresholds=steps((None, RED), (14, YELLOW), (30, GREEN)), none="no expiry is stated"),
        row("Hand-offs"),
        over_time("Time until AWS has done it", "How long AWS is expected to take for the changes of the last plan, what its limits allow at best, and the time until the first duty begins that a grant is for. The alert fires when the first is longer than the last.",
                  [("dutybound_convergence_seconds", "expected"), ("dutybound_convergence_at_least_seconds", "at best"), ("dutybound_convergence_lead_seconds < Inf", "until duty begins")], unit="s", size=(16, 7)),
        stat("One operation takes", "What AWS takes for an account assignment operation, as seen lately.", {"seconds": "dutybound_assignment_operation_seconds"}, unit="s", none="none seen", size=(8, 7)),
        panel("bargauge", "Delay of a hand-off", "From the boundary that called for a change to AWS's confirmation, for changes known in advance, in the period chosen above: half of them and 95 of 100 were quicker.",
              [now(within(0.5), "{{kind}}: half within"), now(within(0.95), "{{kind}}: 95 of 100 within")], size=(8, 8), unit="s", low=0,
              thresholds=steps((None, GREEN), (10, YELLOW), (60, RED)), none="no hand-off in this period"),
        over_time("Changes at AWS", "Changes that ended, in each interval. Deferred: a revoke that waits for the incoming grant (make before break).",
                  [("sum by (kind, outcome) (increase(dutybound_changes_total[$__rate_interval]))", "{{kind}} {{outcome}}")], custom=STACKED | {"drawStyle": "bars"}, size=(8, 8), decimals=0),
        over_time("Overdue changes", "Grants and revokes that should have been in force a while ago and that no guard holds.", [("sum by (kind) (dutybound_overdue_changes)", "{{kind}}")], custom=STEPS, size=(8, 8), decimals=0),
        row("Held back, or not ours"),
        over_time("Held changes by guard", "Each guard says what it would take to release what it holds: `dutybound diff`.", [("sum by (guard) (dutybound_held_changes)", "{{guard}}")], custom=STACKED | {"lineInterpolation": "stepAfter"}, size=(8, 8), decimals=0),
        bars("Longest hold by guard", "For how long the oldest held change has waited. The alert fires after an hour, except for guards that hold by intent.", or_none("time() - dutybound_oldest_hold_timestamp_seconds", "guard"), "{{guard}}",
             unit="s", size=(8, 8), thresholds=steps((None, GREEN), (900, YELLOW), (3600, RED))),
        over_time("Drift", "Users and groups that hold a managed entitlement which dutybound did not grant them. It is reported and not touched.", [(f"sum by ({BOTH}) (dutybound_drift_holders{{{PICKED}}})", NAME)], custom=STEPS, size=(8, 8), decimals=0),
        row("What lies ahead"),
        over_time("Gaps ahead over time", "Times within the horizon at which nobody will be on call for something that earns access.", [("sum(dutybound_upcoming_gaps)", "gaps")], custom=STEPS, size=(12, 6), decimals=0),
        bars("Problems ahead by kind", "What the schedules show: somebody who will not qualify, a membership or training that ends mid-shift.", or_none("sum by (kind) (dutybound_upcoming_problems) > 0", "kind"), "{{kind}}", size=(12, 6), decimals=0, thresholds=FEW_ARE_GOOD),
        row("Passes, calls and the process"),
        over_time("Passes", "Reconciliation passes in each interval, by how they ended.", [("sum by (outcome) (increase(dutybound_passes_total[$__rate_interval]))", "{{outcome}}")], custom=STACKED, size=(8, 8), decimals=0),
        stat("Length of a pass", "From its start to its plan, in the period chosen above: half of them and 95 of 100 were shorter.", {"half": passes(0.5), "95 of 100": passes(0.95)}, unit="s", size=(8, 8)),
        over_time("Calls by service", "To providers and to AWS, a second. AWS allows 20 a second for the whole instance, whoever asks.", [("sum by (service) (rate(dutybound_api_calls_total[$__rate_interval]))", "{{service}}")], custom=STACKED, unit="reqps", size=(8, 8)),
        over_time("Calls that did not go well", "By outcome: throttled and conflict are ordinary and tried again; denied is a credential or a permission.",
                  [("sum by (service, outcome) (increase(dutybound_api_calls_total{outcome!=\"ok\"}[$__rate_interval])) or label_replace(label_replace(0 * sum(dutybound_build_info), \"service\", \"none\", \"\", \"\"), \"outcome\", \"\", \"\", \"\")", "{{service}} {{outcome}}")], custom=STACKED | {"drawStyle": "bars"}, size=(8, 8), decimals=0),
        bars("Calls by operation", "In the period chosen above; the ten most frequent.", "topk(10, sum by (service, operation) (increase(dutybound_api_calls_total[$__range])))", "{{service}} {{operation}}", size=(8, 8), decimals=0),
        over_time("CPU", "Of the daemon, as a part of one core.", [("rate(process_cpu_seconds_total[$__rate_interval]) and on (instance, job) dutybound_build_info", "{{instance}}")], size=(4, 8), unit="percentunit"),
        over_time("Memory", "Of the daemon, resident.", [("process_resident_memory_bytes and on (instance, job) dutybound_build_info", "{{instance}}")], size=(4, 8), unit="bytes"),
    ], annotations=[{
        "name": "Alerts", "datasource": SOURCE, "enable": True, "iconColor": RED, "expr": 'ALERTS{alertname=~"Dutybound.*",alertstate="firing"}',
        "titleFormat": "{{alertname}}", "textFormat": "{{severity}}",
    }])


def runbook():
    text = (HERE.parent / "RUNBOOK.md").read_text().replace("[`prometheus/alerts.rules.yml`](prometheus/alerts.rules.yml)", "`dashboards/prometheus/alerts.rules.yml`")
    return dashboard("dutybound-runbook", "dutybound: runbook", "What each alert means, what to look at first, and what ends it.", "24h", [{
        "type": "text", "title": "", "description": "dashboards/RUNBOOK.md", "options": {"mode": "markdown", "content": text}, "gridPos": {"w": 24, "h": 40},
    }], variables=[])


def main():
    stale = []
    for name, made in {"access-hours": access_hours(), "operations": operations(), "runbook": runbook()}.items():
        file, text = HERE / f"{name}.json", json.dumps(made, indent=2, ensure_ascii=False) + "\n"
        if "--check" not in sys.argv:
            file.write_text(text)
        elif not file.exists() or file.read_text() != text:
            stale.append(file.name)
    if stale:
        sys.exit(f"{', '.join(stale)}: not what make.py writes; run dashboards/grafana/make.py")


if __name__ == "__main__":
    main()
