"""A device over an NBD export beside others that stand between a client and an NBD server: what a request costs in the middle."""

from . import servers
from .load import interleaved, load
from .report import median, number, rate, ratio


class Behind:
    """A server in the middle, with the one behind it."""

    def __init__(self, behind, middle):
        self.behind, self.middle = behind, middle
        self.name, self.uri = middle.name, middle.uri

    @property
    def pid(self):
        return self.middle.pid

    def stop(self):
        self.middle.stop()
        self.behind.stop()


def makers(area, size, present):
    def behind():
        return servers.Nbdkit(area, "memory", str(size))

    def udm():
        server = behind()
        return Behind(server, servers.Udm(area, lambda daemon: (daemon.udm("create", "d", server.uri), "d")[1]))

    def qemu():
        server = behind()
        node = f"driver=nbd,node-name=n,server.type=unix,server.path={server.path}"
        return Behind(server, servers.Qemu(area, "n", node))

    def nbdkit():
        server = behind()
        return Behind(server, servers.Nbdkit(area, "nbd", f"socket={server.path}", "shared=true"))

    every = {"direct": behind, "udm": udm, "nbdkit": nbdkit, "qemu": qemu}
    return {name: make for name, make in every.items() if name == "direct" or name in present}


def cells(wanted):
    for mode, size in (("randread", "4K"), ("randwrite", "4K"), ("read", "1M"), ("write", "1M")):
        for connections, depth in ((1, 1), (1, 32), (4, 32)) if size == "4K" else ((1, 8),):
            case = f"nbd/{mode}/{size}/{connections}x{depth}"
            if wanted(case):
                yield case, mode, size, connections, depth


def cpu(result):
    return result["server"]["cpu_us"]


def run(area, report, options, present):
    todo = list(cells(options["wanted"]))
    if not todo or "nbdkit" not in present:
        return
    running, rows, data = {}, [], {}
    try:
        for name, make in makers(area, options["size"], present).items():
            running[name] = make()
        load(running["direct"], "--mode", "write", "--size", "1M", "--depth", 4, "--requests", options["size"] >> 20)
        for name, server in running.items():
            if name != "direct":
                load(server, "--mode", "write", "--size", "1M", "--depth", 4, "--requests", options["size"] >> 20)
        for case, mode, size, connections, depth in todo:
            def measure(_, server):
                return load(server, "--mode", mode, "--size", size, "--connections", connections, "--depth", depth,
                            "--seconds", options["seconds"], "--warmup", options["seconds"] / 5)

            data[case], _ = interleaved(running, options["runs"], measure)
            rows.append(row(f"{mode} {size}, {connections} x {depth}", data[case]))
    finally:
        for server in running.values():
            server.stop()
    names = list(running)
    head = ["", *names, "udm/nbdkit", "udm/qemu", "rate of direct: udm", *(n for n in names if n not in ("direct", "udm"))]
    report.group("nbd", "A device over an NBD export", head, [[r[0], *(r[1].get(n, "-") for n in names), *r[2:]] for r in rows], data,
                 ["CPU in the middle, us a request (requests/s); connections x depth. Behind all of them nbdkit's memory plugin, which is `direct`; "
                  "nbdkit: its nbd plugin, one connection; qemu: its nbd driver."])


def row(title, results):
    shown = {name: f"{number(median(map(cpu, runs)))} ({rate(median(r['iops'] for r in runs))})" for name, runs in results.items()}

    def against(a, b, key):
        return number(ratio(results[a], results[b], key)) if a in results and b in results else "-"

    rates = [against(name, "direct", lambda r: r["iops"]) for name in ("udm", *(n for n in results if n not in ("direct", "udm")))]
    return [title, shown, against("udm", "nbdkit", cpu), against("udm", "qemu", cpu), *rates]
