"""A merge that udm began is finished by Linux, one that Linux began by udm, at several points; contents are equal.

Linux runs in tools/kernel-oracle. Where it can't be had, udm finishes its own merge, and what is left is compared with what Linux left
when the result was recorded (recorded/merge-*.json). UDM_ORACLE and UDM_ORACLE_RECORD as in test_kernel_accepts.py."""

import datetime
import json
import os
import random
import shutil
import tempfile

import pytest

import pattern
from test_kernel_accepts import RECORDED, Store, linux, oracle, said, sha256_of_file  # noqa: F401 (linux is a fixture)
from udmtest import Daemon, wait_until
from volume import Volume

# For each chunk size: the part that udm merges before Linux does the rest, and for how many seconds Linux merges (on a slow origin,
# then it is suspended) before udm does.
POINTS = {8: (0.1, 0.5), 16: (0.4, 2), 64: (0.7, 3)}

# All in one machine: disk `udm8` is the origin of the merge with chunks of 8 that udm began, `linux8` of the one that Linux begins, and
# `base` of what udm has merged beside the snapshots `a` and `b`.
LINUX = r"""
sha() { dd if="$1" bs=1M iflag=direct 2>/dev/null | sha256sum | cut -c1-64; }
finish() {
    disk=/dev/disk/udm$1
    echo "0 $(blockdev --getsz $disk) snapshot-merge $disk ${disk}cow P $1" | dmsetup create g$1
    while :; do
        set -- "$1" $(dmsetup status g$1)
        [ "${5%%/*}" = "$6" ] && break
        sleep 0.1
    done
    echo "udm$1 status: $(dmsetup status g$1)"
    echo "udm$1 merged: $(sha /dev/mapper/g$1)"
    dmsetup remove g$1
}
begin() {
    disk=/dev/disk/linux$1
    size=$(blockdev --getsz $disk)
    echo "0 $size delay $disk 0 0 $disk 0 50" | dmsetup create slow$1
    echo "0 $size snapshot-merge /dev/mapper/slow$1 ${disk}cow P $1" | dmsetup create g$1
    sleep "$2"
    dmsetup suspend g$1
    echo "linux$1 status: $(dmsetup status g$1)"
    dmsetup remove g$1
    dmsetup remove slow$1
}
for point in $POINTS; do
    finish "${point%%:*}" &
done
wait
for point in $POINTS; do
    begin "${point%%:*}" "${point#*:}" &
done
wait
for one in a b; do
    echo "0 $(blockdev --getsz /dev/disk/base) snapshot /dev/disk/base /dev/disk/$one P 0" | dmsetup create $one
    echo "$one: $(sha /dev/mapper/$one)"
    dmsetup remove $one
done
"""


def scattered(folder, daemon, chunk, megabytes=16):
    """A store whose chunks lie in many runs, over several areas where chunks are small."""
    os.mkdir(folder)
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


def merge_beside_snapshots(folder, daemon):
    """udm merges a store of the origin, which has two other snapshots. Returns the disks, and what those read."""
    store = scattered(folder, daemon, 16)
    before = sha256_of_file(store.origin)
    disks = {"base": store.origin}
    for name, chunk in (("a", 8), ("b", 64)):
        disks[name] = os.path.join(folder, name + ".cow")
        with open(disks[name], "wb") as file:
            file.truncate(64 << 20)
        daemon.create(name, f"0 {store.size} snapshot {store.origin} {disks[name]} P {chunk}")
    daemon.create("g", f"0 {store.size} snapshot-merge {store.origin} {store.cow} P 16")
    with Volume(daemon, "g") as g:
        assert g.write_pattern(999, 4096, 100)
    wait_until(lambda: merged(daemon.status("g")), "the merge's end")
    with Volume(daemon, "a") as a, Volume(daemon, "b") as b, Volume(daemon, "g") as g:
        assert (a.sha256(), b.sha256()) == (before, before)
        assert g.read(4096 * pattern.SECTOR, 100 * pattern.SECTOR) == pattern.sectors(999, 4096, 100)
    for name in ("g", "a", "b"):
        daemon.remove(name)
    return disks, before


class Stand:
    """All stores as udm has left them, and what Linux said when it had done its part with them (None where there is no Linux)."""

    def __init__(self, folder, daemon, linux):
        self.daemon = daemon
        self.begun, self.status, self.whole = {}, {}, {}
        for chunk, (part, _) in POINTS.items():
            self.begun[chunk] = scattered(os.path.join(folder, f"udm{chunk}"), daemon, chunk)
            self.status[chunk] = merge_a_part(daemon, self.begun[chunk], part)
            self.whole[chunk] = scattered(os.path.join(folder, f"linux{chunk}"), daemon, chunk)
        disks, self.beside = merge_beside_snapshots(os.path.join(folder, "beside"), daemon)
        self.answer = None
        if isinstance(linux, oracle.NoOracle):
            return
        for who, stores in (("udm", self.begun), ("linux", self.whole)):
            for chunk, store in stores.items():
                disks |= {f"{who}{chunk}": store.origin, f"{who}{chunk}cow": store.cow}
        points = " ".join(f"{chunk}:{seconds}" for chunk, (_, seconds) in POINTS.items())
        self.answer = linux.run(LINUX, disks, {"POINTS": points}, 300)
        assert self.answer.status == 0, self.answer.output + self.answer.kernel_log


@pytest.fixture(scope="module")
def stand(linux):  # noqa: F811
    folder = tempfile.mkdtemp(prefix="udm-")
    try:
        with Daemon(folder) as daemon:
            yield Stand(folder, daemon, linux)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("chunk", POINTS)
def test_linux_finishes_a_merge_that_udm_began(chunk, stand, linux):  # noqa: F811
    name, store, answer = f"merge-chunk{chunk}", stand.begun[chunk], stand.answer
    assert not merged(stand.status[chunk])
    if answer is None:
        with open(os.path.join(RECORDED, name + ".json"), encoding="utf-8") as file:
            recorded = json.load(file)
        merge_to_the_end(stand.daemon, store)
        assert store.snapshot == recorded["merged_sha256"]
        if sha256_of_file(store.cow) != recorded["cow_sha256"]:
            pytest.skip(f"its chunks lie otherwise than in the store that Linux merged on {recorded['date']}: {linux}")
        return
    status = said(answer, f"udm{chunk} status")
    assert merged(status)
    assert said(answer, f"udm{chunk} merged") == store.snapshot
    assert sha256_of_file(store.origin) == store.snapshot
    if os.environ.get("UDM_ORACLE_RECORD"):
        result = {"begun_by_udm_up_to": stand.status[chunk], "status": status, "merged_sha256": store.snapshot,
                  "cow_sha256": sha256_of_file(store.cow), "linux": oracle.version(),
                  "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat()}
        with open(os.path.join(RECORDED, name + ".json"), "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)
            file.write("\n")
    store.look(stand.daemon)
    assert store.status == status.replace("snapshot-merge", "snapshot")


@pytest.mark.parametrize("chunk", POINTS)
def test_udm_finishes_a_merge_that_linux_began(chunk, stand, linux):  # noqa: F811
    if stand.answer is None:
        pytest.skip(f"no kernel oracle: {linux} (test_fixtures.py finishes one that Linux began once)")
    store = stand.whole[chunk]
    content = store.snapshot
    assert not merged(said(stand.answer, f"linux{chunk} status")), "there is nothing left for udm"
    store.look(stand.daemon)
    assert store.snapshot == content
    merge_to_the_end(stand.daemon, store)


def test_two_snapshots_with_other_chunk_sizes_keep_their_content_beside_a_merge(stand):
    if stand.answer is not None:
        assert (said(stand.answer, "a"), said(stand.answer, "b")) == (stand.beside, stand.beside)
