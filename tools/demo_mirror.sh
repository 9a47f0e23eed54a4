#!/bin/bash
# demo_mirror.sh: what a mirror is for, on a real daemon under verified load. One leg is a file, the other an NBD export of nbdkit, as on
# another host. The server is killed while a client writes, the volume goes on, the server comes back, and only what it
# missed is copied; at the end the legs are compared byte for byte. Called by `./dev demo mirror`. Ends by itself; exit status 0 only if
# everything was as promised.
. "$(dirname "$0")/demo_lib.sh"

MIB=1048576
size_mib=256 region_kib=512
# Where the client writes: two places of the volume, in sectors; and how many regions those are.
places=("65536 32768" "393216 16384")
touched=$(((32768 + 16384) / (region_kib * 2)))

of_mirror() { # EXPRESSION of Python about m, which is what table.regions says of vol
    udm --json mirror show vol | /usr/bin/python3 -c "import json, sys; m = json.load(sys.stdin)[0]; print($1)"
}
is_of_mirror() { [ "$(of_mirror "$1")" = True ]; }
start_far() {
    rm -f "$dir/far.sock"
    printf '\033[36m$ nbdkit --unix far.sock file far.img\033[0m\n'
    nbdkit -f --unix "$dir/far.sock" file "$dir/far.img" >>"$dir/nbdkit.log" 2>&1 &
    far=$!
    started+=($far)
    until_true "nbdkit" test -S "$dir/far.sock"
}
ask_load() { # COMMAND: one line of answer, in $said
    echo "$1" >&"${LOAD[1]}"
    read -r -t 60 said <&"${LOAD[0]}" || { echo "demo: the client has ended" >&2; exit 1; }
}
written() { # how many writes were acknowledged so far
    ask_load status
    local words=${said#*acknowledged=}
    acknowledged=${words%% *}
}

bold "1. Two places for the same data: a file here, and an export of another server"
head -c $((size_mib * MIB)) /dev/urandom >"$dir/near.img"
truncate -s ${size_mib}M "$dir/far.img"
start_far
start_daemon
far_uri="nbd+unix:///?socket=$dir/far.sock"
shown udm mirror create vol "$dir/near.img" "$far_uri" --overwrite --region ${region_kib}K
# For the eyes: else it is over at once.
shown udm set vol resync_rate=64M nbd_timeout=1

bold "2. The first copy. The volume could be used meanwhile"
shown udm mirror show vol --until-sync --for 60 --interval 0.5

bold "3. A client writes and reads over NBD, and checks all that it reads"
udm create client --table "$(at=0; for place in "${places[@]}"; do echo "$at ${place#* } linear udm:vol ${place% *}"; at=$((at + ${place#* })); done)"
shown udm export client "nbd+unix:///client?socket=$dir/client.sock"
crash_load --fill "$dir/start.img" $(((32768 + 16384) / 2))K
nbdcopy "$dir/start.img" "nbd+unix:///client?socket=$dir/client.sock"
until_true "the legs to rest" is_of_mirror 'm["dirty"] == 0'
coproc LOAD { exec crash_load --journal "$dir/journal" --connections 1 --depth 4 "client=nbd+unix:///client?socket=$dir/client.sock" 2>"$dir/load.log"; }
started+=("$LOAD_PID")
read -r -t 20 said <&"${LOAD[0]}" # it is ready
shown udm mirror show vol --for 2 --interval 0.5

bold "4. The other server is killed"
written
before=$acknowledged
printf '\033[36m$ kill -9 %s   # nbdkit\033[0m\n' "$far"
kill -9 "$far"
wait "$far" 2>/dev/null || true
until_true "the mirror to notice" is_of_mirror 'm["legs"][1]["away"]'
shown udm mirror show vol --for 3 --interval 0.5
written
promise "the client goes on: $((acknowledged - before)) writes acknowledged since, and no error" test $((acknowledged - before)) -gt 100
missed=$(of_mirror 'm["legs"][1]["lacks"]')
promise "the leg that is away misses $missed of $(of_mirror 'm["regions"]') regions: of those $touched that the client writes to" test "$missed" -ge 1 -a "$missed" -le $touched
copied=$(of_mirror 'm["details"].get("resync_copied_bytes", 0)')

bold "5. It comes back, and gets what it missed: by itself, while the client writes"
shown udm set vol resync_rate=8M
start_far
shown udm mirror show vol --until-sync --for 40 --interval 0.5
copied=$(($(of_mirror 'm["details"]["resync_copied_bytes"]') - copied))
# Of the 16 that are copied at a time those count twice that a write of before the return was still under way to.
promise "$((copied / 1024)) KiB of $((size_mib * 1024)) KiB were copied: what the client has written to, and no more" \
    test $copied -ge $((missed * region_kib * 1024)) -a $copied -le $(((touched + 16) * region_kib * 1024))

bold "6. Was anything lost?"
ask_load finish
read -r -t 60 said <&"${LOAD[0]}"
losses=${said#*losses=}
promise "the client has read back all that it wrote ($(grep -o 'acknowledged=[0-9]*' <<<"$said" | cut -d= -f2) writes), and met no error" test "${losses%% *}" = 0
shown udm remove --unexport client
shown udm remove vol
kill "$far"
wait "$far" 2>/dev/null || true
promise "both legs are equal, byte for byte" cmp "$dir/near.img" "$dir/far.img"
