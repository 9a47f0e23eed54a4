"""A merge of scattered chunks beside a plain copy of the same blocks, and beside qemu-img commit of an overlay with the same blocks.

The snapshot has one chunk of 4 KiB in each 8 KiB of its origin, written in random order: so the COW device is read from end to end
and the origin is written all over it. The plain copy moves the same blocks between the same files (the fastest of three
depths); every way ends with a flush.
"""

import os
import struct
import subprocess

from . import servers, views
from .area import filled_file
from .load import interleaved, load
from .report import median, number
from .servers import udmtest

CHUNK = 4096
DEPTHS = (16, 64, 128)
RATE_AIM = 0.9
OVERLAY = "cluster_size=131072,extended_l2=on"


def run(area, report, options, present):
    for store in ("memory", "disk"):
        if options["wanted"](f"merge/{store}") and "udm" in present:
            measure(area, report, options, store, "qemu" in present)


def places(cow):
    """(origin chunk, COW chunk) of all exceptions, from the last to the first, as a merge takes them."""
    each, found, area = CHUNK // 16, [], 0
    with open(cow, "rb") as file:
        while True:
            file.seek((1 + area * (each + 1)) * CHUNK)
            for old, new in struct.iter_unpack("<QQ", file.read(CHUNK)):
                if new == 0:
                    return found[::-1]
                found.append((old, new))
            area += 1


def measure(area, report, options, store, with_qemu):
    size = options["size"] * 8 if not options["quick"] else options["size"]
    folder = area.of(store)
    base = filled_file(area.fresh(".base", folder), size)
    cow = area.fresh(".cow", folder)
    views.sparse(cow, views.store_size(size))
    sectors = size // 512
    how = "direct" if store == "disk" else "cached"

    def fill(server):
        load(server, "--mode", "firsttouch", "--depth", 32, "--slot", "8K", "--flush-at-end")

    def udm(_name, _way):
        server = servers.Udm(area, lambda daemon: (daemon.create("snap", f"0 {sectors} snapshot {base} {cow} P {CHUNK // 512}"), "snap")[1])
        try:
            fill(server)
            d = server.daemon
            d.unexport("snap")
            d.remove("snap")
            what = places(cow)
            seconds = {"copy": copies(what), "chunks": len(what)}
            start = os.times().elapsed
            cpu = cpu_seconds(server.pid)
            d.create("merge", f"0 {sectors} snapshot-merge {base} {cow} P {CHUNK // 512}")
            number_ = 0
            while not is_merged(d):
                number_ = d.rpc("device.wait", device="merge", event_number=number_, timeout_ms=600_000)["event_number"]
            seconds["merge"] = os.times().elapsed - start
            seconds["cpu"] = cpu_seconds(server.pid) - cpu
            return seconds
        finally:
            server.stop()
            os.truncate(cow, 0)
            os.truncate(cow, views.store_size(size))

    def copies(what):
        data = b"".join(struct.pack("<QQ", old, new) for old, new in what)
        took = {}
        for depth in DEPTHS:
            done = subprocess.run([udmtest.program("plaincopy"), cow, base, str(CHUNK), str(depth), how], input=data, capture_output=True)
            if done.returncode != 0:
                raise RuntimeError(done.stderr.decode())
            took[depth] = float(done.stdout)
        return took

    def qemu(_name, _way):
        overlay = area.fresh(".qcow2", folder)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", OVERLAY, "-b", base, "-F", "raw", overlay], check=True)
        server = servers.Qemu(area, "top", servers.qemu_file("base", base, store).replace("discard=unmap", "read-only=on"),
                              servers.qemu_file("file", overlay, store), "driver=qcow2,node-name=top,file=file,backing=base")
        try:
            fill(server)
        finally:
            server.stop()
        try:
            start = os.times().elapsed
            subprocess.run(["qemu-img", "commit", "-q", "-d", "-t", "none" if store == "disk" else "writeback", overlay], check=True)
            return {"commit": os.times().elapsed - start}
        finally:
            os.unlink(overlay)

    ways = {"udm": udm, **({"qemu-img commit": qemu} if with_qemu else {})}
    try:
        results, broken = interleaved(ways, options["runs"], lambda name, way: way(name, way))
    finally:
        os.unlink(base)
        os.unlink(cow)
    rows, notes = table(results, size)
    notes += [f"{name}: failed: {why}" for name, why in broken.items()]
    report.group(f"merge/{store}", f"Merging {size >> 31 or size >> 21} {'GiB' if size >> 31 else 'MiB'} of scattered 4 KiB chunks: {store}",
                 ["way", "seconds", "MiB/s"], rows, results, notes)


def table(results, size):
    mib = size / 2 / (1 << 20)
    merges, commits = results.get("udm", []), results.get("qemu-img commit", [])
    rows, notes = [], []

    def row(name, values):
        seconds = median(values)
        rows.append([name, number(seconds), number(mib / seconds)])

    if merges:
        row("udm, snapshot-merge", [r["merge"] for r in merges])
        for depth in DEPTHS:
            row(f"plain copy, io_uring, depth {depth}", [r["copy"][depth] for r in merges])
        of_copy = median(min(r["copy"].values()) / r["merge"] for r in merges)
        notes.append(f"Aim: rate by the fastest plain copy's: {number(of_copy)}, at least {RATE_AIM} wanted: "
                     f"{'reached' if of_copy >= RATE_AIM else 'NOT reached'}.")
        notes.append(f"udmd's CPU: {number(median(r['cpu'] for r in merges))} s.")
    if commits:
        row("qemu-img commit, 4 KiB subclusters", [r["commit"] for r in commits])
        if merges:
            ahead = median(c["commit"] / m["merge"] for m, c in zip(merges, commits))
            notes.append(f"Aim: rate by that of qemu-img commit: {number(ahead)}, at least 1 wanted: {'reached' if ahead >= 1 else 'NOT reached'}.")
    return rows, notes


def is_merged(daemon):
    words = daemon.status("merge").split(None, 3)[3].replace("/", " ").split()
    return len(words) == 3 and words[0] == words[2]


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        words = file.read().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
