"""NBD servers that die, hang, talk nonsense or come back as something else, below devices in use."""

import os
import signal
import threading
import time

import nbd
import pytest

import crashload
import fakenbd
import nbdserver
from udmtest import Daemon, RpcError, let_time_pass, wait_until
from volume import connect

MIB = 1 << 20
SIZE = 8 * MIB
MANY = fakenbd.USUAL | fakenbd.MULTI_CONN


@pytest.fixture
def server(folder):
    with fakenbd.Fake(os.path.join(folder, "s")) as running:
        yield running


class Later:
    """A call on a thread of its own: .result() waits for what comes of it, and raises what it raised."""

    def __init__(self, function, *arguments):
        self.value = self.error = None

        def run():
            try:
                self.value = function(*arguments)
            except Exception as error:  # noqa: BLE001: raised again in result()
                self.error = error

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    @property
    def waits(self):
        return self.thread.is_alive()

    def result(self, timeout=30):
        self.thread.join(timeout)
        assert not self.waits, "it still waits"
        if self.error:
            raise self.error
        return self.value


# ------------------------------------------------------------------------------------------------------- under load
@pytest.mark.parametrize("engine", ["uring", "threads"])
def test_a_server_killed_under_load_loses_nothing_and_nobody_notices(folder, engine):
    """Its data are in a file: what it had answered is there when it comes back. Flushes may fail, requests may not."""
    image = os.path.join(folder, "image")
    crashload.fill(image, SIZE)
    with nbdserver.Nbdkit(folder, "file", image) as server, Daemon(folder, arguments=["--engine", engine]) as daemon:
        daemon.udm("create", "vol", server.uri)
        with crashload.CrashLoad(os.path.join(folder, "journal"), {"vol": daemon.export("vol")}, flush_may_fail=True) as load:
            for how in [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL]:
                load.wait_for_writes(1500)
                server.kill(how)
                server.start()
            load.wait_for_writes(1500)
            counters = load.finish()
            print(engine, counters)
        assert counters["losses"] == 0, "a connection to udmd was lost"
        daemon.unexport("vol")
        daemon.remove("vol")
    with nbdserver.Nbdkit(folder, "file", image, name="after") as after:
        status, said = crashload.check(os.path.join(folder, "journal"), vol=after.uri)
        assert status == 0, said


# ---------------------------------------------------------------------------------------------------------- patience
def test_requests_wait_for_a_server_that_comes_back(daemon, server):
    daemon.udm("create", "vol", server.uri)
    handle = connect(daemon.export("vol"))
    handle.pwrite(b"a" * 512, 0)
    handle.flush()
    server.stop()
    reading = Later(handle.pread, 512, 0)
    let_time_pass(0.5)
    assert reading.waits
    server.start()
    assert reading.result() == b"a" * 512
    handle.pwrite(b"b" * 512, 512)
    handle.flush()    # everything was flushed before the server went: nothing can have been lost
    assert server.durable[:1024] == b"a" * 512 + b"b" * 512
    assert "connected again after" in daemon.read_log()


def test_patience_ends_and_the_device_works_again_later(daemon, server):
    daemon.udm("create", "vol", server.uri)
    daemon.udm("set", "vol", "nbd_timeout=1")
    handle = connect(daemon.export("vol"))
    server.stop()
    with pytest.raises(nbd.Error, match="Input/output error"):
        handle.pread(512, 0)
    began = time.monotonic()
    with pytest.raises(nbd.Error):
        handle.pwrite(b"x" * 512, 0)
    assert time.monotonic() - began < 0.5, "nobody waits twice"
    assert "no answer for 1 s: 1 requests fail" in daemon.read_log()
    server.start()
    wait_until(lambda: server.connections, "udmd to come back")
    wait_until(lambda: not fails(handle.pread, 512, 0), "reads to work again")


def fails(function, *arguments):
    try:
        function(*arguments)
        return False
    except nbd.Error:
        return True


def test_without_a_timeout_requests_wait_without_end(daemon, server):
    daemon.udm("set", "--daemon", "nbd_timeout=1")
    daemon.udm("create", "vol", server.uri)
    daemon.udm("set", "vol", "nbd_timeout=0")
    handle = connect(daemon.export("vol"))
    server.stop()
    reading = Later(handle.pread, 512, 0)
    let_time_pass(2.5)
    assert reading.waits
    server.start()
    assert reading.result() == bytes(512)


def test_a_server_that_hangs_is_left_when_patience_ends(daemon, server):
    daemon.udm("create", "vol", server.uri)
    daemon.udm("set", "vol", "nbd_timeout=1")
    handle = connect(daemon.export("vol"))
    server.hang = True
    with pytest.raises(nbd.Error, match="Input/output error"):
        handle.pread(512, 0)
    server.hang = False
    wait_until(lambda: not fails(handle.pread, 512, 0), "reads to work again, on a new connection")
    assert server.accepted >= 2


def test_a_real_server_that_is_stopped_and_goes_on(folder, daemon):
    with nbdserver.Nbdkit(folder, "--filter=delay", "memory", "8M", "wdelay=20ms") as server:
        daemon.udm("create", "vol", server.uri)
        handle = connect(daemon.export("vol"))
        server.signal(signal.SIGSTOP)
        writing = Later(handle.pwrite, b"x" * 4096, 0)
        let_time_pass(1)
        assert writing.waits
        server.signal(signal.SIGCONT)
        writing.result()
        handle.flush()
        assert handle.pread(4096, 0) == b"x" * 4096


def test_errors_of_the_server_are_errors_of_the_request_alone(folder, daemon):
    with nbdserver.Nbdkit(folder, "--filter=error", "memory", "8M", "error-pread=ENOSPC", "error-pread-rate=50%") as server:
        daemon.udm("create", "vol", server.uri)
        handle = connect(daemon.export("vol"))
        answers = [fails(handle.pread, 512, 0) for _ in range(64)]
        assert 10 < sum(answers) < 54, "half of them are served"
        handle.pwrite(b"x" * 512, 0)
        handle.flush()
        assert "connecting again" not in daemon.read_log()


def test_an_answer_that_is_none_costs_the_connection_and_nothing_else(daemon, server):
    daemon.udm("create", "vol", server.uri)
    handle = connect(daemon.export("vol"))
    handle.pwrite(b"a" * 512, 0)
    handle.flush()
    server.garbage = True
    assert handle.pread(512, 0) == b"a" * 512
    assert server.accepted == 2
    assert "invalid" in daemon.read_log()


# ------------------------------------------------------------------------------------------ what it may have lost
def test_a_crash_of_the_server_fails_the_next_flush_once(daemon, server):
    daemon.udm("create", "vol", server.uri)
    handle = connect(daemon.export("vol"))
    handle.pwrite(b"a" * 512, 0)
    handle.flush()
    handle.pwrite(b"b" * 512, 0)    # answered, and then lost
    server.crash()
    server.start()
    with pytest.raises(nbd.Error, match="Input/output error"):
        handle.flush()
    assert handle.pread(512, 0) == b"a" * 512    # as after a power cut of a disk
    handle.flush()
    handle.pwrite(b"c" * 512, 0)
    handle.flush()
    assert server.durable[:512] == b"c" * 512
    assert "writes that were not flushed may be lost" in daemon.read_log()


def test_a_crash_while_a_flush_is_under_way_fails_that_flush(daemon, server):
    daemon.udm("create", "vol", server.uri)
    handle = connect(daemon.export("vol"))
    handle.pwrite(b"a" * 512, 0)
    server.hang = True
    flushing = Later(handle.flush)
    wait_until(lambda: server.count("FLUSH"), "the flush to come")
    server.crash()
    server.hang = False
    server.start()
    with pytest.raises(nbd.Error, match="Input/output error"):
        flushing.result()
    handle.flush()


def test_only_who_wrote_is_told(daemon, server):
    daemon.create("one", f"0 1024 linear {server.uri} 0")
    daemon.create("two", f"0 1024 linear {server.uri} 1024")
    one, two = connect(daemon.export("one")), connect(daemon.export("two"))
    one.pwrite(b"a" * 512, 0)
    two.pread(512, 0)
    server.crash()
    server.start()
    two.flush()
    with pytest.raises(nbd.Error):
        one.flush()


def test_writes_with_fua_are_not_lost_with_the_server(daemon, folder):
    for flags in fakenbd.USUAL, fakenbd.USUAL & ~fakenbd.SEND_FUA:
        with fakenbd.Fake(os.path.join(folder, f"s{flags}"), flags=flags) as server:
            daemon.udm("create", f"vol{flags}", server.uri)
            handle = connect(daemon.export(f"vol{flags}"))
            handle.pwrite(b"a" * 512, 0, nbd.CMD_FLAG_FUA)
            server.crash()
            server.start()
            handle.flush()
            assert handle.pread(512, 0) == b"a" * 512


def test_a_write_with_fua_is_written_again_when_its_flush_is_lost(daemon, folder):
    with fakenbd.Fake(os.path.join(folder, "s"), flags=fakenbd.USUAL & ~fakenbd.SEND_FUA) as server:
        daemon.udm("create", "vol", server.uri)
        handle = connect(daemon.export("vol"))
        flushes = threading.Event()
        real = server._do

        def crash_at_flush(name, *arguments):
            if name == "FLUSH" and not flushes.is_set():
                flushes.set()
                threading.Thread(target=lambda: (server.crash(), server.start())).start()
                raise EOFError
            return real(name, *arguments)

        server._do = crash_at_flush
        handle.pwrite(b"a" * 512, 0, nbd.CMD_FLAG_FUA)
        assert server.count("WRITE") == 2
        assert server.durable[:512] == b"a" * 512


def test_one_of_several_connections_is_replaced_without_a_word(daemon, folder):
    with fakenbd.Fake(os.path.join(folder, "s"), flags=MANY) as server:
        daemon.udm("create", "vol", server.uri)
        wait_until(lambda: len(server.connections) == 4, "four connections")
        handle = connect(daemon.export("vol"))
        for i in range(8):
            handle.pwrite(bytes([65 + i]) * 512, i * 512)
        server.end_connections(2)
        for i in range(8, 16):
            handle.pwrite(bytes([65 + i]) * 512, i * 512)
        wait_until(lambda: len(server.connections) == 4 and server.accepted == 6, "four connections again")
        handle.flush()    # a connection that lives says that nothing was lost
        assert server.durable[:16 * 512] == b"".join(bytes([65 + i]) * 512 for i in range(16))


# --------------------------------------------------------------------------------------------- comes back different
@pytest.mark.parametrize("change, words", [
    (dict(size=MIB // 2), "the export has 524288 bytes now, and had 1048576"),
    (dict(flags=fakenbd.USUAL | fakenbd.READ_ONLY), "the export is read-only now"),
    (dict(flags=fakenbd.USUAL & ~fakenbd.SEND_FLUSH), "the server knows no flushes any more"),
])
def test_an_export_that_is_another_one_now_is_not_used(daemon, server, change, words):
    daemon.udm("create", "vol", server.uri)
    handle = connect(daemon.export("vol"))
    before = dict(size=server.size, flags=server.flags)
    server.stop()
    for name, value in change.items():
        setattr(server, name, value)
    server.start()
    wait_until(lambda: words in daemon.read_log(), words)
    assert fails(handle.pread, 512, 0)
    assert server.count("READ") == 0
    for name, value in before.items():
        setattr(server, name, value)
    wait_until(lambda: not fails(handle.pread, 512, 0), "the right one to be used again")


def test_an_export_that_has_grown_is_as_large_as_it_was_until_a_table_asks(daemon, server):
    daemon.udm("create", "vol", server.uri)
    handle = connect(daemon.export("vol"))
    server.stop()
    server.data, server.durable, server.size = bytearray(2 * MIB), bytearray(2 * MIB), 2 * MIB
    server.start()
    assert handle.pread(512, 0) == bytes(512)
    daemon.create("more", f"0 1024 linear {server.uri} 3072")
    assert connect(daemon.export("more")).pread(512, 0) == bytes(512)


# -------------------------------------------------------------------------------------------------- bounded endings
def read_that_hangs(daemon, server):
    """A client of `vol`, and its read, which the server has and does not answer."""
    daemon.udm("create", "vol", server.uri)
    daemon.udm("set", "vol", "nbd_timeout=0")
    handle = connect(daemon.export("vol"))
    server.hang = True
    reading = Later(handle.pread, 512, 0)
    wait_until(lambda: server.count("READ"), "the read to come")
    return handle, reading


def test_suspending_and_removing_end_though_requests_wait_without_end(daemon, server):
    handle, reading = read_that_hangs(daemon, server)
    began = time.monotonic()
    daemon.udmsetup("suspend", "--noflush", "vol")
    assert time.monotonic() - began < 15
    assert reading.waits, "with --noflush it is kept"
    server.hang = False
    daemon.udmsetup("resume", "vol")
    assert reading.result() == bytes(512)
    server.stop()
    reading = Later(handle.pread, 512, 0)
    let_time_pass(0.2)
    daemon.udmsetup("suspend", "vol")
    with pytest.raises(nbd.Error):
        reading.result()
    handle.shutdown()
    daemon.unexport("vol")
    daemon.remove("vol")


def test_the_daemon_stops_though_a_server_hangs(folder, server):
    daemon = Daemon(folder).start()
    _, reading = read_that_hangs(daemon, server)
    began = time.monotonic()
    daemon.stop()
    assert time.monotonic() - began < 10
    with pytest.raises(nbd.Error):
        reading.result()


# --------------------------------------------------------------------------------------------------------- restarts
def held(daemon, name):
    return daemon.rpc("device.info", device=name).get("held_because") or ""


def test_a_server_that_is_away_at_the_start_keeps_nobody_waiting(folder, server):
    socket = f"{folder}/v.sock"
    with Daemon(folder, state_dir=True) as daemon:
        daemon.create("near", "0 8 zero")
        daemon.udm("create", "vol", server.uri)
        daemon.create("upper", "0 1024 linear udm:vol 1024")
        daemon.udm("set", "vol", "nbd_timeout=7")
        daemon.rpc("export.add", device="upper", uri=f"nbd+unix:///upper?socket={socket}")
    server.stop()
    daemon = Daemon(folder, state_dir=True)
    with daemon:
        assert daemon.status("near").strip() == "0 8 zero"
        wait_until(lambda: server.uri in held(daemon, "vol"), "vol to say what it waits for")
        assert not os.path.exists(socket)
        server.start()
        wait_until(lambda: not held(daemon, "upper"), "upper to come up")
        wait_until(lambda: os.path.exists(socket), "its export to be served")
        connect(f"nbd+unix:///upper?socket={socket}").pwrite(b"x" * 512, 0)
        assert server.data[1024 * 512:1025 * 512] == b"x" * 512
        assert daemon.rpc("device.info", device="vol")["settings"]["nbd_timeout"] == "7"


def test_an_origin_waits_for_the_store_of_its_snapshot(folder, server):
    base = os.path.join(folder, "base")
    with open(base, "wb") as file:
        file.truncate(MIB // 2)
    with Daemon(folder, state_dir=True) as daemon:
        daemon.create("origin", f"0 1024 snapshot-origin {base}")
        daemon.create("snap", f"0 1024 snapshot {base} {server.uri} P 16")
        handle = connect(daemon.export("origin"))
        handle.pwrite(b"x" * 512, 0)
        handle.shutdown()
    server.stop()
    with Daemon(folder, state_dir=True) as daemon:
        assert held(daemon, "snap") and held(daemon, "origin")
        server.start()
        wait_until(lambda: not held(daemon, "origin") and not held(daemon, "snap"), "both to come up")
        assert connect(daemon.export("snap")).pread(512, 0) == bytes(512)
        assert connect(daemon.export("origin")).pread(512, 0) == b"x" * 512


def test_an_origin_waits_no_longer_than_requests_would(folder, server):
    base = os.path.join(folder, "base")
    with open(base, "wb") as file:
        file.truncate(MIB // 2)
    with Daemon(folder, state_dir=True) as daemon:
        daemon.udm("set", "--daemon", "nbd_timeout=2")
        daemon.create("origin", f"0 1024 snapshot-origin {base}")
        daemon.create("snap", f"0 1024 snapshot {base} {server.uri} P 16")
    server.stop()
    with Daemon(folder, state_dir=True) as daemon:
        wait_until(lambda: not held(daemon, "origin"), "the origin to come up alone")
        assert "the snapshot is lost" in held(daemon, "snap")


def test_removing_a_device_that_waits_ends_the_wait(folder, server):
    with Daemon(folder, state_dir=True) as daemon:
        daemon.udm("create", "vol", server.uri)
    server.stop()
    with Daemon(folder, state_dir=True) as daemon:
        with pytest.raises(RpcError, match="server must be running|refused"):
            daemon.rpc("device.resume", device="vol")
        daemon.remove("vol")
        server.start()
        let_time_pass(2.5)
        assert not server.connections
