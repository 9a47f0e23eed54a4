"""First writes after a point-in-time view was taken: what they cost beside plain writes of the same server.

Two patterns, 4 KiB writes at depth 32 in random order: `every` block of the image exactly once; `spread`, one block in each slot of
64 KiB, which is where copies of 64 KiB hurt. Then the same blocks `again`, the second time counts. A flush at the end belongs to what is measured.
`fleet` is `copy` with up to 64 snapshots, on an image of a sixteenth: what one more snapshot costs.
"""

import os

from . import aims, views
from .area import allocated, filled_file
from .load import interleaved, load
from .report import median, number, rate

PATTERNS = {"every": [], "spread": ["--slot", "64K"]}
TITLES = {
    "copy": "First-touch writes to a live volume with views",
    "copy/fleet": "First-touch writes to a live volume with many views",
    "redirect": "First-touch writes to a writable layer over a still base",
}


def run(area, report, options, present):
    for kind, ways in (("copy", views.COPY), ("copy/fleet", views.FLEET), ("redirect", views.REDIRECT)):
        for store in ("memory", "disk"):
            for pattern in PATTERNS:
                case = f"{kind}/{store}/{pattern}"
                mine = {name: way for name, (server, way) in ways.items()
                        if server in present and options["wanted"](f"{case}/{name}")}
                if mine:
                    measure_group(area, report, options, case, mine)


def measure_group(area, report, options, case, ways):
    kind, store, pattern = case.rsplit("/", 2)
    size = options["size"] // 16 if kind == "copy/fleet" else options["size"]
    base = filled_file(area.fresh(".base", area.of(store)), size)
    words = ["--depth", 32, *PATTERNS[pattern], "--flush-at-end"]

    def measure(name, way):
        server = way(area, store, base, size)
        try:
            before = allocated(server.files)
            first = load(server, "--mode", "firsttouch", *words)
            first["space_per_byte"] = (allocated(server.files) - before) / (first["requests"] * first["size"])
            # Once without counting: the second write of a page of tmpfs costs the kernel 0.4 to 0.8 us more than those after it
            # (the page moves to another list). The plain image has had its second by now, the views' files have not.
            load(server, "--mode", "again", *words)
            again = load(server, "--mode", "again", *words)
            return {"first": first, "again": again}
        finally:
            server.stop()

    try:
        results, broken = interleaved(ways, options["runs"], measure)
    finally:
        os.unlink(base)
    head = ["way", "seconds", "requests/s", "of plain", "CPU us", "of plain", "written/byte", "space/byte", "memory more, MiB", "again: rate", "again: CPU"]
    rows = [row(name, results, plain_of(name, ways), store) for name in results]
    notes = ["`written/byte`: to the disk, for each byte of the client; `space/byte`: what the views' files grew by; `of plain` and `again`: "
             "by the same server's plain writes of the same run, as is memory at its peak."]
    if kind == "redirect" and "nbdkit plain" in ways:
        notes.append("nbdkit goes through the page cache and keeps its map in memory only: it is lost at exit.")
    notes += {"copy": aims.of_copy, "copy/fleet": aims.of_fleet, "redirect": aims.of_redirect}[kind](store, results)
    notes += [f"{name}: failed: {why}" for name, why in broken.items()]
    report.group(case, f"{TITLES[kind]}: {store}, {pattern}, {size >> 20} MiB", head, rows, results, notes)


def plain_of(name, ways):
    server = "qemu" if name.startswith("qcow2") else name.split()[0]
    return f"{server} plain" if f"{server} plain" in ways else None


def row(name, results, plain, store):
    runs = results[name]
    bases = results.get(plain) or [None] * len(runs)

    def of_plain(pick, part):
        """Median over the runs of this way's figure by the plain one's, of the same pass."""
        pairs = [(r, b) for r, b in zip(runs, bases) if b is not None]
        return median([pick(r[part]) / pick(b[part]) for r, b in pairs if pick(b[part])]) if name != plain else None

    def cpu(r):
        return r["server"]["cpu_us"]

    def iops(r):
        return r["iops"]

    memory = median([(r["first"]["server"]["peak_rss_kib"] - b["first"]["server"]["peak_rss_kib"]) / 1024
                     for r, b in zip(runs, bases) if b is not None]) if name != plain else None
    return [
        name,
        number(median(r["first"]["seconds"] for r in runs)),
        rate(median(r["first"]["iops"] for r in runs)),
        number(of_plain(iops, "first")),
        number(median(cpu(r["first"]) for r in runs)),
        number(of_plain(cpu, "first")),
        number(median(r["first"]["server"]["written_per_byte"] for r in runs)) if store == "disk" else "-",
        number(median(r["first"]["space_per_byte"] for r in runs)) if name != plain else "-",
        number(memory, 1),
        number(of_plain(iops, "again")),
        number(of_plain(cpu, "again")),
    ]
