#!/bin/bash
# demo.sh: the main job of udm on real input, shown. Makes an ext4 image with files in it, serves it, mounts it where that is
# possible, takes a snapshot while files are written, and shows that the snapshot is whole and old while the volume has the new.
# Called by `./dev demo`. Ends by itself; exit status 0 only if everything was as promised. UDM_DEMO_MOUNT=no: as where nothing
# can be mounted.
. "$(dirname "$0")/demo_lib.sh"
mounted=() loops=() fuse=()

undo() {
    local i
    touch "$dir/stop"
    for ((i = ${#mounted[@]} - 1; i >= 0; i--)); do umount "${mounted[i]}" 2>/dev/null || umount -l "${mounted[i]}" 2>/dev/null || true; done
    for i in ${loops[@]+"${loops[@]}"}; do losetup -d "$i" 2>/dev/null || true; done
    for i in ${fuse[@]+"${fuse[@]}"}; do fusermount3 -u "$i" 2>/dev/null || true; done
}

# attach NAME URI: the export as a block device: a loop device on the file that nbdfuse makes of it. (Not the file itself: what
# writes single bytes to it, as e2fsck does, would send NBD requests that are no whole sectors.) Sets attached.
attach() {
    mkdir -p "$dir/$1"
    nbdfuse "$dir/$1/disk" "$2" >>"$dir/nbdfuse.log" 2>&1 &
    started+=($!)
    fuse+=("$dir/$1")
    until_true "nbdfuse to show $1" test -f "$dir/$1/disk"
    attached=$(losetup -f --show "$dir/$1/disk" 2>>"$dir/nbdfuse.log") || return 1
    loops+=("$attached")
}
mount_image() { # DEVICE WHERE
    mkdir -p "$2"
    mount "$1" "$2"
    mounted+=("$2")
}
unmount_image() {
    umount "$1"
    local i kept=()
    for i in ${mounted[@]+"${mounted[@]}"}; do [ "$i" = "$1" ] || kept+=("$i"); done
    mounted=(${kept[@]+"${kept[@]}"})
}
check_file_system() { # FILE: e2fsck -fn must find nothing to say but its passes and its summary
    local said
    said=$(e2fsck -fn "$1" 2>&1) || { echo "$said"; return 1; }
    sed 's/^/  | /' <<<"$said"
    ! grep -qvE '^(e2fsck [0-9]|Pass [1-5]: Checking|.*: [0-9]+/[0-9]+ files|$)' <<<"$said"
}

bold "1. A real image: ext4, with the text files of this project in it"
mkdir "$dir/files"
cp -r README.md docs src "$dir/files/" 2>/dev/null || true
echo "written before the snapshot" >"$dir/files/letter.txt"
truncate -s 128M "$dir/disk.img"
shown mke2fs -q -t ext4 -L demo -d "$dir/files" "$dir/disk.img"

bold "2. Served: one command from a file to a volume"
start_daemon
printf '\033[36m$ udm serve disk.img --name vol\033[0m\n'
udm serve "$dir/disk.img" --name vol >"$dir/serve.log" 2>&1 &
started+=($!)
until_true "the volume's URI" grep -q '^nbd' "$dir/serve.log"
uri=$(grep -m 1 '^nbd' "$dir/serve.log")
echo "$uri"
promise "a client sees an export of 128 MiB" test "$(nbdinfo --size "$uri")" = $((128 << 20))

can_mount=no
if [ "${UDM_DEMO_MOUNT:-yes}" = yes ] && [ "$(id -u)" = 0 ] && [ -c /dev/fuse ] && [ -e /dev/loop-control ] && command -v nbdfuse >/dev/null; then
    if attach origin "$uri" && mount_image "$attached" "$dir/mnt" 2>>"$dir/nbdfuse.log"; then can_mount=yes; else
        echo "  (mounting is not possible here: $(head -n 1 "$dir/nbdfuse.log"))"
    fi
else
    echo "  (no root, /dev/fuse or loop device here: the volume is changed with nbdcopy instead of through a mount)"
fi

if [ $can_mount = yes ]; then
    bold "3. Mounted through nbdfuse and a loop device, and written all the time"
    shown df -h "$dir/mnt" | sed 's/^/  /'
    # A line, made durable, then the next: so the last whole line in the snapshot says when it was taken.
    (
        i=0
        while [ ! -e "$dir/stop" ]; do
            i=$((i + 1))
            echo "line $i" >>"$dir/mnt/diary.txt"
            head -c 20000 /dev/urandom >"$dir/mnt/file-$((i % 50))"
            sync -d "$dir/mnt/diary.txt"
        done
    ) &
    writer=$!
    started+=($writer)
    until_true "the writer's first lines" grep -q 'line 20' "$dir/mnt/diary.txt"

    bold "4. A snapshot, under the writer's hands"
    before=$(wc -l <"$dir/mnt/diary.txt")
    shown udm snapshot take vol=then --cow-dir "$dir" --size 50%
    after=$(wc -l <"$dir/mnt/diary.txt")
    until_true "the writer to go on" grep -q "line $((after + 20))" "$dir/mnt/diary.txt"
    echo "written after the snapshot" >"$dir/mnt/letter.txt"
    touch "$dir/stop"
    wait $writer
    sync -f "$dir/mnt/letter.txt"
    shown udm snapshot list

    bold "5. The snapshot's file system, as a machine would find it after a power cut at that instant"
    shown udm export then "nbd+unix:///then?socket=$dir/then.sock"
    attach snapshot "nbd+unix:///then?socket=$dir/then.sock"
    echo "The journal is replayed on the snapshot, which can be written:"
    printf '\033[36m$ e2fsck -fy %s\033[0m\n' "$attached"
    e2fsck -fy "$attached" 2>&1 | sed 's/^/  | /' || [ "${PIPESTATUS[0]}" = 1 ] # 1: something was repaired
    sync "$attached"
    promise "e2fsck -fn has no complaint" check_file_system "$attached"
    mount_image "$attached" "$dir/mnt-then"
    lines=$(grep -c '^line [0-9]*$' "$dir/mnt-then/diary.txt")
    promise "the diary had $lines lines then (between $before and $after when asked), and has $(wc -l <"$dir/mnt/diary.txt") now" \
        test "$lines" -ge $((before - 1)) -a "$lines" -le $((after + 1)) # the newest line may not be durable yet
    shown cat "$dir/mnt-then/letter.txt"
    shown cat "$dir/mnt/letter.txt"
    promise "the snapshot has the old letter" grep -q before "$dir/mnt-then/letter.txt"
    promise "the volume has the new one" grep -q after "$dir/mnt/letter.txt"
    promise "the project's files are the same in both" diff -r "$dir/files/src" "$dir/mnt-then/src"
    unmount_image "$dir/mnt-then"
    unmount_image "$dir/mnt"
    promise "and the volume itself, unmounted, is whole" check_file_system "${loops[0]}"
else
    bold "3. A snapshot while the volume is written, then new files in it"
    cp "$dir/disk.img" "$dir/old.img"
    cp "$dir/disk.img" "$dir/new.img"
    echo "written after the snapshot" >"$dir/letter.txt"
    { echo "rm letter.txt"; echo "write $dir/letter.txt letter.txt"; for i in $(seq 50); do echo "write $bin/udm file-$i"; done; } |
        debugfs -w -f - "$dir/new.img" >/dev/null 2>&1
    # Written all the time, with what is there anyway: so the snapshot must be the old image wherever the writer was.
    until [ -e "$dir/stop" ]; do nbdcopy "$dir/old.img" "$uri"; done &
    writer=$!
    started+=($writer)
    shown udm snapshot take vol=then --cow-dir "$dir" --size 110%
    touch "$dir/stop"
    wait $writer
    shown nbdcopy "$dir/new.img" "$uri"
    shown udm snapshot list
    shown udm export then "nbd+unix:///then?socket=$dir/then.sock"

    bold "4. The snapshot is as it was, the volume is new"
    nbdcopy "nbd+unix:///then?socket=$dir/then.sock" "$dir/then.img"
    nbdcopy "$uri" "$dir/now.img"
    promise "the snapshot is the old image, byte for byte" cmp "$dir/then.img" "$dir/old.img"
    promise "the volume is the new one" cmp "$dir/now.img" "$dir/new.img"
    promise "e2fsck -fn has no complaint about the snapshot" check_file_system "$dir/then.img"
    promise "the snapshot has the old letter" grep -q before <(debugfs -R "cat letter.txt" "$dir/then.img" 2>/dev/null)
    promise "the volume has the new one" grep -q after <(debugfs -R "cat letter.txt" "$dir/now.img" 2>/dev/null)
fi

bold "6. The same in the words of dmsetup"
shown udmsetup table
shown udmsetup status
