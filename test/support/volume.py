"""Reading and writing a device of the daemon through its NBD export, with libnbd."""

import hashlib
import os

import nbd

import pattern

PIECE = 1 << 20


def image(folder, name="image", size=1 << 20):
    """A sparse file; its path."""
    path = os.path.join(folder, name)
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def connect(uri):
    handle = nbd.NBD()
    handle.connect_uri(uri)
    return handle


def content(daemon, name):
    """All of a small device."""
    with Volume(daemon, name) as volume:
        return volume.read(0, volume.size)


class Volume:
    """An exported device: `with Volume(daemon, "s") as v: v.sha256()`."""

    def __init__(self, daemon, name):
        self.daemon, self.name = daemon, name
        self.handle = connect(daemon.export(name))
        self.size = self.handle.get_size()

    def read(self, offset, length):
        return bytes(self.handle.pread(length, offset))

    def write(self, offset, data, flags=0):
        self.handle.pwrite(data, offset, flags)

    def flush(self):
        self.handle.flush()

    def write_pattern(self, seed, first, count):
        """In requests of 64 KiB, one after the other. True if all went well; stops at the first error."""
        data = pattern.sectors(seed, first, count)
        for at in range(0, len(data), 65536):
            try:
                self.write(first * pattern.SECTOR + at, data[at : at + 65536])
            except nbd.Error:
                return False
        return True

    def sha256(self):
        digest = hashlib.sha256()
        for at in range(0, self.size, PIECE):
            digest.update(self.read(at, min(PIECE, self.size - at)))
        return digest.hexdigest()

    def can_read(self, offset=0, length=4096):
        try:
            self.read(offset, length)
            return True
        except nbd.Error:
            return False

    def close(self):
        self.handle.shutdown()
        self.handle = None
        self.daemon.unexport(self.name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
