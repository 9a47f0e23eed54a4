"""What dmsetup 1.02.185 printed on Linux 6.1, command by command, and what udmsetup prints.

dmsetup/transcript.txt holds 152 commands: `$ COMMAND`, what it printed, `rc N` where the exit status was not 0, and `kernel: …`,
the driver's own words. dmsetup/recorded*.txt hold more, with each line's stream in front: `1|` standard output, `2|` standard
error. All commands of a file run in order against one daemon, with two files of 8 MiB in place of /dev/disk/a and b.

What may differ is in the functions below named `allow_…`, and nowhere else.
"""

import os
import re
import subprocess

import pytest
import udmtest

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "dmsetup")
DISKS = {"a": "254:32", "b": "254:48"}  # in the recording
BLOCK_NAMES = {"vdc": "a", "vdd": "b"}  # of the recording's disks; ours have the names of their files


class Step:
    def __init__(self, command):
        self.command = command
        self.lines = []  # as recorded
        self.status = 0
        self.reasons = []


def read_transcript(name):
    steps = []
    with open(os.path.join(HERE, name), encoding="utf-8") as file:
        for line in file.read().splitlines():
            if line.startswith("$ "):
                steps.append(Step(line[2:]))
            elif re.fullmatch(r"rc \d+", line):
                steps[-1].status = int(line[3:])
            elif line.startswith("kernel: "):
                steps[-1].reasons.append(line[len("kernel: "):])
            else:
                steps[-1].lines.append(line)
    return steps


# ------------------------------------------------------------------------------------------------ what may differ
def allow_read_ahead(line):
    """udm does not read ahead: the number is 0."""
    return re.sub(r"^((?:1\|)?Read Ahead: +)\d+$", r"\1N", line)


def allow_driver_version(line):
    return re.sub(r"^(Driver version: +)[\d.]+$", r"\1N", line)


def allow_missing_nodes(lines):
    """There are no nodes in /dev/mapper: dmsetup looks for them when a device has no table, udmsetup doesn't."""
    return [line for line in lines if not re.match(r"(2\|)?/dev/mapper/.*: open failed: ", line)]


def allow_device_words_recorded(line, mapped):
    """Linux prints MAJ:MIN in tables, udm what was given (decision 15); files have names of their own."""
    for name, number in DISKS.items():
        line = re.sub(rf"\b{number}(?= \d)", f"/dev/disk/{name}", line)
    for number, name in mapped.items():
        line = re.sub(rf"(?<=linear ){number}(?= \d)", f"/dev/mapper/{name}", line)
    for theirs, ours in BLOCK_NAMES.items():
        line = re.sub(rf"(?<=[<(]){theirs}(?=[>)])|\b{theirs}\b(?= )", lambda m: m.group().replace(theirs, ours), line)
    return line


def allow_device_words_ours(line, folder, numbers):
    """The files are /dev/disk/a and b; the daemon's numbers for them are mapped to the recording's."""
    line = line.replace(f"{folder}/disk/", "/dev/disk/").replace(f"{folder}/tmp/", "/tmp/")
    for number, name in numbers.items():
        theirs = DISKS[name]
        line = re.sub(rf"(?<![\d:]){number}(?![\d:])", theirs, line)
        line = line.replace(f"({number.replace(':', ', ')})", f"({theirs.replace(':', ', ')})")
    return line


def allow_block_name_padding(line):
    """A column of block names is as wide, but vdc is longer than a."""
    return re.sub(r" +", " ", line)


def allow_set_of_targets(command, expected, ours):
    """Linux knows targets that are not here and the other way round; those both know have the same version."""
    if not re.fullmatch(r"dmsetup targets", command):
        return expected, ours
    known = {line.split()[0] for line in expected}
    assert ours, "no targets at all"
    return sorted(expected), sorted(line for line in ours if line.split()[0] in known)


def allow_help_texts(lines):
    """Usage and the lists of fields are in our own words; that they are printed, and where, is compared."""
    starts = {"2|Usage:": "2|Usage", "2|Fields for -o": "2|Fields", "2|Selection: ": "2|Selection"}
    kept, inside = [], ""
    for line in lines:
        start = next((name for text, name in starts.items() if line.startswith(text)), None)
        if start:
            inside = start
            kept.append(start)
        elif not inside or not is_help(inside, line):
            inside = ""
            kept.append(line)
    return [line for at, line in enumerate(kept) if line != "2|" or kept[at + 1: at + 2] not in (["2|Selection"], ["2|Usage"])]


def is_help(inside, line):
    if inside == "2|Fields":
        return re.match(r"2\|(  |$|(name|info|deps|splitname|special)\b)", line)
    if inside == "2|Selection":
        return line.startswith(("2|  ", "2|Several"))
    return line != "2|Command failed."


def allow_program_name(line, tool):
    return line.replace(f"{tool}: ", "dmsetup: ").replace("2|udmsetup create", "2|dmsetup create")


# The driver's lines that only repeat that it failed.
FOLLOW_UPS = ("ioctl: error adding target to table", "core: Cannot calculate initial queue limits",
              "ioctl: unable to set up device queue for new table.")


def allow_wording_of_reasons(reason, known_targets):
    """What of a `kernel:` line our reason has to contain; empty if nothing."""
    if reason in FOLLOW_UPS:
        return ""
    target = re.match(r"table: \d+:\d+: ([\w-]+): ", reason)
    if target and target.group(1) not in known_targets and "unknown target type" not in reason:
        return f"{target.group(1)}: unknown target type"  # allow_set_of_targets
    reason = re.sub(r" \(-E\w+\)$", "", reason)  # we say it in words of our own
    reason = re.sub(r"^(ioctl|core): ", "", reason)
    return re.sub(r"^table: \d+:\d+: (vd[a-z] )?", "", reason)  # numbers and device words


# -------------------------------------------------------------------------------------------------------- running
class Machine:
    """Runs the recorded commands against a daemon."""

    def __init__(self, daemon, folder):
        self.daemon = daemon
        self.folder = folder
        self.numbers = {}  # "MAJ:MIN" of the daemon for our files -> a, b
        self.mapped = {}  # the same for mapped devices -> their names
        os.mkdir(os.path.join(folder, "disk"))
        os.mkdir(os.path.join(folder, "tmp"))
        for name in DISKS:
            with open(os.path.join(folder, "disk", name), "wb") as file:
                file.truncate(8 << 20)
        self.tool = udmtest.program("udmsetup")
        self.prelude = f"dmsetup() {{ '{self.tool}' \"$@\"; }}\n"

    def run(self, command, merged):
        """Lines and exit status. `merged`: both streams in one; else each line with its stream in front."""
        for recorded, ours in ((" /tmp/", f" {self.folder}/tmp/"), ("</tmp/", f"<{self.folder}/tmp/"), ("/dev/disk/", f"{self.folder}/disk/")):
            command = command.replace(recorded, ours)
        script = self.prelude + command
        done = subprocess.run(
            ["bash", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=120,
            stderr=subprocess.STDOUT if merged else subprocess.PIPE, cwd=self.folder,
            env={**os.environ, "UDM_SOCKET": self.daemon.socket, "LC_ALL": "C", "LANG": "C"})
        if merged:
            lines = done.stdout.decode().splitlines()
        else:
            lines = [f"1|{line}" for line in done.stdout.decode().splitlines()]
            lines += [f"2|{line}" for line in done.stderr.decode().splitlines()]
        self.learn_numbers()
        return lines, done.returncode

    def learn_numbers(self):
        self.mapped = {}
        for device in self.daemon.rpc("device.list"):
            self.mapped[f"{device['major']}:{device['minor']}"] = device["name"]
            for used in self.daemon.rpc("device.deps", device=device["name"]):
                name = os.path.basename(used["words"])
                if used["words"].startswith(f"{self.folder}/disk/") and name in DISKS:
                    self.numbers[f"{used['major']}:{used['minor']}"] = name

    def ours(self, line):
        line = allow_program_name(line, self.tool)
        return allow_driver_version(allow_read_ahead(allow_device_words_ours(line, self.folder, self.numbers)))

    def recorded(self, line):
        return allow_driver_version(allow_read_ahead(allow_device_words_recorded(line, self.mapped)))


def is_reason(line):
    """The daemon's own words, below dmsetup's line about what failed."""
    return re.match(r"(2\|)?  \S", line)


@pytest.fixture
def machine(daemon, folder):
    return Machine(daemon, folder)


def compare(command, expected, ours):
    expected, ours = allow_set_of_targets(command, expected, ours)
    if "blkdev" in command or "info -c" in command:
        expected = [allow_block_name_padding(line) for line in expected]
        ours = [allow_block_name_padding(line) for line in ours]
    return expected, ours


def test_the_152_commands_of_the_transcript(machine):
    steps = read_transcript("transcript.txt")
    assert len(steps) == 152
    known_targets = {t["name"] for t in machine.daemon.rpc("target.list")}
    differences = []
    for step in steps:
        lines, status = machine.run(step.command, merged=True)
        if "create bad " in step.command or "create bad'" in step.command:  # as commands.sh does after each of these
            machine.run("dmsetup remove bad >/dev/null 2>&1", merged=True)
        reasons = [line for line in lines if is_reason(line)]
        lines = [machine.ours(line) for line in lines if line not in reasons]
        expected, lines = compare(step.command, [machine.recorded(line) for line in allow_missing_nodes(step.lines)], lines)
        if lines != expected:
            differences.append(f"$ {step.command}\n  printed  {lines}\n  expected {expected}")
        if status != step.status:
            differences.append(f"$ {step.command}\n  exit status {status}, expected {step.status}")
        for reason in step.reasons:
            wanted = allow_wording_of_reasons(reason, known_targets)
            if wanted not in "\n".join(reasons):
                differences.append(f"$ {step.command}\n  the reason {wanted!r} is not in {reasons}")
    assert not differences, "\n".join(differences)


@pytest.mark.parametrize("name", sorted(n for n in os.listdir(HERE) if n.startswith("recorded")))
def test_recorded_sessions(machine, name):
    differences = []
    for step in read_transcript(name):
        lines, status = machine.run(step.command, merged=False)
        lines = [machine.ours(line) for line in allow_help_texts(lines) if not (line.startswith("2|") and is_reason(line))]
        expected = [machine.recorded(line) for line in allow_missing_nodes(step.lines)]
        expected, lines = compare(step.command, expected, lines)
        if (lines, status) != (expected, step.status):
            differences.append(f"$ {step.command}\n  printed  {status} {lines}\n  expected {step.status} {expected}")
    assert not differences, "\n".join(differences)
