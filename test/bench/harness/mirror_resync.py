"""A resync beside plain copies of the same files, and what it costs those who write meanwhile.

Every way copies all of one file to another of the same size, both full of data: udm's mirror from its creation until it is in sync; the
bench's own copier (reads and writes of 1 MiB with io_uring, the fastest of three depths); qemu's mirror job until it is ready; and
qemu-img convert, nbdcopy and dd as people use them. On a disk all but nbdcopy go around the page cache, and the copy ends with a flush.

With writers: 4 KiB writes in random order for a time in which the resync runs on; then the same on the mirror that is in sync.
"""

import concurrent.futures
import os
import struct
import subprocess
import time

from . import mirror, servers
from .area import filled_file
from .load import interleaved, load
from .report import median, number, rate
from .servers import udmtest

BLOCK = 1 << 20
DEPTHS = (1, 4, 16)
AIMS = {"memory": 0.8, "disk": 0.95}
OURS = "udm, resync"
PLAIN = "plain copy, io_uring, depth "


def run(area, report, options, present):
    for store in ("memory", "disk"):
        if options["wanted"](f"mirror/resync/{store}"):
            copies(area, report, options, store, present)
        if options["wanted"](f"mirror/foreground/{store}") and "udm" in present:
            foreground(area, report, options, store)


def timed(work):
    start = time.monotonic()
    work()
    return time.monotonic() - start


def copies(area, report, options, store, present):
    size, folder = options["size"], area.of(store)
    legs = [filled_file(area.fresh(".img", folder), size) for _ in range(2)]
    log = area.fresh(".log", folder)
    with open(log, "wb") as file:
        file.truncate(mirror.LOG_SIZE)
    cached = store == "memory"

    def command(*words, input=None):
        return timed(lambda: subprocess.run([str(word) for word in words], input=input, check=True, capture_output=True, timeout=600))

    def udm():
        server = servers.Udm(area, lambda daemon: (daemon.create("idle", "0 8 zero"), "idle")[1])
        try:
            server.daemon.rpc("device.create", name="m")
            server.daemon.rpc("table.load", device="m", table=mirror.table(size, log, legs, sync="sync"))

            def resync():
                server.daemon.rpc("device.resume", device="m")
                mirror.wait_in_sync(server.daemon)

            return timed(resync)
        finally:
            server.stop()

    def plain(depth):
        places = b"".join(struct.pack("<QQ", i, i) for i in range(size // BLOCK))
        done = subprocess.run([udmtest.program("plaincopy"), *legs, str(BLOCK), str(depth), "cached" if cached else "direct"],
                              input=places, capture_output=True, check=True)
        return float(done.stdout)

    def qemu():
        nodes = [servers.qemu_file(f"leg{i}", leg, store) for i, leg in enumerate(legs)]
        server = servers.Qemu(area, "leg0", *nodes, monitor=True)
        try:
            def job():
                server.qmp.command("blockdev-mirror", **{"job-id": "job", "device": "leg0", "target": "leg1", "sync": "full"})
                server.qmp.wait_for("BLOCK_JOB_READY")

            return timed(job)
        finally:
            server.stop()

    cache = "writeback" if cached else "none"
    ways = {OURS: ("udm", udm)}
    for depth in DEPTHS:
        ways[f"{PLAIN}{depth}"] = ("echo", lambda depth=depth: plain(depth))
    ways["qemu, mirror job"] = ("qemu", qemu)
    ways["qemu-img convert -W -m 16"] = ("qemu", lambda: command("qemu-img", "convert", "-n", "-W", "-m", 16, "-f", "raw", "-O", "raw", "-t", cache, "-T", cache, *legs))
    ways["nbdcopy"] = ("nbdkit", lambda: command("nbdcopy", "--flush", *legs))
    ways["dd"] = ("echo", lambda: command("dd", f"if={legs[0]}", f"of={legs[1]}", "bs=1M", "conv=notrunc,fdatasync", *([] if cached else ["iflag=direct", "oflag=direct"])))
    try:
        results, broken = interleaved({name: way for name, (server, way) in ways.items() if server in present}, options["runs"], lambda _, way: way())
    finally:
        for path in (*legs, log):
            os.unlink(path)
    rows, notes = resync_rows(results, size, store)
    report.group(f"mirror-resync/{store}", f"Resync of {size >> 20} MiB beside plain copies: {store}", ["way", "seconds", "MiB/s", "udm's rate, of it"], rows,
                 results, notes + [f"{name}: failed: {why}" for name, why in broken.items()])


def resync_rows(results, size, store):
    ours, rows = results.get(OURS, []), []
    for name, seconds in results.items():
        shares = [other / mine for other, mine in zip(seconds, ours)]
        rows.append([name, number(median(seconds)), number(median(size / s / (1 << 20) for s in seconds)), number(median(shares))])
    # Of each way the median of its turns: the fastest of each turn would be the one that the neighbours left alone.
    plain = [median(other / mine for other, mine in zip(runs, ours)) for name, runs in results.items() if not name.startswith(("udm", "qemu, mirror"))]
    if not ours or not plain:
        return rows, []
    share, aim = min(plain), AIMS[store]
    return rows, [f"Aim: udm's rate, of the fastest copy's: {number(share)}, at least {aim} wanted: {'reached' if share >= aim else 'NOT reached'}."]


def foreground(area, report, options, store):
    size, folder = options["size"], area.of(store)
    legs = [filled_file(area.fresh(".img", folder), size) for _ in range(2)]
    seconds = min(options["seconds"], 0.5)
    cases = {f"{connections} x {depth}{f', share {share} %' if share else ''}": (connections, depth, share)
             for connections, depth, share in ((1, 1, None), (1, 32, None), (4, 32, None), (1, 32, 80))}

    def one(_, case):
        connections, depth, share = case
        server = servers.Udm(area, lambda daemon: (daemon.create("idle", "0 8 zero"), "idle")[1])
        try:
            d = server.daemon
            d.rpc("device.create", name="m")
            d.rpc("table.load", device="m", table=mirror.table(size, "core", legs))
            d.rpc("device.resume", device="m")
            d.udmsetup("message", "m", "0", "resync_pause")
            if share:
                d.udm("set", "m", f"resync_share={share}")
            server.uri = d.export("m")
            words = ["--mode", "randwrite", "--connections", connections, "--depth", depth, "--seconds", seconds, "--warmup", seconds / 2]
            with concurrent.futures.ThreadPoolExecutor(1) as threads:
                writer = threads.submit(load, server, *words)
                udmtest.wait_until(lambda: writer.done() or d.rpc("device.counters", device="m")[0]["write"]["requests"], "the first write")
                start = time.monotonic()
                d.udmsetup("message", "m", "0", "resync_resume")
                with_it = writer.result()
            took, (copied, total) = time.monotonic() - start, mirror.sync_words(d)
            mirror.wait_in_sync(d)
            return {"with": with_it, "without": load(server, *words), "mib_per_second": copied / total * size / took / (1 << 20), "ended": copied == total}
        finally:
            server.stop()

    try:
        results, broken = interleaved(cases, options["runs"], one)
    finally:
        for path in legs:
            os.unlink(path)
    rows = []
    for name, runs in results.items():
        def of(pick):
            return number(median(pick(r["with"]) / pick(r["without"]) for r in runs))

        rows.append([name, rate(median(r["without"]["iops"] for r in runs)), of(mirror.iops),
                     *(of(lambda r, p=p: r["latency_us"][p]) for p in ("p50", "p99")), of(mirror.cpu),
                     number(median(r["mib_per_second"] for r in runs)),
                     number(max(r["with"]["latency_us"]["max"] for r in runs) / 1000)])
    report.group(f"mirror-foreground/{store}", f"Writes during a resync of {size >> 20} MiB: {store}",
                 ["4 KiB writes", "in sync: requests/s", "with a resync: rate", "p50", "p99", "CPU", "resync MiB/s", "longest, ms"], rows, results,
                 ["Rate, latencies and server CPU a request by the same when in sync, in each turn. CPU has the resync's own in it. "
                  "A write to a region that is not copied yet goes to one leg only."]
                 + [f"{name}: a resync ended before the writes did: the cost of one that lasts is more." for name, runs in results.items() if any(r["ended"] for r in runs)]
                 + [f"{name}: failed: {why}" for name, why in broken.items()])
