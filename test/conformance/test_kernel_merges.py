"""A merge that udm began is finished by Linux, one that Linux began by udm, at several points; contents are equal.

Linux runs in tools/kernel-oracle. Where it can't be had, udm finishes its own merge, and what is left is compared with what Linux left
when the result was recorded (recorded/merge-*.json). UDM_ORACLE and UDM_ORACLE_RECORD as in test_kernel_accepts.py."""

import datetime
import json
import os
import random

import pytest

import pattern
from test_kernel_accepts import RECORDED, Store, linux, oracle, said, sha256_of_file  # noqa: F401 (linux is a fixture)
from udmtest import Daemon, wait_until
from volume import Volume

# Linux merges to the end, or (SECONDS is set) begins on a slow origin and is suspended after so long.
LINUX = r"""
size=$(blockdev --getsz /dev/disk/origin)
sha() { dd if="$1" bs=1M iflag=direct 2>/dev/null | sha256sum | cut -c1-64; }
origin=/dev/disk/origin
if [ -n "$PAUSE" ]; then
    echo "0 $size delay $origin 0 0 $origin 0 50" | dmsetup create slow
    origin=/dev/mapper/slow
fi
echo "0 $size snapshot-merge $origin /dev/disk/cow P $CHUNK" | dmsetup create g
if [ -n "$PAUSE" ]; then
    sleep "$PAUSE"
    dmsetup suspend g
    echo "status: $(dmsetup status g)"
    dmsetup remove g
    dmsetup remove slow
    exit 0
fi
while :; do
    set -- $(dmsetup status g)
    [ "${4%%/*}" = "$5" ] && break
    sleep 0.1
done
echo "status: $(dmsetup status g)"
echo "merged: $(sha /dev/mapper/g)"
dmsetup remove g
"""


def scattered(folder, daemon, chunk, megabytes=16):
    """A store whose chunks lie in many runs, over several areas where chunks are small."""
    store = Store(folder, chunk, megabytes << 20, megabytes << 20)
    chance = random.Random(chunk)
    store.up(daemon)
    with Volume(daemon, "s") as s, Volume(daemon, "o") as o:
        for seed in range(100, 270):
            run = chance.choice((1, 1, 2, 16, 40)) * 8
            first = chance.randrange((store.size - run) // 8) * 8
            assert chance.choice((s, s, o)).write_pattern(seed, first, run)
        s.flush()
        store.snapshot = s.sha256()
    store.down(daemon)
    return store


def used(status):
    allocated, _, metadata = status.split(None, 3)[3].replace("/", " ").split()
    return int(allocated), int(metadata)


def merged(status):
    allocated, metadata = used(status)
    return allocated == metadata


def merge_a_part(daemon, store, part):
    """Suspended and removed when so much is merged; the origin takes 150 ms for each write. Returns the status."""
    daemon.create("slow", f"0 {store.size} delay {store.origin} 0 0 {store.origin} 0 150")
    daemon.create("g", f"0 {store.size} snapshot-merge udm:slow {store.cow} P {store.chunk}")
    first = used(daemon.status("g"))[0]
    wait_until(lambda: used(daemon.status("g"))[0] <= first * (1 - part), f"{part} of the merge")
    daemon.udmsetup("suspend", "g")
    status = daemon.status("g")
    daemon.remove("g")
    daemon.remove("slow")
    return status


def merge_to_the_end(daemon, store):
    daemon.create("g", f"0 {store.size} snapshot-merge {store.origin} {store.cow} P {store.chunk}")
    wait_until(lambda: merged(daemon.status("g")), "the merge's end")
    with Volume(daemon, "g") as g:
        assert g.sha256() == store.snapshot
    daemon.remove("g")
    assert sha256_of_file(store.origin) == store.snapshot


@pytest.mark.parametrize("chunk, part", [(8, 0.1), (16, 0.4), (64, 0.7)])
def test_linux_finishes_a_merge_that_udm_began(chunk, part, linux, folder):  # noqa: F811
    name = f"merge-chunk{chunk}"
    with Daemon(folder) as daemon:
        store = scattered(folder, daemon, chunk)
        status = merge_a_part(daemon, store, part)
        assert not merged(status)
        if isinstance(linux, oracle.NoOracle):
            with open(os.path.join(RECORDED, name + ".json"), encoding="utf-8") as file:
                recorded = json.load(file)
            merge_to_the_end(daemon, store)
            assert store.snapshot == recorded["merged_sha256"]
            if sha256_of_file(store.cow) != recorded["cow_sha256"]:
                pytest.skip(f"its chunks lie otherwise than in the store that Linux merged on {recorded['date']}: {linux}")
            return
        answer = linux.run(LINUX, {"origin": store.origin, "cow": store.cow}, {"CHUNK": str(chunk), "PAUSE": ""}, 300)
        assert answer.status == 0, answer.output + answer.kernel_log
        assert merged(said(answer, "status"))
        assert said(answer, "merged") == store.snapshot
        assert sha256_of_file(store.origin) == store.snapshot
        store.look(daemon)
        assert store.status == said(answer, "status").replace("snapshot-merge", "snapshot")
        if os.environ.get("UDM_ORACLE_RECORD"):
            result = {"begun_by_udm_up_to": status, "status": said(answer, "status"), "merged_sha256": store.snapshot,
                      "cow_sha256": sha256_of_file(store.cow), "linux": oracle.version(),
                      "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat()}
            with open(os.path.join(RECORDED, name + ".json"), "w", encoding="utf-8") as file:
                json.dump(result, file, indent=2)
                file.write("\n")


@pytest.mark.parametrize("chunk, seconds", [(8, 0.5), (16, 2), (64, 3)])
def test_udm_finishes_a_merge_that_linux_began(chunk, seconds, linux, folder):  # noqa: F811
    if isinstance(linux, oracle.NoOracle):
        pytest.skip(f"no kernel oracle: {linux} (test_fixtures.py finishes one that Linux began once)")
    with Daemon(folder) as daemon:
        store = scattered(folder, daemon, chunk)
        content = store.snapshot
        answer = linux.run(LINUX, {"origin": store.origin, "cow": store.cow}, {"CHUNK": str(chunk), "PAUSE": str(seconds)}, 300)
        assert answer.status == 0, answer.output + answer.kernel_log
        assert not merged(said(answer, "status")), "there is nothing left for udm"
        store.look(daemon)
        assert store.snapshot == content
        merge_to_the_end(daemon, store)


# Linux says what it sees in stores of two snapshots, after udm has merged a third.
TWO_SNAPSHOTS = r"""
size=$(blockdev --getsz /dev/disk/origin)
sha() { dd if="$1" bs=1M iflag=direct 2>/dev/null | sha256sum | cut -c1-64; }
for one in a b; do
    echo "0 $size snapshot /dev/disk/origin /dev/disk/$one P 0" | dmsetup create $one
    echo "$one: $(sha /dev/mapper/$one)"
    dmsetup remove $one
done
"""


def test_two_snapshots_with_other_chunk_sizes_keep_their_content_beside_a_merge(linux, folder):  # noqa: F811
    with Daemon(folder) as daemon:
        store = scattered(folder, daemon, 16)
        before = sha256_of_file(store.origin)
        cows = {}
        for name, chunk in (("a", 8), ("b", 64)):
            cows[name] = os.path.join(folder, name + ".cow")
            with open(cows[name], "wb") as file:
                file.truncate(64 << 20)
            daemon.create(name, f"0 {store.size} snapshot {store.origin} {cows[name]} P {chunk}")
        daemon.create("g", f"0 {store.size} snapshot-merge {store.origin} {store.cow} P 16")
        with Volume(daemon, "g") as g:
            assert g.write_pattern(999, 4096, 100)
        wait_until(lambda: merged(daemon.status("g")), "the merge's end")
        with Volume(daemon, "a") as a, Volume(daemon, "b") as b, Volume(daemon, "g") as g:
            assert (a.sha256(), b.sha256()) == (before, before)
            assert g.read(4096 * pattern.SECTOR, 100 * pattern.SECTOR) == pattern.sectors(999, 4096, 100)
        for name in ("g", "a", "b"):
            daemon.remove(name)
        if isinstance(linux, oracle.NoOracle):
            return
        answer = linux.run(TWO_SNAPSHOTS, {"origin": store.origin, **cows}, {}, 300)
        assert answer.status == 0, answer.output + answer.kernel_log
        assert (said(answer, "a"), said(answer, "b")) == (before, before)
