"""The judge of test_kill.py is judged: it accepts a simple server that keeps its data in a file, and catches servers that lose some."""

import os
import shutil
import socket
import subprocess

import pytest

import crashload
import udmtest

SIZE = 8 << 20


class Echo:
    """nbdecho, which has no state of its own: killing it loses nothing of a file, and everything of its memory."""

    def __init__(self, folder, store):
        self.path = os.path.join(folder, "echo.sock")
        self.uri = f"nbd+unix:///?socket={self.path}"
        self.command = [udmtest.program("nbdecho"), "--socket", self.path, "--size", str(SIZE), store]
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command)
        udmtest.wait_until(self._answers, "nbdecho to listen")

    def _answers(self):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self.path)
                return True
            except OSError:
                return False

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def image(folder):
    path = os.path.join(folder, "image")
    crashload.fill(path, SIZE)
    return path


@pytest.fixture
def echo(folder, image):
    server = Echo(folder, image)
    yield server
    server.kill()


def test_accepts_a_server_that_is_killed_and_keeps_its_file(folder, echo):
    journal = os.path.join(folder, "journal")
    with crashload.CrashLoad(journal, {"origin": echo.uri}) as load:
        for _ in range(3):
            load.wait_for_writes(2000)
            echo.kill()
            echo.start()
        load.wait_for_writes(2000)
        counters = load.finish()
    assert counters["losses"] == 3
    assert counters["sectors_checked"] >= SIZE // 512
    assert crashload.check(journal, origin=echo.uri)[0] == 0


def test_a_snapshot_is_what_was_there_between_begin_and_end(folder, echo, image):
    """A copy of the file, taken while nothing is in flight, stands for the snapshot."""
    journal = os.path.join(folder, "journal")
    os.mkdir(os.path.join(folder, "snap"))
    with crashload.CrashLoad(journal, {"origin": echo.uri}) as load:
        load.wait_for_writes(2000)
        load.ask("begin snap origin")
        load.wait_for_writes(500)
        load.ask("hold")
        copy = os.path.join(folder, "copy")
        shutil.copyfile(image, copy)
        load.ask("go")
        load.wait_for_writes(500)
        snap = Echo(os.path.join(folder, "snap"), copy)
        try:
            load.ask(f"end snap {snap.uri} write")
            load.wait_for_writes(2000)
            load.ask("verify")
            load.ask("drop snap")
        finally:
            snap.kill()
        load.finish()


def test_catches_a_server_that_forgets_what_was_flushed(folder, image):
    server = Echo(folder, image)
    kept = os.path.join(folder, "kept")
    try:
        with crashload.CrashLoad(os.path.join(folder, "journal"), {"origin": server.uri}) as load:
            shutil.copyfile(image, kept)
            load.wait_for_writes(5000)
            server.kill()
            os.replace(kept, image)
            server.start()
            with pytest.raises(crashload.LoadEnded, match=r"violation: origin: sector \d+ .*found.*allowed") as ended:
                load.finish()
            assert ended.value.status == 2
    finally:
        server.kill()


def test_catches_a_snapshot_that_follows_its_origin(folder, echo):
    with crashload.CrashLoad(os.path.join(folder, "journal"), {"origin": echo.uri}) as load:
        load.wait_for_writes(1000)
        load.ask("begin snap origin")
        load.wait_for_writes(500)
        load.ask(f"end snap {echo.uri}")
        with pytest.raises(crashload.LoadEnded, match="violation: snap: sector"):
            load.wait_for_writes(5000)
            load.finish()


def test_says_that_the_server_stayed_away(folder, echo):
    with crashload.CrashLoad(os.path.join(folder, "journal"), {"origin": echo.uri}, patience=1) as load:
        load.wait_for_writes(100)
        echo.kill()
        with pytest.raises(crashload.LoadEnded, match="no server within 1 s") as ended:
            load.finish()
        assert ended.value.status == 4
