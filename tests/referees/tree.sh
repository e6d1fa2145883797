#!/usr/bin/env bash
# Referee: no committed file names this machine: no absolute path of it and no registry host that its clients use.
set -euo pipefail
cd "$(dirname "$0")/../.."

# Lock files name the registry's index, which is how Cargo spells "the default registry".
committed=(':!Cargo.lock' ':!*/Cargo.lock')
found=0
forbid() { # WHAT GREP-OPTION... PATTERN
    local what=$1
    shift
    if git grep -nI "$@" -- . "${committed[@]}"; then
        echo "these lines name $what" >&2
        found=1
    fi
}

forbid 'a path of one machine' -E '(^|[^[:alnum:]_.-])/(work|farm|root|home/[a-z]+|tmp/wt)/'
forbid 'the path of this checkout' -F -e "$PWD/"
forbid 'a home directory' -F -e "${HOME%/}/"

# The hosts are asked of the clients, so that this file names none either.
hosts=$(
    {
        command -v npm >/dev/null && npm config get registry 2>/dev/null
        command -v pip >/dev/null && pip config list 2>/dev/null
        env | grep -E '^(PIP_|CARGO_REGISTRIES|CARGO_SOURCE|NPM_CONFIG_)' || true
        cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null || true
    } | grep -oE 'https?://[^/:[:space:]"]+' | sed 's,.*//\([^@]*@\)\?,,' | grep -vE '^(127\.|localhost$|\[)' | sort -u
) || true
for host in $hosts; do
    forbid "the registry host of one of this machine's clients" -F -i -e "$host"
done
exit "$found"
