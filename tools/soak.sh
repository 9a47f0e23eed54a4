#!/bin/bash
# soak.sh [PART...]: what takes too long for ./dev test. Called by `./dev soak`, after the build. Parts: sim fuzz kills density oracle
# sanitizers; all of them if none is named. Prints the result of each part and ends with 1 if one failed.
#   UDM_SOAK_SEEDS (1000000)      histories for the simulated world
#   UDM_FUZZ_SECONDS (300)        for each fuzzer
#   UDM_KILLS (50)                kill -9 of the daemon under load
#   UDM_SNAPSHOTS (10000)         of one base in one daemon
set -uo pipefail
cd "$(dirname "$0")/.."
jobs=${UDM_JOBS:-$(nproc)}
python=/usr/bin/python3
logs=build/soak
mkdir -p "$logs"

part_sim() { build/release/bin/udm-sim run --seeds "1..${UDM_SOAK_SEEDS:-1000000}"; }

part_fuzz() { ./dev fuzz "${UDM_FUZZ_SECONDS:-300}"; }

part_kills() { UDM_KILLS=${UDM_KILLS:-50} $python -m pytest -q -ra -p no:cacheprovider test/system -k kill; }

part_density() { UDM_SNAPSHOTS=${UDM_SNAPSHOTS:-10000} $python -m pytest -q -ra -s -p no:cacheprovider test/system/test_density.py; }

part_oracle() { UDM_ORACLE=require $python -m pytest -q -ra -p no:cacheprovider test/conformance; }

# The whole suite under both sanitizers: every test program, and the Python tests against sanitized programs.
part_sanitizers() {
    local preset rc=0
    for preset in asan tsan; do
        cmake --preset $preset -DUDM_SANITIZE_ALL=ON >/dev/null && ninja -C build/$preset -j "$jobs" || { rc=1; continue; }
        ctest --test-dir build/$preset -j "$jobs" --timeout 3600 --output-on-failure || rc=1
        UDM_BIN=$PWD/build/$preset/bin UDM_SANITIZER=$preset ASAN_OPTIONS=detect_stack_use_after_return=1 TSAN_OPTIONS="halt_on_error=1 second_deadlock_stack=1" \
            $python -m pytest -q -ra -p no:cacheprovider test/conformance test/system || rc=1
        cmake --preset $preset -DUDM_SANITIZE_ALL=OFF >/dev/null # as ./dev test has it
    done
    return $rc
}

[ $# -gt 0 ] || set -- sim fuzz kills density oracle sanitizers
failed=0
for part in "$@"; do
    declare -F "part_$part" >/dev/null || { echo "soak: no part '$part'; there are sim fuzz kills density oracle sanitizers" >&2; exit 2; }
done
for part in "$@"; do
    start=$SECONDS
    if "part_$part" >"$logs/$part.log" 2>&1; then
        result=passed
    else
        result=FAILED
        failed=1
    fi
    printf '%-12s %6s s   %s   %s\n' "$part" $((SECONDS - start)) "$result" "$(grep -v '^ *$' "$logs/$part.log" | tail -n 1 | cut -c1-90)"
    [ $result = passed ] || tail -n 60 "$logs/$part.log" | sed 's/^/    /'
done
exit $failed
