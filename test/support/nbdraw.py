"""The NBD protocol by hand, for tests that break it: bytes to send, and answers taken apart.

Written from the NBD project's doc/proto.md; it shares nothing with the server under test.
"""

import socket
import struct

FIXED, NO_ZEROES = 1, 2
OPT = dict(EXPORT_NAME=1, ABORT=2, LIST=3, PEEK_EXPORT=4, STARTTLS=5, INFO=6, GO=7, STRUCTURED_REPLY=8, LIST_META_CONTEXT=9,
           SET_META_CONTEXT=10)
REP = dict(ACK=1, SERVER=2, INFO=3, META_CONTEXT=4, ERR_UNSUP=0x80000001, ERR_POLICY=0x80000002, ERR_INVALID=0x80000003,
           ERR_PLATFORM=0x80000004, ERR_TLS_REQD=0x80000005, ERR_UNKNOWN=0x80000006, ERR_SHUTDOWN=0x80000007,
           ERR_BLOCK_SIZE_REQD=0x80000008, ERR_TOO_BIG=0x80000009)
CMD = dict(READ=0, WRITE=1, DISC=2, FLUSH=3, TRIM=4, CACHE=5, WRITE_ZEROES=6, BLOCK_STATUS=7)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO = 1, 2, 4, 8, 16
EPERM, EIO, EINVAL, ENOSPC, ENOTSUP, ESHUTDOWN = 1, 5, 22, 28, 95, 108
MAGIC = 0x25609513


def u16(*values):
    return struct.pack(f">{len(values)}H", *values)


def u32(*values):
    return struct.pack(f">{len(values)}I", *values)


def u64(*values):
    return struct.pack(f">{len(values)}Q", *values)


def option(number, data=b"", length=None):
    """`length`: what the header says, if that isn't the truth."""
    number = OPT.get(number, number)
    return b"IHAVEOPT" + u32(number, len(data) if length is None else length) + data


def info(name, wanted=(3,)):
    name = name.encode() if isinstance(name, str) else name
    return u32(len(name)) + name + u16(len(wanted), *wanted)


def meta(name, queries):
    name = name.encode() if isinstance(name, str) else name
    queries = [q.encode() if isinstance(q, str) else q for q in queries]
    return u32(len(name)) + name + u32(len(queries)) + b"".join(u32(len(q)) + q for q in queries)


def request(command, offset=0, length=0, flags=0, cookie=1, magic=MAGIC):
    return u32(magic) + u16(flags, CMD.get(command, command)) + u64(cookie, offset) + u32(length)


def write(offset, data, flags=0, cookie=1):
    return request("WRITE", offset, len(data), flags, cookie) + data


class Closed(Exception):
    """The server ended the connection."""


class Reply:
    """All of the reply to one request."""

    def __init__(self):
        self.error, self.data, self.extents, self.structured = 0, b"", {}, False


class Raw:
    """A connection to a Unix socket, at first past the server's greeting."""

    def __init__(self, path, timeout=20):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.structured = False
        assert self.take(18) == b"NBDMAGICIHAVEOPT" + u16(FIXED | NO_ZEROES)

    def send(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it shows when something is read
        return self

    def take(self, count):
        data = b""
        while len(data) < count:
            try:
                piece = self.socket.recv(min(count - len(data), 1 << 20))
            except ConnectionResetError:
                piece = b""
            if not piece:
                raise Closed(f"after {len(data)} of {count} bytes")
            data += piece
        return data

    def end(self):
        """Nothing more comes from here."""
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def close(self):
        self.socket.close()

    def expect_closed(self):
        """The server says nothing more and closes."""
        try:
            more = self.take(1)
        except Closed:
            return
        raise AssertionError(f"expected the connection to end, got {more!r}")

    # -------------------------------------------------------------------------------------- handshake
    def flags(self, flags=FIXED | NO_ZEROES):
        return self.send(u32(flags))

    def option_replies(self, number):
        """All replies to the option; the last one's type is ACK or an error."""
        replies = []
        while True:
            magic, answered, kind, length = struct.unpack(">QIII", self.take(20))
            assert magic == 0x3E889045565A9
            assert answered == OPT.get(number, number)
            replies.append((kind, self.take(length)))
            if kind == REP["ACK"] or kind & 0x80000000:
                return replies

    def ask(self, number, data=b""):
        """The type of the option's last reply, by name."""
        self.send(option(number, data))
        return self.outcome(number)

    def outcome(self, number):
        kind = self.option_replies(number)[-1][0]
        return next(name for name, value in REP.items() if value == kind)

    def go(self, name, structured=False, contexts=()):
        """Into the transmission phase."""
        self.flags()
        if structured:
            assert self.ask("STRUCTURED_REPLY") == "ACK"
            self.structured = True
        if contexts:
            assert self.ask("SET_META_CONTEXT", meta(name, contexts)) == "ACK"
        assert self.ask("GO", info(name)) == "ACK"
        return self

    # ----------------------------------------------------------------------------------- transmission
    def reply(self, length=0, cookie=1):
        """The reply to the request with that cookie; `length`: of a read."""
        reply = Reply()
        while True:
            (magic,) = struct.unpack(">I", self.take(4))
            if magic == 0x67446698:
                reply.error, answered = struct.unpack(">IQ", self.take(12))
                assert answered == cookie
                if reply.error == 0 and not self.structured:
                    reply.data = self.take(length)
                return reply
            assert magic == 0x668E33EF, hex(magic)
            assert self.structured, "chunks were not negotiated"
            flags, kind, answered, size = struct.unpack(">HHQI", self.take(16))
            assert answered == cookie
            payload = self.take(size)
            reply.structured = True
            if kind == 1:
                reply.data += payload[8:]
            elif kind == 2:
                reply.data += bytes(struct.unpack(">QI", payload)[1])
            elif kind == 5:
                words = struct.unpack(f">{size // 4}I", payload)
                reply.extents[words[0]] = list(zip(words[1::2], words[2::2]))
            elif kind & 0x8000:
                reply.error, text = struct.unpack(">IH", payload[:6])
                assert len(payload) >= 6 + text
            else:
                assert kind == 0 and size == 0
            if flags & 1:
                return reply

    def error(self, message):
        """What a request that moves no data back is answered."""
        return self.send(message).reply().error

    def read(self, offset, length, flags=0):
        return self.send(request("READ", offset, length, flags)).reply(length)
