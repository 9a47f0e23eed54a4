"""Tables that can go into docs/benchmarks.md as they are, and JSON beside them."""

import datetime
import json
import os
import platform
import statistics
import subprocess

from .area import RESULTS, ROOT


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def ratio(runs, others, key):
    """Median of the ratios within each run."""
    return median([key(a) / key(b) for a, b in zip(runs, others) if key(b)])


def number(value, digits=2):
    if value is None:
        return "-"
    if value >= 100:
        digits = 0
    elif value >= 10:
        digits = min(digits, 1)
    return f"{value:.{digits}f}"


def rate(value):
    if value is None:
        return "-"
    if value < 1000:
        return f"{value:.0f}"
    return f"{value / 1000:.0f}k" if value >= 10_000 else f"{value / 1000:.1f}k"


def table(head, rows):
    cells = [[str(c) for c in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def _first(path, start):
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.startswith(start):
                return line.split(":", 1)[1].strip()
    return "?"


def machine():
    def out(*command):
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.strip()

    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": f"{os.cpu_count()} x {_first('/proc/cpuinfo', 'model name')}",
        "memory": f"{int(_first('/proc/meminfo', 'MemTotal').split()[0]) >> 20} GiB",
        "kernel": platform.release(),
        "disk": out("findmnt", "-n", "-o", "FSTYPE", "-T", RESULTS),
        "load_average": os.getloadavg()[0],
        "revision": out("git", "describe", "--always", "--dirty"),
    }


class Report:
    def __init__(self, options, versions):
        self.about = {"machine": machine(), "versions": versions, "command": options["command"], "options": dict(options)}
        self.text = []
        m = self.about["machine"]
        self.say(f"{m['date']}: {m['cpu']}, {m['memory']}, Linux {m['kernel']}, {m['disk']}; load {m['load_average']:.2f}; "
                 f"udm at {m['revision']}\n`{options['command']}`; "
                 + ", ".join(f"{name} {version}" for name, version in versions.items() if version))

    def say(self, text):
        print(text + "\n", flush=True)
        self.text.append(text)

    def group(self, name, title, head, rows, data, notes=()):
        """One table; `data` goes to build/bench/NAME.json with all single runs."""
        self.say("\n".join([f"### {title}", "", table(head, rows), *(f"\n{note}" for note in notes)]))
        with open(os.path.join(RESULTS, name.replace("/", "-") + ".json"), "w", encoding="utf-8") as file:
            json.dump({**self.about, "name": name, "title": title, "head": head, "rows": rows, "notes": list(notes), "data": data},
                      file, indent=1)

    def close(self):
        with open(os.path.join(RESULTS, "tables.md"), "w", encoding="utf-8") as file:
            file.write("\n\n".join(self.text) + "\n")
