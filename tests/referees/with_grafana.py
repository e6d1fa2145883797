"""Referee: Grafana's published schema judges the dashboards, and its published types each panel's options. What neither
says: nobody's data source is named, every panel says what it shows and in which unit, none lies on another, and every metric
is one that the program or a rule makes."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import jsonschema
import yaml

DASHBOARDS = Path(__file__).resolve().parents[2] / "dashboards"
GRAFANA = DASHBOARDS / "grafana"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def need(condition, message):
    if not condition:
        sys.exit(message)


# The schema takes any object as a panel's options. The types, by their panel, are written with enumerations.
TYPES = {
    "stat": "Stat",
    "bargauge": "BarGauge",
    "state-timeline": "StateTimeline",
    "timeseries": "TimeSeries",
    "table": "Table",
    "text": "Text",
}
WITH_FIELDS = {"state-timeline", "timeseries", "table"}
PLAIN = """\
type Plain<T> = T extends string ? `${T}` : T extends number | boolean | undefined | null ? T
  : T extends Array<infer U> ? Plain<U>[] : T extends object ? { [K in keyof T]?: Plain<T[K]> } : T;
"""


def check_options(boards):
    package = "@grafana/schema/dist/esm/raw/composable"
    lines = [
        f'import type * as {name} from "{package}/{kind.replace("-", "")}/panelcfg/x/{name}PanelCfg_types.gen";'
        for kind, name in TYPES.items()
    ]
    lines.append(PLAIN)
    for board in boards.values():
        for panel in (panel for panel in board["panels"] if panel["type"] != "row"):
            kind, number = panel["type"], len(lines)
            lines.append(f"const options{number}: Plain<{TYPES[kind]}.Options> = {json.dumps(panel['options'])};")
            custom = panel.get("fieldConfig", {"defaults": {"custom": {}}})["defaults"]["custom"]
            fields = f"Plain<{TYPES[kind]}.FieldConfig>" if kind in WITH_FIELDS else "Record<string, never>"
            lines.append(f"const fields{number}: {fields} = {json.dumps(custom)};")
    modules = Path(os.environ["GRAFANA_TYPES"])
    options = "--noEmit --skipLibCheck --strict --module esnext --moduleResolution bundler --target es2022".split()
    with tempfile.TemporaryDirectory(dir=modules) as directory:
        source = Path(directory) / "panels.ts"
        # Types that could not be found would accept anything.
        mistake = 'const mistake: Plain<Stat.Options> = { justifyMode: "elsewhere" };'
        for text, right in (([*lines, mistake], False), (lines, True)):
            source.write_text("\n".join(text))
            judged = subprocess.run(
                [modules / "node_modules/.bin/tsc", *options, source], capture_output=True, text=True
            )
            need(
                (judged.returncode == 0) == right,
                f"Grafana's types:\n{judged.stdout}{judged.stderr}" if right else "the types accept anything",
            )


def known_metrics():
    told = re.findall(r"^\| `(dutybound_\w+)` \| (\w+)", (DASHBOARDS / "METRICS.md").read_text(), re.M)
    names = {name for name, _ in told}
    names |= {f"{name}_bucket" for name, kind in told if kind == "histogram"}
    names |= set(re.findall(r"record: (\S+)", (DASHBOARDS / "prometheus" / "recording.rules.yml").read_text()))
    return names | {"process_cpu_seconds_total", "process_resident_memory_bytes", "ALERTS"}


def used_metrics(expr):
    bare = re.sub(r'"[^"]*"', '""', expr)
    return set(re.findall(r"\b(?:(?:\w+:)?dutybound[\w:]*|process_\w+|ALERTS)", bare))


def overlap(one, other):
    a, b = one["gridPos"], other["gridPos"]
    beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
    return not beside and a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"]


def judge(name, board, known):
    panels = board["panels"]
    ids = [panel["id"] for panel in panels]
    need(len(set(ids)) == len(ids), f"{name}: two panels share an id")
    titles = [panel["title"] for panel in panels]
    need(len(set(titles)) == len(titles), f"{name}: two panels share a title")
    for number, panel in enumerate(panels):
        at = f"{name}: {panel['title']}"
        grid = panel["gridPos"]
        need(grid["x"] + grid["w"] <= 24, f"{at} is wider than the page")
        for other in panels[:number]:
            need(not overlap(panel, other), f"{at} lies on {other['title']}")
        if panel["type"] in ("row", "text"):
            continue
        need(panel["title"] and panel["description"].endswith("."), f"{at} does not say in a sentence what it shows")
        need(panel["fieldConfig"]["defaults"]["unit"], f"{at} has no unit")
        need(panel["targets"], f"{at} asks nothing")
        for target in panel["targets"]:
            need(target["datasource"] == panel["datasource"] == SOURCE, f"{at} names a data source of somebody's")
            used = used_metrics(target["expr"])
            need(used and used <= known, f"{at}: there is no {sorted(used - known)}")
    for variable in board["templating"]["list"]:
        need(
            variable.get("datasource", SOURCE) == SOURCE,
            f"{name}: {variable['name']} names a data source of somebody's",
        )
    return sum(panel["type"] != "row" for panel in panels)


def main():
    made = subprocess.run([sys.executable, GRAFANA / "make.py", "--check"], capture_output=True, text=True)
    need(made.returncode == 0, made.stderr)
    schema = json.loads((Path(os.environ["SHARED"]) / "specs" / "grafana-dashboard.schema.json").read_text())
    validator = jsonschema.Draft7Validator(schema)
    known, boards, panels = known_metrics(), {}, 0
    for file in sorted(GRAFANA.glob("*.json")):
        board = json.loads(file.read_text())
        wrong = [jsonschema.exceptions.best_match([error]) for error in validator.iter_errors(board)]
        need(
            not wrong, "\n".join(f"{file.name}: {list(error.absolute_path)}: {error.message[:300]}" for error in wrong)
        )
        panels += judge(file.name, board, known)
        boards[board["uid"]] = board
    need(all(8 <= len(uid) <= 40 for uid in boards), f"uids have 8 to 40 characters, unlike some of {sorted(boards)}")
    need(
        all(link["tags"] == board["tags"] for board in boards.values() for link in board["links"]), "links lead nowhere"
    )
    for file in (GRAFANA / "provisioning").glob("*/*.yaml"):
        provisioned = yaml.safe_load(file.read_text())
        need(
            provisioned["apiVersion"] == 1 and provisioned.get(file.parent.name, provisioned.get("providers")),
            f"{file}: nothing",
        )
    check_options(boards)
    print(f"{len(boards)} dashboards with {panels} panels are valid against Grafana's schema and its panels' types")


main()
