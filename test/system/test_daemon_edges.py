"""udmd in the corners: a stop with requests that cannot end, restarts with removals pending, clients that race."""

import os
import socket
import subprocess
import threading

import nbd

import pytest

import udmtest
from udmtest import RpcError
from volume import connect, image


def names(daemon):
    return [d["name"] for d in daemon.rpc("device.list")]


def test_a_stop_ends_unanswered_what_a_suspended_device_holds_back(folder):
    with udmtest.Daemon(folder) as daemon:
        daemon.create("vol", f"0 2048 linear {image(folder)} 0")
        handle = connect(daemon.export("vol"))
        daemon.rpc("device.suspend", device="vol")
        cookie = handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(b"A" * 512)), 0)

        def is_held():
            handle.poll(10)
            return daemon.rpc("device.counters", device="vol")[0]["held_back"] == 1

        udmtest.wait_until(is_held, "the write to be held back")
        daemon.stop(timeout=20)
        with pytest.raises(nbd.Error) as lost:
            while not handle.aio_command_completed(cookie):
                handle.poll(1000)
        # No answer of the server's (that would be EIO or ESHUTDOWN): who can reconnect tries again.
        assert lost.value.errno == "ENOTCONN"
    with open(f"{folder}/image", "rb") as file:
        assert file.read(512) == bytes(512)


def test_an_unexport_that_waits_for_a_held_back_request_does_not_keep_the_daemon(folder):
    with udmtest.Daemon(folder) as daemon:
        daemon.create("vol", f"0 2048 linear {image(folder)} 0")
        handle = connect(daemon.export("vol"))
        daemon.rpc("device.suspend", device="vol")
        handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(b"A" * 512)), 0)

        def is_held():
            handle.poll(10)
            return daemon.rpc("device.counters", device="vol")[0]["held_back"] == 1

        udmtest.wait_until(is_held, "the write to be held back")
        with daemon.connect() as other:
            other.socket.sendall(b'{"jsonrpc":"2.0","id":1,"method":"export.remove","params":{"device":"vol"}}\n')
            udmtest.wait_until(lambda: not daemon.rpc("export.list"), "the export to be on its way out")
            daemon.stop(timeout=20)


def test_what_is_exported_comes_back_though_its_removal_is_deferred(folder):
    daemon = udmtest.Daemon(folder, state_dir=True)
    with daemon:
        path = image(folder)
        for i in range(32):
            daemon.create(f"vol{i}", f"0 2048 linear {path} 0")
            daemon.export(f"vol{i}")
            assert daemon.rpc("device.remove", device=f"vol{i}", deferred=True) == {"deferred": True}
        daemon.kill()
        daemon.start()
        assert len(daemon.rpc("export.list")) == 32 and len(names(daemon)) == 32
        daemon.unexport("vol3")
        udmtest.wait_until(lambda: "vol3" not in names(daemon), "the deferred removal")
        assert len(names(daemon)) == 31


def test_an_export_goes_with_its_device_and_is_not_the_next_ones(folder):
    with udmtest.Daemon(folder, state_dir=True) as daemon:
        daemon.create("old", f"0 2048 linear {image(folder, 'old')} 0")
        daemon.export("old")
        daemon.kill()
        os.unlink(f"{folder}/old")
        daemon.start()
        assert daemon.rpc("device.info", device="old")["held_because"] and not daemon.rpc("export.list")
        daemon.remove("old")
        made = daemon.create("other", f"0 2048 linear {image(folder, 'other')} 0")
        assert made["minor"] == 0  # the number that the export was kept for
        daemon.rpc("device.suspend", device="other")
        daemon.rpc("device.resume", device="other")
        assert not daemon.rpc("export.list") and not daemon.rpc("daemon.status")["warnings"]
        daemon.kill()
        daemon.start()
        assert not daemon.rpc("export.list") and not daemon.rpc("daemon.status")["warnings"]


def test_a_take_that_cannot_redirect_leaves_all_as_it_was(folder):
    with udmtest.Daemon(folder, state_dir=True) as daemon:
        # Made by hand: the names of a redirected volume, but no layer that a take made.
        daemon.create("vol-live", f"0 2048 linear {image(folder)} 0")
        daemon.create("vol", "0 2048 linear udm:vol-live 0")
        with pytest.raises(RpcError) as refused:
            daemon.rpc("snapshot.take", origins=[{"origin": "vol", "snapshot": "s"}], redirect=True, cow_dir=folder)
        assert "vol-live is taken" in refused.value.message
        assert names(daemon) == ["vol", "vol-live"] and not os.path.exists(f"{folder}/s.cow")


def test_names_and_numbers_survive_clients_that_create_and_remove_at_once(folder):
    with udmtest.Daemon(folder, state_dir=True) as daemon:

        def churn(number):
            with daemon.connect() as connection:
                for i in range(60):
                    try:
                        connection.rpc("device.create", name=f"d{(number + i) % 4}", table="0 8 zero")
                    except RpcError as error:
                        assert error.data["name"] in ("EBUSY", "ENXIO"), error
                    try:
                        if i < 57 or number % 2:
                            connection.rpc("device.remove", device=f"d{(number * 3 + i) % 4}")
                    except RpcError as error:
                        assert error.data["name"] in ("EBUSY", "ENXIO"), error

        clients = [threading.Thread(target=churn, args=(number,)) for number in range(12)]
        for each in clients:
            each.start()
        for each in clients:
            each.join()
        for i in range(4):
            if f"d{i}" not in names(daemon):
                daemon.create(f"d{i}", "0 8 zero")
        before = [(d["name"], d["minor"]) for d in daemon.rpc("device.list")]
        daemon.kill()
        daemon.start()
        assert [(d["name"], d["minor"]) for d in daemon.rpc("device.list")] == before
        assert daemon.rpc("daemon.status")["warnings"] == []


# UBSan tells a good pointer from a bad one by a pipe, and takes it for bad where no descriptor is left for one.
@pytest.mark.skipif(udmtest.SANITIZER == "asan", reason="UBSan itself wants descriptors")
@pytest.mark.parametrize("limit", [64, 65])
def test_a_stop_ends_the_clients_that_the_last_descriptors_went_to(folder, limit):
    daemon = udmtest.Daemon(folder)
    daemon.command = ["prlimit", f"--nofile={limit}:{limit}", *daemon.command]
    with daemon:
        clients = []
        for _ in range(limit):
            each = socket.socket(socket.AF_UNIX)
            each.connect(daemon.socket)
            clients.append(each)
        udmtest.wait_until(lambda: "no file descriptor" in daemon.read_log(), "the descriptors to run out")
        daemon.stop(timeout=20)
        for each in clients:
            each.close()


def test_a_daemon_that_is_too_busy_to_accept_keeps_its_socket(folder):
    path = f"{folder}/busy"
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(path)
        busy.listen(0)
        waiting = []
        for _ in range(100):
            each = socket.socket(socket.AF_UNIX)
            each.setblocking(False)
            waiting.append(each)
            try:
                each.connect(path)
            except BlockingIOError:
                break
        done = subprocess.run([udmtest.program("udmd"), "--socket", path], timeout=20, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and "another udmd answers" in done.stderr
        assert os.path.exists(path)
        for each in waiting:
            each.close()


@pytest.mark.parametrize("engine", ["uring", "threads"])
def test_a_file_that_shrank_fails_and_serves_again_when_it_has_grown(folder, engine):
    path = image(folder, size=8 << 20)
    with udmtest.Daemon(folder, arguments=["--engine", engine]) as daemon:
        daemon.create("vol", f"0 16384 linear {path} 0")
        uri = daemon.export("vol")
        handle = connect(uri)
        handle.pwrite(b"Z" * 4096, 4 << 20)
        os.truncate(path, 1 << 20)
        connect(uri).shutdown()  # a new connection looks at the size again

        def error_of(request):
            with pytest.raises(nbd.Error) as failed:
                request()
            return failed.value.errno

        # The request is right, as far as the client can know: EINVAL would be its fault.
        assert error_of(lambda: handle.pread(4096, 4 << 20)) == "EIO"
        assert error_of(lambda: handle.pwrite(b"A" * 4096, 6 << 20)) == "EIO"
        assert os.path.getsize(path) == 1 << 20
        os.truncate(path, 8 << 20)
        assert handle.pread(4096, 4 << 20) == bytearray(4096)
        os.unlink(path)
        handle.pwrite(b"B" * 4096, 0)
        assert handle.pread(4096, 0) == b"B" * 4096
        handle.shutdown()


def test_a_shrunk_file_below_a_device_of_another_reactor_is_noticed(folder):
    low, high = image(folder, "low", 4 << 20), image(folder, "high", 4 << 20)
    with udmtest.Daemon(folder, arguments=["--reactors", "2"]) as daemon:
        daemon.create("low", f"0 8192 linear {low} 0")
        daemon.create("high", f"0 8192 linear {high} 0")
        assert {d["home"] for d in daemon.rpc("device.list")} == {0, 1}
        daemon.create("vol", "0 8192 linear udm:low 0\n8192 8192 linear udm:high 0")
        with pytest.raises(RpcError) as refused:
            daemon.rpc("table.load", device="high", table="0 8192 linear udm:vol 0")
        assert "high -> vol -> high" in refused.value.message
        uri = daemon.export("vol")
        handle = connect(uri)
        for path in (low, high):
            os.truncate(path, 1 << 20)
        connect(uri).shutdown()  # a new connection looks at the sizes again
        for offset in (2 << 20, 6 << 20):
            with pytest.raises(nbd.Error) as failed:
                handle.pwrite(b"A" * 4096, offset)
            assert failed.value.errno == "EIO"
        assert os.path.getsize(low) == os.path.getsize(high) == 1 << 20
        handle.shutdown()
