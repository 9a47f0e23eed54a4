"""What first-touch writes of udm should cost, and whether they do: a line for each aim."""

from .report import median, number


def _cpu(r):
    return r["server"]["cpu_us"]


def _pairs(results, name, other):
    return zip(results.get(name, []), results.get(other, []))


def _share(results, name, other, pick, part="first"):
    values = [pick(a[part]) / pick(b[part]) for a, b in _pairs(results, name, other) if pick(b[part])]
    return median(values)


def _line(what, value, limit, at_least=False):
    if value is None:
        return None
    reached = value >= limit if at_least else value <= limit
    return f"Aim: {what}: {number(value)}, {'at least' if at_least else 'at most'} {limit} wanted: {'reached' if reached else 'NOT reached'}."


MEMORY_AIM_MIB = 64


def _memory_more(results, name):
    return median((a["first"]["server"]["peak_rss_kib"] - b["first"]["server"]["peak_rss_kib"]) / 1024
                  for a, b in _pairs(results, name, "udm plain"))


def of_copy(store, results):
    lines = []
    for count, share, written in ((1, 0.45, 2.3), (8, 0.2, None)):
        name = f"udm origin, {count} snapshot{'s' if count > 1 else ''}, 4 KiB"
        if store == "memory":
            lines.append(_line(f"{name}: rate of plain", _share(results, name, "udm plain", lambda r: r["iops"]), share, True))
        elif written:
            lines.append(_line(f"{name}: bytes written per byte",
                               median(r["first"]["server"]["written_per_byte"] for r in results.get(name, [])), written))
        if count == 8:
            lines.append(_line(f"{name}: memory more, MiB", _memory_more(results, name), MEMORY_AIM_MIB))
    return [line for line in lines if line]


def of_fleet(_store, results):
    """Memory stays bounded; what a write costs for each snapshot has no aim."""
    most = "udm origin, 64 snapshots, 4 KiB"
    lines = [_line(f"{most}: memory more, MiB", _memory_more(results, most), MEMORY_AIM_MIB)]
    plain = median(_cpu(r["first"]) for r in results.get("udm plain", []))
    counts = {count: f"udm origin, {count} snapshot{'s' if count > 1 else ''}, 4 KiB" for count in (1, 8, 64)}
    if plain is not None and all(results.get(name) for name in counts.values()):
        each = ", ".join(f"{number((median(_cpu(r['first']) for r in results[name]) - plain) / count)} with {count}" for count, name in counts.items())
        lines.append(f"CPU of a write beyond a plain one's, for each snapshot, us: {each}.")
    return [line for line in lines if line]


def of_redirect(store, results):
    name = "udm snapshot, 4 KiB"
    lines = [
        _line(f"{name}: CPU by that of nbdkit's cow filter", _share(results, name, "nbdkit cow filter, 4 KiB", _cpu), 1.0),
        _line(f"{name}: the same blocks again, CPU by plain", _share(results, name, "udm plain", _cpu, "again"), 1.05),
        _line(f"{name}: the same blocks again, rate by plain", _share(results, name, "udm plain", lambda r: r["iops"], "again"), 0.95, True),
    ]
    if store == "disk":
        qcow2 = [_share(results, name, other, lambda r: r["iops"]) for other in results if other.startswith("qcow2")]
        if qcow2 and None not in qcow2:
            lines.append(_line(f"{name}: rate by the best qcow2's", min(qcow2), 3.0, True))
        lines.append(_line(f"{name}: bytes written per byte",
                           median(r["first"]["server"]["written_per_byte"] for r in results.get(name, [])), 1.1))
    return [line for line in lines if line]
