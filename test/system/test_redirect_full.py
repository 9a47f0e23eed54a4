"""Redirected volumes whose store gets full: what was flushed stays, and writes go on when there is room."""

import errno
import os
import subprocess

import nbd
import pytest

from snapstack import MIB, SECTOR
from udmtest import Daemon, wait_until
from volume import Volume

SIZE = 64 * MIB
PIECE = 256 * 1024


@pytest.fixture
def daemon(folder):
    """`vol`, linear over a file with random content."""
    with open(f"{folder}/image", "xb") as file:
        file.write(os.urandom(SIZE))
    with Daemon(folder, state_dir=True) as running:
        running.create("vol", f"0 {SIZE // SECTOR} linear {folder}/image 0")
        yield running


@pytest.fixture
def small_disk(folder):
    """A file system of 20 MiB."""
    where = f"{folder}/small"
    os.mkdir(where)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20M", "tmpfs", where], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield where
    subprocess.run(["umount", where], check=True)


class Story:
    """Pieces that are written and flushed one after the other, and what must be there."""

    def __init__(self, daemon, folder):
        self.daemon = daemon
        with open(f"{folder}/image", "rb") as file:
            self.content = bytearray(file.read())

    def write(self, volume, at):
        """True when it is written and flushed; False when there was no room for one or the other."""
        data = os.urandom(PIECE)
        try:
            volume.write(at, data)
            volume.flush()
        except nbd.Error as error:
            assert error.errnum == errno.ENOSPC, f"at {at}: {error}"
            return False
        self.content[at : at + PIECE] = data
        return True

    def fill(self, first=0):
        """Until something does not fit; where that is."""
        with Volume(self.daemon, "vol") as volume:
            for at in range(first, SIZE, PIECE):
                if not self.write(volume, at):
                    return at
        raise AssertionError("it never got full")

    def write_when_there_is_room(self, at):
        """It is looked for once a second."""
        with Volume(self.daemon, "vol") as volume:
            wait_until(lambda: self.write(volume, at), f"room for what is at {at}")

    def check(self, but=None):
        """`but`: where a write failed, which may be there or not."""
        with Volume(self.daemon, "vol") as volume:
            for at in range(0, SIZE, PIECE):
                if at != but:
                    assert volume.read(at, PIECE) == self.content[at : at + PIECE], f"at {at}"


def test_a_store_that_is_full_keeps_all_and_goes_on_when_it_is_larger(daemon, folder):
    said = daemon.udm("snapshot", "take", "vol=still", "--redirect", "--size", "8M").stdout
    assert "udm set VOLUME auto_extend" in said
    store = f"{folder}/still.cow"
    assert " PO 8" in daemon.table("vol-live")
    story = Story(daemon, folder)
    full = story.fill()
    assert 6 * MIB < full < 8 * MIB
    assert "Overflow" in daemon.status("vol-live")
    story.check(but=full)
    listed = daemon.udm("ls").stdout
    assert [line.split()[3] for line in listed.splitlines() if line.startswith("vol ")][0] == "overflow", listed
    assert f"vol overflows: there is no room in its store {store}" in listed
    assert "vol overflows" in daemon.udm("show", "vol").stdout
    with Volume(daemon, "vol") as volume:
        assert story.write(volume, 0), "what it has of its own is written on"
    daemon.kill()
    daemon.start()
    story.check(but=full)
    assert story.fill(full) == full
    os.truncate(store, 16 * MIB)
    full = story.fill(full)
    assert 13 * MIB < full < 16 * MIB
    daemon.kill()
    daemon.start()
    story.check(but=full)
    os.truncate(store, 80 * MIB)
    with Volume(daemon, "vol") as volume:
        assert all(story.write(volume, at) for at in range(full, SIZE, PIECE))
    assert "Overflow" not in daemon.status("vol-live")
    story.check()
    daemon.udm("snapshot", "drop", "still")
    story.check()
    assert not os.path.exists(store)


def test_a_store_grows_by_what_is_set_for_the_volume(daemon, folder):
    daemon.udm("snapshot", "take", "vol=monday", "--redirect", "--size", "8M")
    story = Story(daemon, folder)
    full = story.fill()
    assert daemon.udm("set", "vol", "auto_extend=8M").stdout == "auto_extend=8M\n"
    with Volume(daemon, "vol") as volume:
        assert all(story.write(volume, at) for at in range(full, 24 * MIB, PIECE))
    assert 24 * MIB < os.path.getsize(f"{folder}/monday.cow") < 48 * MIB
    daemon.udm("snapshot", "take", "vol=tuesday", "--redirect", "--size", "8M")    # the next layer has it, too
    daemon.kill()
    daemon.start()
    with Volume(daemon, "vol") as volume:
        assert all(story.write(volume, at) for at in range(24 * MIB, 48 * MIB, PIECE))
    daemon.udmsetup("message", "vol", "0", "set auto_extend none")
    with Volume(daemon, "vol") as volume:
        assert not all(story.write(volume, at) for at in range(0, 24 * MIB, PIECE))


def test_a_file_system_that_is_full_keeps_all_and_goes_on_when_there_is_room(folder, small_disk, daemon):
    with open(f"{small_disk}/other", "xb") as file:
        file.write(bytes(10 * MIB))
    daemon.udm("snapshot", "take", "vol=still", "--redirect", "--cow-dir", small_disk)
    story = Story(daemon, folder)
    full = story.fill()
    assert 8 * MIB < full < 10 * MIB
    assert "Overflow" in daemon.status("vol-live")
    story.check(but=full)
    daemon.kill()
    daemon.start()
    story.check(but=full)
    assert story.fill(full) == full
    os.unlink(f"{small_disk}/other")
    story.write_when_there_is_room(full)
    full = story.fill(full + PIECE)
    assert 18 * MIB < full < 20 * MIB
    story.check(but=full)
    daemon.stop()
    daemon.start()
    story.check(but=full)
    subprocess.run(["mount", "-o", "remount,size=80M", small_disk], check=True)
    story.write_when_there_is_room(full)
    with Volume(daemon, "vol") as volume:
        assert all(story.write(volume, at) for at in range(full + PIECE, SIZE, PIECE))
    daemon.kill()
    daemon.start()
    story.check()
