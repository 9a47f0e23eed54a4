"""LVM2's snapshot scenarios (its test/shell), by its names, on device mapper's level: what LVM asks of the tables.

docs/scenarios.md has the whole list, with what was left out.
"""

import os

import nbd
import pytest

import udmtest
from snapstack import MIB, SECTOR, Stack, Writer, fails, make_file
from volume import Volume

SIZE = 8 * MIB
CHUNK = 8  # sectors
PER_AREA = CHUNK * SECTOR // 16


@pytest.fixture
def stack(daemon, folder):
    return Stack(daemon, folder, SIZE)


def used(status):
    """The allocated sectors of `allocated/total metadata`."""
    return int(status.split("/")[0])


def store_for(size):
    """LVM's maximum: a COW device in which every chunk of the origin finds room."""
    chunks = size // (CHUNK * SECTOR)
    return (chunks + (chunks + PER_AREA) // PER_AREA + 1) * CHUNK * SECTOR


# -------------------------------------------------------------------------------------- snapshot-usage
def test_snapshot_usage_rises_with_what_is_written(stack):
    stack.take("snap")
    assert used(stack.status("snap")) == 2 * CHUNK
    with stack.open("vol") as origin:
        for i in range(1, 9):
            origin.write(i * 100 * CHUNK * SECTOR % SIZE, bytes(CHUNK * SECTOR))
            assert used(stack.status("snap")) == (2 + i) * CHUNK
        origin.write(100 * CHUNK * SECTOR, bytes(CHUNK * SECTOR))  # its old content is kept already
        assert used(stack.status("snap")) == 10 * CHUNK


@pytest.mark.parametrize("kind,written,word", [("P", "vol", "Invalid"), ("PO", "vol", "Invalid"), ("P", "snap", "Invalid"), ("PO", "snap", "Overflow")])
def test_snapshot_usage_of_a_store_that_is_full(stack, kind, written, word):
    stack.take("snap", cow_size=20 * CHUNK * SECTOR, kind=kind)
    with stack.open("vol") as origin, stack.open("snap") as snapshot:
        target = origin if written == "vol" else snapshot
        refused = [fails(target.write, i * CHUNK * SECTOR, b"n" * CHUNK * SECTOR) for i in range(40)]
        assert stack.status("snap") == word
        # A write to the origin is never refused for a snapshot's sake; one to a full snapshot is.
        assert any(refused) == (written == "snap")
        assert fails(snapshot.read, 0, 4096) == (word == "Invalid")
        assert origin.read(0, 512)[:1] == (b"n" if written == "vol" else b"\0")


def test_snapshot_usage_of_an_exabyte(daemon, folder):
    """In chunks of 1 MiB: with those of 4 KiB a volume may have 4 PiB, which is said when it has more."""
    sectors, chunk = 1 << 51, 2048
    make_file(f"{folder}/snap.cow", 64 * MIB)
    daemon.udmsetup("create", "huge", "--table", f"0 {sectors} zero")
    make_file(f"{folder}/small.cow", 8 * MIB)
    small = daemon.udmsetup("create", "snap", "--table", f"0 {sectors} snapshot udm:huge {folder}/small.cow P 8", check=False)
    assert small.returncode == 1 and "1099511627776 chunks" in small.stderr
    daemon.udmsetup("create", "snap", "--table", f"0 {sectors} snapshot udm:huge {folder}/snap.cow P {chunk}")
    with Volume(daemon, "snap") as snapshot:
        assert snapshot.size == sectors * SECTOR
        for offset in (0, (sectors // 2 - 8) * SECTOR, (sectors - 8) * SECTOR):
            snapshot.write(offset, b"far".ljust(4096, b"."))
        snapshot.flush()
    daemon.udmsetup("remove", "snap")
    daemon.udmsetup("create", "snap", "--table", f"0 {sectors} snapshot udm:huge {folder}/snap.cow P {chunk}")
    assert daemon.udmsetup("status", "snap").stdout == f"0 {sectors} snapshot {5 * chunk}/{64 * MIB // SECTOR} {2 * chunk}\n"
    with Volume(daemon, "snap") as snapshot:
        assert snapshot.read((sectors - 8) * SECTOR, 4096) == b"far".ljust(4096, b".")
        assert snapshot.read((sectors - 16) * SECTOR, 4096) == bytes(4096)


# ------------------------------------------------------------------------------------ snapshot-maxsize
def test_snapshot_maxsize_holds_the_whole_origin(stack):
    stack.take("snap", cow_size=store_for(SIZE))
    with stack.open("vol") as origin:
        before = origin.sha256()
        writer = Writer(origin, 1)
        writer.write_all()
        writer.write(20)
        assert stack.status("snap").split("/")[1].split() == [str(store_for(SIZE) // SECTOR), str((SIZE // SECTOR // CHUNK // PER_AREA + 2) * CHUNK)]
    assert stack.sha256("snap") == before
    stack.daemon.udmsetup("remove", "snap")
    stack.daemon.udmsetup("create", "snap", "--table", stack.snapshot_table("snap"))
    assert stack.sha256("snap") == before, "and so after it was read again"


def test_snapshot_maxsize_less_one_is_not_enough(stack):
    stack.take("snap", cow_size=(SIZE // (CHUNK * SECTOR) + SIZE // (CHUNK * SECTOR) // PER_AREA) * CHUNK * SECTOR)
    with stack.open("vol") as origin:
        writer = Writer(origin, 1)
        writer.write_all()
        writer.verify()
    assert stack.status("snap") == "Invalid"


# --------------------------------------------------------------------------------- snapshot-reactivate
def test_snapshot_reactivate(folder):
    """The same content after each of ten deactivations, some of them with the daemon's end."""
    with udmtest.Daemon(folder) as daemon:
        stack = Stack(daemon, folder, SIZE)
        with stack.open("vol") as origin:
            Writer(origin, 1).write(100)
        stack.take("snap", chunk=16)
        with stack.open("vol") as origin:
            Writer(origin, 2).write(100)
        with stack.open("snap") as snapshot:
            Writer(snapshot, 3).write(50)
        contents = stack.sha256("vol"), stack.sha256("snap")
        for turn in range(10):
            for name in ("snap", "vol"):
                daemon.udmsetup("remove", name)
            if turn % 3 == 2:
                daemon.stop()
                daemon.start()
            daemon.udmsetup("create", "vol", "--table", stack.origin_table())
            daemon.udmsetup("create", "snap", "--table", stack.snapshot_table("snap", 16))
            assert (stack.sha256("vol"), stack.sha256("snap")) == contents


# ----------------------------------------------------------------------------- snapshot-remove-dmsetup
def test_snapshot_remove_dmsetup(daemon, folder):
    """A snapshot is taken away without a flush while the device under its origin is suspended: nothing waits for that device, and
    what is written meanwhile goes on afterwards."""
    image, cow = os.path.join(folder, "image"), os.path.join(folder, "snap.cow")
    for path in (image, cow):
        make_file(path, SIZE)
    daemon.udmsetup("create", "low", "--table", f"0 {SIZE // SECTOR} linear {image} 0")
    daemon.udmsetup("create", "vol", "--table", f"0 {SIZE // SECTOR} snapshot-origin udm:low")
    daemon.udmsetup("create", "snap", "--table", f"0 {SIZE // SECTOR} snapshot udm:low {cow} P {CHUNK}")
    with Volume(daemon, "vol") as origin:
        origin.write(0, b"before".ljust(4096, b"."))
        daemon.udmsetup("suspend", "--noflush", "--nolockfs", "low")
        daemon.udmsetup("suspend", "--noflush", "--nolockfs", "vol")
        buffer = nbd.Buffer.from_bytearray(bytearray(b"held".ljust(4096, b".")))
        write = origin.handle.aio_pwrite(buffer, 0)
        daemon.udmsetup("suspend", "--noflush", "--nolockfs", "snap")
        daemon.udmsetup("load", "vol", "--table", f"0 {SIZE // SECTOR} linear udm:low 0")
        daemon.udmsetup("remove", "snap")
        daemon.udmsetup("resume", "vol")
        assert not origin.handle.aio_command_completed(write), "the device below is still suspended"
        daemon.udmsetup("resume", "low")
        udmtest.wait_until(lambda: origin.handle.poll(0) >= 0 and origin.handle.aio_command_completed(write), "the held write to end")
        assert origin.read(0, 4096) == b"held".ljust(4096, b".")
    assert daemon.udmsetup("table", "vol").stdout.strip() == f"0 {SIZE // SECTOR} linear udm:low 0"


# ------------------------------------------------------------------------------------- snapshot-rename
def test_snapshot_rename(stack):
    stack.take("snap")
    with stack.open("vol") as origin:
        Writer(origin, 1).write(50)
    content = stack.sha256("snap")
    stack.daemon.udmsetup("rename", "vol", "renamed-vol")
    stack.daemon.udmsetup("rename", "snap", "renamed-snap")
    with stack.open("renamed-vol") as origin:
        Writer(origin, 2).write(50)
    assert stack.sha256("renamed-snap") == content
    refused = stack.daemon.udmsetup("rename", "renamed-snap", "renamed-vol", check=False)
    assert refused.returncode == 1 and "renamed-vol" in refused.stderr


# ---------------------------------------------------------------------------- lvextend of a snapshot
def test_lvextend_of_a_snapshot_in_use(stack):
    """As lvextend does it: the COW device grows, the table is loaded again and takes the store over."""
    stack.take("snap", cow_size=20 * CHUNK * SECTOR)
    before = stack.sha256("vol")
    with stack.open("vol") as origin:
        for i in range(10):
            origin.write(i * CHUNK * SECTOR, b"a" * 4096)
        os.truncate(stack.cow("snap"), SIZE * 2)
        stack.daemon.udmsetup("load", "snap", "--table", stack.snapshot_table("snap"))
        for name in ("vol", "snap"):
            stack.daemon.udmsetup("suspend", name)
        for name in ("snap", "vol"):
            stack.daemon.udmsetup("resume", name)
        for i in range(10, 1000):
            origin.write(i * CHUNK * SECTOR, b"b" * 4096)
    assert used(stack.status("snap")) > 1000 * CHUNK
    assert stack.status("snap").split("/")[1].split()[0] == str(SIZE * 2 // SECTOR)
    assert stack.sha256("snap") == before
