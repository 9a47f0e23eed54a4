"""Odd but lawful requests through libnbd: chunks, holes, flags, empty and unaligned requests, lists and contexts."""

import errno
import os
import random

import nbd
import pytest

from udmtest import Daemon

MIB = 1 << 20
SIZE = 64 * MIB
ALLOCATION = nbd.CONTEXT_BASE_ALLOCATION


@pytest.fixture
def daemon(folder):
    with Daemon(folder) as running:
        running.create("vol", f"0 {SIZE // 512} linear ram:{SIZE} 0")
        running.uri = running.export("vol")
        yield running


def connect(daemon, contexts=(ALLOCATION,), structured=True, uri=None):
    handle = nbd.NBD()
    handle.set_request_structured_replies(structured)
    handle.set_strict_mode(0)  # libnbd would refuse the odd ones itself
    for context in contexts:
        handle.add_meta_context(context)
    handle.connect_uri(uri or daemon.uri)
    return handle


@pytest.fixture
def client(daemon):
    handle = connect(daemon)
    yield handle
    handle.shutdown()


def error_of(function, *arguments):
    with pytest.raises(nbd.Error) as failed:
        function(*arguments)
    return getattr(errno, failed.value.errno)  # the binding gives its name


def extents_of(client, length, offset, flags=0):
    """(length, flags) of each extent of the answer."""
    answers = []
    client.block_status(length, offset, lambda context, at, entries, error: answers.append((context, at, list(entries))), flags)
    assert [(context, at) for context, at, _ in answers] == [(ALLOCATION, offset)]
    entries = answers[0][2]
    return list(zip(entries[::2], entries[1::2]))


def test_what_the_server_offers(client):
    assert client.get_protocol() == "newstyle-fixed"
    assert client.get_structured_replies_negotiated()
    assert client.get_size() == SIZE
    for offered in (client.can_flush, client.can_fua, client.can_trim, client.can_zero, client.can_fast_zero, client.can_df,
                    client.can_cache, client.can_multi_conn):
        assert offered()
    assert not client.is_read_only() and not client.is_rotational()
    assert client.can_meta_context(ALLOCATION)
    assert client.get_block_size(nbd.SIZE_MINIMUM) == 512
    assert client.get_block_size(nbd.SIZE_PREFERRED) == 4096
    assert client.get_block_size(nbd.SIZE_MAXIMUM) == 32 * MIB


def test_reads_in_chunks_that_cover_the_request_once(client):
    data = random.Random(3).randbytes(MIB)
    client.pwrite(data, 4096)
    for flags in (0, nbd.CMD_FLAG_DF):
        got, chunks = bytearray(b"?" * MIB), []

        def chunk(piece, offset, status, error):
            assert status in (nbd.READ_DATA, nbd.READ_HOLE)
            got[offset - 4096:offset - 4096 + len(piece)] = piece
            chunks.append((offset, len(piece)))

        assert client.pread_structured(MIB, 4096, chunk, flags) == data
        assert got == data
        assert sum(length for _, length in chunks) == MIB
        if flags:
            assert len(chunks) == 1


def test_simple_replies_for_those_who_ask_for_none_else(daemon):
    client = connect(daemon, contexts=(), structured=False)
    assert not client.get_structured_replies_negotiated() and not client.can_df()
    data = os.urandom(MIB)
    client.pwrite(data, 0, nbd.CMD_FLAG_FUA)
    assert client.pread(MIB, 0) == data
    assert error_of(client.pread, 512, 0, nbd.CMD_FLAG_DF) == errno.EINVAL
    client.shutdown()


def test_the_largest_requests(client):
    data = random.Random(4).randbytes(32 * MIB)
    client.pwrite(data, 16 * MIB)
    assert client.pread(32 * MIB, 16 * MIB) == data
    assert error_of(client.pread, 32 * MIB + 512, 0) == errno.EINVAL
    assert client.pread(512, 0) == bytes(512)


def test_requests_of_no_length(client):
    assert client.pread(0, 0) == b""
    assert client.pread(0, SIZE) == b""
    client.pwrite(b"", 512)
    client.trim(0, 512)
    client.zero(0, 512)
    client.cache(0, 512)
    assert error_of(client.block_status, 0, 0, lambda *_: 0) == errno.EINVAL
    assert client.pread(512, 0) == bytes(512)


def test_unaligned_requests_are_invalid(client):
    for function, *arguments in ((client.pread, 512, 1), (client.pread, 100, 0), (client.pwrite, b"x" * 100, 0), (client.pwrite, b"x" * 512, 7),
                                 (client.trim, 100, 0), (client.zero, 512, 100), (client.cache, 1, 0)):
        assert error_of(function, *arguments) == errno.EINVAL
    assert client.pread(4096, 0) == bytes(4096)


def test_beyond_the_end(client):
    assert error_of(client.pread, 512, SIZE) == errno.EINVAL
    assert error_of(client.pwrite, b"x" * 512, SIZE) == errno.ENOSPC
    assert error_of(client.zero, 1024, SIZE - 512) == errno.ENOSPC
    assert error_of(client.trim, 1024, SIZE - 512) == errno.EINVAL
    assert error_of(client.cache, 512, SIZE) == errno.EINVAL


def test_zeroes_with_every_flag(client):
    for flags in (0, nbd.CMD_FLAG_FUA, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FAST_ZERO,
                  nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO):
        client.pwrite(b"x" * 65536, 0)
        client.zero(16384, 8192, flags)
        assert client.pread(65536, 0) == b"x" * 8192 + bytes(16384) + b"x" * 40960


def test_trim_and_flush_and_cache(client):
    client.pwrite(b"y" * MIB, 0)
    client.trim(MIB, 0, nbd.CMD_FLAG_FUA)
    client.flush()
    client.cache(MIB, 0)
    assert client.pread(MIB, 0) == bytes(MIB)  # memory forgets what is trimmed
    assert extents_of(client, MIB, 0) == [(MIB, 3)]


def test_block_status_tells_holes_from_data(client):
    client.pwrite(b"z" * 8192, MIB)
    client.pwrite(b"z" * 4096, 2 * MIB)
    whole = extents_of(client, SIZE, 0)
    assert whole == [(MIB, 3), (8192, 0), (MIB - 8192, 3), (4096, 0), (SIZE - 2 * MIB - 4096, 3)]
    assert extents_of(client, SIZE - MIB, MIB, nbd.CMD_FLAG_REQ_ONE) == [(8192, 0)]
    assert extents_of(client, 4096, MIB) == [(4096, 0)]
    assert error_of(client.block_status, 4096, SIZE, lambda *_: 0) == errno.EINVAL


def test_block_status_of_a_scattered_volume_comes_in_parts(client):
    for i in range(3000):
        client.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(b"s" * 4096)), i * 8192)
        while client.aio_in_flight() > 50:
            client.poll(-1)
    while client.aio_in_flight():
        client.poll(-1)
    offset, extents = 0, []
    while offset < 3000 * 8192:
        part = extents_of(client, 3000 * 8192 - offset, offset)
        extents += part
        offset += sum(length for length, _ in part)
    assert extents == [(4096, 0), (4096, 3)] * 3000


def test_many_requests_at_once_in_any_order(client):
    content = random.Random(5).randbytes(8 * MIB)
    client.pwrite(content, 0)
    ended = []
    buffers = []
    for i in range(500):
        offset = random.randrange(0, 2000) * 4096
        length = random.choice((512, 4096, 65536))
        buffer = nbd.Buffer(length)
        buffers.append((buffer, offset, length))
        client.aio_pread(buffer, offset, completion=lambda error: ended.append(error.value) or 1)
    while client.aio_in_flight():
        client.poll(-1)
    assert ended == [0] * 500
    for buffer, offset, length in buffers:
        assert buffer.to_bytearray() == content[offset:offset + length]


def test_a_flush_covers_what_other_connections_wrote(daemon):
    first, second = connect(daemon), connect(daemon)
    first.pwrite(b"1" * 4096, 0)
    second.flush()
    assert second.pread(4096, 0) == b"1" * 4096
    assert daemon.rpc("export.list")[0]["connections"] == 2
    first.shutdown()
    second.shutdown()


def test_lists_exports_and_their_contexts(daemon):
    path = os.path.join(daemon.folder, "many.sock")
    for name in ("a", "b", "with space"):
        uri = f"nbd+unix:///{name.replace(' ', '%20')}?socket={path}"
        daemon.rpc("export.add", device="vol", uri=uri)
    handle = nbd.NBD()
    handle.set_opt_mode(True)
    handle.connect_unix(path)
    names = []
    assert handle.opt_list(lambda name, description: names.append(name) or 0) == 3
    assert sorted(names) == ["a", "b", "with space"]
    handle.set_export_name("with space")
    contexts = []
    handle.opt_list_meta_context(lambda name: contexts.append(name) or 0)
    assert contexts == [ALLOCATION]
    handle.opt_info()
    assert handle.get_size() == SIZE
    handle.set_export_name("none of these")
    with pytest.raises(nbd.Error):
        handle.opt_info()
    handle.set_export_name("b")
    handle.opt_go()
    assert handle.pread(512, 0) == bytes(512)
    handle.shutdown()


def test_an_abort_ends_the_handshake(daemon):
    handle = nbd.NBD()
    handle.set_opt_mode(True)
    handle.connect_uri(daemon.uri)
    handle.opt_abort()
    assert handle.aio_is_closed()


def test_a_new_connection_sees_the_new_size(daemon):
    path = os.path.join(daemon.folder, "grows.raw")
    with open(path, "wb") as file:
        file.truncate(MIB)
    daemon.create("grows", f"0 {MIB // 512} linear {path} 0")
    uri = daemon.export("grows")
    before = connect(daemon, uri=uri)
    with open(path, "r+b") as file:
        file.truncate(2 * MIB)
    daemon.rpc("table.load", device="grows", table=f"0 {2 * MIB // 512} linear {path} 0")
    daemon.rpc("device.resume", device="grows")
    after = connect(daemon, uri=uri)
    assert (before.get_size(), after.get_size()) == (MIB, 2 * MIB)
    after.pwrite(b"n" * 512, 2 * MIB - 512)
    assert error_of(before.pread, 512, MIB) == errno.EINVAL
    before.shutdown()
    after.shutdown()


def test_clients_of_an_export_that_goes_are_closed(daemon):
    client = connect(daemon)
    client.pwrite(b"last" * 128, 0)
    daemon.unexport("vol")
    with pytest.raises(nbd.Error):
        client.pread(512, 0)
    assert daemon.rpc("export.list") == []
    again = connect(daemon, uri=daemon.export("vol"))
    assert again.pread(512, 0) == b"last" * 128
    again.shutdown()
