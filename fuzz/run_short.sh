#!/usr/bin/env bash
# Builds every fuzz target and runs each for some seconds over its seeds: fuzz/run_short.sh [seconds] [name...]
# A finding ends with exit status 1 and its input under build/fuzz/findings/. New inputs go to build/fuzz/corpus/.
# BUILD=build/other builds elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-10}
shift || true
build=${BUILD:-build/fuzz}

cmake --preset fuzz -B "$build" >/dev/null
cmake --build "$build" -j "${JOBS:-$(nproc)}" --target fuzzers >/dev/null

names=("$@")
if [ ${#names[@]} -eq 0 ]; then
  for source in fuzz/fuzz_*.cc; do names+=("$(basename "$source" .cc | sed 's/^fuzz_//')"); done
fi
mkdir -p "$build/findings"
for name in "${names[@]}"; do
  mkdir -p "$build/corpus/$name"
  seeds=()
  if [ -d "fuzz/corpus/$name" ]; then seeds=("fuzz/corpus/$name"); fi
  log="$build/corpus/$name.log"
  if ! "$build/fuzz/fuzz_$name" -max_total_time="$seconds" -timeout=60 -rss_limit_mb=2048 -print_final_stats=1 \
      -artifact_prefix="$build/findings/$name-" "$build/corpus/$name" "${seeds[@]}" >"$log" 2>&1; then
    tail -40 "$log"
    echo "fuzz_$name: a finding, see $build/findings/"
    exit 1
  fi
  printf 'fuzz_%s: %s runs in %s s, no finding\n' "$name" \
    "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" "$seconds"
done
