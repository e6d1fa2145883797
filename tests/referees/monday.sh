#!/usr/bin/env bash
# What people use today, measured: hands over many rotations in one second (default: 100) by dutybound and by a plain
# boto3 script, against the simulated AWS with AWS's limits, and prints requests, time to converge, CPU and memory.
# Not a test: a measurement for the README. PROFILE=release measures the release build.
set -euo pipefail
cd "$(dirname "$0")/../.."
boto3_version=1.44.5
profile=${PROFILE:-debug}
[ "$profile" = release ] && cargo build --quiet --release --workspace --bins || cargo build --quiet --workspace --bins
cache=${DUTYBOUND_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/dutybound-referees}
venv=$(find "$cache" -maxdepth 1 -name "python-*boto3-$boto3_version" 2>/dev/null | head -n 1)
if [ ! -e "$venv/installed" ]; then
    venv=$cache/python-boto3-$boto3_version
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-input "boto3==$boto3_version"
    touch "$venv/installed"
fi
export SANDBOX=$PWD/target/$profile/dutybound-sandbox DUTYBOUND=$PWD/target/$profile/dutybound PYTHON=$venv/bin/python
echo "$profile build"
exec python3 tests/referees/monday.py "$@"
