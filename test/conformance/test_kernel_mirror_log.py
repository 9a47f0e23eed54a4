"""Linux takes the mirror logs that udm writes, with the same regions in sync, and what it leaves udm reads; so it is decided what
becomes of our record of the legs (docs/formats/disk_log.md).

Linux runs in tools/kernel-oracle. Where it can't be had, the log that udm writes is compared with the one that Linux answered about when
that was recorded (recorded/mirror-log-*.json). UDM_ORACLE and UDM_ORACLE_RECORD as in test_kernel_accepts.py."""

import datetime
import json
import os
import random
import struct
import subprocess

import pytest

from test_kernel_accepts import RECORDED, linux, oracle, said, sha256_of_file  # noqa: F401 (linux is a fixture)
from udmtest import BIN

# Leg 1 takes its time, so that what Linux found can be seen before it copies.
LINUX = r"""
size=$(blockdev --getsz /dev/disk/leg0)
echo "0 $size delay /dev/disk/leg1 0 0 /dev/disk/leg1 0 1500" | dmsetup create slow
echo "0 $size mirror disk $WORDS 2 /dev/disk/leg0 0 /dev/mapper/slow 0 1 handle_errors" | sed "s,LOG,/dev/disk/log," | dmsetup create m
echo "status: $(dmsetup status m | sed 's/ [0-9]*:[0-9]*/ DEV/g')"
dd if=/dev/disk/log of=/tmp/live bs=4096 count=1 iflag=direct 2>/dev/null
echo "header: $(od -A n -t x1 -N 16 /tmp/live | tr -d ' \n')"
dmsetup remove m
dmsetup remove slow
"""


class Log:
    """A log in a file, made with udm's code."""

    def __init__(self, folder, regions, region_size, log_sectors=128):
        self.path, self.folder = os.path.join(folder, "log.img"), folder
        self.regions, self.region_size, self.size = regions, region_size, regions * region_size
        with open(self.path, "wb") as file:
            file.truncate(log_sectors * 512)

    def use(self, *steps, words=None, path=None):
        """Loads it, does the steps; returns what it found."""
        done = subprocess.run([os.path.join(BIN, "dirty_log_tool"), path or self.path, str(self.size), words or str(self.region_size), *map(str, steps)],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()][-1]

    def header(self):
        with open(self.path, "rb") as file:
            return struct.unpack("<4sIQ", file.read(16))

    def bytes(self, first, end):
        with open(self.path, "rb") as file:
            file.seek(first)
            return file.read(end - first)

    def put(self, at, data):
        with open(self.path, "r+b") as file:
            file.seek(at)
            file.write(data)

    def for_linux(self, oracle_module, word=""):
        """Linux's answers about the log, which it changes."""
        legs = {}
        for name in ("leg0", "leg1"):
            legs[name] = os.path.join(self.folder, name + ".img")
            with open(legs[name], "wb") as file:
                file.truncate(self.size * 512)
        words = f"{3 if word else 2} LOG {self.region_size}{' ' + word if word else ''}"
        answer = oracle_module.run(LINUX, {"log": self.path, **legs}, {"WORDS": words}, 300)
        assert answer.status == 0, answer.output + answer.kernel_log
        return {"status": said(answer, "status"), "header": said(answer, "header")}


def status(in_sync, log, letter="A"):
    return f"0 {log.size} mirror 2 DEV DEV {in_sync}/{log.regions} 1 AA 3 disk DEV {letter}"


def header(version, regions):
    return struct.pack("<IIQ", 0x4D695272, version, regions).hex()


# ------------------------------------------------------------------------------------------- logs, and what must come of them
# Each makes a log and returns it with how many regions are in sync for Linux; `after` judges what Linux left.
def clean(folder):
    log = Log(folder, 16, 1024)
    log.use("sync", 0, 16)
    return log, 16


def new(folder):
    log = Log(folder, 25, 1024)
    log.size -= 824  # the last region is short
    log.use()
    return log, 0


def after_a_cut(folder):
    log = Log(folder, 16, 1024)
    log.use("sync", 0, 16)
    log.use("mark", 3, "mark", 5, "crash")
    return log, 14


def half_synced(folder):
    log = Log(folder, 16, 1024)
    log.use("sync", 0, 7)
    return log, 7


def many_regions(folder):
    """Over three blocks of the bitmap, in no order."""
    log = Log(folder, 70_000, 2)
    chance = random.Random(4)
    steps = []
    for _ in range(2000):
        first = chance.randrange(log.regions - 8)
        steps += ["sync", first, first + chance.randrange(1, 8)]
    log.use(*steps)
    return log, log.use("crash")["in_sync"]


def with_a_record(folder):
    log = Log(folder, 16, 1024)
    log.use("sync", 0, 16)
    log.use("mark", 9, "out", 9, "mark", 2, "out", 2, "record", 2, 1, 1, "flush")
    assert log.header() == (b"rRiM", 1, 16)
    assert log.use("crash")["record"] == {"legs": 2, "source": 1, "failed": 1}
    return log, 14


LOGS = {f.__name__.replace("_", "-"): f for f in (clean, new, after_a_cut, half_synced, many_regions, with_a_record)}


@pytest.mark.parametrize("name", LOGS)
def test_linux_takes_our_log_and_we_take_it_back(name, linux, folder):
    log, in_sync = LOGS[name](folder)
    made = {"log_sha256": sha256_of_file(log.path)}
    before, ours = log.use("crash"), log.bytes(16, 1024)
    if isinstance(linux, oracle.NoOracle):
        compare_with_recorded(name, made, linux)
        return
    answer = log.for_linux(linux)
    assert answer == {"status": status(in_sync, log), "header": header(2, log.regions)}
    # It copies a region or two until it ends, and changes neither our note nor anything else.
    assert log.bytes(16, 1024) == ours
    after = log.use("crash")
    assert after["found"] == "trusted" and after["why"] == "" and after["record"] is None
    assert set(after["out"]) <= set(before["out"]) and len(before["out"]) - len(after["out"]) <= 2
    record(name, {**made, **answer})


def record(name, what):
    if os.environ.get("UDM_ORACLE_RECORD"):
        with open(os.path.join(RECORDED, f"mirror-log-{name}.json"), "w", encoding="utf-8") as file:
            json.dump({**what, "linux": oracle.version(), "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat()}, file, indent=2)
            file.write("\n")


def compare_with_recorded(name, made, reason):
    with open(os.path.join(RECORDED, f"mirror-log-{name}.json"), encoding="utf-8") as file:
        recorded = json.load(file)
    if {key: recorded[key] for key in made} != made:
        pytest.skip(f"the log differs from the one that Linux answered about on {recorded['date']}, and Linux isn't here: {reason}")


# ------------------------------------------------------------------------------------------- where ours differs, and why
@pytest.fixture
def foreign(folder):
    def make(*changes):
        log = Log(folder, 16, 1024)
        log.use("sync", 0, 16)
        for at, data in changes:
            log.put(at, data)
        return log

    return make


def linux_says(linux, log, word=""):  # noqa: F811
    if isinstance(linux, oracle.NoOracle):
        pytest.skip(f"no kernel oracle: {linux}")
    return log.for_linux(linux, word)


def test_linux_overwrites_the_bits_of_another_version_and_ours_does_not(linux, foreign):
    log = foreign((4, struct.pack("<I", 3)))
    assert log.use("crash")["why"].endswith("log version 3, known are 1 and 2")
    assert log.header() == (b"rRiM", 3, 16)
    answer = linux_says(linux, log)
    assert answer == {"status": status(0, log, "D"), "header": header(3, 16)}
    # The header is left, and a bitmap of Linux's own is written below it: of 16 regions one has been copied since.
    assert log.header() == (b"rRiM", 3, 16)
    assert log.bytes(1024, 1032) == bytes([1, 0, 0, 0, 0, 0, 0, 0])


def test_linux_makes_a_log_over_other_data_and_ours_does_only_when_told(linux, foreign):
    log = foreign((0, b"x" * 4096))
    assert log.use("crash")["found"] == "distrusted"
    assert log.bytes(0, 4096) == b"x" * 4096
    answer = linux_says(linux, log)
    assert answer == {"status": status(0, log), "header": header(2, 16)}


def test_nosync_left_in_the_table_makes_all_clean_in_linux_and_not_in_ours(linux, folder):
    log, _ = after_a_cut(folder)
    assert log.use("crash", words="1024 nosync")["out"] == [3, 5]
    answer = linux_says(linux, log, "nosync")
    assert answer["status"] == status(16, log)


def test_linux_trusts_bits_of_regions_of_another_size_and_ours_does_not(linux, foreign):
    log = foreign()
    log.region_size, log.size = 512, 16 * 512
    assert log.use("crash")["out"] == list(range(16))
    log = foreign()
    log.region_size, log.size = 512, 16 * 512
    assert linux_says(linux, log)["status"] == status(16, log)
