"""Mirror logs that Linux 6.1 wrote mean to udm what they meant to Linux; and after the same story ours has the same bytes.

Where the fixtures come from: kernel-6.1/README.md."""

import re

import pytest

from test_fixtures import Fixture
from test_kernel_mirror_log import Log

# (fixture, image): what the kernel says of it, when it was written or next loaded; and which regions are out of sync where
# the steps say it.
LOGS = {
    ("mirror-2leg-dirty", "crash-log"): ("14/16", [3, 5]),
    ("mirror-2leg-dirty", "log-in-sync"): ("16/16", []),
    ("mirror-2leg-full", "log-live-in-sync"): ("32/32", []),
    ("mirror-2leg-full", "log-live-after-writes"): ("32/32", []),
    ("mirror-2leg-full", "log-suspended"): ("32/32", []),
    ("mirror-2leg-full", "log"): ("32/32", []),
    ("mirror-2leg-nosync", "log-live-new"): ("16/16", []),
    ("mirror-2leg-nosync", "log"): ("16/16", []),
    ("mirror-2leg-nosync", "log-after-sync"): ("16/16", []),
    ("mirror-3leg-fail", "log-live-failed"): ("12/16", [0, 1, 8, 15]),
    ("mirror-3leg-fail", "log"): ("12/16", [0, 1, 8, 15]),
    ("mirror-3leg-fail", "log-in-sync"): ("16/16", []),
    ("mirror-3leg-partial", "log-suspended"): ("11/25", None),
    ("mirror-3leg-partial", "log"): ("12/25", None),
    ("mirror-3leg-partial", "log-in-sync"): ("25/25", []),
}


def unpacked(folder, name, image):
    fixture = Fixture(name)
    table = re.search(r"mirror disk [23] \S+ (\d+)", "\n".join(fixture.lines))
    region_size = int(table[1])
    size = fixture.disks["leg0"][1]
    log = Log(folder, (size + region_size - 1) // region_size, region_size)
    log.size = size
    fixture.unpack(image, log.path)
    return fixture, log


@pytest.mark.parametrize("name, image", LOGS)
def test_a_log_of_the_kernel_says_what_it_said_to_the_kernel(name, image, folder):
    fixture, log = unpacked(folder, name, image)
    in_sync, out = LOGS[name, image]
    assert any(f" {in_sync} 1 " in line for line in fixture.lines), "no status line of the kernel says so"
    before = log.bytes(0, 8192)
    found = log.use("crash")
    assert (found["found"], found["why"], found["record"]) == ("trusted", "", None)
    assert f"{found['in_sync']}/{found['regions']}" == in_sync
    assert out is None or found["out"] == out
    assert log.bytes(0, 8192) == before  # there was nothing to write


@pytest.mark.parametrize("name, image", LOGS)
def test_the_same_story_leaves_the_bytes_that_the_kernel_leaves(name, image, folder):
    _, log = unpacked(folder, name, image)
    kernels = log.bytes(0, 8192)
    out = log.use("crash")["out"]
    ours = Log(folder, log.regions, log.region_size)
    ours.size = log.size
    steps = []
    for region in set(range(log.regions)) - set(out):
        steps += ["sync", region, region + 1]
    ours.use(*steps)
    assert ours.bytes(0, 16) == kernels[:16]
    assert ours.bytes(1024, 8192) == kernels[1024:]


def test_regions_that_linux_left_dirty_are_copied_and_then_clean(folder):
    _, log = unpacked(folder, "mirror-2leg-dirty", "crash-log")
    log.use("sync", 3, 4, "sync", 5, 6)
    assert log.use("crash")["in_sync"] == 16
    _, kernels = unpacked(folder, "mirror-2leg-dirty", "log-in-sync")
    bits = kernels.bytes(1024, 8192)
    _, log = unpacked(folder, "mirror-2leg-dirty", "crash-log")
    log.use("sync", 3, 4, "sync", 5, 6)
    assert log.bytes(1024, 8192) == bits
