#!/usr/bin/env bash
# What an idle daemon costs: starts the simulated services and the daemon on a policy with two schedules and the default
# poll of a minute, waits (default: 5 minutes), and prints calls, CPU and memory of the time after the first minute.
# Not a test: a measurement for the README. PROFILE=release measures the release build.
set -euo pipefail
cd "$(dirname "$0")/../.."
minutes=${1:-5}
profile=${PROFILE:-debug}
[ "$profile" = release ] && cargo build --quiet --release --workspace --bins || cargo build --quiet --workspace --bins
bin=$PWD/target/$profile
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$folder"' EXIT
cd "$folder"
"$bin/dutybound-sandbox" --shift 6000s >urls &
until grep -q control urls; do sleep 0.1; done
url() { awk -v name="$1" '$1 == name { print $2 }' urls; }
mkdir access.d
(umask 077 && echo test-key >key)
cat >config.toml <<END
mode = "sync"
owner_id = "idle"
ledger = "ledger.db"
source.pagerduty = { kind = "pagerduty", base_url = "$(url pagerduty)", token = { file = "key" } }
source.opsgenie = { kind = "opsgenie", base_url = "$(url opsgenie)", api_key = { file = "key" } }
identity_center = { region = "eu-central-1", expected_account_id = "999999999999", endpoint_url = "$(url aws)" }
http = { listen = "127.0.0.1:19868" }
END
cat >access.d/payments.toml <<'END'
project = { name = "payments", owners = ["mira@example.com"] }
entitlement = [
  { name = "prod-admin", account = "111122223333", permission_set = "AdministratorAccess" },
  { name = "on-call", group = "data-oncall" },
]
member = [{ email = "alice@example.com" }, { email = "bob@example.com" }, { email = "dave@example.com" }, { email = "erin@example.com" }]
rule = [
  { entitlement = "prod-admin", on_call = "pagerduty/PABC123" },
  { entitlement = "on-call", on_call = "opsgenie/6fce1fd0-bbbb-4000-8000-000000000001" },
]
END
AWS_ACCESS_KEY_ID=idle AWS_SECRET_ACCESS_KEY=idle "$bin/dutybound" --config config.toml run 2>log &
daemon=$!
ticks() { awk '{ print $14 + $15 }' "/proc/$daemon/stat"; }
calls() { curl -sf http://127.0.0.1:19868/metrics | awk '/^dutybound_api_calls_total/ { sub(/.*operation="/, ""); sub(/",.*service="/, " "); sub(/"} /, " "); print }' | sort; }
sleep 60
before=$(ticks)
calls >calls.before
lines=$(wc -l <log)
sleep $((minutes * 60))
used=$(($(ticks) - before))
calls >calls.after
echo "after the first minute, in $minutes min of idling ($profile build):"
echo "  CPU $((used * 1000 / $(getconf CLK_TCK) / minutes)) ms a minute, resident $(awk '/VmRSS/ { print int($2 / 1024) }' "/proc/$daemon/status") MiB, $(($(wc -l <log) - lines)) lines logged"
echo "  calls:"
join -a 2 -j 1 <(sed 's/ \([^ ]*\) \([^ ]*\)$/|\1\t\2/; s/ /_/g; s/\t/ /' calls.before) <(sed 's/ \([^ ]*\) \([^ ]*\)$/|\1\t\2/; s/ /_/g; s/\t/ /' calls.after) |
    awk 'NF == 3 && $3 > $2 { print "    " $3 - $2, $1 } NF == 2 { print "    " $2, $1 }' | tr _ ' '
