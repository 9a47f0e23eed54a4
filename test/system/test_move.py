"""Volumes that move to another device or host while they are used (udm move, docs/move.md)."""

import json
import os
import subprocess
import threading
import types

import pytest

import crashload
import nbdserver
import snapstack
import udmtest
from udmtest import Daemon, RpcError, wait_until
from volume import Volume

MIB = 1 << 20
SIZE = 16 * MIB


def make_volume(daemon, folder, size=SIZE, fill=crashload.fill):
    source = os.path.join(folder, "source.img")
    fill(source, size)
    daemon.create("vol", f"0 {size // 512} linear {source} 0")
    return source


def content(path, size=SIZE):
    with open(path, "rb") as file:
        return file.read(size)


def same(one, other, size=SIZE):
    return content(one, size) == content(other, size)


def move_of(daemon, name="vol"):
    """What is said of its move; None when it does not move."""
    moves = daemon.rpc("move.list", device=name)
    return moves[0] if moves else None


def left(daemon, name="vol"):
    move = move_of(daemon, name)
    return move["left_bytes"] if move else 0


def arrives(daemon, name="vol", timeout=60):
    wait_until(lambda: move_of(daemon, name) is None, f"{name} to arrive", timeout)


def full_speed(daemon, name="vol"):
    daemon.rpc("device.set", device=name, key="resync_rate", value=None)


def slow_start(daemon, to, rate="8M", part=0.7):
    """A move that is in its middle."""
    daemon.rpc("move.start", device="vol", to=str(to), rate=rate)
    wait_until(lambda: left(daemon) < SIZE * part, "some to be copied")
    assert left(daemon) > 0


# --------------------------------------------------------------------------------------------- under load
def test_a_volume_moves_between_files_and_hosts_under_load_and_nobody_notices(folder):
    far, target, near = (os.path.join(folder, name) for name in ("far", "target.img", "near.img"))
    os.mkdir(far)
    for path in (os.path.join(far, "kit.img"), os.path.join(far, "disk.img")):
        with open(path, "wb") as file:
            file.truncate(SIZE + MIB)  # larger than the volume is fine
    with nbdserver.Nbdkit(folder, "file", os.path.join(far, "kit.img")) as kit, Daemon(far) as other, Daemon(folder) as daemon:
        source = make_volume(daemon, folder)
        other.create("disk", f"0 {(SIZE + MIB) // 512} linear {os.path.join(far, 'disk.img')} 0")
        journal = os.path.join(folder, "journal")
        with crashload.CrashLoad(journal, {"vol": daemon.export("vol")}) as load:
            for to in (target, kit.uri, other.export("disk"), near):
                load.wait_for_writes(100)
                begun = daemon.rpc("move.start", device="vol", to=to)
                assert (begun["to"], begun["bytes"]) == (to, SIZE)
                assert daemon.table("vol").split()[2] == "mirror"
                arrives(daemon)
                assert daemon.table("vol") == f"0 {SIZE // 512} linear {to} 0"
            load.wait_for_writes(100)
            counters = load.finish()
        print(counters)
        assert counters["losses"] == 0  # no error, and no connection lost
        daemon.unexport("vol")
        daemon.remove("vol")
        daemon.create("again", f"0 {SIZE // 512} linear {near} 0")
        status, said = crashload.check(journal, vol=daemon.export("again"))
        assert status == 0, said
        daemon.unexport("again")
        assert not same(source, near)


def test_all_that_is_written_until_the_end_is_in_both(folder, daemon):
    source, target = make_volume(daemon, folder), os.path.join(folder, "target.img")
    with crashload.CrashLoad(os.path.join(folder, "journal"), {"vol": daemon.export("vol")}) as load:
        slow_start(daemon, target)
        load.wait_for_writes(200)
        counters = load.finish()
    assert counters["losses"] == 0
    assert left(daemon) > 0  # still under way
    full_speed(daemon)
    arrives(daemon)
    daemon.unexport("vol")
    daemon.remove("vol")
    assert same(source, target)


def test_a_server_that_is_killed_in_the_middle_is_waited_for(folder, daemon):
    source, target = make_volume(daemon, folder), os.path.join(folder, "target.img")
    with open(target, "wb") as file:
        file.truncate(SIZE)
    with nbdserver.Nbdkit(folder, "file", target) as server:
        daemon.udm("set", "--daemon", "nbd_timeout=60")
        with crashload.CrashLoad(os.path.join(folder, "journal"), {"vol": daemon.export("vol")}) as load:
            daemon.udm("move", "vol", server.uri, "--rate", "8M", "--background")
            daemon.udm("set", "vol", "nbd_timeout=1")
            wait_until(lambda: left(daemon) < SIZE * 0.7, "some to be copied")
            server.kill()
            waiting = wait_until(lambda: (m := move_of(daemon))["state"] == "waiting" and m, "the move to wait", 30)
            assert "goes on from" in waiting["because"] and source in waiting["because"]
            assert "waiting" in daemon.udm("move").stdout
            load.wait_for_writes(200)  # the volume goes on
            assert move_of(daemon)["left_bytes"] > 0
            server.start()
            full_speed(daemon)
            load.wait_for_writes(200)
            arrives(daemon)
            counters = load.finish()
        assert counters["losses"] == 0
        assert daemon.table("vol") == f"0 {SIZE // 512} linear {server.uri} 0"
        journal = crashload.check(os.path.join(folder, "journal"), vol=daemon.export("vol"))
        assert journal[0] == 0, journal[1]


# ------------------------------------------------------------------------------------------------- crashes
def test_after_a_kill_only_what_was_not_copied_is_copied(folder):
    far, here = os.path.join(folder, "far"), os.path.join(folder, "here")
    os.mkdir(far)
    os.mkdir(here)
    with Daemon(far) as other, Daemon(here, state_dir=True) as daemon:
        source = make_volume(daemon, folder)
        with open(os.path.join(far, "disk.img"), "wb") as file:
            file.truncate(SIZE)
        other.create("disk", f"0 {SIZE // 512} linear {os.path.join(far, 'disk.img')} 0")
        uri = other.export("disk")

        def written():
            return other.rpc("device.counters", device="disk")[0]["write"]["sectors"] * 512

        daemon.rpc("move.start", device="vol", to=uri, rate="16M")
        daemon.rpc("device.set", device="vol", key="log_rest", value=20)  # the log learns soon what is copied
        wait_until(lambda: left(daemon) < SIZE // 2, "half of it")
        daemon.rpc("move.pause", device="vol")
        log = os.path.join(here, "state", "logs", f"move-{daemon.rpc('device.info', device='vol')['minor']}-0.log")
        copied = written()

        def clean_regions():
            with open(log, "rb") as file:
                return sum(byte.bit_count() for byte in file.read()[1024:])

        regions = SIZE // (512 << 10)
        wait_until(lambda: clean_regions() >= regions * 0.4, "the log to have it")
        daemon.kill()
        daemon.start()
        wait_until(lambda: move_of(daemon)["state"] == "paused", "the volume to be up again")
        assert left(daemon) <= SIZE * 0.6
        daemon.rpc("move.resume", device="vol")
        full_speed(daemon)
        arrives(daemon)
        more = written() - copied
        print(f"copied {copied >> 20} MiB before the kill, {more >> 20} MiB after it, of {SIZE >> 20} MiB")
        assert copied + more < SIZE * 1.15
        assert daemon.table("vol") == f"0 {SIZE // 512} linear {uri} 0"
        assert not os.path.exists(log)
        daemon.remove("vol")
        assert same(source, os.path.join(far, "disk.img"))


def test_kills_at_any_moment_of_moves_under_load_lose_nothing(folder):
    journal = os.path.join(folder, "journal")
    with Daemon(folder, state_dir=True) as daemon:
        source = make_volume(daemon, folder)
        places = [source, os.path.join(folder, "target.img")]
        kills = {"moving": 0, "there": 0}
        with crashload.CrashLoad(journal, {"vol": daemon.export("vol")}, patience=60) as load:
            for i, part in enumerate((1.0, 0.9, 0.5, 0.1, 0.0, 0.0)):
                to = places[1] if daemon.table("vol").split()[3] == places[0] else places[0]
                load.wait_for_writes(50)
                daemon.rpc("move.start", device="vol", to=to, rate="0" if part == 0 else "64M")
                wait_until(lambda part=part: left(daemon) <= SIZE * part, "the moment to kill")
                daemon.kill()
                daemon.start()
                kills["moving" if move_of(daemon) else "there"] += 1
                full_speed(daemon) if move_of(daemon) else None
                arrives(daemon)
                assert daemon.table("vol") == f"0 {SIZE // 512} linear {to} 0", i
                assert os.listdir(os.path.join(folder, "state", "logs")) == []
            load.wait_for_writes(50)
            counters = load.finish()
        print(kills, counters)
        status, said = crashload.check(journal, vol=daemon.export("vol"))
        assert status == 0, said


def test_a_volume_whose_new_place_is_away_at_a_restart_waits_or_is_taken_back(folder):
    target = os.path.join(folder, "target.img")
    with open(target, "wb") as file:
        file.truncate(SIZE)
    with nbdserver.Nbdkit(folder, "file", target) as server, Daemon(folder, state_dir=True) as daemon:
        source = make_volume(daemon, folder)
        before = daemon.table("vol")
        for taken_back in (False, True):
            daemon.rpc("move.start", device="vol", to=server.uri, rate="8M")
            daemon.kill()
            server.kill()
            daemon.start()
            move = move_of(daemon)
            assert move["state"] == "held" and server.uri in move["because"]
            row = daemon.udm("move").stdout.splitlines()[1]
            assert "held" in row and "%" not in row
            if taken_back:
                # The kernel may keep the locks of the one that was killed for a moment.
                wait_until(lambda: daemon.udm("move", "vol", "--abort", check=False).returncode == 0, "the move to be taken back")
                assert daemon.table("vol") == before
            else:
                server.start()
                wait_until(lambda: (m := move_of(daemon)) is None or m["state"] == "copying", "the volume to be up")
                full_speed(daemon) if move_of(daemon) else None
                arrives(daemon)
                daemon.udm("move", "vol", source)
                before = daemon.table("vol")
        expected = os.path.join(folder, "expected.img")
        crashload.fill(expected, SIZE)
        assert same(source, expected)


def test_a_volume_comes_up_without_its_new_place_after_a_while(folder):
    target = os.path.join(folder, "target.img")
    with open(target, "wb") as file:
        file.truncate(SIZE)
    with nbdserver.Nbdkit(folder, "file", target) as server, Daemon(folder, state_dir=True) as daemon:
        source = make_volume(daemon, folder)
        daemon.udm("set", "--daemon", "nbd_timeout=1")
        slow_start(daemon, server.uri)
        daemon.kill()
        server.kill()
        daemon.start()
        waiting = wait_until(lambda: (m := move_of(daemon))["state"] == "waiting" and m, "the volume to come up alone", 30)
        assert source in waiting["because"]
        with Volume(daemon, "vol") as volume:
            assert volume.write_pattern(3, 1000, 500)
            volume.flush()
        server.start()
        full_speed(daemon)
        arrives(daemon)
        daemon.remove("vol")
        assert same(source, target)


def test_a_lost_log_is_named_and_the_old_table_can_be_loaded(folder):
    with Daemon(folder, state_dir=True) as daemon:
        make_volume(daemon, folder)
        before = daemon.table("vol")
        slow_start(daemon, os.path.join(folder, "target.img"))
        daemon.kill()
        logs = os.path.join(folder, "state", "logs")
        log = os.path.join(logs, os.listdir(logs)[0])
        os.unlink(log)
        daemon.start()
        assert move_of(daemon)["state"] == "held"
        with pytest.raises(RpcError) as refused:
            daemon.rpc("move.abort", device="vol")
        assert f"lost its move's log {log}" in refused.value.message and f"'{before}'" in refused.value.message, refused.value.message
        daemon.udmsetup("load", "vol", "--table", before)
        daemon.udmsetup("resume", "vol")
        wait_until(lambda: daemon.rpc("move.list") == [], "the move to be over")
        assert daemon.table("vol") == before


def test_a_damaged_state_leaves_the_logs_of_moves_where_they_are(folder):
    state = os.path.join(folder, "state")
    with Daemon(folder, state_dir=True) as daemon:
        source, target = make_volume(daemon, folder), os.path.join(folder, "target.img")
        slow_start(daemon, target, rate="4M")
        log = os.path.join(state, "logs", os.listdir(os.path.join(state, "logs"))[0])
        daemon.kill()
        whole = content(os.path.join(state, "state.log"), -1)
        with open(os.path.join(state, "state.log"), "wb") as file:
            file.write(b"?" + whole[1:])
        before = content(log, -1)
        for _ in range(2):  # the second finds a state that is whole, and another one put aside
            daemon.start()
            assert daemon.rpc("device.list") == []
            assert content(log, -1) == before
            daemon.kill()
        for name in os.listdir(state):
            if name.startswith("state.log"):
                os.unlink(os.path.join(state, name))
        with open(os.path.join(state, "state.log"), "wb") as file:
            file.write(whole)
        daemon.start()
        assert left(daemon) > 0
        full_speed(daemon)
        arrives(daemon)
        daemon.remove("vol")
        assert same(source, target)
        assert os.listdir(os.path.join(state, "logs")) == []


def test_a_log_that_another_table_uses_outlives_the_move(folder):
    with Daemon(folder, state_dir=True) as daemon:
        source, target = make_volume(daemon, folder), os.path.join(folder, "target.img")
        slow_start(daemon, target)
        logs = os.path.join(folder, "state", "logs")
        log = os.path.join(logs, os.listdir(logs)[0])
        daemon.udmsetup("load", "vol", "--table", f"0 {SIZE // 512} mirror disk 2 {log} 1024 2 {source} 0 {target} 0 1 handle_errors")
        daemon.udmsetup("resume", "vol")
        wait_until(lambda: daemon.rpc("move.list") == [], "the move to be over")
        assert os.path.exists(log) and os.path.exists(target)
        daemon.kill()
        daemon.start()
        assert daemon.table("vol").split()[2:6] == ["mirror", "disk", "2", log]
        daemon.remove("vol")
        daemon.kill()
        daemon.start()  # nobody wants it now
        assert os.listdir(logs) == []


def test_who_removes_a_volume_or_loads_another_table_ends_its_move(folder):
    with Daemon(folder, state_dir=True) as daemon:
        source = make_volume(daemon, folder)
        logs = os.path.join(folder, "state", "logs")
        for i, end in enumerate((lambda: daemon.udmsetup("resume", "vol"), lambda: daemon.remove("vol"))):
            daemon.rpc("move.start", device="vol", to=os.path.join(folder, f"target{i}.img"), rate="1M")
            assert len(os.listdir(logs)) == 1
            daemon.udmsetup("load", "vol", "--table", f"0 {SIZE // 512} linear {source} 0")
            end()
            wait_until(lambda: os.listdir(logs) == [] and daemon.rpc("move.list") == [], "the move to be over")


def test_what_cannot_be_read_of_the_old_place_is_said(folder, daemon):
    make_volume(daemon, folder)
    half = SIZE // 1024
    source = os.path.join(folder, "source.img")
    daemon.create("broken", f"0 {half} linear {source} 0\n{half} 8 error\n{half + 8} {half - 8} linear {source} {half + 8}")
    daemon.create("over", f"0 {SIZE // 512} linear udm:broken 0")
    daemon.rpc("move.start", device="over", to=os.path.join(folder, "target.img"))
    waiting = wait_until(lambda: (m := move_of(daemon, "over"))["state"] == "waiting" and m["left_bytes"] == 512 << 10 and m, "the rest to be copied")
    assert "udm:broken cannot be read everywhere" in waiting["because"]
    assert "moves    to" in daemon.udm("show", "over").stdout
    daemon.udmsetup("load", "broken", "--table", f"0 {SIZE // 512} linear {source} 0")
    daemon.udmsetup("resume", "broken")
    daemon.udmsetup("message", "over", "0", "resync_retry")
    arrives(daemon, "over")


@pytest.mark.parametrize("sectors", [2, 5, 2049])
def test_volumes_of_any_size_move(folder, daemon, sectors):
    source, target = make_volume(daemon, folder, sectors * 512), os.path.join(folder, "target.img")
    daemon.udm("move", "vol", target)
    assert os.path.getsize(target) == sectors * 512
    assert same(source, target)


def test_all_lines_of_a_table_move_to_one_place_over_a_kill(folder):
    with Daemon(folder, state_dir=True) as daemon:
        one, two, target = (os.path.join(folder, name) for name in ("one.img", "two.img", "target.img"))
        expected = os.path.join(folder, "expected.img")
        crashload.fill(expected, SIZE)
        cut = 8 * MIB + 512 * 13
        for path, first, rest in ((one, 0, cut), (two, cut, SIZE - cut)):
            with open(expected, "rb") as file, open(path, "wb") as out:
                file.seek(first)
                out.truncate(MIB)
                out.seek(MIB)
                out.write(file.read(rest))
        table = f"0 {cut // 512} linear {one} 2048\n{cut // 512} {(SIZE - cut) // 512} linear {two} 2048"
        daemon.create("vol", table)
        with crashload.CrashLoad(os.path.join(folder, "journal"), {"vol": daemon.export("vol")}) as load:
            daemon.rpc("move.start", device="vol", to=target, rate="2M")
            assert len(os.listdir(os.path.join(folder, "state", "logs"))) == 2
            wait_until(lambda: left(daemon) < SIZE * 0.9, "some to be copied")
            assert daemon.udm("move", "vol", "--abort", check=False).returncode == 0
            assert daemon.table("vol") == table and not os.path.exists(target)
            daemon.rpc("move.start", device="vol", to=target, rate="2M")
            load.wait_for_writes(100)
            wait_until(lambda: left(daemon) < SIZE * 0.9, "some to be copied")
            daemon.rpc("move.pause", device="vol")
            daemon.kill()
            daemon.start()
            assert move_of(daemon)["state"] == "paused" and left(daemon) > 0
            full_speed(daemon)
            daemon.rpc("move.resume", device="vol")
            load.wait_for_writes(100)
            arrives(daemon)
            load.finish()
        assert daemon.table("vol") == f"0 {SIZE // 512} linear {target} 0"
        assert os.listdir(os.path.join(folder, "state", "logs")) == []
        status, said = crashload.check(os.path.join(folder, "journal"), vol=daemon.export("vol"))
        assert status == 0, said


# -------------------------------------------------------------------------------------------------- snapshots
def test_a_volume_with_a_snapshot_moves_under_a_load_that_reads_both(folder):
    target = os.path.join(folder, "target.img")
    with Daemon(folder, state_dir=True) as daemon:
        make_volume(daemon, folder)
        journal = os.path.join(folder, "journal")
        with crashload.CrashLoad(journal, {"vol": daemon.export("vol")}) as load:
            load.wait_for_writes(100)
            load.ask("begin then vol")
            daemon.udm("snapshot", "take", "vol=then")
            uri = daemon.export("then")
            load.ask(f"end then {uri}")
            load.wait_for_writes(100)
            daemon.rpc("move.start", device="vol", to=target, rate="16M")
            load.wait_for_writes(200)
            wait_until(lambda: left(daemon) < SIZE // 2, "half of it")
            load.ask("hold")
            assert load.counters()["losses"] == 0
            load.ask("go")
            daemon.kill()
            daemon.start()
            load.wait_for_writes(200)
            full_speed(daemon, "vol-real") if move_of(daemon) else None
            arrives(daemon)
            assert load.ask("verify").startswith("ok")
            load.finish()
        assert daemon.table("vol-real") == f"0 {SIZE // 512} linear {target} 0"
        status, said = crashload.check(journal, vol=daemon.export("vol"), then=daemon.export("then"))
        assert status == 0, said


def test_a_kill_while_a_device_is_put_below_leaves_volume_and_snapshots_whole(folder):
    with Daemon(folder, state_dir=True) as daemon:
        came = set()
        for i, delay in enumerate((0.0005, 0.002, 0.004, 0.006, 0.009, 0.015)):
            source = os.path.join(folder, f"source{i}.img")
            crashload.fill(source, MIB)
            daemon.create("vol", f"0 {MIB // 512} linear {source} 0")
            with Volume(daemon, "vol") as volume:
                daemon.udm("snapshot", "take", "vol=then")
                then = volume.sha256()
                assert volume.write_pattern(i, 100, 500)
                volume.flush()
                now = volume.sha256()
            control = daemon.connect()
            request = {"jsonrpc": "2.0", "id": 1, "method": "move.start", "params": {"device": "vol", "to": os.path.join(folder, f"target{i}.img")}}
            killing = threading.Timer(delay, daemon.process.kill)
            control.socket.sendall(json.dumps(request).encode() + b"\n")
            killing.start()
            killing.join()
            control.close()
            daemon.kill()
            daemon.start()
            came.add(daemon.table("vol").split()[3] == "udm:vol-real")
            arrives(daemon)
            for name, digest in (("vol", now), ("then", then)):
                with Volume(daemon, name) as device:
                    assert device.sha256() == digest, (name, delay)
            daemon.udm("snapshot", "drop", "then")
            daemon.remove("vol")
            wait_until(lambda: daemon.rpc("device.list") == [], "what was put below to go")
        print(came)


@pytest.mark.parametrize("state_dir", [False, True])
def test_a_volume_moves_with_its_snapshots_which_stay_as_they_were(folder, state_dir):
    with Daemon(folder, state_dir=state_dir) as daemon:
        make_volume(daemon, folder)
        target = os.path.join(folder, "target.img")
        with Volume(daemon, "vol") as volume:
            expected = {}
            for name in ("one", "two"):
                expected[name] = volume.sha256()
                daemon.udm("snapshot", "take", f"vol={name}")
                assert volume.write_pattern(len(expected), 1000 * len(expected), 4000)
            volume.flush()
            daemon.rpc("move.start", device="vol", to=target, rate="16M")
            wait_until(lambda: left(daemon) < SIZE // 2, "half of it")
            daemon.udm("set", "vol", "resync_share=50")  # of what is below
            assert volume.write_pattern(9, 20000, 4000)  # copied before, and copied later
            volume.flush()
        if state_dir:
            daemon.kill()
            daemon.start()
        with Volume(daemon, "vol") as volume:
            expected_volume = volume.sha256()
            full_speed(daemon, "vol-real") if move_of(daemon) else None
            daemon.udm("snapshot", "take", "vol=three")  # while it moves
            assert volume.write_pattern(10, 30000, 1000)
            arrives(daemon)
            for name, digest in (*expected.items(), ("three", expected_volume)):
                with Volume(daemon, name) as snapshot:
                    assert snapshot.sha256() == digest, name
            now = volume.sha256()
        assert daemon.table("vol-real") == f"0 {SIZE // 512} linear {target} 0"
        for name in ("one", "three"):
            daemon.udm("snapshot", "drop", name)
        daemon.udm("snapshot", "merge", "two")
        with Volume(daemon, "vol") as volume:
            assert volume.sha256() == expected["two"] != now


# ----------------------------------------------------------------------------------------------- taking it back
def test_a_move_that_is_taken_back_leaves_everything_as_it_was(folder):
    with Daemon(folder, state_dir=True) as daemon:
        source, target, theirs = make_volume(daemon, folder), os.path.join(folder, "target.img"), os.path.join(folder, "theirs.img")
        with open(theirs, "wb") as file:
            file.truncate(SIZE)
        before = daemon.table("vol")
        daemon.udm("set", "--daemon", "nbd_timeout=60")
        with crashload.CrashLoad(os.path.join(folder, "journal"), {"vol": daemon.export("vol")}) as load:
            for to in (target, theirs):
                slow_start(daemon, to)
                load.wait_for_writes(50)
                answer = daemon.rpc("move.abort", device="vol")
                assert answer == {"device": "vol", "from": source, "to": to, "removed": to == target}
                assert daemon.table("vol") == before
                assert os.path.exists(to) == (to == theirs)
                load.wait_for_writes(50)
            counters = load.finish()
        assert counters["losses"] == 0
        assert os.listdir(os.path.join(folder, "state", "logs")) == []
        assert daemon.rpc("device.info", device="vol")["settings"] == {}
        with pytest.raises(RpcError, match="vol does not move now"):
            daemon.rpc("move.abort", device="vol")
        daemon.kill()
        daemon.start()
        assert daemon.table("vol") == before


def test_a_move_is_taken_back_while_its_server_is_away(folder, daemon):
    make_volume(daemon, folder)
    before = daemon.table("vol")
    target = os.path.join(folder, "target.img")
    with open(target, "wb") as file:
        file.truncate(SIZE)
    with nbdserver.Nbdkit(folder, "file", target) as server:
        daemon.rpc("move.start", device="vol", to=server.uri, rate="8M")
        daemon.udm("set", "vol", "nbd_timeout=1")
        server.kill()
        wait_until(lambda: move_of(daemon)["state"] == "waiting", "the move to wait", 30)
        daemon.udm("move", "vol", "--abort")
    assert daemon.table("vol") == before


# ------------------------------------------------------------------------------------------------- refusals
def test_what_cannot_be_is_refused_with_words(folder, daemon):
    source = make_volume(daemon, folder)
    small, other, ready = (os.path.join(folder, name) for name in ("small.img", "other.img", "ready.img"))
    for path, size in ((small, SIZE - MIB), (other, SIZE), (ready, SIZE)):
        with open(path, "wb") as file:
            file.truncate(size)
    daemon.create("user", f"0 {SIZE // 512} linear {other} 0")
    before = daemon.table("vol")

    def refused(to, *words, name="vol"):
        with pytest.raises(RpcError) as error:
            daemon.rpc("move.start", device=name, to=to)
        for word in words:
            assert word in error.value.message, error.value.message
        assert daemon.table("vol") == before
        assert daemon.rpc("move.list") == []

    refused(small, small, "too small", "15 MiB", "16 MiB")
    refused(other, "in use", "user stands on it")
    refused(source, "in use", "vol stands on it")
    refused("ram:dest:64M", "memory")
    refused("udm:vol", "itself")
    refused("udm:nobody", "no such device")
    refused(os.path.join(folder, "none", "there.img"), "No such file or directory")
    refused(f"nbd+unix:///?socket={folder}/nobody.sock", "nobody.sock")
    with nbdserver.Nbdkit(folder, "-r", "file", ready) as server:
        refused(server.uri, "read-only")
    far = os.path.join(folder, "far")
    os.mkdir(far)
    with Daemon(far) as other_daemon:
        other_daemon.create("theirs", f"0 {SIZE // 512} linear {ready} 0")
        refused(ready, "in use by another process")
    daemon.create("zero", "0 64 zero")
    refused(ready, "type zero", name="zero")
    daemon.rpc("device.create", name="ro", table=f"0 {SIZE // 512} linear {other} 0", read_only=True)
    refused(ready, "read-only", name="ro")
    daemon.create("memory", "0 2048 linear ram:1M 0")
    refused(ready, "memory that is its own", name="memory")
    daemon.udm("snapshot", "take", "--redirect", "user=still")
    refused(ready, "redirected", name="user")
    refused(ready, "still image", name="still")
    with pytest.raises(RpcError, match="rate 'fast'"):
        daemon.rpc("move.start", device="vol", to=ready, rate="fast")


def test_a_disk_of_a_held_volume_is_not_overwritten(folder):
    with Daemon(folder, state_dir=True) as daemon:
        make_volume(daemon, folder)
        one, two = os.path.join(folder, "one.img"), os.path.join(folder, "two.img")
        for path in (one, two):
            crashload.fill(path, SIZE)
        half = SIZE // 1024
        daemon.create("pair", f"0 {half} linear {one} 0\n{half} {half} linear {two} 0")
        daemon.kill()
        os.rename(two, two + ".away")
        daemon.start()
        os.symlink(one, os.path.join(folder, "link"))
        for to in (one, two, os.path.join(folder, "link")):
            with pytest.raises(RpcError, match=f"{to} belongs to pair, which is held"):
                daemon.rpc("move.start", device="vol", to=to)
        assert not os.path.exists(two)
        os.rename(two + ".away", two)
        daemon.udmsetup("resume", "pair")
        with Volume(daemon, "pair") as pair:
            whole = pair.sha256()
        with pytest.raises(RpcError, match="pair stands on it"):
            daemon.rpc("move.start", device="vol", to=one)
        with Volume(daemon, "pair") as pair:
            assert pair.sha256() == whole


def test_a_device_is_no_new_place_when_what_it_stands_on_has_others_there(folder, daemon):
    source = make_volume(daemon, folder)
    large = os.path.join(folder, "large.img")
    with open(large, "wb") as file:
        file.truncate(3 * SIZE)
    sectors = SIZE // 512
    daemon.create("itself", f"0 {sectors} linear {source} 0")
    daemon.create("first", f"0 {sectors} linear {large} 0")
    daemon.create("beside", f"0 {sectors} linear {large} {sectors}")
    daemon.create("across", f"0 {sectors} linear {large} {sectors + 8}")
    daemon.create("over", f"0 {sectors} linear udm:across 0")
    for to, who in (("itself", "vol"), ("beside", "across"), ("over", "first")):
        with pytest.raises(RpcError, match=f"udm:{to} stands on a disk that {who} stands on, too"):
            daemon.rpc("move.start", device="vol", to=f"udm:{to}")
    daemon.udm("move", "vol", "udm:first")  # nobody else is there
    assert daemon.table("vol") == f"0 {sectors} linear udm:first 0"


# ------------------------------------------------------------------------------------------------ for people
def test_the_command_line_moves_pauses_and_lists(folder, daemon):
    source, target = make_volume(daemon, folder), os.path.join(folder, "target.img")
    assert "Nothing moves" in daemon.udm("move").stdout
    done = daemon.udm("move", "vol", target)
    assert done.stdout == f"vol is on {target} now; {source} is free\n"
    os.unlink(source)
    begun = json.loads(daemon.udm("--json", "move", "vol", source, "--rate", "4M", "--background").stdout)
    assert (begun["device"], begun["to"], begun["moved"]) == ("vol", source, False)
    assert "rests" in daemon.udm("move", "vol", "--pause").stdout
    listed = daemon.udm("move").stdout.splitlines()
    assert listed[0].split() == ["VOLUME", "FROM", "TO", "STATE", "DONE", "OF", "RATE"]
    assert listed[1].split()[:4] == ["vol", target, source, "paused"]
    busy = daemon.udm("move", "vol", os.path.join(folder, "third.img"), check=False)
    assert busy.returncode == 1 and "is being moved already" in busy.stderr and not os.path.exists(os.path.join(folder, "third.img"))
    taking = daemon.udm("snapshot", "take", "vol", check=False)
    assert taking.returncode == 1 and "is being moved" in taking.stderr
    daemon.udm("move", "vol", "--resume")
    assert "at 6M a second" in daemon.udm("move", "vol", "--rate", "6M", "--background").stdout
    done = json.loads(daemon.udm("--json", "move", "vol", "--rate", "0").stdout)
    assert done["moved"] is True
    assert daemon.table("vol") == f"0 {SIZE // 512} linear {source} 0"
    assert daemon.udm("move", "vol", check=False).returncode == 1
    assert daemon.udm("move", "vol", "--abort", "--pause", check=False).returncode == 2


def test_other_clients_read_the_same_before_and_after(folder, daemon):
    make_volume(daemon, folder)
    uri = daemon.export("vol")
    subprocess.run(["qemu-io", "-f", "raw", "-c", "write -P 7 1M 10M", "-c", "flush", uri], check=True, capture_output=True, timeout=60)
    daemon.rpc("move.start", device="vol", to=os.path.join(folder, "target.img"), rate="16M")
    assert int(subprocess.run(["nbdinfo", "--size", uri], check=True, capture_output=True, text=True, timeout=60).stdout) == SIZE
    subprocess.run(["qemu-io", "-f", "raw", "-c", "read -P 7 1M 10M", "-c", "write -P 8 2M 4M", "-c", "write -z 12M 1M", uri], check=True, capture_output=True, timeout=60)
    full_speed(daemon)
    arrives(daemon)
    done = subprocess.run(["qemu-io", "-f", "raw", "-c", "read -P 7 1M 1M", "-c", "read -P 8 2M 4M", "-c", "read -P 7 6M 5M", "-c", "read -P 0 12M 1M", uri],
                          check=True, capture_output=True, text=True, timeout=60)
    assert "mismatch" not in done.stdout + done.stderr


@snapstack.needs_mounts()
def test_a_mounted_file_system_moves(folder, daemon):
    make_volume(daemon, folder, fill=lambda path, size: snapstack.run("truncate", "-s", str(size), path))
    target = os.path.join(folder, "target.img")
    with snapstack.block_device(types.SimpleNamespace(daemon=daemon, folder=folder), "vol") as disk:
        snapstack.run("mkfs.ext4", "-q", disk)
        with snapstack.mounted(disk, f"{folder}/mounted") as tree:
            snapstack.fill_tree(tree, 1, 30)
            daemon.rpc("move.start", device="vol", to=target, rate="16M")
            snapstack.fill_tree(tree, 2, 30)
            arrives(daemon)
            snapstack.fill_tree(tree, 3, 30)
            for seed in (1, 2, 3):
                snapstack.check_tree(tree, seed, 30)
    snapstack.run("e2fsck", "-fn", target)
