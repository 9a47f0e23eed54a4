"""Legs that come and go while the volume is used (udm mirror add-leg, drop-leg, replace-leg, readd; docs/targets/mirror.md, Other legs)."""

import json
import os
import subprocess

import crashload
import nbdserver
import udmtest
from udmtest import Daemon, RpcError, wait_until

MIB = 1 << 20
SIZE = 32 * MIB


def make_volume(daemon, folder, name="vol"):
    source = os.path.join(folder, name + ".img")
    crashload.fill(source, SIZE)
    daemon.create(name, f"0 {SIZE // 512} linear {source} 0")
    return source


def content(path, size=SIZE, offset=0):
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


def line(daemon, name="vol"):
    return daemon.table(name).split()


def legs(daemon, name="vol"):
    words = line(daemon, name)
    if words[2] != "mirror":
        return [words[3]]
    at = 5 + int(words[4])
    return words[at + 1 : at + 1 + 2 * int(words[at]) : 2]


def in_sync(daemon, name="vol", timeout=60):
    def look():
        status = daemon.rpc("table.status", device=name)[0]
        return status["type"] != "mirror" or (status["details"]["resync_left_bytes"] == 0 and "legs_away" not in status["details"])

    wait_until(look, f"{name} to be in sync", timeout)


def slowly(daemon, name="vol", rate="8M"):
    daemon.rpc("device.set", device=name, key="resync_rate", value=rate)


def at_full_speed(daemon, name="vol"):
    daemon.rpc("device.set", device=name, key="resync_rate", value=None)


def refused(daemon, *words):
    result = daemon.udm(*words, check=False)
    assert result.returncode == 1, result.stdout
    return result.stderr


# --------------------------------------------------------------------------------------------- under load
def test_legs_come_and_go_under_load_and_nobody_notices(folder):
    one, two = os.path.join(folder, "one.img"), os.path.join(folder, "two.img")
    far = os.path.join(folder, "far.img")
    with open(far, "wb") as file:
        file.truncate(SIZE + MIB)
    with nbdserver.Nbdkit(folder, "file", far) as kit, Daemon(folder, state_dir=True) as daemon:
        source = make_volume(daemon, folder)
        log = os.path.join(folder, "state", "logs", f"mirror-{daemon.rpc('device.info', device='vol')['minor']}.log")
        journal = os.path.join(folder, "journal")
        with crashload.CrashLoad(journal, {"vol": daemon.export("vol")}) as load:
            load.wait_for_writes(100)
            daemon.udm("mirror", "add-leg", "vol", one)  # waits
            assert legs(daemon) == [source, one]
            assert line(daemon)[3:7] == ["disk", "2", log, "1024"]
            load.wait_for_writes(100)
            daemon.udm("mirror", "add-leg", "vol", kit.uri)
            assert legs(daemon) == [source, one, kit.uri]
            load.wait_for_writes(100)
            said = daemon.udm("mirror", "replace-leg", "vol", "0", two).stdout
            assert said == f"vol has {two} in place of 0\n"
            assert legs(daemon) == [one, kit.uri, two]
            load.wait_for_writes(100)
            said = daemon.udm("mirror", "drop-leg", "vol", one).stdout
            assert said == f"{one} is no leg of vol any more; 2 are left\n"
            load.wait_for_writes(100)
            said = json.loads(daemon.udm("--json", "mirror", "drop-leg", "vol", "0").stdout)
            assert (said["legs"], said["dropped"], said["log"]) == ([two], kit.uri, None)
            assert daemon.table("vol") == f"0 {SIZE // 512} linear {two} 0"
            load.wait_for_writes(100)
            counters = load.finish()
        print(counters)
        assert counters["losses"] == 0  # no error, and no connection lost
        assert not os.path.exists(log)
        daemon.unexport("vol")
        daemon.remove("vol")
        daemon.create("again", f"0 {SIZE // 512} linear {two} 0")
        status, said = crashload.check(journal, vol=daemon.export("again"))
        assert status == 0, said
        daemon.unexport("again")


def test_all_legs_have_all_that_was_written_meanwhile(folder, daemon):
    paths = [make_volume(daemon, folder)] + [os.path.join(folder, f"{i}.img") for i in range(2)]
    with crashload.CrashLoad(os.path.join(folder, "journal"), {"vol": daemon.export("vol")}) as load:
        for path in paths[1:]:
            daemon.rpc("mirror.add_leg", device="vol", new=path)
            load.wait_for_writes(100)
        counters = load.finish()
    assert counters["losses"] == 0
    in_sync(daemon)
    daemon.unexport("vol")
    daemon.remove("vol")
    for path in paths[1:]:
        assert content(path) == content(paths[0]), path


# ------------------------------------------------------------------------------------------------- crashes
def test_kills_while_legs_change_leave_either_table_and_a_replacement_goes_on(folder):
    journal = os.path.join(folder, "journal")
    paths = [os.path.join(folder, f"{i}.img") for i in range(5)]
    with Daemon(folder, state_dir=True) as daemon:
        source = make_volume(daemon, folder)
        with crashload.CrashLoad(journal, {"vol": daemon.export("vol")}, patience=60) as load:

            def kill():
                load.wait_for_writes(30)
                daemon.kill()
                daemon.start()

            daemon.rpc("mirror.add_leg", device="vol", new=paths[0])
            kill()  # nearly nothing is copied
            assert legs(daemon) == [source, paths[0]]
            in_sync(daemon)
            slowly(daemon)
            begun = daemon.rpc("mirror.replace_leg", device="vol", leg="0", new=paths[1])
            assert begun["replacing"] == source
            kill()
            assert legs(daemon) == [source, paths[0], paths[1]]
            at_full_speed(daemon)
            wait_until(lambda: legs(daemon) == [paths[0], paths[1]], "the old leg to go", 60)
            kill()
            in_sync(daemon)
            for i, path in enumerate(paths[2:]):  # killed while the answer is under way
                before = legs(daemon)
                change = subprocess.Popen([udmtest.program("udm"), "--socket", daemon.socket, "mirror", "add-leg", "vol", path, "--background"],
                                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                wait_until(lambda path=path: os.path.exists(path), "the change to begin")
                daemon.kill()
                change.wait()
                daemon.start()
                assert legs(daemon) in (before, before + [path]), i
                in_sync(daemon)
            counters = load.finish()
        print(counters)
        left = legs(daemon)
        for leg in left[1:]:
            daemon.udm("mirror", "drop-leg", "vol", leg)
        assert daemon.table("vol") == f"0 {SIZE // 512} linear {left[0]} 0"
        status, said = crashload.check(journal, vol=daemon.export("vol"))
        assert status == 0, said


# --------------------------------------------------------------------------------------------- legs that fail
def test_a_leg_that_is_dead_is_replaced_at_once_and_one_that_is_back_gets_what_it_missed(folder, daemon):
    source = make_volume(daemon, folder)
    far, new = os.path.join(folder, "far.img"), os.path.join(folder, "new.img")
    with open(far, "wb") as file:
        file.truncate(SIZE)
    with nbdserver.Nbdkit(folder, "file", far) as kit:
        daemon.udm("mirror", "add-leg", "vol", kit.uri)
        daemon.rpc("device.set", device="vol", key="nbd_timeout", value=1)
        daemon.rpc("device.set", device="vol", key="leg_retry", value=0)  # only when asked
        assert "none is away" in refused(daemon, "mirror", "readd", "vol")

        def lose():
            kit.kill()
            daemon.udm("set", "vol", "nbd_timeout=1")
            write(daemon, "vol", 0x5A)
            assert daemon.rpc("device.message", device="vol", sector=0, message="legs")["reply"] == "source away"

        lose()
        kit.start()

        def is_back():  # once the server is found again, over all its connections
            daemon.udm("mirror", "readd", "vol", "--background", check=False)
            return daemon.rpc("device.message", device="vol", sector=0, message="legs")["reply"] == "source complete"

        wait_until(is_back, "the leg to be back", 30)
        lose()
        assert "`udm mirror readd vol` first" in refused(daemon, "mirror", "drop-leg", "vol", "0")
        assert legs(daemon) == [source, kit.uri]
        daemon.udm("mirror", "replace-leg", "vol", "1", new)
        assert legs(daemon) == [source, new]
    daemon.remove("vol")
    assert content(source) == content(new)


def write(daemon, name, byte):
    uri = daemon.export(name)
    subprocess.run(["qemu-io", "-f", "raw", "-c", f"write -P {byte} 0 1M", uri], check=True, stdout=subprocess.DEVNULL)
    daemon.unexport(name)


# ------------------------------------------------------------------------------------------------ what is refused
def test_what_would_lose_something_is_refused_and_changes_nothing(folder, daemon):
    source = make_volume(daemon, folder)
    other = make_volume(daemon, folder, "other")
    before = daemon.table("vol")
    small, full, log = (os.path.join(folder, name) for name in ("small.img", "full.img", "log.img"))
    with open(small, "wb") as file:
        file.truncate(MIB)
    with open(full, "wb") as file:
        file.truncate(SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-F", full], check=True)
    ext4 = content(full)
    assert "too small" in refused(daemon, "mirror", "add-leg", "vol", small)
    assert f"vol stands on {source} already" in refused(daemon, "mirror", "add-leg", "vol", source)
    assert "is in use: other stands on it" in refused(daemon, "mirror", "add-leg", "vol", other)
    said = refused(daemon, "mirror", "add-leg", "vol", full)
    assert "holds an ext2, ext3 or ext4 file system, which would be lost" in said and "--overwrite if that is meant" in said
    assert content(full) == ext4
    with open(log, "wb") as file:
        file.write(b"something")
    assert "is not blank" in refused(daemon, "mirror", "add-leg", "vol", os.path.join(folder, "new.img"), "--log", log)
    assert not os.path.exists(os.path.join(folder, "new.img"))
    for words in (("drop-leg", "vol", "0"), ("replace-leg", "vol", "0", small), ("readd", "vol")):
        assert "vol is no mirror" in refused(daemon, "mirror", *words)
    assert daemon.table("vol") == before
    daemon.udm("mirror", "add-leg", "vol", full, "--overwrite", "--log", "core")
    assert line(daemon)[3] == "core"
    assert "has no leg 2: there are 0 (" in refused(daemon, "mirror", "drop-leg", "vol", "2")
    slowly(daemon)
    daemon.udm("mirror", "replace-leg", "vol", "1", os.path.join(folder, "new.img"), "--background")
    assert "is being replaced already" in refused(daemon, "mirror", "replace-leg", "vol", "0", os.path.join(folder, "more.img"))
    daemon.udm("mirror", "drop-leg", "vol", "2")  # which ends that
    assert legs(daemon) == [source, full]
    at_full_speed(daemon)
    in_sync(daemon)


def test_what_a_new_leg_holds_is_said(folder, daemon):
    make_volume(daemon, folder)
    path = os.path.join(folder, "leg.img")
    for at, held, name in ((0, b"XFSB", "an XFS file system"), (65600, b"_BHRfS_M", "a btrfs file system"), (0, b"LUKS\xba\xbe", "a LUKS volume"),
                           (536, b"LVM2 001", "an LVM physical volume"), (0, b"QFI\xfb", "a qcow2 image"), (0, b"SnAp", "the store of a snapshot"),
                           (512, b"EFI PART", "a GPT partition table"), (510, b"\x55\xaa", "a partition table or a boot sector"), (9999, b"x", "data")):
        with open(path, "wb") as file:
            file.seek(at)
            file.write(held)
            file.truncate(SIZE)
        try:
            daemon.rpc("mirror.add_leg", device="vol", new=path)
            raise AssertionError(f"{name} would have been overwritten")
        except RpcError as error:
            assert f"{path} holds {name}, which would be lost" in str(error)


def test_a_leg_that_is_behind_cannot_be_all_that_is_left(folder, daemon):
    source = make_volume(daemon, folder)
    new = os.path.join(folder, "new.img")
    daemon.rpc("daemon.set", key="raid1_resync_throttle", value=1)
    daemon.rpc("mirror.add_leg", device="vol", new=new)
    slowly(daemon, rate="1M")
    assert "wait until they are in sync" in refused(daemon, "mirror", "drop-leg", "vol", source)
    try:
        daemon.rpc("mirror.add_leg", device="vol", new=os.path.join(folder, "third.img"))
        daemon.rpc("mirror.drop_leg", device="vol", leg="0")
        raise AssertionError("the only leg with everything could be dropped")
    except RpcError as error:
        assert f"leg 0 ({source}) must stay" in str(error)
    daemon.rpc("mirror.drop_leg", device="vol", leg="2")
    daemon.rpc("mirror.drop_leg", device="vol", leg="1")
    assert daemon.table("vol") == f"0 {SIZE // 512} linear {source} 0"


# ------------------------------------------------------------------------------------------------ places
def test_a_log_of_ones_own_and_a_leg_behind_something_else(folder, daemon):
    source = make_volume(daemon, folder)
    new, log = os.path.join(folder, "new.img"), os.path.join(folder, "log.img")
    with open(new, "wb") as file:
        file.write(b"\x11" * MIB)
        file.truncate(SIZE + MIB)
    said = json.loads(daemon.udm("--json", "mirror", "add-leg", "vol", new + ":1M", "--log", log).stdout)
    assert (said["in_sync"], said["log"], said["made"]) == (True, log, False)
    assert daemon.table("vol") == f"0 {SIZE // 512} mirror disk 2 {log} 1024 2 {source} 0 {new} 2048 2 handle_errors keep_log"
    daemon.udm("mirror", "drop-leg", "vol", "0")
    assert daemon.table("vol") == f"0 {SIZE // 512} linear {new} 2048"
    assert content(new, offset=MIB) == content(source)
    assert content(new, size=MIB) == b"\x11" * MIB
    assert not os.path.exists(log)


def test_a_volume_with_snapshots_keeps_them(folder, daemon):
    source = make_volume(daemon, folder)
    was = content(source)
    daemon.rpc("snapshot.take", origins=[{"origin": "vol", "snapshot": "before"}], cow_dir=folder)
    write(daemon, "vol", 0x33)
    new = os.path.join(folder, "new.img")
    said = json.loads(daemon.udm("--json", "mirror", "add-leg", "vol", new).stdout)
    assert said["device"] == "vol-real"
    assert legs(daemon, "vol-real") == [source, new]
    daemon.rpc("snapshot.take", origins=[{"origin": "vol", "snapshot": "after"}], cow_dir=folder)
    write(daemon, "vol", 0x44)
    uri = daemon.export("before")
    read = subprocess.run(["nbdcopy", uri, "-"], check=True, capture_output=True).stdout
    assert read == was
    daemon.unexport("before")
    daemon.udm("mirror", "drop-leg", "vol", source)
    assert daemon.table("vol-real") == f"0 {SIZE // 512} linear {new} 0"
    daemon.udm("snapshot", "merge", "before")
    uri = daemon.export("vol")
    assert subprocess.run(["nbdcopy", uri, "-"], check=True, capture_output=True).stdout == was
    daemon.unexport("vol")
