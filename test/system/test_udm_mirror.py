"""udm mirror create and show: against a real daemon, with what they print."""

import json
import os
import pty
import subprocess

import pytest

import nbdserver
from udmtest import Daemon, RpcError, program, wait_until

MIB = 1 << 20


@pytest.fixture
def daemon(tmp_path):
    with Daemon(tmp_path, state_dir=True) as running:
        yield running


def file_of(folder, name, size=8 * MIB, data=b""):
    path = os.path.join(str(folder), name)
    with open(path, "wb") as file:
        file.write(data)
        file.truncate(size)
    return path


def same(one, other):
    with open(one, "rb") as a, open(other, "rb") as b:
        return a.read() == b.read()


def refused(daemon, *words):
    done = daemon.udm("mirror", "create", *words, check=False)
    assert done.returncode in (1, 2) and done.stderr, words
    return done.stderr


def test_create_makes_leg_and_log_and_copies(daemon, tmp_path):
    disk = file_of(tmp_path, "disk.img", data=os.urandom(3 * MIB))
    before = os.getcwd()
    os.chdir(tmp_path)    # paths are the caller's
    try:
        said = daemon.udm("mirror", "create", "vol", "disk.img", "copy.img").stdout
    finally:
        os.chdir(before)
    log, copy = str(tmp_path / "vol.log"), str(tmp_path / "copy.img")
    assert "8.0 MiB on 2 legs" in said and f"{copy} is new" in said and log in said
    assert daemon.table("vol") == f"0 16384 mirror disk 2 {log} 1024 2 {disk} 0 {copy} 0 2 handle_errors keep_log"
    daemon.udm("mirror", "show", "vol", "--until-sync", "--for", "30", "--interval", "0.1")
    shown = json.loads(daemon.udm("--json", "mirror", "show", "vol").stdout)[0]
    assert shown["regions"] == 16 and shown["nosync"] == 0 and shown["legs"][0]["source"]
    assert os.path.getsize(log) == 4096
    daemon.remove("vol")
    assert same(disk, copy)


def test_create_again_with_the_log_copies_nothing_and_without_saying_so_is_refused(daemon, tmp_path):
    one = file_of(tmp_path, "a", data=b"x" * MIB)
    two = str(tmp_path / "b")
    daemon.udm("mirror", "create", "vol", one, two)
    daemon.udm("mirror", "show", "vol", "--until-sync", "--for", "30", "--interval", "0.1")
    daemon.remove("vol")
    assert "is a mirror's log" in refused(daemon, "vol", one, two, "--overwrite")
    daemon.udm("mirror", "create", "vol", one, two, "--reuse-log")
    shown = json.loads(daemon.udm("--json", "mirror", "show", "vol").stdout)[0]
    assert shown["nosync"] == shown["recovering"] == 0 and "resync_copied_bytes" not in shown["details"]


def test_create_refuses_to_overwrite_what_holds_something_unless_it_is_said(daemon, tmp_path):
    one, two = file_of(tmp_path, "a"), file_of(tmp_path, "b")
    with open(two, "r+b") as file:
        file.seek(5 * MIB)
        file.write(b"letters")
    said = refused(daemon, "vol", one, two)
    assert f"byte {5 * MIB}" in said and "--overwrite" in said
    assert not os.path.exists(tmp_path / "vol.log"), "what was made is gone"
    assert daemon.udm("ls", "--names").stdout == ""
    daemon.udm("mirror", "create", "vol", one, two, "--overwrite", "--log", "core")
    daemon.udm("mirror", "show", "vol", "--until-sync", "--for", "30", "--interval", "0.1")
    assert same(one, two)


def test_create_says_what_is_wrong_and_what_would_be_right(daemon, tmp_path):
    one, two = file_of(tmp_path, "a"), file_of(tmp_path, "b")
    assert "2 to 9 legs" in refused(daemon, "vol", one)
    assert "the same" in refused(daemon, "vol", one, one)
    assert "less than --size" in refused(daemon, "vol", one, two, "--size", "9M")
    assert "--size 10G" in refused(daemon, "vol", str(tmp_path / "none"), two)
    assert "power of two" in refused(daemon, "vol", one, two, "--region", "3K")
    assert "cannot look into it" in refused(daemon, "vol", one, "nbd://127.0.0.1:1/x")
    assert "--log FILE" in refused(daemon, "vol", "nbd://127.0.0.1:1/x", "nbd://127.0.0.1:1/y", "--size", "1M", "--overwrite")
    short = file_of(tmp_path, "short", 512)
    assert "are needed" in refused(daemon, "vol", one, two, "--log", short)
    other = file_of(tmp_path, "other", data=b"no log")
    assert "no mirror's log" in refused(daemon, "vol", one, two, "--log", other)
    assert "there is no log" in refused(daemon, "vol", one, two, "--reuse-log")
    daemon.create("plain", "0 8 zero")
    assert "is no mirror" in daemon.udm("mirror", "show", "plain", check=False).stderr
    with open(other, "rb") as file:
        assert file.read(6) == b"no log"
    assert sorted(os.listdir(tmp_path)) == sorted(["a", "b", "short", "other", "control.sock", "udmd.log", "state"]), "nothing is left over"


def test_equal_legs_are_taken_as_they_are(daemon, tmp_path):
    data = os.urandom(MIB)
    one, two = file_of(tmp_path, "a", data=data), file_of(tmp_path, "b", data=data)
    daemon.udm("mirror", "create", "vol", one, two, "--in-sync", "--hold", "--region", "64K", "--log", str(tmp_path / "l"))
    assert daemon.table("vol") == f"0 16384 mirror disk 3 {tmp_path}/l 128 nosync 2 {one} 0 {two} 0 1 handle_errors"
    assert "128/128 1 AA" in daemon.status("vol")


def test_a_lost_leg_is_shown_until_it_has_all_again(daemon, tmp_path):
    near = file_of(tmp_path, "near")
    far = file_of(tmp_path, "far")
    with nbdserver.Nbdkit(tmp_path, "file", far) as server:
        daemon.udm("mirror", "create", "vol", near, server.uri, "--overwrite")
        daemon.udm("set", "vol", "nbd_timeout=1")
        daemon.udm("mirror", "show", "vol", "--until-sync", "--for", "30", "--interval", "0.1")
        wait_until(lambda: daemon.rpc("table.regions", device="vol")[0]["dirty"] == 0, "the legs to be flushed", 30)
        server.kill()
        uri = daemon.export("vol")
        subprocess.run(["qemu-io", "-f", "raw", "-c", "write -P 7 0 512k", "-c", "write -P 7 2M 64k", uri], check=True, capture_output=True)
        said = daemon.udm("mirror", "show", "vol").stdout
        assert "away: " in said and "1.0 MiB" in said and "2 of 16 regions out of sync" in said
        assert "\x1b" not in said, "no colours into a pipe"
        assert "#" in said.splitlines()[-2] and said.splitlines()[-2].count("#") == 2
        assert "away: " in daemon.udm("show", "vol").stdout
        assert daemon.udm("mirror", "show", "vol", "--until-sync", "--for", "0.3", "--interval", "0.1", check=False).returncode == 1
        cells = json.loads(daemon.udm("--json", "mirror", "show", "vol").stdout)[0]["legs"][1]["cells"]
        assert [i for i, n in enumerate(cells) if n] == [0, 4]
        server.start()
        watched = daemon.udm("mirror", "show", "vol", "--until-sync", "--for", "60", "--interval", "0.1").stdout
        assert "all regions are in sync" in watched.splitlines()[-5] and "0 errors" in watched.splitlines()[-1]
        shown = json.loads(daemon.udm("--json", "mirror", "show", "vol").stdout)[0]
        assert shown["details"]["resync_copied_bytes"] <= 9 * MIB, "all of it at first, and then 1 MiB"
        daemon.unexport("vol")
        daemon.remove("vol")
    assert same(near, far)


@pytest.mark.parametrize("no_colour", [False, True])
def test_on_a_terminal_the_picture_has_colours_unless_nobody_wants_them(daemon, tmp_path, no_colour):
    one, two = file_of(tmp_path, "a"), file_of(tmp_path, "b")
    daemon.udm("mirror", "create", "vol", one, two)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "UDM_SOCKET": daemon.socket, "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    environment.pop("NO_COLOR", None)
    if no_colour:
        environment["NO_COLOR"] = "1"
    watching = subprocess.Popen([program("udm"), "mirror", "show", "vol", "--until-sync", "--for", "30", "--interval", "0.1"], stdout=theirs, env=environment)
    os.close(theirs)
    said = b""

    def more():
        nonlocal said
        try:
            said += os.read(ours, 65536)
        except OSError:
            return True    # it has ended
        return False

    wait_until(more, "udm to end", 40)
    os.close(ours)
    assert watching.wait(10) == 0
    assert "·".encode() in said and b"all regions are in sync" in said
    assert (b"\x1b[32m" in said) is not no_colour


def test_the_regions_are_those_of_the_mirror_that_a_volume_stands_on(daemon, tmp_path):
    daemon.udm("mirror", "create", "legs", file_of(tmp_path, "a"), str(tmp_path / "b"))
    daemon.create("vol", "0 16384 linear udm:legs 0")
    mirror, = daemon.rpc("table.regions", device="vol", cells=3)
    assert mirror["device"] == "legs" and len(mirror["cells"]["clean"]) == 3
    assert sum(mirror[kind] for kind in ("clean", "dirty", "recovering", "nosync")) == mirror["regions"] == 16
    for cells in (0, 4097):
        with pytest.raises(RpcError):
            daemon.rpc("table.regions", device="vol", cells=cells)
    daemon.create("plain", "0 8 zero")
    with pytest.raises(RpcError, match="plain is no mirror"):
        daemon.rpc("table.regions", device="plain")
