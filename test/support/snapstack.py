"""An origin with snapshots, made with udmsetup's words as dmsetup's users make them, and file systems on them."""

import contextlib
import os
import random
import subprocess

import nbd
import pytest

import udmtest
from volume import Volume

SECTOR = 512
MIB = 1 << 20


class Stack:
    """`vol` is a snapshot-origin over FOLDER/image; each snapshot has FOLDER/NAME.cow, sparse."""

    def __init__(self, daemon, folder, size, kind="P"):
        self.daemon, self.folder, self.size, self.kind = daemon, folder, size, kind
        self.image = os.path.join(folder, "image")
        self.snapshots = []
        make_file(self.image, size)
        daemon.udmsetup("create", "vol", "--table", self.origin_table())

    def origin_table(self):
        return f"0 {self.size // SECTOR} snapshot-origin {self.image}"

    def cow(self, name):
        return os.path.join(self.folder, f"{name}.cow")

    def snapshot_table(self, name, chunk=8, kind=None, target="snapshot"):
        """`chunk` in sectors."""
        return f"0 {self.size // SECTOR} {target} {self.image} {self.cow(name)} {kind or self.kind} {chunk}"

    def take(self, *names, chunk=8, cow_size=None, kind=None):
        """All of them at the same instant: the origin is suspended meanwhile, as LVM does it."""
        for name in names:
            make_file(self.cow(name), cow_size or self.size + self.size // 8 + 4 * MIB)
        self.daemon.udmsetup("suspend", "vol")
        try:
            for name in names:
                self.daemon.udmsetup("create", name, "--table", self.snapshot_table(name, chunk, kind))
                self.snapshots.append(name)
        finally:
            self.daemon.udmsetup("resume", "vol")

    def drop(self, name):
        self.daemon.udmsetup("remove", name)
        os.unlink(self.cow(name))
        self.snapshots.remove(name)

    def open(self, name):
        return Volume(self.daemon, name)

    def sha256(self, name):
        with self.open(name) as volume:
            return volume.sha256()

    def status(self, name):
        """The words after the target's name."""
        return self.daemon.udmsetup("status", name).stdout.split(None, 3)[3].strip()


def make_file(path, size):
    with open(path, "xb") as file:
        file.truncate(size)


class Writer:
    """Random writes to a volume, and what it must read as afterwards."""

    def __init__(self, volume, seed):
        self.volume, self.random = volume, random.Random(seed)
        self.content = bytearray(b"".join(volume.read(at, min(MIB, volume.size - at)) for at in range(0, volume.size, MIB)))

    def write(self, times, most=64):
        """Each of 1 to `most` sectors."""
        for _ in range(times):
            length = self.random.randint(1, most) * SECTOR
            offset = self.random.randrange((self.volume.size - length) // SECTOR + 1) * SECTOR
            data = self.random.randbytes(length)
            self.volume.write(offset, data)
            self.content[offset : offset + length] = data

    def write_all(self, piece=MIB):
        for offset in range(0, self.volume.size, piece):
            data = self.random.randbytes(min(piece, self.volume.size - offset))
            self.volume.write(offset, data)
            self.content[offset : offset + len(data)] = data

    def verify(self):
        for at in range(0, self.volume.size, MIB):
            here = self.volume.read(at, min(MIB, self.volume.size - at))
            assert here == self.content[at : at + len(here)], f"not what was written, between {at} and {at + MIB}"


def write_some(daemon, seed=1, times=100, name="vol"):
    """Writes to a device and flushes them; what it reads as then."""
    with Volume(daemon, name) as volume:
        writer = Writer(volume, seed)
        writer.write(times)
        volume.flush()
        return bytes(writer.content)


def fails(call, *arguments):
    """Whether an NBD request is refused."""
    try:
        call(*arguments)
        return False
    except nbd.Error:
        return True


# ------------------------------------------------------------------------------------------ file systems
def needs_mounts():
    able = os.geteuid() == 0 and os.path.exists("/dev/fuse") and os.path.exists("/dev/loop-control")
    return pytest.mark.skipif(not able, reason="mounting needs root, /dev/fuse and loop devices")


@contextlib.contextmanager
def block_device(stack, name):
    """The device as a loop device, over nbdfuse."""
    where = os.path.join(stack.folder, f"{name}.fuse")
    os.makedirs(where, exist_ok=True)
    file = os.path.join(where, "disk")
    uri = stack.daemon.export(name)
    fuse = subprocess.Popen(["nbdfuse", file, uri], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        udmtest.wait_until(lambda: fuse.poll() is not None or os.path.exists(file), f"nbdfuse to show {name}")
        assert fuse.poll() is None, fuse.stderr.read().decode()
        loop = run("losetup", "--find", "--show", file).strip()
        try:
            yield loop
        finally:
            run("losetup", "--detach", loop)
    finally:
        subprocess.run(["fusermount3", "-u", where], capture_output=True, check=False)
        fuse.terminate()
        fuse.wait(20)
        fuse.stderr.close()
        stack.daemon.unexport(name)


@contextlib.contextmanager
def mounted(device, where, options="rw"):
    os.makedirs(where, exist_ok=True)
    run("mount", "-o", options, device, where)
    try:
        yield where
    finally:
        run("umount", where)


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
    assert done.returncode == 0, f"{' '.join(words)}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def fill_tree(where, seed, files):
    """A tree of small files; the seed says what is in them."""
    generator = random.Random(seed)
    for i in range(files):
        folder = os.path.join(where, f"tree{seed}", str(i % 7))
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, f"file{i}"), "wb") as file:
            file.write(generator.randbytes(generator.randint(1, 40_000)))


def check_tree(where, seed, files):
    generator = random.Random(seed)
    for i in range(files):
        with open(os.path.join(where, f"tree{seed}", str(i % 7), f"file{i}"), "rb") as file:
            assert file.read() == generator.randbytes(generator.randint(1, 40_000)), f"tree{seed} file{i}"
