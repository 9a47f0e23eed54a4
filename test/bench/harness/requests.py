"""What a request of 4 KiB costs a server: memory, a tmpfs file, a disk file with O_DIRECT; depth 1 and 32; 1 and 4 connections."""

from . import servers
from .area import filled_file
from .load import interleaved, load
from .report import median, number, rate, ratio

AIM_DEEP, AIM_SINGLE = 1.4, 2.0  # times the echo server's CPU
ECHO_OF_NBDKIT = 0.65  # above that the echo server is not the limit, and the run does not count

STORES = ("memory", "tmpfs", "disk")
NOTES = {
    "memory": "memory: nbdkit's memory plugin, qemu's null-co (no memory at all, zeroes for reads), udm `ram:`.",
    "tmpfs": "tmpfs: a file in /dev/shm.",
    "disk": "disk: a file with O_DIRECT. nbdkit has no such mode; what it writes back later would disturb the others.",
}


def udm_linear(device, size):
    def prepare(daemon):
        daemon.create("d", f"0 {size // 512} linear {device} 0")
        return "d"

    return prepare


def makers(area, store, size, present):
    """Name -> function that starts the server."""
    if store == "memory":
        every = {
            "echo": lambda: servers.Echo(area, "memory", "--size", str(size)),
            "nbdkit": lambda: servers.Nbdkit(area, "memory", str(size)),
            "qemu": lambda: servers.Qemu(area, "n", f"driver=null-co,node-name=n,size={size},read-zeroes=true"),
            "udm": lambda: servers.Udm(area, udm_linear(f"ram:{size}", size)),
        }
    else:
        def file():
            return filled_file(area.fresh(".img", area.of(store)), size)

        def udm():
            path = file()
            return servers.Udm(area, udm_linear(path, size), files=[path])

        def qemu():
            path = file()
            return servers.Qemu(area, "n", servers.qemu_file("n", path, store), files=[path])

        def echo():
            path = file()
            server = servers.Echo(area, path, *(["--direct"] if store == "disk" else []))
            server.files = [path]
            return server

        def nbdkit():
            path = file()
            server = servers.Nbdkit(area, "file", path)
            server.files = [path]
            return server

        every = {"echo": echo, "nbdkit": nbdkit, "qemu": qemu, "udm": udm}
        if store == "disk":
            del every["nbdkit"]
    return {name: make for name, make in every.items() if name in present}


def cells(wanted, store):
    for op in ("read", "write"):
        for connections in (1, 4):
            for depth in (1, 32):
                case = f"requests/{store}/{op}/{connections}x{depth}"
                if wanted(case):
                    yield case, op, connections, depth


def cpu(result):
    return result["server"]["cpu_us"]


def run(area, report, options, present):
    size = options["size"]
    for store in STORES:
        todo = list(cells(options["wanted"], store))
        if not todo:
            continue
        running = {}
        try:
            for name, make in makers(area, store, size, present).items():
                running[name] = make()
                load(running[name], "--mode", "write", "--size", "1M", "--depth", 4, "--requests", size >> 20)
                load(running[name], "--mode", "read", "--size", "1M", "--depth", 4, "--requests", size >> 20)
            rows, data = [], {}
            for case, op, connections, depth in todo:
                def measure(name, server):
                    return load(server, "--mode", f"rand{op}", "--connections", connections, "--depth", depth,
                                "--seconds", options["seconds"], "--warmup", options["seconds"] / 5)

                data[case], _ = interleaved(running, options["runs"], measure)
                rows.append(row(f"{op}, {connections} x {depth}", depth, data[case]))
        finally:
            for server in running.values():
                server.stop()
        names = list(running)
        head = ["4 KiB", *names, "udm/echo", "aim", "udm/nbdkit", "udm/qemu", "echo/nbdkit"]
        notes = [f"Server CPU, us a request (requests/s); connections x depth. {NOTES[store]}"]
        if store == "memory":
            notes.append(validity(data))
        report.group(f"requests/{store}", f"Requests, {store}", head, [[r[0], *(r[1].get(n, "-") for n in names), *r[2:]] for r in rows],
                     data, notes)


def row(title, depth, results):
    shown = {name: f"{number(median(map(cpu, runs)))} ({rate(median(r['iops'] for r in runs))})" for name, runs in results.items()}

    def against(a, b):
        return ratio(results[a], results[b], cpu) if a in results and b in results else None

    aim = AIM_SINGLE if depth == 1 else AIM_DEEP
    to_echo = against("udm", "echo")
    verdict = "-" if to_echo is None else f"{aim} {'reached' if to_echo <= aim else 'not reached'}"
    return [title, shown, number(to_echo), verdict, number(against("udm", "nbdkit")), number(against("udm", "qemu")),
            number(against("echo", "nbdkit"))]


def validity(data):
    """Says whether the echo server was the limit it has to be."""
    found = {}
    for case, results in data.items():
        if "/read/" in case and case.endswith("x32") and "echo" in results and "nbdkit" in results:
            found[case.rsplit("/", 1)[1]] = ratio(results["echo"], results["nbdkit"], cpu)
    if not found:
        return "The echo server was not compared with nbdkit: this run does not count."
    worst = max(found.values())
    words = "this run counts" if worst <= ECHO_OF_NBDKIT else "THIS RUN DOES NOT COUNT"
    return f"Echo server's CPU by nbdkit's on memory reads at depth 32: {number(worst)} (limit {ECHO_OF_NBDKIT}): {words}."
