"""The servers that are measured. Each one is started on its own Unix socket and has .name, .pid, .uri and .stop()."""

import os
import re
import shutil
import socket
import subprocess
import sys

from .area import ROOT, Process
from .qmp import Qmp

sys.path.insert(0, os.path.join(ROOT, "test/support"))
import udmtest  # noqa: E402

MIB = 1 << 20


def _answers(path):
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
            return True
        except (FileNotFoundError, ConnectionRefusedError):
            return False


class Server:
    name = ""

    def __init__(self, area, export=""):
        self.area = area
        self.path = area.fresh(".sock")
        self.uri = f"nbd+unix:///{export}?socket={self.path}"
        self.files = []  # of a point-in-time view or overlay: what it costs in space

    def _launch(self, command, **more):
        self.process = Process(command, self.area.fresh(".log"), **more)
        self.area.started(self)

        def ready():
            self.process.check_alive()
            return _answers(self.path)

        udmtest.wait_until(ready, f"{self.name} to listen on {self.path}")

    @property
    def pid(self):
        return self.process.pid

    def stop(self):
        self.process.stop()
        self.area.ended(self)
        for path in self.files:
            if os.path.exists(path):
                os.unlink(path)


class Echo(Server):
    name = "echo"

    def __init__(self, area, *words):
        super().__init__(area)
        self._launch([udmtest.program("nbdecho"), "--socket", self.path, *words])


class Nbdkit(Server):
    name = "nbdkit"

    def __init__(self, area, *words, environment=None):
        super().__init__(area)
        self._launch(["nbdkit", "-f", "-U", self.path, *words], env={**os.environ, **(environment or {})})


class Qemu(Server):
    """qemu-storage-daemon exporting `node`; with `monitor` .qmp is one."""

    name = "qemu"

    def __init__(self, area, node, *blockdevs, files=(), monitor=False):
        super().__init__(area, export="e")
        words = ["qemu-storage-daemon"]
        self.qmp = None
        monitor_path = area.fresh(".qmp")
        if monitor:
            words += ["--chardev", f"socket,id=monitor,path={monitor_path},server=on,wait=off", "--monitor", "chardev=monitor"]
        for blockdev in blockdevs:
            words += ["--blockdev", blockdev]
        words += ["--nbd-server", f"addr.type=unix,addr.path={self.path},max-connections=64",
                  "--export", f"type=nbd,id=e,name=e,node-name={node},writable=on"]
        self._launch(words)
        self.files = list(files)
        if monitor:
            self.qmp = Qmp(monitor_path)

    def stop(self):
        if self.qmp:
            self.qmp.close()
        super().stop()


class Udm(Server):
    """udmd; `prepare(daemon)` creates devices and returns the name of the one to export."""

    name = "udm"

    def __init__(self, area, prepare, files=()):
        super().__init__(area)
        folder = area.fresh(".udm")
        os.mkdir(folder)
        self.daemon = udmtest.Daemon(folder, arguments=os.environ.get("UDM_BENCH_UDMD", "").split())
        area.started(self)
        self.files = list(files)
        try:
            self.daemon.start()
            self.uri = self.daemon.export(prepare(self.daemon))
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self):
        return self.daemon.process.pid

    def stop(self):
        try:
            if self.daemon.process and self.daemon.process.poll() is None:
                self.daemon.stop() if self.daemon.connection else self.daemon.kill()
        finally:
            self.area.ended(self)
            for path in self.files:
                if os.path.exists(path):
                    os.unlink(path)


def qemu_file(node, path, store):
    """A --blockdev for a raw file. Tried on tmpfs: the threads are as good as io_uring or better; on a disk with O_DIRECT
    native asynchronous I/O takes the least CPU for reads, io_uring for writes; what point-in-time views do is writes."""
    how = "cache.direct=on,aio=io_uring" if store == "disk" else "cache.direct=off,aio=threads"
    return f"driver=file,node-name={node},filename={path},{how},discard=unmap"


def _version(command, pattern):
    try:
        text = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    except OSError:
        return None
    found = re.search(pattern, text)
    return found.group(1) if found else "?"


def versions():
    """Name -> version, None for what is not installed or built."""
    udmd = os.path.join(udmtest.BIN, "udmd")
    return {
        "echo": "ours",
        "udm": (_version([udmd, "--version"], r"(\d[\w.]*)") if os.access(udmd, os.X_OK) else None),
        "nbdkit": _version(["nbdkit", "--version"], r"nbdkit (\S+)") if shutil.which("nbdkit") else None,
        "qemu": _version(["qemu-storage-daemon", "--version"], r"version (\S+)") if shutil.which("qemu-storage-daemon") else None,
    }


WHERE_FROM = {"udm": "./dev build", "nbdkit": "package nbdkit", "qemu": "package qemu-system-common"}
