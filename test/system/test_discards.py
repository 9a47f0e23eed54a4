"""Discards of snapshots, through NBD: what the features promise, and the space that comes back."""

import os

import pytest

import pattern
from udmtest import Daemon
from volume import Volume

SIZE = 32768  # sectors: 16 MiB
MIB = 1 << 20


def space(path):
    return os.stat(path).st_blocks * 512


@pytest.fixture
def files(folder):
    paths = {name: os.path.join(folder, name) for name in ("origin", "a.cow", "b.cow")}
    for name, path in paths.items():
        with open(path, "wb") as file:
            file.write(pattern.sectors(1, 0, SIZE)) if name == "origin" else file.truncate(2 * SIZE * pattern.SECTOR)
    return paths


@pytest.fixture
def daemon(folder):
    with Daemon(folder, state_dir=True) as running:
        yield running


def stand(daemon, files, features):
    """vol, and of it snapshot a with these features, and b without any."""
    daemon.create("vol", f"0 {SIZE} snapshot-origin {files['origin']}")
    daemon.create("a", f"0 {SIZE} snapshot {files['origin']} {files['a.cow']} P 16 {features}")
    daemon.create("b", f"0 {SIZE} snapshot {files['origin']} {files['b.cow']} P 8")


def expected(*zeroed, seed=1):
    """The pattern, zeroes in these (offset, length)."""
    content = bytearray(pattern.sectors(seed, 0, SIZE))
    for offset, length in zeroed:
        content[offset : offset + length] = bytes(length)
    return bytes(content)


def test_without_the_feature_a_snapshot_takes_no_discards(daemon, files):
    stand(daemon, files, "")
    with Volume(daemon, "a") as a:
        assert not a.handle.can_trim()


def test_discard_zeroes_cow_punches_the_store_and_leaves_the_origin_alone(daemon, files):
    stand(daemon, files, "1 discard_zeroes_cow")
    with Volume(daemon, "a") as a, Volume(daemon, "vol") as vol, Volume(daemon, "b") as b:
        a.write(0, b"a" * 4 * MIB)
        a.flush()
        store, status = space(files["a.cow"]), daemon.status("a")
        assert store >= 4 * MIB
        a.handle.trim(2 * MIB, MIB)
        a.flush()
        assert space(files["a.cow"]) <= store - 2 * MIB
        assert daemon.status("a") == status, "a chunk once given out stays used"
        assert a.read(0, 4 * MIB) == b"a" * MIB + bytes(2 * MIB) + b"a" * MIB
        a.handle.trim(MIB, 8 * MIB)  # nothing of its own there: nothing happens
        assert a.read(8 * MIB, MIB) == expected()[8 * MIB : 9 * MIB]
        assert vol.read(0, vol.size) == expected()
        assert b.read(0, b.size) == expected()


def test_discard_passdown_origin_punches_the_origin_and_other_snapshots_keep_their_content(daemon, files):
    stand(daemon, files, "2 discard_zeroes_cow discard_passdown_origin")
    before = space(files["origin"])
    gone = (2 * MIB + 4096, 4 * MIB)
    with Volume(daemon, "a") as a, Volume(daemon, "vol") as vol, Volume(daemon, "b") as b:
        a.write(3 * MIB, b"a" * MIB)
        a.handle.trim(gone[1], gone[0])
        a.flush()
        assert space(files["origin"]) <= before - gone[1] + 65536
        for name in (a, vol):
            assert name.read(0, name.size) == expected(gone), name.name
        assert b.read(0, b.size) == expected()

    # After a crash as before it.
    daemon.kill()
    daemon.start()
    with Volume(daemon, "a") as a, Volume(daemon, "vol") as vol, Volume(daemon, "b") as b:
        for name in (a, vol):
            assert name.read(0, name.size) == expected(gone), name.name
        assert b.read(0, b.size) == expected()


def test_the_store_of_a_lost_snapshot_gives_its_space_back_and_stays_lost(daemon, files):
    with open(files["b.cow"], "r+b") as file:
        file.truncate(4 * MIB)
    stand(daemon, files, "")
    with Volume(daemon, "vol") as vol:
        assert vol.write_pattern(7, 0, SIZE // 2)
    assert daemon.status("b").endswith("Invalid")
    assert space(files["b.cow"]) >= 3 * MIB
    daemon.udmsetup("suspend", "b")
    assert space(files["b.cow"]) <= 65536
    daemon.udmsetup("resume", "b")
    assert daemon.status("b").endswith("Invalid")
    daemon.remove("b")
    daemon.create("b", f"0 {SIZE} snapshot {files['origin']} {files['b.cow']} P 8")
    assert daemon.status("b").endswith("Invalid")
    with Volume(daemon, "a") as a:
        assert a.read(0, a.size) == expected()
