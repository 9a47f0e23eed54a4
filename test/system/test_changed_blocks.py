"""Where snapshots differ: `udm snapshot diff`, and the metadata context udm:changed/NAME, with which a standard client copies
only what changed. The copies are compared byte for byte, while the volume is written."""

import errno
import json
import os
import random
import re
import subprocess
import threading

import nbd
import pytest

import pattern
from udmtest import ROOT, Daemon, RpcError, wait_until

MIB = 1 << 20
SIZE = 64 * MIB
ALLOCATION = nbd.CONTEXT_BASE_ALLOCATION
CHANGED = "udm:changed/"


@pytest.fixture
def volume(daemon, folder):
    """`vol`, full of data, exported at daemon.vol."""
    with open(f"{folder}/disk.img", "wb") as file:
        file.write(pattern.sectors(1, 0, SIZE // pattern.SECTOR))
    daemon.udm("create", "vol", f"{folder}/disk.img")
    daemon.vol = daemon.export("vol")
    return daemon


def take(daemon, *words):
    return json.loads(daemon.udm("--json", "snapshot", "take", *words).stdout)


def diff(daemon, *names):
    """[offset, length] of what may differ."""
    found = json.loads(daemon.udm("--json", "snapshot", "diff", *names).stdout)
    assert found["count"] == len(found["extents"]) and found["bytes"] == sum(length for _, length in found["extents"])
    return found["extents"]


def connect(uri, *contexts):
    handle = nbd.NBD()
    for context in contexts:
        handle.add_meta_context(context)
    handle.connect_uri(uri)
    for context in contexts:
        assert handle.can_meta_context(context)
    return handle


def write(uri, *pieces):
    handle = connect(uri)
    for offset, data in pieces:
        handle.pwrite(data, offset)
    handle.flush()
    handle.shutdown()


def contents(uri):
    handle = connect(uri)
    data = bytearray()
    while len(data) < SIZE:
        data += handle.pread(MIB, len(data))
    handle.shutdown()
    return data


def extents(handle, offset, length):
    """{context: [(offset, length, flags)]}, for as much as the server answers at once."""
    answer = {}

    def chunk(context, at, entries, _):
        entries = list(entries)
        answer[context] = found = []
        for size, flags in zip(entries[::2], entries[1::2]):
            found.append((at, size, flags))
            at += size

    handle.block_status(length, offset, chunk)
    return answer


# The whole of an incremental backup: nothing but libnbd.
def copy_changed(uri, context, previous):
    """Brings `previous`, the content of the snapshot that `context` names, to that of the export. Returns the bytes read."""
    handle = connect(uri, context, ALLOCATION)
    offset = copied = 0
    while offset < handle.get_size():
        answer = extents(handle, offset, min(32 * MIB, handle.get_size() - offset))
        known = min(sum(size for _, size, _ in of_one) for of_one in answer.values())
        for at, size, flags in answer[context]:
            size = min(size, offset + known - at)
            if size > 0 and flags & 1:
                for piece in range(at, at + size, MIB):
                    length = min(MIB, at + size - piece)
                    previous[piece:piece + length] = handle.pread(length, piece)
                    copied += length
        offset += known
    handle.shutdown()
    return copied


class Writer:
    """Writes to the volume all the while, here and there."""

    def __init__(self, uri, seed):
        self.handle, self.chance, self.rounds, self.stopping = connect(uri), random.Random(seed), 0, False
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.stopping:
            length = self.chance.choice((512, 4096, 12288, 65536))
            at = self.chance.randrange(0, SIZE // 4 - length, 512) if self.chance.random() < 0.9 else self.chance.randrange(0, SIZE - length, 512)
            self.handle.pwrite(self.chance.randbytes(length), at)
            self.rounds += 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping = True
        self.thread.join()
        self.handle.shutdown()


@pytest.mark.parametrize("redirect", [False, True], ids=["copying", "redirected"])
def test_an_incremental_copy_equals_the_snapshot_while_the_volume_is_written(volume, folder, redirect):
    options = ["--redirect"] if redirect else []
    take(volume, "vol=day0", *options)
    copy = contents(volume.export("day0"))
    total = 0
    with Writer(volume.vol, 7) as writer:
        for day in range(1, 5):
            done = writer.rounds
            wait_until(lambda: writer.rounds >= done + 100, "writes to the volume")
            take(volume, f"vol=day{day}", *options)
            uri = volume.export(f"day{day}")
            copied = copy_changed(uri, f"{CHANGED}day{day - 1}", copy)
            assert 0 < copied < SIZE
            total += copied
            assert copy == contents(uri)
            if not redirect:
                volume.unexport(f"day{day - 1}")
                volume.udm("snapshot", "drop", f"day{day - 1}")
        assert writer.rounds > 400
    print(f"4 increments of a volume of {SIZE} bytes: {total} bytes read")


def test_nbdinfo_shows_what_diff_lists(volume):
    take(volume, "vol=monday")
    write(volume.vol, (MIB, b"x" * 8192), (5 * MIB + 100 * 512, b"y" * 512))
    take(volume, "vol=tuesday")
    write(volume.vol, (9 * MIB, b"z" * 4096))
    monday, both = [[MIB, 8192], [5 * MIB + 49152, 4096]], [[MIB, 8192], [5 * MIB + 49152, 4096], [9 * MIB, 4096]]
    assert diff(volume, "monday") == both
    assert diff(volume, "tuesday") == [[9 * MIB, 4096]]
    # A chunk that each has a copy of may differ, for all that is known.
    assert diff(volume, "tuesday", "monday") == both == diff(volume, "monday", "tuesday")
    assert monday == both[:2]
    for export, other, expected in [("monday", "vol", both), ("vol", "monday", both), ("tuesday", "monday", both)]:
        uri = volume.vol if export == "vol" else volume.export(export)
        shown = subprocess.run(["nbdinfo", f"--map={CHANGED}{other}", "--json", uri], check=True, capture_output=True, text=True)
        found = [[e["offset"], e["length"]] for e in json.loads(shown.stdout) if e["type"] == 1]
        assert found == expected
        if export != "vol":
            volume.unexport(export)


def test_the_recipe_of_the_manual_with_qemus_tools(volume, folder):
    """docs/incremental-backup.md, word for word but for the folder."""
    with open(f"{ROOT}/docs/incremental-backup.md", encoding="utf-8") as manual:
        make, show = [block.replace("/tmp/backup.sock", f"{folder}/b.sock") for block in re.findall(r"```sh\n(.*?)```", manual.read(), re.S)]

    def shell(script):
        return subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=folder, check=True, capture_output=True, text=True).stdout

    take(volume, "vol=monday")
    volume.udm("export", "monday", f"nbd+unix:///monday?socket={folder}/b.sock")
    shell(f"nbdcopy 'nbd+unix:///monday?socket={folder}/b.sock' backup.img")
    write(volume.vol, *((at * 3 * MIB + 512, bytes([at]) * 70144) for at in range(1, 20)), (30 * MIB, os.urandom(18 * MIB)))
    take(volume, "vol=tuesday")
    volume.udm("export", "tuesday", f"nbd+unix:///tuesday?socket={folder}/b.sock")
    write(volume.vol, (0, b"later..." * 512))
    tuesday = contents(f"nbd+unix:///tuesday?socket={folder}/b.sock")
    shell(make)
    changed = diff(volume, "tuesday", "monday")
    assert [[e["start"], e["length"]] for e in json.loads(shell(show)) if not e["data"]] == changed
    assert os.path.getsize(f"{folder}/tuesday.qcow2") < 32 * MIB, "only what has changed"
    shell("qemu-img convert -O raw tuesday.qcow2 whole.img; qemu-img commit -q tuesday.qcow2")
    for name in ("whole.img", "backup.img"):
        with open(f"{folder}/{name}", "rb") as file:
            assert file.read() == tuesday, name


def test_what_people_see(volume):
    take(volume, "vol=monday")
    assert volume.udm("snapshot", "diff", "monday").stdout == "monday and vol are equal: nothing was written\n"
    write(volume.vol, *((at * 2 * MIB, b"x" * 4096) for at in range(25)))
    lines = volume.udm("snapshot", "diff", "monday").stdout.splitlines()
    assert lines[0] == "monday and vol may differ in 25 places: 100.0 KiB of 64.0 MiB, 0.15%"
    assert lines[1] == "  [" + ":." * 25 + "." * 14 + "]"
    assert lines[2].split() == ["OFFSET", "LENGTH"]
    assert lines[3].split() == ["0", "4096", "4.0", "KiB"] and lines[4].split() == ["2097152", "4096", "4.0", "KiB"]
    assert lines[-1] == "and 5 more (--all lists them)" and len(lines) == 3 + 20 + 1
    assert len(volume.udm("snapshot", "diff", "monday", "vol", "--all").stdout.splitlines()) == 3 + 25


def test_many_extents_come_page_by_page(volume):
    take(volume, "vol=monday")
    write(volume.vol, *((at * 16384, b"x" * 512) for at in range(300)))
    expected = [[at * 16384, 4096] for at in range(300)]
    assert diff(volume, "monday") == expected
    page, got = {"next": 0}, []
    while page["next"] is not None:
        page = volume.rpc("snapshot.diff", snapshot="monday", offset=page["next"], limit=70)
        assert len(page["extents"]) <= 70
        got += page["extents"]
    assert got == expected


def test_contexts_are_listed_and_chosen_by_name(volume):
    take(volume, "vol=mon day")
    take(volume, "vol=tuesday")
    volume.create("other", "0 131072 zero")
    uri = volume.export("tuesday")
    names = {f"{CHANGED}mon%20day", f"{CHANGED}vol"}

    def listed(*queries):
        handle, found = nbd.NBD(), set()
        handle.set_opt_mode(True)
        for query in queries:
            handle.add_meta_context(query)
        handle.connect_uri(uri)
        handle.opt_list_meta_context(found.add)
        handle.opt_abort()
        return found

    assert listed() == names | {ALLOCATION}
    assert listed("udm:") == names == listed(CHANGED)
    assert listed(f"{CHANGED}vol", "base:") == {f"{CHANGED}vol", ALLOCATION}
    assert listed("udm:changed", "udm:other/", f"{CHANGED}nobody") == set()
    handle = nbd.NBD()
    for name in ("nobody", "other", "tuesday", "mon day", "mon%2"):
        handle.add_meta_context(CHANGED + name)
    handle.add_meta_context(f"{CHANGED}mon%20day")
    handle.connect_uri(uri)
    assert handle.can_meta_context(f"{CHANGED}mon%20day")
    assert not any(handle.can_meta_context(CHANGED + name) for name in ("nobody", "other", "tuesday", "mon day"))
    write(volume.vol, (0, b"x" * 4096))
    assert extents(handle, 0, MIB)[f"{CHANGED}mon%20day"] == [(0, 4096, 1), (4096, MIB - 4096, 0)]
    handle.shutdown()


def test_a_snapshot_that_goes_while_a_client_compares_with_it(volume):
    take(volume, "vol=monday")
    take(volume, "vol=tuesday")
    handle = connect(volume.export("tuesday"), CHANGED + "monday", ALLOCATION)
    assert extents(handle, 0, MIB)[CHANGED + "monday"] == [(0, MIB, 0)]
    volume.udm("snapshot", "drop", "monday")
    with pytest.raises(nbd.Error) as failed:
        extents(handle, 0, MIB)
    assert getattr(errno, failed.value.errno) in (errno.EIO, errno.ENODEV, errno.EINVAL)
    assert len(handle.pread(4096, 0)) == 4096
    # Another one of that name is another one.
    take(volume, "vol=monday")
    with pytest.raises(nbd.Error):
        extents(handle, 0, MIB)
    handle.shutdown()


def test_what_cannot_be_compared_says_why(volume, folder):
    take(volume, "vol=small", "--size", "64K")
    take(volume, "vol=good")
    small = connect(volume.export("small"), CHANGED + "good")
    write(volume.vol, *((at * 4096, b"x" * 4096) for at in range(64)))
    assert volume.status("small").endswith("Invalid")
    for names in (["small"], ["good", "small"]):
        refused = volume.udm("snapshot", "diff", *names, check=False)
        assert refused.returncode == 1
        assert "small: the snapshot is invalid: the COW device is full" in refused.stderr
        assert "udm snapshot drop" in refused.stderr
    with pytest.raises(nbd.Error):
        extents(small, 0, MIB)
    small.shutdown()
    volume.create("other", "0 131072 linear ram:64M 0")
    volume.create("bare", "0 131072 zero")
    for names, reason in [(["vol"], "vol is no snapshot"), (["good", "other"], "nothing in common"), (["good", "good"], "the same device"),
                          (["good", "nobody"], "no device nobody"), (["bare", "good"], "nothing in common")]:
        refused = volume.udm("snapshot", "diff", *names, check=False)
        assert refused.returncode == 1 and reason in refused.stderr
    volume.udmsetup("suspend", "good")
    assert "good is suspended" in volume.udm("snapshot", "diff", "good", check=False).stderr
    volume.udmsetup("resume", "good")
    with pytest.raises(RpcError, match="no multiple of 512"):
        volume.rpc("snapshot.diff", snapshot="good", against="vol", offset=7)


def test_snapshots_made_by_hand_find_their_origin(volume, folder):
    with open(f"{folder}/cow", "wb") as file:
        file.truncate(SIZE)
    with open(f"{folder}/base", "wb") as file:
        file.truncate(SIZE)
    volume.create("s", f"0 {SIZE // 512} snapshot {folder}/base {folder}/cow P 16")
    refused = volume.udm("snapshot", "diff", "s", check=False)
    assert "is no device here" in refused.stderr
    volume.create("o", f"0 {SIZE // 512} snapshot-origin {folder}/base")
    write(volume.export("o"), (MIB, b"x" * 512))
    assert diff(volume, "s") == [[MIB, 8192]]


def test_layers_of_a_redirected_volume(volume):
    take(volume, "vol=monday", "--redirect")
    write(volume.vol, (MIB, b"x" * 4096))
    take(volume, "vol=tuesday", "--redirect")
    write(volume.vol, (MIB, b"y" * 4096), (2 * MIB, b"y" * 4096))
    assert diff(volume, "tuesday", "monday") == [[MIB, 4096]]
    assert diff(volume, "tuesday") == [[MIB, 4096], [2 * MIB, 4096]]
    assert diff(volume, "monday", "vol") == [[MIB, 4096], [2 * MIB, 4096]]


def test_comparing_goes_on_after_a_restart(folder):
    with Daemon(folder, state_dir=True) as daemon:
        with open(f"{folder}/disk.img", "wb") as file:
            file.truncate(SIZE)
        daemon.udm("create", "vol", f"{folder}/disk.img")
        uri = daemon.export("vol")
        take(daemon, "vol=monday")
        write(uri, (MIB, b"x" * 4096))
    with Daemon(folder, state_dir=True) as daemon:
        assert diff(daemon, "monday") == [[MIB, 4096]]
        handle = connect(uri, CHANGED + "monday")
        assert extents(handle, 0, 2 * MIB)[CHANGED + "monday"] == [(0, MIB, 0), (MIB, 4096, 1), (MIB + 4096, MIB - 4096, 0)]
        handle.shutdown()


def test_the_program_of_the_manual_does_what_it_says(volume, folder):
    """docs/incremental-backup.md, run as it stands there but for the places of things."""
    with open(os.path.join(ROOT, "docs/incremental-backup.md"), encoding="utf-8") as file:
        program = re.search(r"```python\n(.*?)```", file.read(), re.DOTALL)[1]
    take(volume, "vol=monday")
    with open(f"{folder}/backup.img", "wb") as file:
        file.write(contents(volume.export("monday")))
    write(volume.vol, (MIB, b"x" * 3 * MIB), (40 * MIB + 512, b"y" * 512))
    take(volume, "vol=tuesday")
    uri = volume.export("tuesday")
    for there, here in [("nbd+unix:///tuesday?socket=/tmp/backup.sock", uri), ("backup.img", f"{folder}/backup.img")]:
        assert program.count(f'"{there}"') == 1
        program = program.replace(f'"{there}"', f'"{here}"')
    subprocess.run(["/usr/bin/python3", "-c", program], check=True, timeout=120)
    with open(f"{folder}/backup.img", "rb") as file:
        assert file.read() == contents(uri)
    volume.unexport("monday")
    volume.udm("snapshot", "drop", "monday")
    again = subprocess.run(["/usr/bin/python3", "-c", program], capture_output=True, text=True, timeout=120)
    assert again.returncode == 1 and "make a full copy" in again.stderr
