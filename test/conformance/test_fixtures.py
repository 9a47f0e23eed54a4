"""Snapshot stores that Linux 6.1 wrote are read as Linux reads them, and the same steps give the same answers.

Where the fixtures come from: kernel-6.1/README.md."""

import hashlib
import os
import re
import shlex
import subprocess

import pytest

import pattern
from udmtest import wait_until
from volume import Volume

FIXTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "kernel-6.1")
NAMES = sorted(n for n in os.listdir(FIXTURES) if n.startswith("snapshot-"))


def sha256_of_file(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Fixture:
    def __init__(self, name):
        self.folder = os.path.join(FIXTURES, name)
        self.lines = self.read("steps.txt").splitlines()
        # `#   origin = 254:32, 49152 sectors`
        self.disks = {m[1]: (m[2], int(m[3])) for line in self.lines if (m := re.match(r"#   (\w+) = (\d+:\d+), (\d+) sectors", line))}
        self.sums = {label: digest for digest, label in (line.split(None, 1) for line in self.read("sha256.txt").splitlines())}

    def read(self, name):
        with open(os.path.join(self.folder, name), encoding="utf-8") as file:
            return file.read()

    def unpack(self, image, to):
        subprocess.run(["zstd", "-dqf", os.path.join(self.folder, image + ".img.zst"), "-o", to], check=True)
        assert sha256_of_file(to) == self.sums[image + ".img"]

    def section(self, title):
        """The lines below `# title`, up to the next title."""
        start = self.lines.index("# " + title) + 1
        end = next((i for i in range(start, len(self.lines)) if self.lines[i].startswith("# ")), len(self.lines))
        return self.lines[start:end]


class Player:
    """Does a fixture's lines with udm and compares what comes."""

    def __init__(self, fixture, daemon, folder):
        self.fixture, self.daemon = fixture, daemon
        self.paths = {name: os.path.join(folder, name + ".img") for name in fixture.disks}
        self.volumes = {}
        self.compared = 0
        self.merging = False  # from a merge's beginning on numbers are those of the moment, and what is there is judged by its content

    def expect(self, got, wanted, line):
        assert got == wanted, f"after: {line}"
        self.compared += 1

    def with_our_words(self, text):
        """The kernel prints MAJ:MIN where udm prints the word of the table."""
        text = re.sub(r"(?<!\S)253:0(?!\S)", "/dev/mapper/slow", text)
        for name, (number, _) in self.fixture.disks.items():
            text = re.sub(rf"(?<!\S){re.escape(number)}(?!\S)", self.paths[name], text)
        return text

    def volume(self, name):
        if name not in self.volumes:
            self.volumes[name] = Volume(self.daemon, name)
        return self.volumes[name]

    def play(self, lines):
        lines = [line for line in lines if line and not line.startswith("# ")]
        for i, line in enumerate(lines):
            following = lines[i + 1] if i + 1 < len(lines) else ""
            words = shlex.split(line)
            if words[0] == "write" and words[1] == "seed":
                first, count = map(int, words[4].split("+"))
                self.write(int(words[2]), first, count, words[6], following.startswith("write failed"), line)
            elif words[0] == "sha256":
                self.checksum(words[1], words[2], line)
            elif words[:3] == ["$", "dmsetup", "create"]:
                table = words[5]
                for name, path in self.paths.items():
                    table = table.replace("/dev/disk/" + name, path)
                self.merging |= "snapshot-merge" in table
                self.daemon.create(words[3], table)
            elif words[:3] == ["$", "dmsetup", "suspend"]:
                self.daemon.udmsetup("suspend", words[3])
            elif words[:3] == ["$", "dmsetup", "status"] and self.merging:
                self.status_of_a_merge(words[3], following)
            elif words[:2] == ["$", "dmsetup"] and words[2] in ("table", "status"):
                self.expect(getattr(self.daemon, words[2])(words[3]) + "\n", self.with_our_words(following) + "\n", line)
            elif words[:3] == ["$", "dmsetup", "remove"]:
                if words[3] in self.volumes:
                    self.volumes.pop(words[3]).close()
                self.daemon.remove(words[3])
            elif words[:2] == ["$", "dd"]:
                name = re.search(r"if=/dev/mapper/(\w+)", line)[1]
                self.expect(self.volume(name).can_read(), "error" not in following, line)
            else:
                assert words[0] in ("kept", "dd:", "0", "(exit") or line.startswith("write failed"), f"what is this: {line}"

    def status_of_a_merge(self, name, wanted):
        used, total, metadata = map(int, re.split("[ /]", wanted.split(None, 3)[3]))
        if used == metadata:
            wait_until(lambda: self.daemon.status(name) == wanted, "the merge's end")
            self.compared += 1
        else:
            now = self.daemon.status(name).split(None, 3)[3]
            assert re.fullmatch(rf"\d+/{total} {metadata}", now), now

    def write(self, seed, first, count, where, fails, line):
        if where in self.paths:
            with open(self.paths[where], "r+b") as file:
                file.seek(first * pattern.SECTOR)
                file.write(pattern.sectors(seed, first, count))
        else:
            self.expect(self.volume(where).write_pattern(seed, first, count), not fails, line)

    def checksum(self, label, wanted, line):
        if label.startswith("mapped-snapshot"):
            self.expect(self.volume("s").sha256(), wanted, line)
        elif label == "mapped-origin":
            self.expect(self.volume("o").sha256(), wanted, line)
        elif label == "mapped-merged":
            self.expect(self.volume("g").sha256(), wanted, line)
        elif label in ("origin-at-start", "origin.img", "origin-merged"):
            self.expect(sha256_of_file(self.paths["origin"]), wanted, line)
        elif label == "cow-new.img":    # says all that a new store has: a header, and one empty area
            self.expect(sha256_of_file(self.paths["cow"]), wanted, line)
        else:
            # Chunks may lie elsewhere in ours, and a merge stop elsewhere.
            assert label in ("cow.img", "cow-part-merged.img", "origin-part-merged.img", "cow-merged.img"), f"what is {label}"

    def close(self):
        for volume in self.volumes.values():
            volume.close()


@pytest.fixture(params=NAMES)
def fixture(request):
    return Fixture(request.param)


def test_a_store_of_the_kernel_loads_with_its_status_table_and_content(fixture, daemon, folder):
    player = Player(fixture, daemon, folder)
    for image in ("origin", "cow"):
        fixture.unpack(image, player.paths[image])
    player.play(fixture.section("used again, as it was left"))
    assert player.compared >= 5


def test_a_new_store_of_the_kernel_loads_as_an_empty_snapshot(fixture, daemon, folder):
    player = Player(fixture, daemon, folder)
    fixture.unpack("cow-new", player.paths["cow"])
    size = fixture.disks["origin"][1]
    with open(player.paths["origin"], "wb") as file:
        file.write(pattern.sectors(1, 0, size))
    lines = fixture.section("a new snapshot")
    player.play([line for line in lines if not line.startswith(("write", "kept"))])
    player.expect(player.volume("s").sha256(), fixture.sums["origin-at-start"], "an empty snapshot reads as its origin")
    player.close()


def test_the_same_steps_give_the_kernels_answers(fixture, daemon, folder):
    player = Player(fixture, daemon, folder)
    for name, (_, size) in fixture.disks.items():
        with open(player.paths[name], "wb") as file:
            file.truncate(size * pattern.SECTOR)
    player.play(fixture.lines)
    assert player.compared >= 15


MERGED = Fixture("snapshot-chunk16-merge")


def test_a_merge_that_the_kernel_began_reads_as_the_snapshot(daemon, folder):
    player = Player(MERGED, daemon, folder)
    for image in ("origin", "cow"):
        MERGED.unpack(f"{image}-part-merged", player.paths[image])
    player.play(MERGED.section("read as a plain snapshot: must be what the snapshot was before"))
    assert player.compared == 3


@pytest.mark.parametrize("begun", [False, True])
def test_a_merge_leaves_the_store_that_the_kernel_leaves(begun, daemon, folder):
    """Byte for byte: of a COW that the kernel wrote a merge changes the list, and nothing else."""
    player = Player(MERGED, daemon, folder)
    for image in ("origin", "cow"):
        MERGED.unpack(image + "-part-merged" if begun else image, player.paths[image])
    player.play(MERGED.section("merged to the end"))
    assert sha256_of_file(player.paths["cow"]) == MERGED.sums["cow-merged.img"]
    assert sha256_of_file(player.paths["origin"]) == MERGED.sums["origin-merged"]
    assert player.compared >= 4
