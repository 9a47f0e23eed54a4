"""Starts and asks udm's programs, for tests written in Python.

    with Daemon(folder) as d:
        d.rpc("device.create", name="zero", table="0 8192 zero")
        d.udmsetup("status", "zero").stdout
        uri = d.export("zero")
"""

import itertools
import json
import os
import signal
import socket
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("UDM_BIN", os.path.join(ROOT, "build/release/bin"))


# asan or tsan where the programs are built with that (tools/soak.sh): what a test says of memory or of limits is not true of those.
SANITIZER = os.environ.get("UDM_SANITIZER", "")


def program(name):
    path = os.path.join(BIN, name)
    assert os.access(path, os.X_OK), f"{path} is not there: ./dev build"
    return path


def wait_until(condition, what, timeout=20.0):
    """Returns the first true value of condition(); fails, naming `what`, when there is none in time."""
    deadline = time.monotonic() + timeout
    pause = 0.001
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {timeout} s in vain for: {what}"
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def let_time_pass(seconds):
    """Only to measure that nothing happens: everything else waits for a condition."""
    time.sleep(seconds)


class RpcError(Exception):
    """What the daemon refused; .code, .message and .data as in docs/protocol.md."""

    def __init__(self, error):
        super().__init__(f"{error['message']} ({error['code']}, {error.get('data')})")
        self.code, self.message, self.data = error["code"], error["message"], error.get("data") or {}


class Connection:
    """One client of the control socket."""

    def __init__(self, path, timeout=60.0):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.file = self.socket.makefile("r", encoding="utf-8", newline="\n")
        self.ids = itertools.count(1)
        self.events = []  # notifications that came while an answer was awaited

    def rpc(self, method, **params):
        number = next(self.ids)
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            answer = self.read()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RpcError(answer["error"])
                return answer["result"]
            self.events.append(answer)

    def read(self):
        """The next object the daemon sends."""
        line = self.file.readline()
        assert line, "the daemon closed the control connection"
        return json.loads(line)

    def close(self):
        self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Daemon:
    """udmd in a folder: FOLDER/control.sock, log in FOLDER/udmd.log, with `state_dir` also FOLDER/state."""

    def __init__(self, folder, state_dir=False, arguments=(), environment=None):
        self.folder = str(folder)
        self.socket = os.path.join(self.folder, "control.sock")
        self.log = os.path.join(self.folder, "udmd.log")
        self.command = [program("udmd"), "--socket", self.socket, *arguments]
        if state_dir:
            self.command += ["--state-dir", os.path.join(self.folder, "state")]
        self.environment = {**os.environ, **(environment or {})}
        self.process = None
        self.connection = None
        self.exports = itertools.count(1)

    # ------------------------------------------------------------------------------------------- life
    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment)
        self.connection = wait_until(self._connect, "udmd to answer on its socket")
        return self

    def _connect(self):
        assert self.process.poll() is None, f"udmd ended with {self.process.returncode}:\n{self.read_log()}"
        try:
            return Connection(self.socket)
        except (FileNotFoundError, ConnectionRefusedError):
            return None

    def stop(self, timeout=30.0):
        """SIGTERM, and an orderly end is demanded."""
        self._end(signal.SIGTERM, timeout)
        assert self.process.returncode == 0, f"udmd ended with {self.process.returncode}:\n{self.read_log()}"

    def kill(self):
        self.kill_by(signal.SIGKILL)

    def kill_by(self, how):
        """Whatever comes of it: .process.returncode."""
        self._end(how, 30.0)

    def _end(self, how, timeout):
        if self.connection:
            self.connection.close()
            self.connection = None
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"udmd did not end in {timeout} s after signal {how}:\n{self.read_log()}") from None

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, *_):
        if self.process.poll() is None and kind is None:
            self.stop()
        elif self.process.poll() is None:
            self.kill()
            print(self.read_log())
        else:
            if self.connection:
                self.connection.close()
            assert kind is not None or self.process.returncode in (0, -signal.SIGKILL), (
                f"udmd ended by itself with {self.process.returncode}:\n{self.read_log()}")

    def read_log(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()[-20000:]

    # ----------------------------------------------------------------------------------------- asking
    def rpc(self, method, **params):
        return self.connection.rpc(method, **params)

    def connect(self):
        return Connection(self.socket)

    def run(self, name, *arguments, input=None, check=False):
        """A program of ours against this daemon."""
        done = subprocess.run([program(name), *arguments], input=input, text=True, capture_output=True, timeout=120,
                              env={**self.environment, "UDM_SOCKET": self.socket})
        if check:
            assert done.returncode == 0, f"{name} {' '.join(arguments)}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def udmsetup(self, *arguments, input=None, check=True):
        return self.run("udmsetup", *arguments, input=input, check=check)

    def udm(self, *arguments, input=None, check=True):
        return self.run("udm", *arguments, input=input, check=check)

    def create(self, name, table):
        return self.rpc("device.create", name=name, table=table)

    def remove(self, name):
        self.rpc("device.remove", device=name)

    def table(self, name):
        return self._lines("table.get", name)

    def status(self, name):
        return self._lines("table.status", name)

    def _lines(self, method, name):
        """As dmsetup prints them."""
        return "\n".join(f"{t['start']} {t['length']} {t['type']} {t['text']}" for t in self.rpc(method, device=name))

    def export(self, name):
        """An NBD URI of the device, on a socket of its own."""
        path = os.path.join(self.folder, f"nbd{next(self.exports)}.sock")
        return self.rpc("export.add", device=name, uri=f"nbd+unix:///{name}?socket={path}")["uri"]

    def unexport(self, name):
        self.rpc("export.remove", device=name)
