#!/usr/bin/env bash
# Referee: systemd's own tools read the unit and the files that go with it; nothing is installed or started.
set -euo pipefail
cd "$(dirname "$0")/../.."

# The worst score that passes, times ten: what the README promises.
threshold=15

for tool in systemd-analyze systemd-sysusers systemd-tmpfiles; do
    command -v "$tool" >/dev/null || {
        echo "$tool is missing: install the package systemd" >&2
        exit 1
    }
done

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# `verify` looks for the program of every Exec line, and ours is not installed.
unit=$scratch/dutybound.service
sed 's,/usr/bin/dutybound,/bin/true,' systemd/dutybound.service >"$unit"
systemd-analyze verify --man=no "$unit"

root=$scratch/root
mkdir -p "$root/etc"
systemd-sysusers --root="$root" "$PWD/systemd/sysusers.conf" 2>/dev/null
grep -q '^dutybound:' "$root/etc/passwd"
systemd-tmpfiles --root="$root" --create "$PWD/systemd/tmpfiles.conf"
[ "$(stat -c %a "$root/etc/dutybound/access.d" "$root/var/lib/dutybound" | tr '\n' ' ')" = "750 700 " ]

systemd-analyze security --offline=yes --no-pager --threshold="$threshold" "$unit" >"$scratch/security" || {
    grep '✗' "$scratch/security"
    tail -n 1 "$scratch/security"
    exit 1
}
sed -n 's/.*Overall exposure level for [^:]*: \([0-9.]*\) .*/exposure \1/p' "$scratch/security" | tr '\n' ' '
systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/by systemd \1/p'
