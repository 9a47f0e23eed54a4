"""Linux takes the snapshot stores that udm writes, with the same status and content; goes on writing; and udm takes them back.

Linux runs in tools/kernel-oracle. Where it can't be had, the store that udm writes is compared with the one that Linux accepted
when the result was recorded (recorded/*.json); a store with other bytes is skipped, since only Linux can judge it.
UDM_ORACLE=require (./dev soak) makes a missing oracle a failure, UDM_ORACLE_RECORD=1 writes the recorded results anew."""

import datetime
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile

import pytest

import pattern
from udmtest import ROOT, Daemon, RpcError, wait_until
from volume import Volume

sys.path.insert(0, os.path.join(ROOT, "tools/kernel-oracle"))

import oracle  # noqa: E402

RECORDED = os.path.join(ROOT, "test/conformance/recorded")
ORIGIN_SEED = 1

# What Linux does with each store, NAME:KIND:CHUNK, on the disks NAME and NAMEcow, all in one machine: says what it sees, writes on, says it
# again, and leaves it clean.
LINUX = r"""
sha() { dd if="$1" bs=1M iflag=direct 2>/dev/null | sha256sum | cut -c1-64; }
up() {
    echo "0 $(blockdev --getsz $disk) snapshot $disk ${disk}cow $kind $chunk" | dmsetup create $s
    echo "0 $(blockdev --getsz $disk) snapshot-origin $disk" | dmsetup create $o
}
down() { dmsetup remove $o; dmsetup remove $s; }
put() { yes "written by Linux, $2" | head -c 4096 | dd of=/dev/mapper/$1 bs=4096 seek="$2" conv=notrunc oflag=direct iflag=fullblock 2>/dev/null; }
judge() {
    disk=/dev/disk/$1 kind=$2 chunk=$3 s=$1-s o=$1-o
    up
    echo "$1 status: $(dmsetup status $s)"
    if [ "$(dmsetup status $s | cut -d' ' -f4)" = Invalid ]; then
        dd if=/dev/mapper/$s of=/dev/null bs=4096 count=1 iflag=direct 2>/dev/null && echo "$1 failed: an invalid snapshot was read"
        down
        return 0
    fi
    echo "$1 snapshot: $(sha /dev/mapper/$s)"
    if [ "$kind" = P ]; then
        for at in 3 700 701 702 1500 2047; do put $o $at; done
        for at in 5 701 900 1501; do put $s $at; done
        echo "$1 status after: $(dmsetup status $s)"
        echo "$1 snapshot after: $(sha /dev/mapper/$s)"
        echo "$1 origin after: $(sha /dev/mapper/$o)"
    fi
    down
}
every_other() {
    turn=$1
    for store in $STORES; do
        turn=$((1 - turn))
        [ $turn = 1 ] || continue
        judge $(echo "$store" | tr : ' ') &
        wait $! || echo "${store%%:*} failed: $?"
    done
}
every_other 0 &
every_other 1 &
wait
"""


@pytest.fixture(scope="session")
def linux():
    """The module `oracle`, or an oracle.NoOracle that says why it can't be had."""
    try:
        oracle.prepare()
        return oracle
    except oracle.NoOracle as reason:
        if os.environ.get("UDM_ORACLE") == "require":
            pytest.fail(f"the kernel oracle is required here: {reason}")
        return reason


def sha256_of_file(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Store:
    """An origin and a COW file, written through udm."""

    def __init__(self, folder, chunk, origin_size, cow_size, kind="P"):
        self.folder, self.chunk, self.size, self.kind = folder, chunk, origin_size // pattern.SECTOR, kind
        self.origin, self.cow = os.path.join(folder, "origin.img"), os.path.join(folder, "cow.img")
        with open(self.origin, "wb") as file:
            file.write(pattern.sectors(ORIGIN_SEED, 0, self.size))
        with open(self.cow, "wb") as file:
            file.truncate(cow_size)
        self.status = self.snapshot = None  # as udm has them, set by look()

    def up(self, daemon, origin=None):
        origin = origin or self.origin
        table = f"0 {self.size} snapshot {origin} {self.cow} {self.kind} {self.chunk}"
        # Linux lets go of the locks of a daemon that was killed some milliseconds after it is gone.
        wait_until(lambda: created(daemon, table), "the store to be free")
        daemon.create("o", f"0 {self.size} snapshot-origin {origin}")

    def down(self, daemon):
        daemon.remove("o")
        daemon.remove("s")

    def look(self, daemon):
        """Loads the store as it is on disk; notes status and content, leaves it."""
        self.up(daemon)
        self.status = daemon.status("s")
        if self.status.endswith("Invalid"):
            self.snapshot = None
            with Volume(daemon, "s") as s:
                assert not s.can_read()
        else:
            with Volume(daemon, "s") as s:
                self.snapshot = s.sha256()
        self.down(daemon)


# ------------------------------------------------------------------------------------------- the stores
def several_areas(chunk, megabytes):
    """Single chunks, parts of chunks and runs in no order, to origin and snapshot, over more than two metadata areas
    (an area holds 32 exceptions for each sector of a chunk)."""

    def make(folder, daemon):
        store = Store(folder, chunk, megabytes << 20, megabytes << 20)
        chance = random.Random(chunk)
        chunks = list(range(store.size // chunk))
        chance.shuffle(chunks)
        store.up(daemon)
        with Volume(daemon, "s") as s, Volume(daemon, "o") as o:
            touched, seed = set(), 100
            while len(touched) < 32 * chunk + 40:
                at, run = chunks.pop(), chance.choice((1, 1, 1, 4, 16))
                first, count = at * chunk, min(run * chunk, store.size - at * chunk)
                if run == 1 and chance.random() < 0.5:
                    first, count = first + chance.randrange(chunk), 1
                seed += 1
                assert chance.choice((s, o)).write_pattern(seed, first, count)
                touched.update(range(first // chunk, (first + count - 1) // chunk + 1))
            s.flush()
        store.down(daemon)
        store.look(daemon)
        return store

    return make


def with_holes(chunk):
    """Killed while copies were under way between finished ones: the store has chunks that nobody refers to."""

    def make(folder, daemon):
        store = Store(folder, chunk, 8 << 20, 8 << 20)
        half = store.size // 2
        # The upper half of the origin can be read only after an hour: copies of it stay under way.
        daemon.create("slow", f"0 {half} linear {store.origin} 0\n{half} {half} delay {store.origin} {half} 3600000")
        store.up(daemon, "udm:slow")

        def allocated():
            return int(daemon.status("s").split()[3].split("/")[0])

        s = Volume(daemon, "s")
        hanging = []
        for i in range(6):
            before = allocated()
            at = (half + i * 4 * chunk) * pattern.SECTOR
            hanging.append(s.handle.aio_pwrite(b"part of a chunk ".ljust(512, b"."), at))
            while s.handle.poll(0) > 0:
                pass
            wait_until(lambda: allocated() > before, "the copy's chunk to be allocated")
            assert s.write_pattern(200 + i, i * 3 * chunk, chunk)
            s.flush()
        daemon.kill()
        daemon.start()
        store.look(daemon)
        with open(store.cow, "rb") as file:
            used = int(store.status.split()[3].split("/")[0]) // chunk
            file.seek(chunk * pattern.SECTOR)
            area = file.read(chunk * pattern.SECTOR)
        entries = [area[i : i + 16] for i in range(0, len(area), 16)]
        new_chunks = [int.from_bytes(e[8:], "little") for e in entries if any(e[8:])]
        assert len(new_chunks) == 6 and used - 2 > len(new_chunks), "there are no holes"
        return store

    return make


def full(kind, chunk):
    """More written than the COW has room for: P becomes invalid, and its store is a header and a hole; PO overflows and still reads."""

    def make(folder, daemon):
        store = Store(folder, chunk, 8 << 20, 40 * chunk * pattern.SECTOR, kind)
        store.up(daemon)
        with Volume(daemon, "s") as s, Volume(daemon, "o") as o:
            assert o.write_pattern(11, 0, 4 * chunk)
            assert s.write_pattern(12, 1024, 3 * chunk)
            if kind == "P":
                assert o.write_pattern(13, 4000, 60 * chunk), "the origin goes on"
            else:
                assert not s.write_pattern(13, 4000, 60 * chunk), "the snapshot is full"
        wanted = "Invalid" if kind == "P" else "Overflow"
        assert daemon.status("s").endswith(wanted)
        store.down(daemon)
        if kind == "P":
            assert os.stat(store.cow).st_blocks * 512 <= max(4096, chunk * pattern.SECTOR), "the space was not given back"
        store.look(daemon)
        return store

    return make


def repaired(chunk, megabytes):
    """Exceptions damaged in every way, and the store repaired with `udm cow repair`."""

    def make(folder, daemon):
        store = several_areas(chunk, megabytes)(folder, daemon)
        per_area = chunk * pattern.SECTOR // 16
        past_end = os.path.getsize(store.cow) // (chunk * pattern.SECTOR)
        damage = [(1, 1, past_end), (5, 5, per_area + 2), (9, 9, 1), (20, 1, 3), (per_area + 3, 2**63, 2**63), (per_area + 4, 7, 2)]
        with open(store.cow, "r+b") as file:
            for index, old, new in damage:
                file.seek(((1 + index // per_area * (per_area + 1)) * chunk * pattern.SECTOR) + index % per_area * 16)
                file.write(old.to_bytes(8, "little") + new.to_bytes(8, "little"))
        faults = json.loads(daemon.udm("--json", "cow", "check", store.cow, check=False).stdout)["faults"]
        assert {"beyond-device", "in-metadata", "cow-twice"} <= set(faults)
        assert len(json.loads(daemon.udm("--json", "cow", "repair", store.cow).stdout)["dropped"]) >= 5
        store.look(daemon)
        return store

    return make


STORES = {
    "chunk8-areas": several_areas(8, 16),
    "chunk16-areas": several_areas(16, 24),
    "chunk64-areas": several_areas(64, 112),
    "chunk8-holes": with_holes(8),
    "chunk16-holes": with_holes(16),
    "chunk64-holes": with_holes(64),
    "chunk8-repaired": repaired(8, 16),
    "chunk16-repaired": repaired(16, 24),
    "chunk8-invalid": full("P", 8),
    "chunk64-invalid": full("P", 64),
    "chunk8-overflow": full("PO", 8),
    "chunk16-overflow": full("PO", 16),
}


# Takes Linux half a minute: in ./dev soak oracle, and where there is no Linux.
LARGE = {"chunk64-areas"}


def said(answer, what):
    (line,) = [line for line in answer.output.splitlines() if line.startswith(what + ": ")]
    return line[len(what) + 2 :]


def created(daemon, table):
    try:
        daemon.create("s", table)
        return True
    except RpcError as error:
        if error.data.get("name") != "EBUSY":
            raise
        return False


def asks_linux(name):
    return name not in LARGE or os.environ.get("UDM_ORACLE") == "require"


class Stand:
    """All stores as udm has made them, and what Linux said of them (None where there is no Linux)."""

    def __init__(self, folder, linux):
        from test_fixtures import Fixture

        self.stores, self.made, disks = {}, {}, {}
        there = not isinstance(linux, oracle.NoOracle)
        for name, make in STORES.items():
            if there and not asks_linux(name):
                continue
            own = os.path.join(folder, name)
            os.mkdir(own)
            with Daemon(own) as daemon:
                store = self.stores[name] = make(own, daemon)
            self.made[name] = {"cow_sha256": sha256_of_file(store.cow), "origin_sha256": sha256_of_file(store.origin)}
            disks |= {name: store.origin, name + "cow": store.cow}
        self.answer = None
        if not there:
            return
        self.fixture = Fixture("snapshot-chunk8-scattered")
        for disk, unpacked in (("fixture", "origin"), ("fixturecow", "cow")):
            disks[disk] = os.path.join(folder, disk)
            self.fixture.unpack(unpacked, disks[disk])
        stores = [f"{name}:{store.kind}:{store.chunk}" for name, store in self.stores.items()]
        self.answer = linux.run(LINUX, disks, {"STORES": " ".join([*stores, "fixture:P:8"])}, 400)
        assert self.answer.status == 0, self.answer.output + self.answer.kernel_log


@pytest.fixture(scope="module")
def stand(linux):
    folder = tempfile.mkdtemp(prefix="udm-")
    try:
        yield Stand(folder, linux)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("name", STORES)
def test_linux_takes_our_store_and_we_take_it_back(name, stand, linux):
    if name not in stand.stores:
        pytest.skip("in ./dev soak oracle")
    store, made, answer = stand.stores[name], stand.made[name], stand.answer
    if answer is None:
        compare_with_recorded(name, made, store, linux)
        return
    assert f"{name} failed" not in answer.output, answer.output + answer.kernel_log
    # The status counts sectors of the COW in use, so it shows where Linux would go on allocating.
    assert said(answer, f"{name} status") == store.status
    recorded = {**made, "status": store.status, "linux": oracle.version(),
                "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat()}
    if store.snapshot is not None:
        assert said(answer, f"{name} snapshot") == store.snapshot
        recorded["snapshot_sha256"] = store.snapshot
    if store.snapshot is not None and store.kind == "P":
        with Daemon(store.folder) as daemon:
            store.look(daemon)
        assert store.status == said(answer, f"{name} status after")
        assert store.snapshot == said(answer, f"{name} snapshot after")
        assert sha256_of_file(store.origin) == said(answer, f"{name} origin after")
        recorded["written_on_by_linux"] = {"status": store.status, "snapshot_sha256": store.snapshot}
    if os.environ.get("UDM_ORACLE_RECORD"):
        os.makedirs(RECORDED, exist_ok=True)
        with open(os.path.join(RECORDED, name + ".json"), "w", encoding="utf-8") as file:
            json.dump(recorded, file, indent=2)
            file.write("\n")


def compare_with_recorded(name, made, store, reason):
    with open(os.path.join(RECORDED, name + ".json"), encoding="utf-8") as file:
        recorded = json.load(file)
    if {key: recorded[key] for key in made} != made:
        pytest.skip(f"the store differs from the one that Linux accepted on {recorded['date']}, and Linux isn't here to judge it: "
                    f"{reason}")
    assert store.status == recorded["status"]
    assert store.snapshot == recorded.get("snapshot_sha256")


def test_the_oracle_gives_the_answers_of_the_fixtures(stand, linux):
    """Linux in the oracle, today, sees in a fixture what Linux saw when it was made."""
    if stand.answer is None:
        pytest.skip(f"no kernel oracle: {linux}")
    assert said(stand.answer, "fixture status") == "0 16384 snapshot 152/8192 16"
    assert said(stand.answer, "fixture snapshot") == stand.fixture.sums["mapped-snapshot-again"]
