#!/bin/bash
# run_fuzzer.sh PROGRAM CORPUS [MAX_LEN]: one fuzzer for $UDM_FUZZ_SECONDS (10), from CORPUS; what it finds new stays in the build
# folder (PROGRAM.corpus), what breaks it is kept as PROGRAM.crash-… and named in the output.
set -eu
program=$1 corpus=$2 max_len=${3:-}
mkdir -p "$program.corpus"
folders=("$program.corpus")
[ ! -d "$corpus" ] || folders+=("$corpus")
exec "$program" "${folders[@]}" -max_total_time="${UDM_FUZZ_SECONDS:-10}" -timeout=10 -rss_limit_mb=2048 \
    ${max_len:+-max_len="$max_len"} -print_final_stats=1 -artifact_prefix="$program.crash-" -verbosity=1
