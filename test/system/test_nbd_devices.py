"""NBD exports as devices of tables: what they can, who shares them, and what is said when they cannot be had."""

import os
import subprocess

import nbd
import pytest

import fakenbd
import nbdserver
from udmtest import Daemon, RpcError, wait_until
from volume import connect

MIB = 1 << 20


@pytest.fixture(params=["uring", "threads"])
def daemon(request, folder):
    with Daemon(folder, arguments=["--engine", request.param]) as running:
        yield running


def test_an_export_is_a_device_of_any_table(folder, daemon):
    with nbdserver.Nbdkit(folder, "memory", "8M", name="a") as a, nbdserver.Nbdkit(folder, "memory", "8M", name="b") as b:
        daemon.create("line", f"0 8192 linear {a.uri} 0")
        daemon.create("stripes", f"0 16384 striped 2 128 {a.uri} 8192 {b.uri} 0")
        assert daemon.table("line") == f"0 8192 linear {a.uri} 0"
        assert daemon.table("stripes") == f"0 16384 striped 2 128 {a.uri} 8192 {b.uri} 0"
        deps = daemon.udmsetup("deps", "stripes").stdout
        assert "2 dependencies" in deps and deps.count("(43, ") == 2
        handle = connect(daemon.export("stripes"))
        data = os.urandom(4 * MIB)
        handle.pwrite(data, 512 * 1024)
        handle.flush()
        assert handle.pread(len(data), 512 * 1024) == data
        handle.shutdown()
        half = connect(b.uri)
        assert half.pread(64 * 1024, 256 * 1024) == data[64 * 1024:128 * 1024]    # the second stripe of it
        half.shutdown()


def test_a_snapshot_has_its_origin_and_its_store_there(folder, daemon):
    with nbdserver.Nbdkit(folder, "memory", "8M", name="base") as base, nbdserver.Nbdkit(folder, "memory", "8M", name="cow") as cow:
        before = connect(base.uri)
        before.pwrite(b"old" * 1024, 0)
        before.shutdown()
        daemon.create("origin", f"0 16384 snapshot-origin {base.uri}")
        daemon.create("snap", f"0 16384 snapshot {base.uri} {cow.uri} P 16")
        origin, snap = connect(daemon.export("origin")), connect(daemon.export("snap"))
        origin.pwrite(b"new" * 1024, 0)
        origin.flush()
        assert snap.pread(3072, 0) == b"old" * 1024
        assert origin.pread(3072, 0) == b"new" * 1024
        assert daemon.status("snap") == "0 16384 snapshot 48/16384 32"
        origin.shutdown()
        snap.shutdown()
        daemon.unexport("snap")
        daemon.remove("snap")
        daemon.create("snap", f"0 16384 snapshot {base.uri} {cow.uri} P 16")
        again = connect(daemon.export("snap"))
        assert again.pread(3072, 0) == b"old" * 1024
        again.shutdown()


def test_udm_create_makes_a_device_of_all_of_it(folder, daemon):
    with nbdserver.Nbdkit(folder, "memory", "8M") as server:
        said = daemon.udm("create", "vol", server.uri).stdout
        assert said == "vol is there: 8.0 MiB\n"
        assert daemon.table("vol") == f"0 16384 linear {server.uri} 0"
        assert daemon.udm("create", "part", server.uri, "--size", "1M").stdout == "part is there: 1.0 MiB\n"


def test_snapshots_are_taken_of_it_and_kept_there(folder, daemon):
    with nbdserver.Nbdkit(folder, "memory", "8M", name="base") as base, nbdserver.Nbdkit(folder, "memory", "8M", name="cow") as cow:
        daemon.udm("create", "vol", base.uri)
        handle = connect(daemon.export("vol"))
        handle.pwrite(b"old" * 1024, 0)
        daemon.rpc("snapshot.take", origins=[{"origin": "vol", "snapshot": "far", "cow": cow.uri}])
        daemon.udm("snapshot", "take", "vol=near", "--cow-dir", folder)
        assert daemon.table("vol") == f"0 16384 snapshot-origin {base.uri}"
        assert daemon.table("far") == f"0 16384 snapshot {base.uri} {cow.uri} P 8"
        handle.pwrite(b"new" * 1024, 0)
        for name in "far", "near":
            view = connect(daemon.export(name))
            assert view.pread(3072, 0) == b"old" * 1024
            view.shutdown()
        assert handle.pread(3072, 0) == b"new" * 1024
        handle.shutdown()
        with pytest.raises(RpcError, match="cannot be a store: far stands on it"):
            daemon.rpc("snapshot.take", origins=[{"origin": "vol", "snapshot": "again", "cow": cow.uri}])


def test_another_udmd_is_a_server_like_any(folder, daemon):
    inner = os.path.join(folder, "inner")
    os.mkdir(inner)
    with Daemon(inner) as there:
        there.create("disk", "0 32768 linear ram:16M 0")
        daemon.udm("create", "vol", there.export("disk"))
        handle = connect(daemon.export("vol"))
        data = os.urandom(3 * MIB)
        handle.pwrite(data, MIB)
        handle.zero(MIB, 2 * MIB)
        handle.trim(MIB, 3 * MIB)
        handle.flush()
        assert handle.pread(MIB, MIB) == data[:MIB]
        assert handle.pread(MIB, 2 * MIB) == bytes(MIB)
        handle.shutdown()
        daemon.unexport("vol")
        daemon.remove("vol")


def test_a_server_that_ends_with_its_last_connection_serves_a_device_for_its_life(folder, daemon):
    image = os.path.join(folder, "image")
    with open(image, "wb") as file:
        file.truncate(4 * MIB)
    socket = os.path.join(folder, "qemu.sock")
    server = subprocess.Popen(["qemu-nbd", "-f", "raw", "-k", socket, "-x", "disk", image])
    try:
        wait_until(lambda: os.path.exists(socket), "qemu-nbd to listen")
        daemon.udm("create", "vol", f"nbd+unix:///disk?socket={socket}")
        daemon.create("second", f"0 2048 linear nbd+unix:///disk?socket={socket} 0")    # on the same connection
        handle = connect(daemon.export("vol"))
        handle.pwrite(b"x" * 512, 512)
        handle.flush()
        handle.shutdown()
        daemon.unexport("vol")
        daemon.remove("second")
        daemon.remove("vol")
        assert server.wait(20) == 0
        with open(image, "rb") as file:
            assert file.read(1024) == bytes(512) + b"x" * 512
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()


def test_requests_are_cut_to_what_the_server_takes(folder, daemon):
    limits = ["blocksize-minimum=4096", "blocksize-preferred=4096", "blocksize-maximum=64K", "blocksize-error-policy=error"]
    with nbdserver.Nbdkit(folder, "--filter=blocksize-policy", "memory", "8M", *limits) as server:
        daemon.udm("create", "vol", server.uri)
        handle = connect(daemon.export("vol"))
        assert handle.get_block_size(nbd.SIZE_MINIMUM) == 4096
        data = os.urandom(2 * MIB)
        handle.pwrite(data, 4096)
        assert handle.pread(len(data), 4096) == data
        handle.shutdown()
        with pytest.raises(RpcError, match="not aligned to h/w logical block size 4096 of nbd"):
            daemon.create("odd", f"0 8 linear {server.uri} 1")


def test_holes_are_told_as_the_server_tells_them(folder, daemon):
    with nbdserver.Nbdkit(folder, "memory", "8M") as server:
        daemon.udm("create", "vol", server.uri)
        handle = nbd.NBD()
        handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        handle.connect_uri(daemon.export("vol"))
        handle.pwrite(b"x" * 65536, MIB)
        extents = []
        handle.block_status(2 * MIB, 0, lambda context, at, entries, error: extents.extend(entries))
        handle.shutdown()
        assert extents[:6] == [MIB, 3, 65536, 0, MIB - 65536, 3]


def test_devices_share_the_connections_of_an_export(folder, daemon):
    flags = fakenbd.USUAL | fakenbd.MULTI_CONN
    with fakenbd.Fake(os.path.join(folder, "one"), name="x") as one, fakenbd.Fake(os.path.join(folder, "many"), flags=flags) as many:
        for i, uri in enumerate([one.uri, one.uri.replace("/x?", "/%78?"), many.uri, many.uri]):
            daemon.create(f"d{i}", f"0 8 linear {uri} {i * 8}")
        wait_until(lambda: len(many.connections) == 4, "four connections to the server that allows several")
        assert len(one.connections) == 1 and one.accepted == 1
        assert daemon.table("d1").split()[3] == one.uri.replace("/x?", "/%78?")    # as given
        for i in range(4):
            daemon.remove(f"d{i}")
        wait_until(lambda: not one.connections and not many.connections, "the connections to end with the last device")


def test_the_number_of_connections_can_be_set(folder, daemon):
    daemon.udm("set", "--daemon", "nbd_connections=2")
    with fakenbd.Fake(os.path.join(folder, "s"), flags=fakenbd.USUAL | fakenbd.MULTI_CONN) as server:
        daemon.udm("create", "vol", server.uri)
        wait_until(lambda: len(server.connections) == 2, "two connections")
        handle = connect(daemon.export("vol"))
        handle.pwrite(b"x" * 512, 0)
        handle.flush()
        handle.shutdown()
        assert server.accepted == 2


def test_fua_is_a_write_and_a_flush_where_the_server_has_none(folder, daemon):
    with fakenbd.Fake(os.path.join(folder, "s"), flags=fakenbd.USUAL & ~fakenbd.SEND_FUA) as server:
        daemon.udm("create", "vol", server.uri)
        handle = connect(daemon.export("vol"))
        handle.pwrite(b"x" * 512, 0, nbd.CMD_FLAG_FUA)
        assert [entry[0] for entry in server.log] == ["WRITE", "FLUSH"]
        assert server.durable[:512] == b"x" * 512
        server.fail_flush = 1
        with pytest.raises(nbd.Error):
            handle.pwrite(b"y" * 512, 0, nbd.CMD_FLAG_FUA)
        handle.shutdown()


def test_without_flushes_every_write_goes_with_fua_or_it_is_said(folder, daemon):
    with fakenbd.Fake(os.path.join(folder, "a"), flags=fakenbd.USUAL & ~fakenbd.SEND_FLUSH) as fua, \
            fakenbd.Fake(os.path.join(folder, "b"), flags=fakenbd.HAS_FLAGS) as nothing:
        daemon.udm("create", "one", fua.uri)
        handle = connect(daemon.export("one"))
        handle.pwrite(b"x" * 512, 0)
        assert fua.durable[:512] == b"x" * 512
        handle.flush()
        assert fua.count("FLUSH") == 0
        handle.shutdown()
        daemon.udm("create", "two", nothing.uri)
        handle = connect(daemon.export("two"))
        handle.zero(4096, 0)    # as writes
        assert {entry[0] for entry in nothing.log} == {"WRITE"}
        handle.shutdown()
        log = daemon.read_log()
        assert f"{fua.uri}: the server has no flush: each write is sent with FUA" in log
        assert f"{nothing.uri}: the server has no flush: what it has answered may be lost when it dies" in log


def refusal(daemon, words):
    with pytest.raises(RpcError) as refused:
        daemon.create("x", f"0 8 linear {words} 0")
    return refused.value.message


def test_what_cannot_be_opened_is_named_with_what_would_be_right(folder, daemon):
    with fakenbd.Fake(os.path.join(folder, "s"), name="right") as server:
        assert refusal(daemon, "nbds://host/x") == (
            "table: 253:0: linear: Device lookup failed: nbds://host/x: NBD over TLS is not supported; use nbd://HOST:PORT/NAME or "
            "nbd+unix:///NAME?socket=PATH")
        assert "?socket=PATH is missing; use" in refusal(daemon, "nbd+unix:///x")
        assert "must be absolute" in refusal(daemon, "nbd+unix:///x?socket=s")
        assert "0 is no port to connect to" in refusal(daemon, "nbd://host:0/x")
        assert "Connection refused; nobody listens on that port" in refusal(daemon, "nbd://127.0.0.1:1/x")
        assert "No such file or directory; the server must be running" in refusal(daemon, f"nbd+unix:///?socket={folder}/none")
        wrong = refusal(daemon, server.uri.replace("right", "wrong"))
        assert server.uri.replace("right", "wrong") in wrong and "serve an export of this name" in wrong
        with pytest.raises(RpcError, match="right.* too small for target: start=2048, len=8, dev_size=2048"):
            daemon.create("x", f"0 8 linear {server.uri} 2048")
        server.flags |= fakenbd.READ_ONLY
        assert refusal(daemon, server.uri).endswith("the server serves it read-only; so must the table be")
        daemon.rpc("device.create", name="x", table=f"0 8 linear {server.uri} 0", read_only=True)


def test_a_server_that_says_nothing_is_not_waited_for_for_long(folder, daemon):
    daemon.udm("set", "--daemon", "nbd_connect_timeout=1")
    with fakenbd.Fake(os.path.join(folder, "s")) as server:
        server.deaf = True
        assert refusal(daemon, server.uri).endswith(f"{server.uri}: the server did not answer within 1 s")
