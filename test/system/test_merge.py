"""Merges as people start them: udm snapshot merge, and dropping the still images of redirected volumes. LVM2's scenarios of merges, too."""

import json
import os

import nbd
import pytest

import udmtest
from snapstack import MIB, SECTOR, Stack, Writer, make_file, write_some
from volume import Volume, content

SIZE = 8 * MIB


def wait_for_the_end(daemon, name):
    udmtest.wait_until(lambda: "snapshot-merge" not in daemon.udmsetup("table", name).stdout, f"the merge of {name} to end")


@pytest.fixture
def kept(folder):
    """A daemon with a state directory."""
    with udmtest.Daemon(folder, state_dir=True) as running:
        yield running


@pytest.fixture
def volume(kept, folder):
    """`vol`, linear over a file with random content."""
    with open(f"{folder}/image", "xb") as file:
        file.write(os.urandom(SIZE))
    kept.udmsetup("create", "vol", "--table", f"0 {SIZE // SECTOR} linear {folder}/image 0")
    return kept


# ------------------------------------------------------------------------------------------------ udm
def test_merge_makes_a_volume_what_its_snapshot_is(volume, folder):
    before = content(volume, "vol")
    volume.udm("snapshot", "take", "vol=then")
    between = write_some(volume, 1)
    volume.udm("snapshot", "take", "vol=later")
    write_some(volume, 2)
    said = volume.udm("snapshot", "merge", "then").stdout
    assert "vol is what then was" in said
    assert volume.udmsetup("table", "vol").stdout == f"0 {SIZE // SECTOR} snapshot-origin {folder}/image\n"
    assert content(volume, "vol") == before
    assert content(volume, "later") == between, "the other snapshot got its copies first"
    assert not os.path.exists(f"{folder}/then.cow")
    assert "then" not in volume.udm("snapshot", "list").stdout


def test_merge_refuses_what_cannot_be_merged(volume):
    volume.udm("snapshot", "take", "vol=then")
    volume.export("then")
    busy = volume.udm("snapshot", "merge", "then", check=False)
    assert busy.returncode == 1 and "udm unexport then" in busy.stderr
    for name, word in (("vol", "nothing to merge it into"), ("none", "none")):
        refused = volume.udm("snapshot", "merge", name, check=False)
        assert refused.returncode == 1 and word in refused.stderr
    assert "active" in volume.udm("snapshot", "list").stdout
    assert "snapshot-merge" not in volume.udmsetup("table").stdout
    volume.udm("snapshot", "merge", "then", "--unexport")


def test_merge_refuses_an_invalid_snapshot_and_leaves_the_volume_as_it_is(volume, folder):
    volume.udm("snapshot", "take", "vol=small", "--size", "64K")
    write_some(volume, 3)
    assert "Invalid" in volume.udmsetup("status", "small").stdout, "the store is full"
    before, table = content(volume, "vol"), volume.udmsetup("table", "vol").stdout
    refused = volume.udm("snapshot", "merge", "small", check=False)
    assert refused.returncode == 1 and "small is invalid" in refused.stderr and "udm snapshot drop small" in refused.stderr
    assert volume.udmsetup("table", "vol").stdout == table
    assert content(volume, "vol") == before
    assert "invalid" in volume.udm("snapshot", "list").stdout, "it is still there"
    volume.udm("snapshot", "drop", "small", "--unexport")    # there is no export to end, which is no fault
    volume.udm("snapshot", "take", "vol=next")


def test_a_merge_goes_on_after_a_kill_and_ends_by_itself(volume, folder):
    before = content(volume, "vol")
    volume.udm("snapshot", "take", "vol=then")
    volume.udm("snapshot", "take", "vol=other")
    write_some(volume, 3, 300)
    begun = json.loads(volume.udm("--json", "snapshot", "merge", "--background", "then").stdout)
    assert begun["into"] == "vol" and begun["merged"] is False
    volume.kill()
    volume.start()
    expected = content(volume, "vol")
    assert expected == before
    wait_for_the_end(volume, "vol")
    udmtest.wait_until(lambda: not os.path.exists(f"{folder}/then.cow"), "the store to be deleted")
    assert content(volume, "vol") == before and content(volume, "other") == before
    write_some(volume, 4)
    assert content(volume, "other") == before


def test_still_images_are_dropped_in_any_order(volume, folder):
    stills = {}
    for i in range(4):
        stills[f"still{i}"] = content(volume, "vol")
        volume.udm("snapshot", "take", f"vol=still{i}", "--redirect")
        now = write_some(volume, i)
    for name in ("still1", "still3", "still0", "still2"):
        assert f"{name} dropped" in volume.udm("snapshot", "drop", name).stdout
        del stills[name]
        assert content(volume, "vol") == now
        for other, expected in stills.items():
            assert content(volume, other) == expected, f"{other}, after {name} was dropped"
        if name == "still3":
            volume.kill()
            volume.start()
    assert not [f for f in os.listdir(folder) if f.endswith(".cow")]
    # And again from there.
    volume.udm("snapshot", "take", "vol=again", "--redirect")
    write_some(volume, 9)
    assert content(volume, "again") == now


# ------------------------------------------------------------------------------------- LVM2: snapshot-merge
@pytest.fixture
def stack(daemon, folder):
    return Stack(daemon, folder, SIZE)


def begin_merge(stack, name):
    """As LVM does it: the volume's table is replaced while both are suspended."""
    d = stack.daemon
    d.udmsetup("load", "vol", "--table", stack.snapshot_table(name, target="snapshot-merge"))
    d.udmsetup("suspend", name)
    d.udmsetup("suspend", "vol")
    d.udmsetup("resume", "vol")


def is_merged(stack):
    used, metadata = stack.status("vol").split("/")[0], stack.status("vol").split()[-1]
    return used == metadata


def test_snapshot_merge(stack):
    with stack.open("vol") as origin:
        writer = Writer(origin, 1)
        writer.write(50)
        before = bytes(writer.content)
        stack.take("snap")
        writer.write(100)
    begin_merge(stack, "snap")
    udmtest.wait_until(lambda: is_merged(stack), "the merge to end")
    stack.daemon.udmsetup("load", "vol", "--table", stack.origin_table())
    stack.daemon.udmsetup("resume", "vol")
    stack.daemon.udmsetup("remove", "snap")
    with stack.open("vol") as origin:
        assert origin.read(0, SIZE) == before


def test_snapshot_merge_reload_and_abort(stack):
    """The merge's table is loaded again under way, and then the snapshot is put back: it still is what it was."""
    with stack.open("vol") as origin:
        before = origin.read(0, SIZE)
        stack.take("snap")
        Writer(origin, 1).write(200)
    d = stack.daemon
    begin_merge(stack, "snap")
    d.udmsetup("message", "vol", "0", "merge_pause")
    d.udmsetup("load", "vol", "--table", stack.snapshot_table("snap", target="snapshot-merge"))
    d.udmsetup("suspend", "vol")
    d.udmsetup("resume", "vol")
    with stack.open("vol") as origin:
        assert origin.read(0, SIZE) == before
    d.udmsetup("load", "snap", "--table", stack.snapshot_table("snap"))
    d.udmsetup("suspend", "vol")
    d.udmsetup("resume", "snap")
    assert stack.sha256("snap")
    with stack.open("snap") as snapshot:
        assert snapshot.read(0, SIZE) == before


# ------------------------------------------------------------------------------- LVM2: snapshot-merge-stack
@pytest.mark.parametrize("trouble", ["error", "delay"])
def test_snapshot_merge_stack(daemon, folder, trouble):
    """The COW device fails, or is slow, while its snapshot is merged; then it is mended and the merge tried again."""
    image, store = f"{folder}/image", f"{folder}/store"
    for path in (image, store):
        make_file(path, 2 * SIZE)
    good, sectors = f"0 {2 * SIZE // SECTOR} linear {store} 0", SIZE // SECTOR
    daemon.udmsetup("create", "cow", "--table", good)
    daemon.udmsetup("create", "vol", "--table", f"0 {sectors} snapshot-origin {image}")
    daemon.udmsetup("create", "snap", "--table", f"0 {sectors} snapshot {image} udm:cow P 8")
    with Volume(daemon, "vol") as origin:
        before = origin.read(0, SIZE)
        Writer(origin, 1).write(200)
        bad = f"0 {2 * SIZE // SECTOR} error" if trouble == "error" else f"0 {2 * SIZE // SECTOR} delay {store} 0 10"
        daemon.udmsetup("load", "cow", "--table", bad)
        daemon.udmsetup("load", "vol", "--table", f"0 {sectors} snapshot-merge {image} udm:cow P 8")
        daemon.udmsetup("suspend", "snap")
        daemon.udmsetup("suspend", "vol")
        daemon.udmsetup("suspend", "cow")
        daemon.udmsetup("resume", "cow")
        daemon.udmsetup("resume", "vol")

        def words():
            return daemon.udmsetup("status", "vol").stdout.split(None, 3)[3].strip()

        if trouble == "error":
            udmtest.wait_until(lambda: words() == "Merge failed", "the merge to fail")
            with pytest.raises(nbd.Error):
                origin.read(0, SIZE)  # what is in the store cannot be had now
        daemon.udmsetup("load", "cow", "--table", good)
        daemon.udmsetup("suspend", "cow")
        daemon.udmsetup("resume", "cow")
        if trouble == "error":
            daemon.udmsetup("message", "vol", "0", "merge_retry")
        udmtest.wait_until(lambda: "/" in words() and words().split("/")[0] == words().split()[-1], "the merge to end")
        assert origin.read(0, SIZE) == before
