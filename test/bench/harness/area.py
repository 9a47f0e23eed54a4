"""Files of a bench run, and the processes it started: both are gone when it ends, however it ends."""

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
RESULTS = os.path.join(ROOT, "build/bench")
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)


def _die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """One that we started; ended by its own pid."""

    def __init__(self, command, log, **more):
        with open(log, "ab") as out:
            self.popen = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                preexec_fn=_die_with_parent, **more)
        self.log = log

    @property
    def pid(self):
        return self.popen.pid

    def check_alive(self):
        if self.popen.poll() is not None:
            with open(self.log, encoding="utf-8", errors="replace") as file:
                raise RuntimeError(f"{self.popen.args[0]} ended with {self.popen.returncode}: {file.read()[-2000:]}")

    def stop(self):
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(20)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        self.popen.wait()


class Area:
    """Two folders: `memory` on tmpfs, `disk` below build/bench; and a short one for sockets and logs."""

    def __init__(self):
        os.makedirs(RESULTS, exist_ok=True)
        self.memory = tempfile.mkdtemp(prefix="udm-bench-", dir="/dev/shm")
        self.disk = tempfile.mkdtemp(prefix="files-", dir=RESULTS)
        self.run = tempfile.mkdtemp(prefix="udm-bench-")
        self._servers = []
        self._names = 0

    def of(self, store):
        return self.disk if store == "disk" else self.memory

    def fresh(self, suffix, folder=None):
        """A path nobody has used yet."""
        self._names += 1
        return os.path.join(folder or self.run, f"{self._names}{suffix}")

    def started(self, server):
        self._servers.append(server)
        return server

    def ended(self, server):
        self._servers.remove(server)

    def clean_up(self):
        for server in reversed(self._servers[:]):
            try:
                server.stop()
            except Exception as trouble:  # the others must still be ended
                print(f"bench: stopping {server}: {trouble}")
        for folder in (self.memory, self.disk, self.run):
            shutil.rmtree(folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.clean_up()


def filled_file(path, size):
    """Writes random content everywhere, so that nothing is a hole and no server may take it for zeroes. Nothing of it stays in
    the page cache of a disk: a write with O_DIRECT would first have to drop it."""
    block = os.urandom(8 << 20)
    with open(path, "wb", buffering=0) as file:
        for at in range(0, size, len(block)):
            file.write(block[: min(len(block), size - at)])
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path


def allocated(paths):
    """Bytes that the files take where they are."""
    return sum(os.stat(path).st_blocks * 512 for path in paths if os.path.exists(path))
