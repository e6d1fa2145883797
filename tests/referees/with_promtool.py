"""Referee: promtool reads the metrics page of the running daemon; the daemon gets ready, and ends when it is asked to."""

import os
import signal
import subprocess

from peers import PATIENCE, Stage, answers, fetch, main, need


def referee(stage: Stage):
    sandbox = stage.sandbox()
    aws = sandbox.control("GET", "/world")["aws"]
    ours = stage.installation(
        pagerduty=sandbox.urls["pagerduty"],
        opsgenie=sandbox.urls["opsgenie"],
        aws=sandbox.urls["aws"],
        account_id=aws["owner_account_id"],
        region=aws["region"],
    )
    daemon, log = stage.start("dutybound", [os.environ["DUTYBOUND"], "run"], env=ours.env)
    stage.comes_up("dutybound", daemon, log, lambda: answers(f"{ours.url}/readyz") == 200)
    status, _, text = fetch("GET", f"{ours.url}/healthz")
    need(status == 200, f"/healthz answers {status}: {text}")
    status, headers, metrics = fetch("GET", f"{ours.url}/metrics")
    need(status == 200, f"/metrics answers {status}")
    need(headers["Content-Type"].startswith("text/plain"), f"/metrics is {headers['Content-Type']}")
    need("@example.com" not in metrics, "/metrics names a person")
    judged = subprocess.run(["promtool", "check", "metrics"], input=metrics, capture_output=True, text=True)
    need(judged.returncode == 0, f"promtool ends with {judged.returncode}:\n{judged.stdout}{judged.stderr}")

    daemon.send_signal(signal.SIGTERM)
    try:
        code = daemon.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        need(False, f"dutybound still runs {PATIENCE} s after SIGTERM:\n{log.read_text()}")
    need(code == 0, f"dutybound ended with {code} after SIGTERM:\n{log.read_text()}")
    families = sum(line.startswith("# TYPE ") for line in metrics.splitlines())
    return f"accepts {families} metric families of the running daemon, which ended on SIGTERM"


main(referee)
