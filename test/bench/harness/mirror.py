"""Mirrors of two legs as devices and servers, and what a write of 4 KiB to both costs, beside the echo server that writes both, qemu's quorum
and its mirror job after it is ready."""

from . import servers
from .area import filled_file
from .load import interleaved, load
from .report import median, number, rate, ratio

CPU_AIM, RATE_AIM = 1.4, 3.0
REGION = 1 << 20
LOG_SIZE = 1 << 20
STORES = ("memory", "tmpfs")
NOTES = {
    "memory": "memory: udm `ram:` twice, and its log `ram:`; qemu null-co twice (no memory at all).",
    "tmpfs": "tmpfs: files in /dev/shm, udm's log as well.",
}


def table(size, log, legs, region=REGION, sync="", features=""):
    """The table of a mirror; `log` a device, or core."""
    words = [str(region // 512), *sync.split()]
    head = f"core {len(words)}" if log == "core" else f"disk {len(words) + 1} {log}"
    return f"0 {size // 512} mirror {head} {' '.join(words)} {len(legs)} {' '.join(f'{leg} 0' for leg in legs)} {features}".strip()


def sync_words(daemon, name="m"):
    """(regions in sync, regions)"""
    words = daemon.status(name).split()
    done, total = words[4 + int(words[3])].split("/")
    return int(done), int(total)


def wait_in_sync(daemon, name="m"):
    """Waits for events, not by looking again and again: the processor belongs to what is measured."""
    number_ = daemon.rpc("device.info", device=name)["event_number"]
    while True:
        done, total = sync_words(daemon, name)
        if done == total:
            return
        number_ = daemon.rpc("device.wait", device=name, event_number=number_, timeout_ms=600_000)["event_number"]


def udm_mirror(area, size, legs, log, files=(), **more):
    def prepare(daemon):
        daemon.create("m", table(size, log, legs, **more))
        return "m"

    return servers.Udm(area, prepare, files=files)


def qemu_quorum(area, legs, files=()):
    """`legs`: two --blockdev without node-name."""
    nodes = [f"{leg},node-name=leg{i}" for i, leg in enumerate(legs)]
    return servers.Qemu(area, "q", *nodes, "driver=quorum,node-name=q,vote-threshold=2,children.0=leg0,children.1=leg1", files=files)


def qemu_mirror(area, legs, mode, files=()):
    """The mirror job, ready: `write-blocking` writes both at once, `background` copies later."""
    nodes = [f"{leg},node-name=leg{i}" for i, leg in enumerate(legs)]
    server = servers.Qemu(area, "leg0", *nodes, files=files, monitor=True)
    try:
        server.qmp.command("blockdev-mirror", **{"job-id": "job", "device": "leg0", "target": "leg1", "sync": "full", "copy-mode": mode})
        server.qmp.wait_for("BLOCK_JOB_READY")
        return server
    except BaseException:
        server.stop()
        raise


def makers(area, store, size, present):
    if store == "memory":
        null = f"driver=null-co,size={size},read-zeroes=true"
        every = {
            "echo": lambda: servers.Echo(area, "memory", "memory", "--size", str(size)),
            "udm": lambda: udm_mirror(area, size, [f"ram:{size}"] * 2, f"ram:{LOG_SIZE}", sync="nosync"),
            "udm, one leg": lambda: servers.Udm(area, lambda d: (d.create("m", f"0 {size // 512} linear ram:{size} 0"), "m")[1]),
            "qemu quorum": lambda: qemu_quorum(area, [null, null]),
            "qemu mirror, write-blocking": lambda: qemu_mirror(area, [null, null], "write-blocking"),
            "qemu mirror, background": lambda: qemu_mirror(area, [null, null], "background"),
            "qemu, one leg": lambda: servers.Qemu(area, "n", f"{null},node-name=n"),
        }
    else:
        def files(count):
            return [filled_file(area.fresh(".img", area.memory), size) for _ in range(count)]

        def nodes(paths):
            return [servers.qemu_file("x", path, store).replace("node-name=x,", "") for path in paths]

        def echo():
            paths = files(2)
            server = servers.Echo(area, *paths)
            server.files = paths
            return server

        def udm():
            paths = files(2)
            log = area.fresh(".log", area.memory)
            with open(log, "wb") as file:
                file.truncate(LOG_SIZE)
            return udm_mirror(area, size, paths, log, files=[*paths, log], sync="nosync")

        def udm_one():
            [path] = files(1)
            return servers.Udm(area, lambda d: (d.create("m", f"0 {size // 512} linear {path} 0"), "m")[1], files=[path])

        def quorum():
            paths = files(2)
            return qemu_quorum(area, nodes(paths), files=paths)

        def job(mode):
            paths = files(2)
            return qemu_mirror(area, nodes(paths), mode, files=paths)

        def qemu_one():
            [path] = files(1)
            return servers.Qemu(area, "n", servers.qemu_file("n", path, store), files=[path])

        every = {
            "echo": echo, "udm": udm, "udm, one leg": udm_one, "qemu quorum": quorum,
            "qemu mirror, write-blocking": lambda: job("write-blocking"),
            "qemu mirror, background": lambda: job("background"), "qemu, one leg": qemu_one,
        }
    return {name: make for name, make in every.items() if name.split()[0].rstrip(",") in present}


def cpu(result):
    return result["server"]["cpu_us"]


def iops(result):
    return result["iops"]


def run(area, report, options, present):
    for store in STORES:
        todo = [(case, connections, depth) for connections in (1, 4) for depth in (1, 32)
                if options["wanted"](case := f"mirror/writes/{store}/{connections}x{depth}")]
        if todo:
            writes(area, report, options, present, store, todo)


def writes(area, report, options, present, store, todo):
    size = options["size"] // 4
    running, rows, data = {}, [], {}
    try:
        for name, make in makers(area, store, size, present).items():
            running[name] = make()
            load(running[name], "--mode", "write", "--size", "1M", "--depth", 4, "--requests", size >> 20)
        for case, connections, depth in todo:
            def measure(_, server):
                return load(server, "--mode", "randwrite", "--connections", connections, "--depth", depth,
                            "--seconds", options["seconds"], "--warmup", options["seconds"] / 5)

            data[case], _ = interleaved(running, options["runs"], measure)
            rows.append(row(f"{connections} x {depth}", data[case]))
    finally:
        for server in running.values():
            server.stop()
    names = list(running)
    head = ["4 KiB writes", *names, "CPU udm/echo", f"{CPU_AIM} or less", "rate udm/quorum", "udm/mirror", f"{RATE_AIM} or more",
            "of one leg: udm", "quorum", "mirror"]
    report.group(f"mirror-writes/{store}", f"Writes to two legs, {store}", head,
                 [[r[0], *(r[1].get(n, "-") for n in names), *r[2:]] for r in rows], data,
                 [f"Server CPU, us a request (requests/s); connections x depth. {NOTES[store]} `mirror` in the ratios is the job with write-blocking, "
                  "which keeps the legs alike as udm does; with background they fall apart as long as it is written."])


def row(title, results):
    shown = {name: f"{number(median(map(cpu, runs)))} ({rate(median(map(iops, runs)))})" for name, runs in results.items()}

    def against(a, b, key):
        return ratio(results[a], results[b], key) if a in results and b in results else None

    def verdict(reached, known):
        return "-" if not known else "reached" if reached else "not reached"

    to_echo = against("udm", "echo", cpu)
    ahead = [against("udm", name, iops) for name in ("qemu quorum", "qemu mirror, write-blocking")]
    known = [value for value in ahead if value is not None]
    return [title, shown, number(to_echo), verdict((to_echo or 0) <= CPU_AIM, to_echo), *map(number, ahead),
            verdict(min(known, default=0) >= RATE_AIM, known), number(against("udm", "udm, one leg", iops)),
            number(against("qemu quorum", "qemu, one leg", iops)), number(against("qemu mirror, write-blocking", "qemu, one leg", iops))]
