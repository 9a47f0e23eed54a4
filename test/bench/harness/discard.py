"""What discards give back: half of what is there is discarded over NBD, and the files behind are looked at before and after.

Two patterns: 4 KiB requests, one in each 8 KiB, which leaves a hole beside every block; 1 MiB requests, one in each 2 MiB, as a file system's
trim does. Each in random order at depth 32; a flush at the end belongs to what is measured. What is written before is written in random
order as well, so that in a store a discarded MiB lies in 256 places.
"""

import os
import subprocess

from . import servers, views
from .area import allocated, filled_file
from .load import interleaved, load
from .report import median, number, rate

PATTERNS = {"4 KiB": ("4K", "8K"), "1 MiB": ("1M", "2M")}
GIVEN_BACK_AIM = 0.98  # of what was discarded
CHUNK = 4096


def run(area, report, options, present):
    for store in ("memory", "disk"):
        if options["wanted"](f"discard/{store}"):
            measure_group(area, report, options, store, {name: way for name, (server, way) in WAYS.items() if server in present})


# A way is a function (area, store, base, size) -> (running server, whether it has to be written first, file of its own or None).
def udm(prepare, written, own=True):
    def start(area, store, base, size):
        cow = views.sparse(area.fresh(".cow", area.of(store)), views.store_size(size)) if own else None
        server = servers.Udm(area, lambda daemon: prepare(daemon, base, cow, size // 512), files=[cow] if own else [])
        return server, written, cow

    return start


def plain(daemon, base, _cow, sectors):
    daemon.create("d", f"0 {sectors} linear {base} 0")
    return "d"


def snapshot(features):
    def prepare(daemon, base, cow, sectors):
        daemon.create("snap", f"0 {sectors} snapshot {base} {cow} P {CHUNK // 512} {features}")
        return "snap"

    return prepare


def origin(daemon, base, cow, sectors):
    daemon.create("snap", f"0 {sectors} snapshot {base} {cow} P {CHUNK // 512}")
    daemon.create("vol", f"0 {sectors} snapshot-origin {base}")
    return "vol"


def qemu_plain(area, store, base, size):
    return servers.Qemu(area, "base", servers.qemu_file("base", base, store)), False, None


def qcow2(area, store, base, size):
    path = area.fresh(".qcow2", area.of(store))
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=131072,extended_l2=on", "-b", base, "-F", "raw", path],
                   check=True)
    server = servers.Qemu(area, "top", servers.qemu_file("base", base, store).replace("discard=unmap", "read-only=on"),
                          servers.qemu_file("file", path, store),
                          "driver=qcow2,node-name=top,file=file,backing=base,discard=unmap", files=[path])
    return server, True, path


ZEROES = "udm snapshot, written, discard_zeroes_cow"
PASSDOWN = "udm snapshot, not written, discard_passdown_origin"
WAYS = {
    "udm plain": ("udm", udm(plain, written=False, own=False)),
    ZEROES: ("udm", udm(snapshot("1 discard_zeroes_cow"), written=True)),
    PASSDOWN: ("udm", udm(snapshot("2 discard_zeroes_cow discard_passdown_origin"), written=False)),
    "udm origin, 1 snapshot": ("udm", udm(origin, written=False)),
    "qemu plain": ("qemu", qemu_plain),
    "qcow2 overlay, written, 4 KiB subclusters": ("qemu", qcow2),
}


def measure_group(area, report, options, store, ways):
    size = options["size"] // 4

    def measure(_name, what):
        way, pattern = what
        request, slot = PATTERNS[pattern]
        base = filled_file(area.fresh(".base", area.of(store)), size)
        try:
            server, written, own = way(area, store, base, size)
            try:
                if written:
                    load(server, "--mode", "firsttouch", "--depth", 32, "--flush-at-end")
                files = {"base": base, **({"store": own} if own else {})}
                before = {name: allocated([path]) for name, path in files.items()}
                done = load(server, "--mode", "discard", "--depth", 32, "--size", request, "--slot", slot, "--flush-at-end")
                after = {name: allocated([path]) for name, path in files.items()}
                return {**done, "before": before, "after": after, "discarded": done["requests"] * done["size"]}
            finally:
                server.stop()
        finally:
            os.unlink(base)

    cells = {f"{name}; {pattern}": (way, pattern) for pattern in PATTERNS for name, way in ways.items()}
    results, broken = interleaved(cells, options["runs"], measure)
    notes = ["Given back: what the files together lost, by what was discarded; CPU: of the server. A discard of an origin is copied "
             "to its snapshot first, which keeps what was there."]
    notes += [aim(name, runs) for name, runs in results.items() if name.startswith((ZEROES, PASSDOWN))]
    notes += [f"{name}: failed: {why}" for name, why in broken.items()]
    report.group(f"discard/{store}", f"Discarding half of {size >> 20} MiB: {store}",
                 ["way; requests of", "requests/s", "MiB/s", "CPU us", "base, MiB", "store, MiB", "given back"],
                 [row(name, runs) for name, runs in results.items()], results, notes)


def given_back(result):
    return (sum(result["before"].values()) - sum(result["after"].values())) / result["discarded"]


def row(name, runs):
    def space(file):
        if file not in runs[0]["before"]:
            return "-"
        return " to ".join(number(median(r[when][file] for r in runs) / (1 << 20), 1) for when in ("before", "after"))

    return [name, rate(median(r["iops"] for r in runs)), number(median(r["mib_per_second"] for r in runs)),
            number(median(r["server"]["cpu_us"] for r in runs)), space("base"), space("store"), number(median(map(given_back, runs)))]


def aim(name, runs):
    share = median(map(given_back, runs))
    return (f"Aim: {name}: given back of what was discarded: {number(share)}, at least {GIVEN_BACK_AIM} wanted: "
            f"{'reached' if share >= GIVEN_BACK_AIM else 'NOT reached'}.")
