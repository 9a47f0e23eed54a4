# demo_lib.sh: what the demos share; sourced by them. A folder of the demo's own, a daemon, commands shown as one would type them, and
# promises that are kept or end the demo with exit status 1. UDM_DEMO_KEEP=1: leaves its folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=$PWD/build/release/bin
PATH=$bin:$PATH:/usr/sbin:/sbin
dir=$(mktemp -d /tmp/udm-demo.XXXXXX)
export UDM_SOCKET=$dir/udmd.sock
started=() # ended at the end, in this order

bold() { printf '\n\033[1m%s\033[0m\n' "$*"; }
shown() { # a command as a user would type it, and what it prints
    printf '\033[36m$ %s\033[0m\n' "$*"
    "$@"
}
promise() { # WHAT COMMAND...
    local what=$1
    shift
    if "$@"; then printf '  \033[32m✓\033[0m %s\n' "$what"; else
        printf '  \033[31m✗\033[0m %s\n' "$what"
        exit 1
    fi
}
until_true() { # WHAT COMMAND...: at most 20 s
    local what=$1 tries=400
    shift
    until "$@" 2>/dev/null; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { echo "demo: waited in vain for $what" >&2; exit 1; }
        sleep 0.05
    done
}

start_daemon() {
    # By itself, not by `shown`: what is ended later must be the daemon's own process.
    printf '\033[36m$ udmd --socket %s --state-dir %s\033[0m\n' "$UDM_SOCKET" "$dir/state"
    udmd --socket "$UDM_SOCKET" --state-dir "$dir/state" >"$dir/udmd.log" 2>&1 &
    started+=($!)
    until_true "the daemon" test -S "$UDM_SOCKET"
}

undo() { :; } # what a demo has to undo before its processes end
cleanup() {
    local rc=$? i
    trap - EXIT
    undo
    for i in ${started[@]+"${started[@]}"}; do kill "$i" 2>/dev/null || true; done
    for i in ${started[@]+"${started[@]}"}; do wait "$i" 2>/dev/null || true; done
    [ -n "${UDM_DEMO_KEEP:-}" ] || rm -rf "$dir"
    if [ $rc = 0 ]; then bold "Everything was as promised, in $SECONDS s. Next: README.md, docs/."; else bold "The demo failed (exit status $rc)."; fi
    exit $rc
}
trap cleanup EXIT
trap 'exit 130' INT TERM
