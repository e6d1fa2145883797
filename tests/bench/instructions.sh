#!/usr/bin/env bash
# Counts the instructions of the pure core's functions with callgrind, at 1 % and 10 % of the large organisation. Unlike
# times, the counts are the same on a busy machine, to half a percent: hash maps are seeded anew in every run.
#
#   tests/bench/instructions.sh                 shows them
#   tests/bench/instructions.sh --compare       … and ends with 1 where one is 2 % off the reference
#   tests/bench/instructions.sh --save          … and makes them the reference, tests/bench/instructions.txt
#   tests/bench/instructions.sh --profile NAME  shows where the instructions of one function go, at 10 %
set -euo pipefail
cd "$(dirname "$0")/../.."

reference=tests/bench/instructions.txt
tolerance=2

for tool in valgrind callgrind_annotate taskset; do
    if ! command -v "$tool" >/dev/null; then
        echo "$tool is missing: install the packages valgrind and util-linux" >&2
        exit 1
    fi
done

program=$(cargo bench --quiet --profile simulation --bench instructions --no-run --message-format json |
    sed -n 's/.*"executable":"\([^"]*instructions[^"]*\)".*/\1/p')
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# On one core there are no threads beside the function that is measured, whose instructions would not be counted.
core=$(taskset -pc $$ | sed 's/.*: *//; s/[-,].*//')

count() { # PERCENT FUNCTIONS
    DUTYBOUND_PERCENT=$1 taskset -c "$core" valgrind --quiet --tool=callgrind --toggle-collect="*measured*$2" \
        --callgrind-out-file="$out/$1" "$program"
}

if [ "${1:-}" = --profile ]; then
    count 10 "${2:?name a function}*"
    callgrind_annotate "$out/10" 2>/dev/null | sed -n '/Ir/,$p' | cut -c1-180 | head -50
    callgrind_annotate --inclusive=yes "$out/10" 2>/dev/null | sed -n '/Ir/,$p' | cut -c1-180 | head -60
    exit
fi

# NAME COUNT
counts() { # PERCENT
    callgrind_annotate --inclusive=yes --threshold=100 "$out/$1" 2>/dev/null |
        sed -nE 's/^ *([0-9,]+) .*instructions::measured::([a-z_]+)( \[.*)?$/\2 \1/p' | tr -d , |
        sort -k1,1 -k2,2nr | sort -u -k1,1 # What is inlined from another file has a line of its own.
}

count 1 '' &
first=$!
count 10 ''
wait "$first"
counts 1 >"$out/small"
counts 10 >"$out/large"
join "$out/small" "$out/large" |
    awk '{ printf "%-36s %14d %14d %6.2f\n", $1, $2, $3, $3 / $2 }' >"$out/table"
[ -s "$out/table" ] || { echo 'callgrind counted nothing' >&2; exit 1; }

head=$(printf '%-36s %14s %14s %6s' function '1 %' '10 %' ratio)
case ${1:-} in
--save)
    {
        echo "# $(rustc --version), $(valgrind --version), $(uname -m), profile simulation"
        echo "# $head"
        cat "$out/table"
    } >"$reference"
    cat "$reference"
    ;;
--compare)
    grep '^#' "$reference" | head -1 | sed 's/^# /the reference: /'
    grep -v '^#' "$reference" | sort >"$out/reference"
    printf '%s %10s %10s\n' "$head" '1 %, off' '10 %, off'
    join -a 1 "$out/table" "$out/reference" | awk -v tolerance="$tolerance" '
        NF < 7 { printf "%-36s %14d %14d %6.2f %21s\n", $1, $2, $3, $4, "not in the reference"; bad = 1; next }
        {
            small = ($2 / $5 - 1) * 100; large = ($3 / $6 - 1) * 100
            printf "%-36s %14d %14d %6.2f %+9.2f%% %+9.2f%%\n", $1, $2, $3, $4, small, large
            if (small > tolerance || small < -tolerance || large > tolerance || large < -tolerance) bad = 1
        }
        END { exit bad }' || { echo "more than $tolerance % off the reference; mend it, or take it over with --save" >&2; exit 1; }
    ;;
'')
    echo "$head"
    cat "$out/table"
    ;;
*)
    echo "unknown option $1" >&2
    exit 1
    ;;
esac
