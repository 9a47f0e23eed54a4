"""Mirrors whose legs are the limit, and how often the log is written.

A leg that is limited is an export of nbdkit's memory plugin behind its rate filter (all connections together): reads of two such legs, and
writes to one that is limited and one that takes a half more, beside a plain device on the slower one.

The log: 4 KiB writes in random order over 1,000 regions, as fast as they go, and so slowly that regions rest in between. The log is a device
of its own here, whose counters are read.
"""

from . import mirror, servers
from .load import interleaved, load
from .nbd import Behind
from .report import median, number, rate, ratio

LEG_BYTES_A_SECOND = 40 << 20
WRITE_AIM, READ_AIM = 0.9, 1.8
REGIONS, LOG_AIM = 1000, 0.0105
SLOW_MS = 10


def run(area, report, options, present):
    if "udm" not in present:
        return
    if "nbdkit" in present:
        for op in ("read", "write"):
            if options["wanted"](f"mirror/limits/{op}"):
                limits(area, report, options, op)
    if options["wanted"]("mirror/log"):
        log(area, report, options)


class Several(Behind):
    """A server with those it needs."""

    def __init__(self, behind, middle):
        super().__init__(middle, middle)
        self.all_behind = behind

    def stop(self):
        self.middle.stop()
        for server in self.all_behind:
            server.stop()


def limited(area, size, bytes_a_second):
    return servers.Nbdkit(area, "--filter=rate", "memory", str(size), f"rate={bytes_a_second * 8}", "burstiness=0.05")


def limits(area, report, options, op):
    size = options["size"] // 4
    speeds = (1, 1) if op == "read" else (1, 1.5)

    def one():
        leg = limited(area, size, LEG_BYTES_A_SECOND)
        return Several([leg], servers.Udm(area, lambda daemon: (daemon.udm("create", "m", leg.uri), "m")[1]))

    def two():
        legs = [limited(area, size, int(LEG_BYTES_A_SECOND * speed)) for speed in speeds]
        return Several(legs, mirror.udm_mirror(area, size, [leg.uri for leg in legs], f"ram:{mirror.LOG_SIZE}", sync="nosync"))

    running, rows, data = {}, [], {}
    try:
        running = {"the slower leg": one(), "mirror": two()}
        for mode, bytes_, depth in ((f"rand{op}", "4K", 32), (op, "64K", 8)):
            def measure(_, server):
                return load(server, "--mode", mode, "--size", bytes_, "--depth", depth, "--seconds", options["seconds"] * 2, "--warmup", 0.5)

            case = f"{mode} {bytes_}, depth {depth}"
            data[case], _ = interleaved(running, options["runs"], measure)
            aim = READ_AIM if op == "read" else WRITE_AIM
            of_one = ratio(data[case]["mirror"], data[case]["the slower leg"], mirror.iops)
            rows.append([case, *(rate(median(map(mirror.iops, runs))) for runs in data[case].values()), number(of_one), f"{aim} or more",
                         "reached" if of_one >= aim else "NOT reached"])
    finally:
        for server in running.values():
            server.stop()
    which = "two legs of 40 MiB/s each" if op == "read" else "one leg of 40 MiB/s and one of 60"
    report.group(f"mirror-limits/{op}", f"{'Reads' if op == 'read' else 'Writes'} where legs are the limit: {which}",
                 ["requests/s", *running, "ratio", "aim", ""], rows, data, ["Legs are NBD exports of nbdkit's memory plugin behind its rate filter."])


def log(area, report, options):
    size = options["size"]
    region = size // 1024
    seconds = 2 if options["quick"] else 12  # more than two rests

    def counted(daemon, name):
        return next(c for c in daemon.rpc("device.counters") if c["device"] == name)

    def measure(server, depth, seconds):
        before = [counted(server.daemon, name) for name in ("log", "m")]
        load(server, "--mode", "randwrite", "--depth", depth, "--range", REGIONS * region, "--seconds", seconds)
        after = [counted(server.daemon, name) for name in ("log", "m")]

        def more(i, kind):
            return after[i][kind]["requests"] - before[i][kind]["requests"]

        return {"data writes": more(1, "write"), "log writes": more(0, "write"), "seconds": seconds}

    def start(legs):
        def prepare(daemon):
            def device(name, table):
                info = daemon.create(name, table)
                return f"{info['major']}:{info['minor']}"

            log_device = device("log", f"0 {mirror.LOG_SIZE // 512} linear ram:{mirror.LOG_SIZE} 0")
            leg_devices = [device(f"leg{i}", f"0 {size // 512} {legs}") for i in range(2)]
            daemon.create("m", mirror.table(size, log_device, leg_devices, region=region, sync="nosync"))
            return "m"

        return servers.Udm(area, prepare)

    data = {}
    server = start(f"linear ram:{size} 0")
    try:
        measure(server, 32, seconds / 6)  # until every region was written
        for depth in (1, 32):
            data[f"depth {depth}"] = measure(server, depth, seconds)
        server.daemon.udm("set", "m", "log_rest=100")
        data["depth 32, `log_rest` 100 ms"] = measure(server, 32, seconds)
    finally:
        server.stop()
    server = start(f"delay ram:{size} 0 {SLOW_MS}")
    try:
        measure(server, 1, seconds)
        data[f"depth 1, legs that take {SLOW_MS} ms"] = measure(server, 1, seconds * 2)
    finally:
        server.stop()
    rows = []
    for case, d in data.items():
        share = d["log writes"] / d["data writes"]
        verdict = "-" if "legs" in case else "reached" if share <= LOG_AIM else "NOT reached"
        rows.append([case, rate(d["data writes"] / d["seconds"]), d["data writes"], d["log writes"], f"{100 * share:.3f}", verdict])
    report.group("mirror-log", f"Writes of the log: random 4 KiB writes over {REGIONS} regions of {region >> 10} KiB",
                 ["", "writes/s", "data writes", "log writes", "log writes per 100", f"{100 * LOG_AIM:.2f} or less"], rows, data,
                 ["The last line has no aim: a region that is written every 10 s on the average has often gone to rest (after 5 s) before."])
