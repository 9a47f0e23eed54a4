"""Stores that fill up under load: events, files that grow by themselves, settings that survive, space given back."""

import concurrent.futures
import json
import os
import subprocess
import threading

import nbd
import pytest

from snapstack import MIB, SECTOR, Stack
from udmtest import Daemon, program, wait_until

SIZE = 64 * MIB


@pytest.fixture
def daemon(tmp_path):
    with Daemon(tmp_path, state_dir=True) as running:
        yield running


@pytest.fixture
def stack(daemon, tmp_path):
    return Stack(daemon, str(tmp_path), SIZE)


def events_of(daemon):
    """What happens from now on, as a list that fills by itself."""
    connection = daemon.connect()
    connection.rpc("events.subscribe")
    seen = []

    def listen():
        try:
            while True:
                seen.append(connection.read()["params"]["what"])
        except (AssertionError, OSError, ValueError):
            pass

    threading.Thread(target=listen, daemon=True).start()
    return seen


def overwrite(stack, first=0, last=SIZE):
    """From several connections at once."""

    def some(uri, part):
        client = nbd.NBD()
        client.connect_uri(uri)
        for at in range(first + part * MIB, last, 4 * MIB):
            client.pwrite(b"n" * MIB, at)
        client.shutdown()

    uri = stack.daemon.export("vol")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(some, [uri] * 4, range(4)))
    stack.daemon.unexport("vol")


def seed(stack):
    with stack.open("vol") as origin:
        for at in range(0, SIZE, MIB):
            origin.write(at, os.urandom(MIB))
        origin.flush()
    return stack.sha256("vol")


def test_a_store_that_fills_up_says_so_and_is_lost(stack):
    seed(stack)
    stack.take("snap", cow_size=16 * MIB)
    seen = events_of(stack.daemon)
    stack.daemon.udm("set", "snap", "thresholds=50,90")
    overwrite(stack)
    assert stack.status("snap") == "Invalid"
    wait_until(lambda: any("snapshot invalid" in what for what in seen), "the event of the loss")
    assert [what.split(":")[0] for what in seen if "full" in what.split(":")[0]] == ["snapshot full 50%", "snapshot full 90%"]


def test_auto_extend_keeps_it_alive_under_load(stack):
    before = seed(stack)
    stack.take("snap", cow_size=8 * MIB)
    seen = events_of(stack.daemon)
    settings = stack.daemon.udm("set", "snap", "auto_extend=4M", "auto_extend_at=70").stdout
    assert "auto_extend=4M" in settings and "auto_extend_at=70" in settings
    overwrite(stack)
    assert "/" in stack.status("snap"), stack.status("snap")
    assert stack.sha256("snap") == before
    assert os.stat(stack.cow("snap")).st_size > SIZE
    assert sum("snapshot extended" in what for what in seen) >= 10
    shown = stack.daemon.udm("show", "snap").stdout
    assert "auto_extend" in shown and "full" in shown, shown


def test_auto_extend_is_kept_and_goes_on_after_a_kill(stack):
    before = seed(stack)
    stack.take("snap", cow_size=8 * MIB)
    stack.daemon.udmsetup("message", "snap", "0", "set auto_extend 4M,1G")
    overwrite(stack, 0, SIZE // 2)
    stack.daemon.kill()
    stack.daemon.start()
    info = json.loads(stack.daemon.udm("--json", "show", "snap").stdout)
    assert info["settings"] == {"auto_extend": "4M,1G"}
    overwrite(stack, SIZE // 2, SIZE)
    assert "/" in stack.status("snap"), stack.status("snap")
    assert stack.sha256("snap") == before


def test_growing_the_file_by_hand_is_used_at_once(stack):
    before = seed(stack)
    stack.take("snap", cow_size=24 * MIB)
    overwrite(stack, 0, 16 * MIB)
    os.truncate(stack.cow("snap"), SIZE + 8 * MIB)
    overwrite(stack, 16 * MIB, SIZE)
    assert stack.sha256("snap") == before


def test_what_cannot_be_extended_or_set_is_refused_with_the_reason(stack):
    stack.daemon.udmsetup("create", "snap", "--table", f"0 {SIZE // SECTOR} snapshot {stack.image} ram:8M P 8")
    for setting, reason in (("auto_extend=1M", "it is no file"), ("thresholds=0", "1 to 100"), ("nonsense=1", "auto_extend_at")):
        done = stack.daemon.udm("set", "snap", setting, check=False)
        assert done.returncode == 1 and reason in done.stderr, done.stderr
    assert "no settings" in stack.daemon.udm("set", "snap").stdout


def test_discarded_chunks_give_their_space_back(stack):
    table = stack.snapshot_table("snap") + " 1 discard_zeroes_cow"
    with open(stack.cow("snap"), "xb") as file:
        file.truncate(SIZE + 8 * MIB)
    stack.daemon.udmsetup("create", "snap", "--table", table)
    with stack.open("snap") as snapshot:
        for at in range(0, 32 * MIB, MIB):
            snapshot.write(at, b"s" * MIB)
        snapshot.flush()
        full = os.stat(stack.cow("snap")).st_blocks * 512
        assert full >= 32 * MIB
        snapshot.handle.trim(32 * MIB, 0)
        snapshot.flush()
        assert snapshot.read(5 * MIB, 4096) == bytes(4096)
    assert os.stat(stack.cow("snap")).st_blocks * 512 <= full - 31 * MIB


def test_the_daemons_settings_are_refused_kept_and_given_at_the_start(daemon, tmp_path):
    assert "snapshot_cow_threshold=2048" in daemon.udm("set", "--daemon").stdout
    assert "snapshot_cow_threshold=7" in daemon.udm("set", "--daemon", "snapshot_cow_threshold=7", "snapshot_copy_memory=8M").stdout
    bad = daemon.udm("set", "--daemon", "snapshot_copy_throttle=200", check=False)
    assert bad.returncode == 1 and "1 to 100" in bad.stderr
    unknown = daemon.udm("set", "--daemon", "nonsense=1", check=False)
    assert unknown.returncode == 1 and "snapshot_copy_throttle" in unknown.stderr
    daemon.kill()
    config = tmp_path / "udmd.conf"
    config.write_text('set = ["snapshot_copy_throttle=50"]\n')
    daemon.command += ["--set", "snapshot_cow_threshold=9"]
    daemon.start()
    settings = daemon.rpc("daemon.status")["settings"]
    expected = {"snapshot_cow_threshold": 9, "snapshot_copy_throttle": 100, "snapshot_copy_memory": 8 * MIB}
    assert settings | expected == settings  # other targets have theirs
    daemon.stop()
    daemon.command = daemon.command[:-2] + ["--config", str(config)]
    daemon.start()
    settings = daemon.rpc("daemon.status")["settings"]
    expected = {"snapshot_cow_threshold": 7, "snapshot_copy_throttle": 50, "snapshot_copy_memory": 8 * MIB}
    assert settings | expected == settings
    daemon.udm("set", "--daemon", "snapshot_cow_threshold=")
    assert daemon.rpc("daemon.status")["settings"]["snapshot_cow_threshold"] == 2048
    bad = subprocess.run([program("udmd"), "--set", "nonsense"], text=True, capture_output=True, timeout=20)
    assert bad.returncode == 2 and "KEY=NUMBER" in bad.stderr
