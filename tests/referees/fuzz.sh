#!/usr/bin/env bash
# Referee: fuzzes every parser and decoder for a short time, each from its corpus in tests/fuzz. What it finds is kept
# beside the build, and the verdict says how to see it again; once repaired, the input belongs into the corpus.
#
#   FUZZ_SECONDS      how long each target runs (default: 20)
#   DUTYBOUND_CACHE   where cargo-fuzz and its build are kept (default: dutybound-referees in the user's cache directory)
#   fuzz.sh TARGET... fuzzes only these
#
# There is no sanitizer: the project has no unsafe code for one to look at, and without one the stable toolchain does.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=0.13.2
seconds=${FUZZ_SECONDS:-20}
cache=${DUTYBOUND_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/dutybound-referees}
root=$cache/cargo-fuzz-$version
build=$cache/fuzz-target
mkdir -p "$cache"

if [ ! -x "$root/bin/cargo-fuzz" ]; then
    echo "installing cargo-fuzz $version"
    # Its own target directory: beside ours, its build would compete with the workspace's for the cache.
    CARGO_TARGET_DIR=$root/target cargo install --quiet --locked --version "$version" --root "$root" cargo-fuzz
    rm -rf "$root/target"
fi
PATH=$root/bin:$PATH
fuzz() { # COMMAND ARGUMENT...
    local command=$1
    shift
    cargo fuzz "$command" --fuzz-dir tests/fuzz --sanitizer none --target-dir "$build" "$@"
}

# cargo-fuzz takes no --locked, and a build that wrote its lock file would be another one than was committed.
cargo metadata --format-version 1 --locked --manifest-path tests/fuzz/Cargo.toml >/dev/null
start=$SECONDS
if ! said=$(fuzz build 2>&1); then
    printf 'FAILED: the fuzz targets do not build\n%s\n' "$said"
    exit 1
fi
echo "built in $((SECONDS - start)) s"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# New inputs go to the first directory, so that the corpus in the repository stays what people put there.
run() { # TARGET
    local dictionary
    case $1 in
    policy | config) dictionary=toml ;;
    instant | window) dictionary=time ;;
    text | normalise) dictionary= ;;
    *) dictionary=json ;;
    esac
    mkdir -p "$scratch/$1" "$build/findings/$1"
    fuzz run "$1" "$scratch/$1" "tests/fuzz/corpus/$1" -- \
        -max_total_time="$seconds" -max_len=4096 -timeout=120 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$build/findings/$1/" \
        ${dictionary:+-dict=tests/fuzz/dictionaries/$dictionary.dict} >"$scratch/$1.log" 2>&1
}

failed=0
verdict() { # TARGET STATUS
    local log=$scratch/$1.log
    if [ "$2" -eq 0 ]; then
        printf 'ok: fuzz %s: %d inputs\n' "$1" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
    else
        failed=$((failed + 1))
        printf 'FAILED: fuzz %s\n' "$1"
        grep -avE '^#[0-9]+|^INFO|^ *(DE|Running|Finished|Blocking)|DICT|NEW_FUNC|__sanitizer' "$log" | tail -n 60
    fi
}

targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(basename -s .rs tests/fuzz/fuzz_targets/*.rs)
# Two at a time, each with one job.
for ((at = 0; at < ${#targets[@]}; at += 2)); do
    pair=("${targets[@]:at:2}")
    pids=()
    for target in "${pair[@]}"; do
        run "$target" &
        pids+=($!)
    done
    for n in "${!pair[@]}"; do
        status=0
        wait "${pids[n]}" || status=$?
        verdict "${pair[n]}" "$status"
    done
done
printf '%d targets fuzzed in %d s, %d with findings\n' "${#targets[@]}" $((SECONDS - start)) "$failed"
[ "$failed" -eq 0 ]
