"""Thousands of snapshots of one base in one daemon: a fleet of small machines from one image. All through one control connection,
so that what is timed is the daemon and not the start of programs."""

import json
import os
import select
import subprocess
import time

from . import servers  # which finds test/support, too
import nbdraw  # noqa: E402
from .area import filled_file
from .idle import status
from .report import median, number

BASE = 64 << 20
STORE = 1 << 20
EDGE = 100  # the first and the last so many are compared
TAKE_AIM_MS, LIST_AIM_S, MEMORY_AIM_KIB, GROWTH_AIM = 2.0, 1.0, 64, 1.5
SETTLE = 7  # seconds: buffers that nobody uses go back to the system after five


def run(area, report, options, present):
    if "udm" not in present:
        return
    for store in ("memory", "disk"):
        for count in (100, 1000, 10000):
            if options["wanted"](f"density/{store}/{count}"):
                measure(area, report, options, store, count)


def measure(area, report, options, store, count):
    folder = area.fresh(".density", area.of(store))
    os.mkdir(folder)
    fleet = Fleet(area, folder, count)
    try:
        results = {"synced": fleet.synced_append(), "create": fleet.create(), "memory": fleet.memory(), "lists": fleet.lists(),
                   "write": fleet.write(options["seconds"]), "written": fleet.written(), "restart_s": fleet.restart(),
                   "drop": fleet.drop(), "take": fleet.take()}
        fleet.stop()
    finally:
        fleet.kill()
    rows = [["for comparison: a small append and fdatasync there, ms each", number(results["synced"]["mean_ms"]), "-", "-"]]
    rows += [row for name, aim in (("create", "made by `device.create`"), ("drop", "removed by `snapshot.drop`"),
                                  ("take", "taken by `snapshot.take`"), )
            for row in timed_rows(aim, results[name])]
    rows += timed_rows("dropped, with its store", results["take"]["drop"])
    rows.append(judged("memory of an idle one, KiB", results["memory"], MEMORY_AIM_KIB))
    rows.append(judged("the same, after a write to each, KiB", results["written"], MEMORY_AIM_KIB))
    rows += [judged(f"`{name}`, s", value, LIST_AIM_S) for name, value in results["lists"].items()]
    one, all_ = results["write"]["alone"], results["write"]["among"]
    rows.append(judged(f"CPU of a 4 KiB write to one, by that with one only ({number(one)} us)", all_ / one, GROWTH_AIM))
    rows.append(["restart with all of them, s", number(results["restart_s"]), "-", "-"])
    report.group(f"density/{store}/{count}", f"Density: {count} snapshots of one base, {store}", ["what", "measured", "aim", ""], rows,
                 results)


def judged(what, value, limit):
    return [what, number(value), f"{limit} or less", "reached" if value <= limit else "NOT reached"]


def timed_rows(what, times):
    rows = [judged(f"{what}: ms each, all", times["mean_ms"], TAKE_AIM_MS)]
    if "last_ms" in times:
        rows.append([f"{what}: ms each, the first {EDGE} and the last", f"{number(times['first_ms'])}, {number(times['last_ms'])}", "-", "-"])
    return rows


def timed(act, items):
    """Milliseconds an item: over all, and the medians of the first and the last."""
    single = []
    began = time.monotonic()
    for item in items:
        at = time.monotonic()
        act(item)
        single.append((time.monotonic() - at) * 1000)
    result = {"mean_ms": (time.monotonic() - began) * 1000 / len(single), "worst_ms": max(single)}
    if len(single) >= 2 * EDGE:
        result |= {"first_ms": median(single[:EDGE]), "last_ms": median(single[-EDGE:])}
    return result


class Fleet:
    def __init__(self, area, folder, count):
        self.area, self.folder, self.count = area, folder, count
        self.base = filled_file(os.path.join(folder, "base.img"), BASE)
        self.names = [f"m{i:05}" for i in range(count)]
        self.daemon = servers.udmtest.Daemon(folder, state_dir=True, arguments=["--log-level", "warning",
                                             *os.environ.get("UDM_BENCH_UDMD", "").split()])
        area.started(self)
        self.daemon.start()

    def rss(self):
        return status(self.daemon.process.pid, "VmRSS:")

    def store(self, name):
        return os.path.join(self.folder, name + ".cow")

    def synced_append(self):
        """What the system asks for one durable change, here and now: on a disk that others use it is most of everything."""
        with open(os.path.join(self.folder, "appended"), "wb", buffering=0) as file:
            def append(_):
                file.write(b"x" * 400)
                os.fdatasync(file.fileno())

            return timed(append, range(200))

    def create(self):
        for name in self.names:
            with open(self.store(name), "wb") as file:
                file.truncate(STORE)

        def one(name):
            self.daemon.create(name, f"0 {BASE // 512} snapshot {self.base} {self.store(name)} P 8")

        first, *rest = self.names
        one(first)
        self.alone = self.cpu_of_writes(1.0)
        self.rss_before = self.rss()  # what the daemon needs once, whatever number it has, is there now
        return timed(one, rest)

    def memory(self):
        select.select([], [], [], SETTLE)
        return self.each()

    def each(self):
        return (self.rss() - self.rss_before) / (self.count - 1)

    def lists(self):
        def seconds(*command):
            at = time.monotonic()
            done = self.daemon.run(*command, check=True)
            assert self.names[-1] in done.stdout, f"{command}: {done.stdout[-200:]}"
            return time.monotonic() - at

        return {" ".join(command): min(seconds(*command) for _ in range(3))
                for command in (("udm", "ls"), ("udm", "snapshot", "list"), ("udmsetup", "ls"), ("udmsetup", "info"),
                                ("udmsetup", "info", "-c"), ("udmsetup", "status"), ("udmsetup", "table"))}

    def cpu_of_writes(self, length):
        """Microseconds of the daemon's CPU for a write to the first one; all of its chunks have been written before."""
        path = self.area.fresh(".sock")
        uri = self.daemon.rpc("export.add", device=self.names[0], uri=f"nbd+unix:///e?socket={path}")["uri"]
        try:
            load = [servers.udmtest.program("nbdload"), "--json", "--mode", "randwrite", "--range", str(512 << 10), "--pid",
                    str(self.daemon.process.pid), uri]
            subprocess.run([*load, "--seconds", "0.3"], check=True, capture_output=True)
            done = subprocess.run([*load, "--seconds", str(length)], check=True, capture_output=True, text=True)
            return json.loads(done.stdout)["server"]["cpu_us"]
        finally:
            self.daemon.rpc("export.remove", device=self.names[0])

    def written(self):
        """Memory of an idle one, all of them written to and flushed."""
        path = self.area.fresh(".sock")
        for name in self.names:
            self.daemon.rpc("export.add", device=name, uri=f"nbd+unix:///{name}?socket={path}")
            client = nbdraw.Raw(path)
            client.go(name)
            client.send(nbdraw.write(0, b"x" * 4096))
            client.reply()
            client.send(nbdraw.request("FLUSH"))
            client.reply()
            client.close()
            self.daemon.rpc("export.remove", device=name)
        select.select([], [], [], SETTLE)
        return self.each()

    def write(self, seconds):
        return {"alone": self.alone, "among": self.cpu_of_writes(seconds)}

    def restart(self):
        self.daemon.stop(timeout=300)
        at = time.monotonic()
        self.daemon.start()
        assert self.daemon.rpc("daemon.status")["devices"] == self.count
        taken = time.monotonic() - at
        held = [w for w in self.daemon.rpc("daemon.status")["warnings"]]
        assert not held, held[:3]
        return taken

    def drop(self):
        return timed(lambda name: self.daemon.rpc("snapshot.drop", snapshot=name), self.names)

    def take(self):
        self.daemon.create("vol", f"0 {BASE // 512} linear {self.base} 0")
        result = timed(lambda name: self.daemon.rpc("snapshot.take", origins=[{"origin": "vol", "snapshot": name}], cow_dir=self.folder,
                                                    size=STORE), [f"t{i:05}" for i in range(self.count)])
        result["drop"] = timed(lambda name: self.daemon.rpc("snapshot.drop", snapshot=name), [f"t{i:05}" for i in range(self.count)])
        return result

    def stop(self):
        self.daemon.stop(timeout=300)

    def kill(self):
        if self.daemon.process.poll() is None:
            self.daemon.kill()
        self.area.ended(self)
