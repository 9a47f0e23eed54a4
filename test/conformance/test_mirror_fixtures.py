"""Mirrors that Linux 6.1 left are taken over as Linux takes them over, and the same steps give the same answers and the same logs.

Where the fixtures come from: kernel-6.1/README.md."""

import hashlib
import os
import re
import shlex

import pytest

import pattern
from test_fixtures import FIXTURES, Fixture, sha256_of_file
from udmtest import wait_until
from volume import Volume

# Where the legs differ Linux reads the first, and a mirror that is told that they don't may read any.
UNEQUAL = {"mirror-2leg-nosync": {"mapped-before-writes", "mapped"}}
# How far a copy had got when it was stopped is the machine's.
MIDWAY = {"mirror-3leg-partial": {"log-suspended.img", "log.img", "leg1.img", "leg2.img"}}


def sha256_of_log(path):
    """Without bytes 16 .. 1023, which Linux leaves alone and udm has notes of its own in."""
    with open(path, "rb") as file:
        log = file.read()
    return hashlib.sha256(log[:16] + bytes(1008) + log[1024:]).hexdigest()


class Player:
    """Does a fixture's lines with udm and compares what comes."""

    def __init__(self, name, daemon, folder):
        self.fixture, self.daemon = Fixture(name), daemon
        self.paths = {name: os.path.join(folder, name + ".img") for name in self.fixture.disks}
        for disk, (_, sectors) in self.fixture.disks.items():
            with open(self.paths[disk], "wb") as file:
                file.truncate(sectors * pattern.SECTOR)
        self.skipped = UNEQUAL.get(name, set()) | MIDWAY.get(name, set())
        self.front = None
        self.compared = 0

    def unpack(self, **images):
        for disk, image in images.items():
            self.fixture.unpack(image, self.paths[disk])

    def our_table(self, text):
        for name, path in self.paths.items():
            text = text.replace("/dev/disk/" + name, path)
        return text

    def our_words(self, text):
        """The kernel prints MAJ:MIN where udm prints the word of the table."""
        text = re.sub(r"(?<!\S)253:0(?!\S)", f"/dev/mapper/{self.front}", text)
        for name, (number, _) in self.fixture.disks.items():
            text = re.sub(rf"(?<!\S){re.escape(number)}(?!\S)", self.paths[name], text)
        return text

    def play(self, lines):
        lines = [line for line in lines if line and not line.startswith("#")]
        for i, line in enumerate(lines):
            words = shlex.split(line)
            if words[0] == "write":
                first, count = map(int, words[4].split("+"))
                self.write(int(words[2]), first, count, words[6])
            elif words[0] == "sha256":
                self.checksum(words[1], words[2], line)
            elif words[:2] == ["$", "dmsetup"]:
                self.dmsetup(words[2], words[3:], lines[i + 1] if i + 1 < len(lines) else "", line)
            else:
                assert words[0] in ("0", "kept"), f"what is this: {line}"

    def dmsetup(self, verb, words, following, line):
        if verb == "create":
            self.daemon.create(words[0], self.our_table(words[2]))
            if words[0] != "m":
                self.front = words[0]
        elif verb == "remove":
            self.daemon.remove(words[0])
        elif verb == "table":
            assert self.daemon.table("m") == self.our_words(following), line
            self.compared += 1
        elif verb == "status":
            self.status(self.our_words(following), line)
        else:
            assert verb in ("suspend", "resume", "reload"), f"what is this: {line}"
            self.daemon.udmsetup(verb, *words)

    def status(self, wanted, line):
        count, total = re.search(r" (\d+)/(\d+) 1 ", wanted).groups()
        degraded = re.search(r" 1 A+ ", wanted) is None
        if count == total or degraded:
            wait_until(lambda: self.daemon.status("m") == wanted, f"{wanted}\nafter {line}; now {self.daemon.status('m')}")
        else:
            got = self.daemon.status("m")
            assert re.sub(r" \d+/", " N/", got) == re.sub(r" \d+/", " N/", wanted), line
        self.compared += 1
        if count == total and "log" in self.paths:    # as the kernel, whose logs are clean by then: not only copied, but flushed
            bits = (int(total) + 7) // 8
            wait_until(lambda: self.clean_regions(bits) == int(total), "regions to become clean")

    def clean_regions(self, bits):
        with open(self.paths["log"], "rb") as file:
            file.seek(1024)
            return sum(byte.bit_count() for byte in file.read(bits))

    def write(self, seed, first, count, where):
        if where in self.paths:
            with open(self.paths[where], "r+b") as file:
                file.seek(first * pattern.SECTOR)
                file.write(pattern.sectors(seed, first, count))
            return
        with Volume(self.daemon, where) as volume:
            assert volume.write_pattern(seed, first, count)

    def checksum(self, label, wanted, line):
        if label in self.skipped:
            return
        if label.startswith("mapped"):
            with Volume(self.daemon, "m") as volume:
                assert volume.sha256() == wanted, line
        else:
            path = self.paths[re.match(r"(?:crash-)?(log|leg\d)", label)[1]]
            digest = sha256_of_log if label.startswith(("log", "crash-log")) else sha256_of_file
            wait_until(lambda: digest(path) == wanted, f"{path} to be as {label}: {line}", timeout=10)
        self.compared += 1


PLAYED = {"mirror-2leg-full": 14, "mirror-2leg-nosync": 12, "mirror-3leg-fail": 17, "mirror-3leg-partial": 11}  # and what is compared, at least
TAKEN_OVER = {"mirror-2leg-dirty", "mirror-2leg-full", "mirror-3leg-fail", "mirror-3leg-partial"}


def test_no_mirror_of_the_kernel_is_left_out():
    there = {name for name in os.listdir(FIXTURES) if name.startswith("mirror-")}
    assert there == set(PLAYED) | TAKEN_OVER


@pytest.mark.parametrize("name, least", PLAYED.items())
def test_the_same_steps_give_the_kernels_answers_and_logs(name, least, daemon, folder):
    player = Player(name, daemon, folder)
    player.play(player.fixture.lines)
    assert player.compared >= least


def test_a_mirror_that_the_kernel_left_in_sync_is_not_copied(daemon, folder):
    player = Player("mirror-2leg-full", daemon, folder)
    player.unpack(log="log", leg0="leg0", leg1="leg1")
    player.play(player.fixture.section("used again, as it was left"))
    assert player.compared == 3


def test_what_a_failed_leg_missed_under_the_kernel_is_copied_to_it(daemon, folder):
    player = Player("mirror-3leg-fail", daemon, folder)
    player.unpack(log="log", leg0="leg0", leg1="leg1", leg2="leg2")
    player.play(player.fixture.section("used again with leg 1 well: the log says what to copy"))
    assert player.compared == 6


def test_a_resync_that_the_kernel_began_goes_on(daemon, folder):
    player = Player("mirror-3leg-partial", daemon, folder)
    player.unpack(log="log", leg0="leg0", leg1="leg1", leg2="leg2")
    player.play(player.fixture.section("used again, again with a slow leg 1: goes on where it was"))
    assert player.compared == 7


def test_what_a_power_cut_under_the_kernel_left_in_doubt_is_copied_from_the_first_leg(daemon, folder):
    player = Player("mirror-2leg-dirty", daemon, folder)
    player.unpack(log="crash-log", leg0="crash-leg0", leg1="crash-leg1")
    player.play(player.fixture.section("the disks put back as they were then, and used again with a slow leg 1"))
    assert player.compared == 6
