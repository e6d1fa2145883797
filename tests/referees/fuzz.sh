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
failed=0
[ $# -gt 0 ] || mapfile -t targets < <(basename -s .rs tests/fuzz/fuzz_targets/*.rs)
[ $# -eq 0 ] || targets=("$@")
for target in "${targets[@]}"; do
    case $target in
    policy | config) dictionary=toml ;;
    instant | window) dictionary=time ;;
    text | normalise) dictionary= ;;
    *) dictionary=json ;;
    esac
    mkdir -p "$scratch/$target" "$build/findings/$target"
    # New inputs go to the first directory, so that the corpus in the repository stays what people put there.
    if said=$(fuzz run "$target" "$scratch/$target" "tests/fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -max_len=4096 -timeout=25 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$build/findings/$target/" \
        ${dictionary:+-dict=tests/fuzz/dictionaries/$dictionary.dict} 2>&1); then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' <<<"$said")
        printf 'ok: fuzz %s: %d inputs\n' "$target" "$runs"
    else
        failed=$((failed + 1))
        printf 'FAILED: fuzz %s\n%s\n' "$target" "$(grep -vE '^#[0-9]+|^INFO|^ *(DE|Running|Compiling|Finished)|DICT' <<<"$said" | tail -n 60)"
    fi
done
printf '%d targets fuzzed in %d s, %d with findings\n' "${#targets[@]}" $((SECONDS - start)) "$failed"
[ "$failed" -eq 0 ]
