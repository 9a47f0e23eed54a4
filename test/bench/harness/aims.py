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
            lines.append(_line(f"{name}: memory more, MiB",
                               median((a["first"]["server"]["peak_rss_kib"] - b["first"]["server"]["peak_rss_kib"]) / 1024
                                      for a, b in _pairs(results, name, "udm plain")), 64))
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
