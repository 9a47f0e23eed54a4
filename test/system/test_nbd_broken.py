"""Clients that break the NBD protocol, each in one way. Every one gets the protocol's error or a closed connection; another
client, connected all the while, still gets right answers; and nothing of them stays in the daemon."""

import os
import random
import struct

import pytest

from nbdraw import (CMD, DF, EINVAL, ENOSPC, EPERM, FAST_ZERO, FUA, MAGIC, NO_HOLE, OPT, REQ_ONE, Raw, info, meta, option, request, u16, u32,
                    u64, write)
from udmtest import Daemon, wait_until

MIB = 1 << 20
SIZE = 64 * MIB
CASES = {}


def case(function):
    """One way to break the protocol. It gets a fresh connection past the greeting (and `server` if it asks for more)."""
    CASES[function.__name__] = function
    return function


class Server:
    """One udmd with an export to break, one that is read-only, and a witness whose data is known."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.path = os.path.join(daemon.folder, "nbd.sock")
        for name, read_only in (("vol", False), ("ro", True), ("known", False)):
            daemon.create(name, f"0 {SIZE // 512} linear ram:{name}:{SIZE} 0")
            daemon.rpc("export.add", device=name, uri=f"nbd+unix:///{name}?socket={self.path}", read_only=read_only)
        self.known = random.Random(1).randbytes(MIB)
        self.witness = self.connect().go("known")
        assert self.witness.error(write(0, self.known)) == 0
        self.files = self.open_files()

    def connect(self):
        return Raw(self.path)

    def open_files(self):
        return len(os.listdir(f"/proc/{self.daemon.process.pid}/fd"))

    def connections(self):
        return {e["device"]: e["connections"] for e in self.daemon.rpc("export.list")}

    def check(self):
        assert self.daemon.process.poll() is None, self.daemon.read_log()
        place = random.randrange(0, len(self.known) // 512 - 8) * 512
        assert self.witness.read(place, 4096).data == self.known[place:place + 4096]
        wait_until(lambda: self.connections() == {"vol": 0, "ro": 0, "known": 1}, "all broken sessions to end")
        wait_until(lambda: self.open_files() <= self.files, "their sockets to be closed")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Daemon(tmp_path_factory.mktemp("nbd")) as daemon:
        yield Server(daemon)


# --- the handshake -------------------------------------------------------------------------------------------


@case
def vanishes_after_the_greeting(raw):
    raw.close()


@case
def ends_after_the_greeting(raw):
    raw.end().expect_closed()


@case
def sends_half_of_its_flags(raw):
    raw.send(b"\0\0").end().expect_closed()


@case
def sets_an_unknown_client_flag(raw):
    raw.flags(4).expect_closed()


@case
def sets_all_client_flags(raw):
    raw.flags(0xFFFFFFFF).expect_closed()


@case
def sets_the_highest_client_flag(raw):
    raw.flags(0x80000003).expect_closed()


@case
def lists_without_fixed_newstyle(raw):
    raw.flags(0).send(option("LIST")).expect_closed()


@case
def goes_without_fixed_newstyle(raw):
    raw.flags(2).send(option("GO", info("vol"))).expect_closed()


@case
def gets_the_option_magic_wrong(raw):
    raw.flags().send(b"IHAVEOPX" + u32(3, 0)).expect_closed()


@case
def answers_with_the_server_magic(raw):
    raw.flags().send(b"NBDMAGIC" + u32(3, 0)).expect_closed()


@case
def answers_with_the_reply_magic(raw):
    raw.flags().send(u64(0x3E889045565A9) + u32(3, 1, 0)).expect_closed()


@case
def speaks_http(raw):
    raw.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect_closed()


@case
def speaks_tls(raw):
    raw.send(bytes.fromhex("16030100c8010000c40303") + bytes(200)).expect_closed()


@case
def speaks_ssh(raw):
    raw.send(b"SSH-2.0-OpenSSH_9.2\r\n").expect_closed()


@case
def sends_a_request_as_an_option(raw):
    raw.flags().send(request("READ", 0, 512)).expect_closed()


@case
def sends_half_an_option_header(raw):
    raw.flags().send(option("LIST")[:9]).end().expect_closed()


@case
def sends_less_data_than_announced(raw):
    raw.flags().send(option("GO", b"abc", length=40)).end().expect_closed()


@case
def lists_with_data(raw):
    assert raw.flags().ask("LIST", b"x") == "ERR_INVALID"
    assert raw.ask("LIST") == "ACK"


@case
def starts_tls(raw):
    assert raw.flags().ask("STARTTLS") == "ERR_UNSUP"
    assert raw.ask("LIST") == "ACK"


@case
def starts_tls_with_data(raw):
    assert raw.flags().ask("STARTTLS", b"now") == "ERR_INVALID"


@case
def asks_for_structured_replies_with_data(raw):
    assert raw.flags().ask("STRUCTURED_REPLY", b"\0") == "ERR_INVALID"


@case
def asks_for_unknown_options(raw):
    raw.flags()
    for number in (0, OPT["PEEK_EXPORT"], 11, 12, 1000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        assert raw.ask(number) == "ERR_UNSUP"
        assert raw.ask(number, b"data") == "ERR_UNSUP"


@case
def sends_an_option_that_is_too_long(raw):
    assert raw.flags().ask("LIST", bytes(65537)) == "ERR_TOO_BIG"
    assert raw.ask("LIST") == "ACK"


@case
def sends_a_megabyte_of_option(raw):
    assert raw.flags().ask(4711, bytes(MIB)) == "ERR_TOO_BIG"
    assert raw.ask("GO", info("vol")) == "ACK"


@case
def announces_four_gigabytes_of_option(raw):
    raw.flags().send(option("GO", b"x" * 1000, length=0xFFFFFFFF)).end().expect_closed()


@case
def aborts_with_data(raw):
    assert raw.flags().ask("ABORT", b"farewell") == "ACK"
    raw.expect_closed()


@case
def goes_on_after_abort(raw):
    raw.flags().send(option("ABORT") + option("LIST"))
    assert raw.outcome("ABORT") == "ACK"
    raw.expect_closed()


@case
def sends_options_without_end(raw):
    raw.flags()
    for _ in range(256):
        assert raw.ask("LIST") == "ACK"
    raw.send(option("LIST")).expect_closed()


@case
def names_an_export_that_is_not_there(raw):
    raw.flags().send(option("EXPORT_NAME", b"nothing")).expect_closed()


@case
def names_an_export_with_a_nul(raw):
    raw.flags().send(option("EXPORT_NAME", b"vol\0")).expect_closed()


@case
def names_an_export_of_5000_bytes(raw):
    raw.flags().send(option("EXPORT_NAME", b"n" * 5000)).expect_closed()


@case
def names_an_export_of_100000_bytes(raw):
    raw.flags().send(option("EXPORT_NAME", b"n" * 100000)).expect_closed()


@case
def goes_to_an_export_that_is_not_there(raw):
    assert raw.flags().ask("GO", info("nothing")) == "ERR_UNKNOWN"
    assert raw.ask("INFO", info("nothing")) == "ERR_UNKNOWN"
    assert raw.ask("GO", info("vol")) == "ACK"


@case
def goes_to_an_export_whose_name_is_no_text(raw):
    assert raw.flags().ask("GO", info(b"\xff\xfe\x80")) == "ERR_UNKNOWN"


@case
def goes_with_malformed_data(raw):
    raw.flags()
    good = info("vol", (0, 3))
    for number in ("GO", "INFO"):
        for data in (b"", b"\0\0\0", u32(3), u32(0xFFFFFFFF) + b"vol" + u16(0), good[:-1], good + b"\0", u32(3) + b"vol" + u16(9),
                     u32(len(good)) + good, u32(3) + b"vol" + u16(65535) + bytes(10)):
            assert raw.ask(number, data) == "ERR_INVALID", (number, data)
    assert raw.ask("GO", good) == "ACK"


@case
def goes_with_a_nul_in_the_name(raw):
    assert raw.flags().ask("GO", info(b"v\0l")) == "ERR_INVALID"


@case
def goes_with_a_name_of_4097_bytes(raw):
    assert raw.flags().ask("GO", info(b"n" * 4097)) == "ERR_INVALID"
    assert raw.ask("GO", info(b"n" * 4096)) == "ERR_UNKNOWN"


@case
def asks_for_every_information_there_is(raw):
    raw.flags().send(option("INFO", info("vol", range(10000))))
    assert raw.outcome("INFO") == "ACK"


@case
def asks_for_contexts_without_structured_replies(raw):
    raw.flags()
    for number in ("LIST_META_CONTEXT", "SET_META_CONTEXT"):
        assert raw.ask(number, meta("vol", ["base:allocation"])) == "ERR_INVALID"


@case
def asks_for_contexts_with_malformed_data(raw):
    assert raw.flags().ask("STRUCTURED_REPLY") == "ACK"
    good = meta("vol", ["base:allocation"])
    for number in ("LIST_META_CONTEXT", "SET_META_CONTEXT"):
        for data in (b"", good[:3], good[:7], good[:-1], good + b"\0", u32(3) + b"vol" + u32(0xFFFFFFFF),
                     u32(3) + b"vol" + u32(1, 0xFFFFFFFF) + b"base:", u32(0xFFFFFFF0) + good):
            assert raw.ask(number, data) == "ERR_INVALID", (number, data)


@case
def asks_for_contexts_that_are_no_contexts(raw):
    assert raw.flags().ask("STRUCTURED_REPLY") == "ACK"
    for query in ("allocation", ":allocation", "", b"base:\0", "base:" + "a" * 4096):
        assert raw.ask("SET_META_CONTEXT", meta("vol", [query])) == "ERR_INVALID", query


@case
def asks_for_contexts_of_another_server(raw):
    assert raw.flags().ask("STRUCTURED_REPLY") == "ACK"
    raw.send(option("SET_META_CONTEXT", meta("vol", ["qemu:dirty-bitmap:x", "x-a:b", "base:none", "base:"])))
    assert [kind for kind, _ in raw.option_replies("SET_META_CONTEXT")] == [1]
    assert raw.ask("SET_META_CONTEXT", meta("nothing", ["base:allocation"])) == "ERR_UNKNOWN"


@case
def loses_its_contexts_with_a_failed_selection(raw):
    raw.flags()
    assert raw.ask("STRUCTURED_REPLY") == "ACK"
    assert raw.ask("SET_META_CONTEXT", meta("vol", ["base:allocation"])) == "ACK"
    assert raw.ask("SET_META_CONTEXT", b"") == "ERR_INVALID"
    assert raw.ask("GO", info("vol")) == "ACK"
    raw.structured = True
    assert raw.error(request("BLOCK_STATUS", 0, 4096)) == EINVAL


@case
def selects_contexts_of_one_export_and_goes_to_another(raw):
    raw.flags()
    assert raw.ask("STRUCTURED_REPLY") == "ACK"
    assert raw.ask("SET_META_CONTEXT", meta("ro", ["base:allocation"])) == "ACK"
    assert raw.ask("GO", info("vol")) == "ACK"
    raw.structured = True
    assert raw.error(request("BLOCK_STATUS", 0, 4096)) == EINVAL


# --- the transmission phase ----------------------------------------------------------------------------------


def wrong_magic(raw, message):
    raw.go("vol").send(request("READ", 0, 512, cookie=7) + message + request("READ", 0, 512, cookie=8))
    assert raw.reply(512, cookie=7).error == 0  # what came before is answered
    raw.expect_closed()


@case
def gets_the_request_magic_wrong(raw):
    wrong_magic(raw, request("READ", 0, 512, magic=MAGIC + 1))


@case
def sends_the_historic_request_magic(raw):
    wrong_magic(raw, request("READ", 0, 512, magic=0x12560953))


@case
def sends_a_request_in_the_wrong_byte_order(raw):
    wrong_magic(raw, struct.pack("<IHHQQI", MAGIC, 0, 0, 1, 0, 512))


@case
def sends_a_reply_instead_of_a_request(raw):
    wrong_magic(raw, u32(0x67446698, 0) + u64(1) + bytes(12))


@case
def sends_an_option_after_go(raw):
    raw.go("vol").send(option("LIST") + bytes(12)).expect_closed()


@case
def sends_zeroes(raw):
    raw.go("vol").send(bytes(1000)).expect_closed()


@case
def sends_half_a_request(raw):
    raw.go("vol").send(request("READ", 0, 512)[:27]).end().expect_closed()


@case
def sends_half_a_small_payload(raw):
    raw.go("vol").send(request("WRITE", 0, 4096) + bytes(2000)).end().expect_closed()


@case
def sends_half_a_large_payload(raw):
    raw.go("vol").send(request("WRITE", 0, MIB) + bytes(MIB // 2)).end().expect_closed()


@case
def vanishes_within_a_large_payload(raw):
    raw.go("vol").send(request("WRITE", 0, 8 * MIB) + bytes(MIB)).close()


@case
def vanishes_with_requests_under_way(raw):
    raw.go("vol").send(b"".join(request("READ", i * 65536, 65536, cookie=i) for i in range(100))).close()


@case
def reads_no_reply_and_vanishes(raw):
    raw.go("vol").socket.settimeout(0.2)
    try:
        raw.socket.sendall(request("READ", 0, 32 * MIB) * 200000)
    except TimeoutError:
        pass  # the server reads no more, as it should
    raw.close()


@case
def sends_unknown_commands(raw):
    raw.go("vol")
    for command in (8, 9, 10, 255, 256, 0x7FFF, 0xFFFF):
        assert raw.error(request(command)) == EINVAL
        assert raw.error(request(command, 512, 512)) == EINVAL


@case
def reads_beyond_the_end(raw):
    raw.go("vol")
    for offset, length in ((SIZE, 512), (SIZE - 512, 1024), (2 * SIZE, 512), (1 << 63, 512)):
        assert raw.read(offset, length).error == EINVAL


@case
def reads_where_the_sum_overflows(raw):
    raw.go("vol")
    for offset in ((1 << 64) - 512, (1 << 64) - 4096):
        assert raw.read(offset, 4096).error == EINVAL
        assert raw.error(write(offset, bytes(4096))) == ENOSPC


@case
def reads_more_than_the_maximum(raw):
    raw.go("vol")
    for length in (32 * MIB + 512, SIZE, 0xFFFFFE00):
        assert raw.read(0, length).error == EINVAL


@case
def reads_unaligned(raw):
    raw.go("vol")
    for offset, length in ((1, 512), (511, 512), (0, 1), (0, 513), (256, 256)):
        assert raw.read(offset, length).error == EINVAL


@case
def reads_with_flags_of_other_commands(raw):
    raw.go("vol")
    for flag in (NO_HOLE, DF, REQ_ONE, FAST_ZERO, 32, 0x8000, 0xFFFF):
        assert raw.read(0, 512, flag).error == EINVAL


@case
def reads_with_wrong_flags_in_chunks(raw):
    raw.go("vol", structured=True)
    for flag in (NO_HOLE, REQ_ONE, FAST_ZERO, 32, 0xFFFF):
        reply = raw.read(0, 512, flag)
        assert reply.error == EINVAL and reply.structured
    assert len(raw.read(0, 65536, DF).data) == 65536


@case
def writes_beyond_the_end(raw):
    raw.go("vol")
    for offset in (SIZE, SIZE - 512, 1 << 40):
        assert raw.error(write(offset, bytes(4096))) == ENOSPC
    assert raw.error(write(SIZE - MIB, bytes(2 * MIB))) == ENOSPC


@case
def writes_unaligned(raw):
    raw.go("vol")
    assert raw.error(write(1, bytes(512))) == EINVAL
    assert raw.error(write(0, bytes(1))) == EINVAL
    assert raw.error(write(512, bytes(100001))) == EINVAL


@case
def writes_with_flags_of_other_commands(raw):
    raw.go("vol")
    for flag in (NO_HOLE, DF, REQ_ONE, FAST_ZERO, 32, 0x8000):
        assert raw.error(write(0, b"x" * 512, flag)) == EINVAL
    assert raw.read(0, 512).data == bytes(512)


@case
def writes_more_than_the_maximum(raw):
    raw.go("vol")
    assert raw.error(write(0, b"x" * (33 * MIB))) == EINVAL
    assert raw.read(0, 512).data == bytes(512)


@case
def announces_a_write_of_four_gigabytes(raw):
    raw.go("vol").send(request("WRITE", 0, 0xFFFFFFFF) + bytes(MIB)).end().expect_closed()


@case
def writes_to_a_read_only_export(raw):
    raw.go("ro")
    assert raw.error(write(0, bytes(512))) == EPERM
    assert raw.error(write(0, bytes(MIB))) == EPERM
    assert raw.error(request("TRIM", 0, 4096)) == EPERM
    assert raw.error(request("WRITE_ZEROES", 0, 4096)) == EPERM
    assert raw.read(0, 512).error == 0


@case
def trims_beyond_the_end_or_unaligned(raw):
    raw.go("vol")
    assert raw.error(request("TRIM", SIZE - 512, 1024)) == EINVAL
    assert raw.error(request("TRIM", 1, 512)) == EINVAL
    assert raw.error(request("TRIM", 0, 0xFFFFFE00)) == EINVAL


@case
def trims_with_flags_of_other_commands(raw):
    raw.go("vol")
    for flag in (NO_HOLE, DF, REQ_ONE, FAST_ZERO, 32):
        assert raw.error(request("TRIM", 0, 4096, flag)) == EINVAL


@case
def zeroes_beyond_the_end_or_unaligned(raw):
    raw.go("vol")
    assert raw.error(request("WRITE_ZEROES", SIZE - 512, 1024)) == ENOSPC
    assert raw.error(request("WRITE_ZEROES", 1, 512)) == EINVAL
    assert raw.error(request("WRITE_ZEROES", 0, 0xFFFFFE00)) == ENOSPC


@case
def zeroes_with_flags_of_other_commands(raw):
    raw.go("vol")
    for flag in (DF, REQ_ONE, 32, 0x8000):
        assert raw.error(request("WRITE_ZEROES", 0, 4096, flag)) == EINVAL
    assert raw.error(request("WRITE_ZEROES", 0, 4096, FUA | NO_HOLE)) == 0


@case
def flushes_with_an_extent_or_wrong_flags(raw):
    raw.go("vol")
    assert raw.error(request("FLUSH", 512, 0)) == EINVAL
    assert raw.error(request("FLUSH", 0, 512)) == EINVAL
    assert raw.error(request("FLUSH", 0, 0, DF)) == EINVAL
    assert raw.error(request("FLUSH", 0, 0, FUA)) == 0


@case
def caches_beyond_the_end_or_with_wrong_flags(raw):
    raw.go("vol")
    assert raw.error(request("CACHE", SIZE, 512)) == EINVAL
    assert raw.error(request("CACHE", 0, 100)) == EINVAL
    for flag in (NO_HOLE, DF, REQ_ONE, FAST_ZERO, 32):
        assert raw.error(request("CACHE", 0, 4096, flag)) == EINVAL
    assert raw.error(request("CACHE", 0, 4096)) == 0


@case
def asks_for_block_status_without_a_context(raw):
    raw.go("vol")
    assert raw.error(request("BLOCK_STATUS", 0, 4096)) == EINVAL


@case
def asks_for_block_status_wrongly(raw):
    raw.go("vol", structured=True, contexts=["base:allocation"])
    for offset, length, flags in ((0, 0, 0), (SIZE, 512, 0), (SIZE - 512, 1024, 0), (1, 512, 0), (0, 100, 0), (0, 4096, DF),
                                  (0, 4096, NO_HOLE), (0, 4096, 32)):
        assert raw.error(request("BLOCK_STATUS", offset, length, flags)) == EINVAL
    extents = raw.send(request("BLOCK_STATUS", 0, 4096, REQ_ONE)).reply().extents
    assert len(extents) == 1 and sum(length for length, _ in extents[0]) == 4096


@case
def asks_for_nothing(raw):
    raw.go("vol")
    assert raw.read(0, 0).error == 0
    for command in ("WRITE", "TRIM", "CACHE", "WRITE_ZEROES"):
        assert raw.error(request(command, 4096, 0)) == 0
    assert raw.read(SIZE, 0).error == 0
    assert raw.read(SIZE + 512, 0).error == EINVAL


@case
def asks_for_nothing_in_chunks(raw):
    raw.go("vol", structured=True)
    reply = raw.read(0, 0)
    assert reply.error == 0 and reply.structured and reply.data == b""


@case
def uses_one_cookie_twice(raw):
    raw.go("vol").send(request("READ", 0, 512) + request("READ", 512, 512))
    assert raw.reply(512).error == 0 and raw.reply(512).error == 0


@case
def sends_requests_after_its_disconnect(raw):
    raw.go("vol").send(request("READ", 0, 512) + request("DISC") + write(0, b"x" * 512))
    assert raw.reply(512).error == 0
    raw.expect_closed()


@case
def disconnects_with_an_extent(raw):
    raw.go("vol").send(request("DISC", 12345, 6789, 0xFFFF)).expect_closed()


@case
def sends_byte_after_byte(raw):
    raw.flags()
    for byte in option("GO", info("vol")) + request("READ", 0, 512):
        raw.send(bytes([byte]))
    assert raw.outcome("GO") == "ACK"
    assert raw.reply(512).error == 0


@case
def breaks_off_and_comes_back_a_hundred_times(raw, server):
    for i in range(100):
        again = server.connect()
        again.flags().send(option("GO", info("vol"))[: i % 30])
        again.close()


@case
def sends_noise_into_the_handshake(raw, server):
    noise = random.Random(7)
    for _ in range(30):
        server.connect().send(noise.randbytes(noise.randrange(1, 5000))).end().close()


@case
def sends_noise_into_the_transmission(raw, server):
    noise = random.Random(8)
    for _ in range(30):
        broken = server.connect().go("vol", structured=bool(noise.randrange(2)))
        good = [request(noise.choice(list(CMD.values())), noise.randrange(SIZE), noise.randrange(5000), noise.randrange(32)) for _ in range(8)]
        message = bytearray(b"".join(good))
        for _ in range(noise.randrange(4)):
            message[noise.randrange(len(message))] = noise.randrange(256)
        broken.send(bytes(message)).end().close()


@pytest.mark.parametrize("name", CASES)
def test_a_client_that(name, server):
    raw = server.connect()
    function = CASES[name]
    try:
        function(raw, server) if function.__code__.co_argcount == 2 else function(raw)
    finally:
        raw.close()
    server.check()


def test_there_are_at_least_sixty_kinds():
    assert len(CASES) >= 60
