"""What the referees share: the programs under test, their peers on loopback, and a way to say what went wrong.

Every process is started on a free loopback port, waited for by asking it, and ended by its own handle.
"""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

PATIENCE = 60
"""Seconds that anything may take to come up or to settle."""

ACCOUNT = "111122223333"
READERS = "payments-prod-readers"


class Wrong(Exception):
    """Something is not as it should be; the text says what."""


def need(condition, text):
    if not condition:
        raise Wrong(text)


def until(what, check, patience=PATIENCE):
    """Asks again until `check` gives something, for a bounded time."""
    deadline = time.monotonic() + patience
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > deadline:
            raise Wrong(f"{what} did not happen within {patience} s")
        time.sleep(0.1)


def fetch(method, url, body=None, headers=()):
    """One request; gives status, headers and text, and refuses to go anywhere but loopback."""
    need(url.startswith("http://127.0.0.1:"), f"{url} is not on loopback")
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers=dict(headers))
    if data is not None:
        request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read().decode()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url):
    try:
        return fetch("GET", url)[0]
    except OSError:
        return None


class Sandbox:
    """The simulated services, with their control port."""

    def __init__(self, urls):
        self.urls = urls

    def control(self, method, path, body=None):
        status, _, text = fetch(method, self.urls["control"] + path, body)
        need(status < 300, f"the sandbox answered {method} {path} with {status}: {text}")
        return json.loads(text) if text else None

    def change_world(self, change):
        world = self.control("GET", "/world")
        change(world)
        self.control("PUT", "/world", world)

    def journal(self):
        return self.control("GET", "/journal")


class Stage(contextlib.ExitStack):
    """A scratch directory and the processes of one referee; leaving it ends them."""

    def __enter__(self):
        super().__enter__()
        self.dir = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory(prefix="dutybound-referee-")))
        return self

    def start(self, name, command, env=None):
        """Starts a process whose output goes to a file of its name."""
        log = self.dir / f"{name}.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )
        self.callback(self.end, process)
        return process, log

    @staticmethod
    def end(process):
        """Ends a process with what it started itself."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def comes_up(self, name, process, log, check):
        def ready():
            need(process.poll() is None, f"{name} ended with {process.returncode}:\n{log.read_text()}")
            return check()

        return until(f"the start of {name}", ready)

    def sandbox(self):
        process, log = self.start("sandbox", [os.environ["SANDBOX"], "--shift", "12h"])

        def urls():
            lines = [line.split() for line in log.read_text().splitlines()]
            found = {line[0]: line[1] for line in lines if len(line) == 2}
            return found if "control" in found else None

        return Sandbox(self.comes_up("the sandbox", process, log, urls))

    def moto(self):
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        process, log = self.start("moto", [os.environ["MOTO_SERVER"], "-H", "127.0.0.1", "-p", port])
        self.comes_up("moto", process, log, lambda: answers(f"{url}/moto-api/data.json") == 200)
        return url

    def prism(self, name, spec, upstream):
        """A proxy that refuses what breaks the specification, in either direction; gives its address and its log."""
        port = free_port()
        process, log = self.start(
            f"prism-{name}", [os.environ["PRISM"], "proxy", "-h", "127.0.0.1", "-p", port, "--errors", spec, upstream]
        )
        self.comes_up("prism", process, log, lambda: "Prism is listening" in log.read_text())
        return f"http://127.0.0.1:{port}", log

    def installation(self, *, pagerduty, opsgenie, aws, account_id, region):
        """Writes a configuration in mode `sync` with a policy for the sandbox's small organisation."""
        (self.dir / "access.d").mkdir()
        (self.dir / "access.d" / "payments.toml").write_text(PAYMENTS)
        if opsgenie:
            (self.dir / "access.d" / "data.toml").write_text(DATA)
        config = self.dir / "config.toml"
        port = free_port()
        config.write_text(
            CONFIG.format(
                ledger=self.dir / "ledger.sqlite",
                pagerduty=pagerduty,
                opsgenie=OPSGENIE.format(url=opsgenie) if opsgenie else "",
                aws=aws,
                account_id=account_id,
                region=region,
                port=port,
            )
        )
        return Installation(config, f"http://127.0.0.1:{port}")


class Installation:
    """A configuration and the program run with it."""

    def __init__(self, config, url):
        self.config = config
        self.policy = config.parent / "access.d"
        self.url = url
        clean = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("AWS_", "DUTYBOUND_")) and not key.lower().endswith("_proxy")
        }
        self.env = clean | {
            "DUTYBOUND_CONFIG": str(config),
            "PAGERDUTY_TOKEN": "test-key",
            "OPSGENIE_KEY": "test-key",
            "AWS_ACCESS_KEY_ID": "AKIAREFEREE",
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def execute(self, *arguments):
        return subprocess.run(
            [os.environ["DUTYBOUND"], *arguments],
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE * 2,
        )

    def run(self, *arguments, exits):
        """Runs one command to its end, which must be one of the given exit codes, and gives its standard output."""
        done = self.execute(*arguments)
        need(
            done.returncode in exits,
            f"dutybound {' '.join(arguments)} ended with {done.returncode} and not with one of {exits}:\n"
            f"{done.stdout}{done.stderr}",
        )
        return done.stdout

    def refuses(self, *arguments, naming):
        """Runs one command that must fail and say why, naming the thing that is wrong."""
        done = self.execute(*arguments)
        asked = f"dutybound {' '.join(arguments)}"
        need(done.returncode == 1, f"{asked} ended with {done.returncode} and not with 1:\n{done.stderr}")
        need(naming in done.stderr, f"{asked} does not name {naming}:\n{done.stderr}")


CONFIG = """\
mode = "sync"
owner_id = "referee"
policy_dir = "access.d"
ledger = "{ledger}"

[source.pagerduty]
kind = "pagerduty"
base_url = "{pagerduty}"
token = {{ env = "PAGERDUTY_TOKEN" }}

{opsgenie}
[identity_center]
region = "{region}"
expected_account_id = "{account_id}"
endpoint_url = "{aws}"

[http]
listen = "127.0.0.1:{port}"
"""

OPSGENIE = """\
[source.opsgenie]
kind = "opsgenie"
base_url = "{url}"
api_key = {{ env = "OPSGENIE_KEY" }}
"""

PAYMENTS = f"""\
[project]
name = "payments"
owners = ["mira@example.com"]
context = "PCI scope: card data never leaves the account."

[[entitlement]]
name = "prod-admin"
account = "{ACCOUNT}"
permission_set = "AdministratorAccess"

[[entitlement]]
name = "prod-readers"
group = "{READERS}"

[[member]]
email = "alice@example.com"
added_by = "mira@example.com"
reason = "payments engineer"

[[member]]
email = "bob@example.com"
added_by = "mira@example.com"
reason = "payments engineer"

[[rule]]
entitlement = "prod-admin"
on_call = "pagerduty/PABC123"

[[rule]]
entitlement = "prod-readers"
on_call = "pagerduty/PABC123"
"""

DATA = """\
[project]
name = "data"
owners = ["mira@example.com"]

[[entitlement]]
name = "admin"
account = "444455556666"
permission_set = "AdministratorAccess"

[[entitlement]]
name = "oncall"
group = "data-oncall"

[[member]]
email = "dave@example.com"
added_by = "mira@example.com"
reason = "data engineer"

[[rule]]
entitlement = "admin"
on_call = "opsgenie/6fce1fd0-bbbb-4000-8000-000000000001"

[[rule]]
entitlement = "oncall"
on_call = { escalation_policy = "pagerduty/PESC789", levels = [1] }
requires = []
"""


def main(referee):
    """Runs one referee: its verdict is one line, and the exit code says the same."""
    try:
        with Stage() as stage:
            print(referee(stage))
    except Wrong as wrong:
        print(wrong, file=sys.stderr)
        sys.exit(1)
