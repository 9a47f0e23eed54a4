"""The daemon's log when nobody takes it: requests and commands go on, the end comes, and nothing is silently missing."""

import os
import subprocess
import threading
import time

import nbd

import udmtest


class WithPipedLog(udmtest.Daemon):
    """Its standard error is a pipe that is full from the start."""

    def start(self):
        self.pipe, other = os.pipe()
        os.set_blocking(other, False)
        try:
            while True:
                os.write(other, b"x" * 4096)
        except BlockingIOError:
            pass
        os.set_blocking(other, True)
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=other)
        os.close(other)
        self.connection = udmtest.wait_until(self._connect, "udmd to answer on its socket")
        return self

    def read_log(self):
        return "(in a pipe)"


def test_a_log_that_nobody_reads_stops_neither_requests_nor_commands_nor_the_end(folder):
    daemon = WithPipedLog(folder)
    daemon.start()
    try:
        daemon.connection.socket.settimeout(10)
        image = f"{folder}/image"
        with open(image, "wb") as file:
            file.truncate(1 << 20)
        daemon.create("vol", f"0 2048 snapshot-origin {image}")
        with open(f"{folder}/cow", "wb") as file:
            file.truncate(16 << 10)
        daemon.create("snap", f"0 2048 snapshot {image} {folder}/cow P 8")
        handle = nbd.NBD()
        handle.connect_uri(daemon.export("vol"))
        for chunk in range(16):  # the snapshot is lost on the way, which a reactor has to say
            handle.pwrite(b"A" * 4096, chunk * 4096)
        assert "Invalid" in daemon.status("snap")
        for _ in range(200):
            daemon.create("short", "0 8 zero")
            daemon.remove("short")
        handle.shutdown()
        begun = time.monotonic()
        daemon.stop(timeout=10)
        assert time.monotonic() - begun < 8
    finally:
        if daemon.process.poll() is None:
            daemon.kill()
        os.close(daemon.pipe)


def test_what_the_pipe_had_no_room_for_comes_when_it_is_read_and_the_missing_are_counted(folder):
    daemon = WithPipedLog(folder)
    daemon.start()
    try:
        long_table = "\n".join(f"{i} 1 error" for i in range(2000))
        for i in range(100):  # each says at its end what its table was: 24 KiB
            daemon.create(f"short{i}", long_table)
            daemon.remove(f"short{i}")
        read = []

        def read_all():
            with os.fdopen(daemon.pipe, "rb") as pipe:
                while piece := pipe.read1():
                    read.append(piece)

        reader = threading.Thread(target=read_all)
        reader.start()
        udmtest.wait_until(lambda: b"log lines are missing here" in b"".join(read), "the log to go on")
        daemon.stop()
        reader.join(30)
        log = b"".join(read).decode().lstrip("x")
        removed = log.count(": removed; its table was")
        missing = [line for line in log.splitlines() if "log lines are missing here" in line]
        assert 0 < removed < 100 and len(missing) == 1, (removed, missing)
        assert removed + int(missing[0].split("warning: ")[1].split()[0]) == 100, (removed, missing)
        assert log.rstrip().endswith("stopped")
    finally:
        if daemon.process.poll() is None:
            daemon.kill()
