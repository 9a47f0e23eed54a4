"""What udmd costs when nobody asks for anything, and how long a snapshot of a busy volume holds it up."""

import json
import os
import select
import subprocess
import time

from . import servers
from .area import filled_file
from .load import load
from .report import median, number

DEVICES, EXPORTS = 100, 10
SHARE_AIM, RSS_AIM_MIB = 0.001, 40
PAUSE_AIM_MS = 10


def run(area, report, options, present):
    if "udm" not in present:
        return
    if options["wanted"]("idle"):
        idle(area, report, options)
    for store in ("memory", "disk"):
        if options["wanted"](f"take/{store}"):
            take(area, report, options, store)


def idle(area, report, options):
    seconds = 2 if options["quick"] else 10
    sectors = (16 << 20) // 512
    base = filled_file(area.fresh(".img", area.memory), 16 << 20)
    cow = area.fresh(".cow", area.memory)

    def prepare(daemon):
        daemon.create("vol", f"0 {sectors} snapshot-origin {base}")
        with open(cow, "wb") as file:
            file.truncate(32 << 20)
        daemon.create("snap", f"0 {sectors} snapshot {base} {cow} P 8")
        for i in range(DEVICES - 2):
            daemon.create(f"d{i}", f"0 {sectors} linear {base} 0")
        for i in range(EXPORTS - 1):
            daemon.export(f"d{i}")
        return "vol"

    server = servers.Udm(area, prepare)
    try:
        load(server, "--mode", "randwrite", "--seconds", 0.5)  # it has been at work before
        first, at = cpu_ns(server.pid), time.monotonic()
        select.select([], [], [], seconds)
        share = (cpu_ns(server.pid) - first) / 1e9 / (time.monotonic() - at)
        rss = status(server.pid, "VmRSS:") / 1024
    finally:
        server.stop()
        os.unlink(base)
    rows = [
        ["CPU, share of a core", f"{share:.5f}", SHARE_AIM, "reached" if share < SHARE_AIM else "NOT reached"],
        ["resident memory, MiB", number(rss, 1), RSS_AIM_MIB, "reached" if rss < RSS_AIM_MIB else "NOT reached"],
    ]
    report.group("idle", f"Idle: {DEVICES} devices, {EXPORTS} exports, {seconds} s", ["what", "measured", "under", "aim"], rows,
                 {"cpu_share": share, "rss_mib": rss})


def cpu_ns(pid):
    """Time on a core of all threads that are alive, from the scheduler's own account."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total


def status(pid, word):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(word))


def take(area, report, options, store):
    """Snapshots of an origin that is written at depth 32."""
    base = filled_file(area.fresh(".img", area.of(store)), options["size"])
    cow_dir = area.fresh(".cow", area.of(store))
    os.mkdir(cow_dir)
    seconds = 2 if options["quick"] else 5
    takes = []

    def prepare(daemon):
        daemon.create("vol", f"0 {options['size'] // 512} snapshot-origin {base}")
        return "vol"

    server = servers.Udm(area, prepare)
    try:
        for i in range(options["runs"]):
            writer = subprocess.Popen(
                [servers.udmtest.program("nbdload"), "--json", "--mode", "randwrite", "--seconds", str(seconds), server.uri],
                stdout=subprocess.PIPE, text=True)
            try:
                select.select([], [], [], seconds / 2)
                taken = server.daemon.rpc("snapshot.take", origins=[{"origin": "vol", "snapshot": f"snap{i}"}], cow_dir=cow_dir,
                                          size=options["size"] + (64 << 20), chunk=4096)[0]
                out, _ = writer.communicate(timeout=60)
            finally:
                writer.kill()
                writer.wait()
            takes.append({"pause_us": taken["pause_us"], "load": json.loads(out)})
            server.daemon.rpc("snapshot.drop", snapshot=f"snap{i}")
    finally:
        server.stop()
        os.unlink(base)
    pause = median(t["pause_us"] for t in takes) / 1000
    worst = max(t["pause_us"] for t in takes) / 1000
    rows = [["pause, ms", number(pause), number(worst), "reached" if worst < PAUSE_AIM_MS else "NOT reached"],
            ["longest request of the client, ms", number(median(t["load"]["latency_us"]["max"] for t in takes) / 1000),
             number(max(t["load"]["latency_us"]["max"] for t in takes) / 1000), "-"]]
    report.group(f"take/{store}", f"Snapshot of an origin written at depth 32, {store}", ["what", "median", "worst", f"under {PAUSE_AIM_MS} ms"],
                 rows, takes, ["The longest request counts the copies after the take as well."])
