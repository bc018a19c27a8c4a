#!/usr/bin/env bash
# Feeds every target with changed seeds. Usage: run.sh SECONDS [TARGET…]
# An input that breaks something is kept in target/fuzz/found; the program of the target takes its path to
# repeat it.
set -euo pipefail
cd "$(dirname "$0")"

seconds=$1
shift
root=../..
export CARGO_TARGET_DIR=$root/target/fuzz
# What libFuzzer needs to see which ways an input takes.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
host=$(rustc -vV | sed -n 's/^host: //p')
cargo build --locked --quiet --target "$host" --bins
mkdir -p "$CARGO_TARGET_DIR/found"

[ $# -gt 0 ] || set -- pipeline expression text object csv json message answer webhook copy log sealed
for name in "$@"; do
    seeds=seeds/$name
    [ "$name" = pipeline ] && seeds=$root/crates/spec/tests
    [ "$name" = message ] && seeds=$root/crates/wire/golden
    corpus=$(mktemp -d)
    find "$seeds" -type f ! -name '*.expected' -exec cp --backup=numbered {} "$corpus" \;
    echo "$name: $seconds s from $(find "$corpus" -type f | wc -l) seeds"
    # Ten seconds or a gibibyte for one input is a failure as well.
    "$CARGO_TARGET_DIR/$host/debug/$name" "$corpus" -max_total_time="$seconds" -timeout=10 \
        -rss_limit_mb=1024 -max_len=8192 -artifact_prefix="$CARGO_TARGET_DIR/found/$name-" \
        -print_final_stats=1 2>"$corpus.log" || { tail -n 40 "$corpus.log" >&2; exit 1; }
    grep -h 'number_of_executed_units\|peak_rss' "$corpus.log"
    rm -r "$corpus" "$corpus.log"
done
