"""An NBD server that does on purpose what servers do when they are in trouble. Written from the NBD project's doc/proto.md.

    with Fake(path, size=1 << 20) as server:
        server.hang = True         # takes requests and answers none
        server.crash()             # ends its connections, and forgets what was not flushed
        server.start()             # listens again

What it holds: .data as clients see it, .durable as it would be after a crash. What it was asked: .log, (command, flags, offset,
length) in the order in which they came.
"""

import os
import socket
import struct
import threading

from nbdraw import CMD, FUA, MAGIC, OPT, REP, u16, u32, u64

HAS_FLAGS, READ_ONLY, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_ZEROES, MULTI_CONN = 1, 2, 4, 8, 32, 64, 256
USUAL = HAS_FLAGS | SEND_FLUSH | SEND_FUA | SEND_TRIM | SEND_ZEROES
NAMES = {number: name for name, number in CMD.items()}


class Fake:
    def __init__(self, path, size=1 << 20, flags=USUAL, name=""):
        self.path, self.size, self.flags, self.name = str(path), size, flags, name
        self.uri = f"nbd+unix:///{name}?socket={self.path}"
        self.data, self.durable = bytearray(size), bytearray(size)
        self.log = []
        self.hang = False        # requests are taken, and not answered
        self.deaf = False        # connections are accepted, and nothing is said
        self.garbage = False     # the next answer is none
        self.fail_flush = 0      # so many flushes fail
        self.lock = threading.RLock()
        self.connections = []
        self.accepted = 0
        self.listener = None

    # -------------------------------------------------------------------------------------------- life
    def start(self):
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(32)
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()
        return self

    def end_connections(self, count=None):
        """All, or the oldest few, as if a network had failed: what it knows stays."""
        with self.lock:
            going, self.connections = self.connections[:count], self.connections[len(self.connections[:count]):]
        for connection in going:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def stop(self):
        if self.listener:
            try:
                self.listener.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self.listener.close()
            self.listener = None
        self.end_connections()

    def crash(self):
        self.stop()
        with self.lock:
            self.data = bytearray(self.durable)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def count(self, command):
        with self.lock:
            return sum(1 for entry in self.log if entry[0] == command)

    # ----------------------------------------------------------------------------------------- service
    def _accept(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self.lock:
                self.accepted += 1
                self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            if self.deaf:
                connection.recv(1)
                return
            self._handshake(connection)
            while self._request(connection):
                pass
        except (OSError, EOFError):
            pass
        finally:
            with self.lock:
                if connection in self.connections:
                    self.connections.remove(connection)
            connection.close()

    @staticmethod
    def _take(connection, count):
        data = b""
        while len(data) < count:
            more = connection.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def _handshake(self, connection):
        connection.sendall(b"NBDMAGICIHAVEOPT" + u16(3))
        self._take(connection, 4)
        while True:
            _, option, length = struct.unpack(">8sII", self._take(connection, 16))
            data = self._take(connection, length)

            def reply(kind, payload=b""):
                connection.sendall(u64(0x3E889045565A9) + u32(option, kind, len(payload)) + payload)

            if option in (OPT["GO"], OPT["INFO"]):
                wanted = data[4:4 + struct.unpack(">I", data[:4])[0]].decode()
                if wanted != self.name:
                    reply(REP["ERR_UNKNOWN"])
                    continue
                reply(REP["INFO"], u16(0) + u64(self.size) + u16(self.flags))
                reply(REP["ACK"])
                if option == OPT["GO"]:
                    return
            elif option == OPT["ABORT"]:
                reply(REP["ACK"])
                raise EOFError
            else:
                reply(REP["ERR_UNSUP"])

    def _request(self, connection):
        magic, flags, command, cookie, offset, length = struct.unpack(">IHHQQI", self._take(connection, 28))
        assert magic == MAGIC
        name = NAMES[command]
        payload = self._take(connection, length) if name == "WRITE" else b""
        if name == "DISC":
            return False
        with self.lock:
            self.log.append((name, flags, offset, length))
            if self.hang:
                return True
            error, answer = self._do(name, flags, offset, length, payload)
            if self.garbage:
                self.garbage = False
                connection.sendall(b"this is no answer" * 4)
                return True
        connection.sendall(u32(0x67446698, error) + u64(cookie) + answer)
        return True

    def _do(self, name, flags, offset, length, payload):
        if name != "FLUSH" and offset + length > self.size:
            return 22, b""
        if name == "READ":
            return 0, bytes(self.data[offset:offset + length])
        if name == "FLUSH":
            if self.fail_flush:
                self.fail_flush -= 1
                return 5, b""
            self.durable[:] = self.data
            return 0, b""
        if name in ("WRITE", "WRITE_ZEROES"):
            self.data[offset:offset + length] = payload if name == "WRITE" else bytes(length)
            if flags & FUA:
                self.durable[offset:offset + length] = self.data[offset:offset + length]
        return 0, b""
