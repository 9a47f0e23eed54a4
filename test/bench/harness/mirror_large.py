"""A mirror of 16 TiB in 4 Mi regions: sparse files on tmpfs (ext4 takes no file of that size), a log on a disk file, a state directory. How
long it takes to make, ask, stop and start again, and what memory the daemon has for it."""

import os
import shutil
import subprocess
import time

from . import mirror
from .idle import status
from .report import median, number
from .servers import udmtest
from .views import sparse

REGION = 4 << 20
DIRTY = 100  # regions that a kill leaves dirty; each copy takes 4 MiB of tmpfs


def run(area, report, options, present):
    if "udm" in present and options["wanted"]("mirror/large"):
        large(area, report, options)


def timed(into, name, work):
    start = time.monotonic()
    result = work()
    into[name] = 1000 * (time.monotonic() - start)
    return result


def large(area, report, options):
    size = (1 << 40) if options["quick"] else (16 << 40)
    runs = [one(area, size) for _ in range(options["runs"])]
    rows = [[name, number(median(r[name] for r in runs))] for name in runs[0]]
    report.group("mirror-large", f"A mirror of {size >> 40} TiB in {size // REGION} regions, disk log", ["what", "ms, MiB"], rows, runs,
                 ["Legs are sparse files on tmpfs, the log is a file of the disk. A start is from running udmd to the mirror's status; dirty: "
                  f"killed with {DIRTY} regions dirty, whose copies are counted up to the mirror being in sync."])


def one(area, size):
    folder = area.fresh(".large")
    os.mkdir(folder)
    legs = [sparse(area.fresh(".img", area.memory), size) for _ in range(2)]
    log = sparse(area.fresh(".log", area.disk), (1 << 20) + size // REGION // 8)
    daemon = udmtest.Daemon(folder, state_dir=True)
    took = {}

    def restart():
        daemon.start()
        return daemon.status("m")

    try:
        daemon.start()
        empty = status(daemon.process.pid, "VmRSS:")
        timed(took, "create, ms", lambda: daemon.rpc("device.create", name="m"))
        words = mirror.table(size, log, legs, region=REGION, sync="nosync", features="2 handle_errors keep_log")
        timed(took, "load the table, ms", lambda: daemon.rpc("table.load", device="m", table=words))
        timed(took, "resume (makes the log), ms", lambda: daemon.rpc("device.resume", device="m"))
        took["memory more, MiB"] = (status(daemon.process.pid, "VmRSS:") - empty) / 1024
        timed(took, "status, ms", lambda: daemon.status("m"))
        timed(took, "suspend, ms", lambda: daemon.rpc("device.suspend", device="m"))
        timed(took, "resume again, ms", lambda: daemon.rpc("device.resume", device="m"))
        timed(took, "stop, ms", daemon.stop)
        timed(took, "start, clean, ms", restart)
        took["resident memory after it, MiB"] = status(daemon.process.pid, "VmRSS:") / 1024
        uri = daemon.export("m")
        done = subprocess.run([udmtest.program("nbdload"), "--mode", "firsttouch", "--slot", str(REGION), "--range", str(DIRTY * REGION), "--depth", "32", uri],
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        daemon.kill()
        timed(took, "start, dirty, ms", restart)
        timed(took, f"copy of {DIRTY} regions until in sync, ms", lambda: mirror.wait_in_sync(daemon))
        timed(took, "stop at the end, ms", daemon.stop)
        return took
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.kill()
        for path in (*legs, log):
            os.unlink(path)
        shutil.rmtree(folder)
