"""Entries behind the end of a store's list, which crashes leave: what Linux makes of them, and that it finds none where udm has been.

Linux runs in tools/kernel-oracle, once for all of it; in `./dev soak oracle` only, since unit tests see that the entries are cleared."""

import os
import shutil
import tempfile
import types

import pytest

from test_kernel_accepts import Store, linux, oracle, said, sha256_of_file  # noqa: F401 (linux is a fixture)
from test_kernel_merges import used as used_sectors
from udmtest import Daemon, wait_until
from volume import Volume

CHUNK = 8  # sectors; an area has 256 entries, a sector of it 32
AREA = 256

# `up` shows a store; `more` overwrites so many chunks of the origin that nobody has written before, from 2048 on.
LINUX = r"""
sha() { dd if="$1" bs=1M iflag=direct 2>/dev/null | sha256sum | cut -c1-64; }
up() {
    disk=/dev/disk/$1
    size=$(blockdev --getsz $disk)
    echo "0 $size snapshot $disk ${disk}cow P 8" | dmsetup create s
    echo "0 $size snapshot-origin $disk" | dmsetup create o
    echo "$1 $2: $(dmsetup status s | cut -d' ' -f4) $(sha /dev/mapper/s)"
}
down() { dmsetup remove o; dmsetup remove s; }
more() { dd if=/dev/zero of=/dev/mapper/o bs=4096 seek=2048 count="$1" conv=notrunc oflag=direct 2>/dev/null; }
for one in left cleared; do
    up $one first
    more 22
    down
    up $one again
    down
done
up torn first
more 400
down
up torn again
down
size=$(blockdev --getsz /dev/disk/merged)
echo "0 $size snapshot-merge /dev/disk/merged /dev/disk/mergedcow P 8" | dmsetup create g
while :; do
    set -- $(dmsetup status g)
    [ "${4%%/*}" = "$5" ] && break
    sleep 0.1
done
echo "merged end: $(sha /dev/mapper/g)"
dmsetup remove g
"""


def store_of(folder, daemon, count):
    """With `count` exceptions, of the chunks from 0 on, in this order; half of them written in the snapshot."""
    os.mkdir(folder)
    store = Store(folder, CHUNK, 16 << 20, 16 << 20)
    store.up(daemon)
    with Volume(daemon, "s") as s, Volume(daemon, "o") as o:
        for chunk in range(0, count, 2):
            assert s.write_pattern(5, chunk * CHUNK, CHUNK) and o.write_pattern(6, (chunk + 1) * CHUNK, CHUNK)
        s.flush()
        store.snapshot = s.sha256()
    store.down(daemon)
    return store


def merge_a_batch(daemon, store):
    """The last 256 exceptions (1 MiB)."""
    daemon.create("slow", f"0 {store.size} delay {store.origin} 0 0 {store.origin} 0 150")
    daemon.create("g", f"0 {store.size} snapshot-merge udm:slow {store.cow} P {CHUNK}")
    daemon.udmsetup("message", "g", "0", "merge_pause")
    first = used_sectors(daemon.status("g"))[0]
    wait_until(lambda: used_sectors(daemon.status("g"))[0] < first, "the batch to be merged")
    daemon.udmsetup("suspend", "g")
    daemon.remove("g")
    daemon.remove("slow")


def area_of(store, number):
    with open(store.cow, "rb") as file:
        file.seek((1 + number * (AREA + 1)) * 4096)
        return file.read(4096)


def put_area(store, number, content, at=0):
    with open(store.cow, "r+b") as file:
        file.seek((1 + number * (AREA + 1)) * 4096 + at)
        file.write(content)


def leave_entries(store):
    """As if a commit of 30 more had reached the disk with its second sector only: entries 32 to 39, for chunks 32 to 39 of the origin."""
    entries = b"".join((e).to_bytes(8, "little") + (2 + e).to_bytes(8, "little") for e in range(32, 40))
    put_area(store, 0, entries, 512)


@pytest.fixture(scope="module")
def stand(linux):  # noqa: F811
    """The stores as Linux got them, what their snapshots should show, and what Linux said."""
    if isinstance(linux, oracle.NoOracle):
        pytest.skip(f"no kernel oracle: {linux}")
    if os.environ.get("UDM_ORACLE") != "require":
        pytest.skip("in ./dev soak oracle")
    folder = tempfile.mkdtemp(prefix="udm-")
    try:
        with Daemon(folder) as daemon:
            stores = {name: store_of(os.path.join(folder, name), daemon, 10) for name in ("left", "cleared")}
            for store in stores.values():
                leave_entries(store)
            stores["cleared"].look(daemon)  # udm has it for a moment, and writes nothing
            assert not any(area_of(stores["cleared"], 0)[512:])
            for name in ("torn", "merged"):
                store = stores[name] = store_of(os.path.join(folder, name), daemon, 700)
                old = area_of(store, 2)
                assert any(old)
                merge_a_batch(daemon, store)
                assert not any(area_of(store, 2)) and any(area_of(store, 1)[:16]), "the list should end within area 1"
                put_area(store, 2, old)  # a power cut that lost the clearing of the area that went first
        disks = {name + cow: path for name, store in stores.items() for cow, path in (("", store.origin), ("cow", store.cow))}
        answer = linux.run(LINUX, disks, {}, 300)
        assert answer.status == 0, answer.output + answer.kernel_log
        yield types.SimpleNamespace(stores=stores, answer=answer)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def used(stand, what):
    return int(said(stand.answer, what).split("/")[0]) // CHUNK


def content(stand, what):
    return said(stand.answer, what).split()[1]


def test_linux_brings_entries_to_life_once_its_list_has_grown_up_to_them(stand):
    """The reason why udm clears them."""
    assert used(stand, "left first") == 2 + 10
    assert content(stand, "left first") == stand.stores["left"].snapshot
    assert used(stand, "left again") == 2 + 40, "22 were added"


def test_linux_finds_no_entries_where_udm_has_loaded_the_store(stand):
    assert used(stand, "cleared first") == 2 + 10
    assert used(stand, "cleared again") == 2 + 32
    assert content(stand, "cleared again") == stand.stores["cleared"].snapshot


def test_linux_goes_on_with_a_store_of_which_a_merge_was_cut_off(stand):
    """An area that should have been cleared, and was not, is never reached: Linux clears it before it fills the one before."""
    assert content(stand, "torn first") == stand.stores["torn"].snapshot
    assert content(stand, "torn again") == stand.stores["torn"].snapshot
    assert used(stand, "torn again") > used(stand, "torn first")


def test_linux_ends_a_merge_that_was_cut_off(stand):
    assert said(stand.answer, "merged end") == stand.stores["merged"].snapshot
    assert sha256_of_file(stand.stores["merged"].origin) == stand.stores["merged"].snapshot
