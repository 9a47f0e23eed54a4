"""Ways to keep a point-in-time view while a volume is written, each started over the same base image.

A way is a function (area, store, base, size) -> running server. `copy`: the running volume stays where it is and the view gets
the old data before a write. `redirect`: the base stays still and the running volume is a writable layer on it.
"""

import subprocess

from . import servers


def sparse(path, size):
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def store_size(size):
    """Enough for every chunk of the origin and its exceptions, at 4 KiB chunks."""
    return size + size // 128 + (16 << 20)


# ------------------------------------------------------------------------------------------------ plain
def udm_plain(area, store, base, size):
    def prepare(daemon):
        daemon.create("d", f"0 {size // 512} linear {base} 0")
        return "d"

    return servers.Udm(area, prepare)


def qemu_plain(area, store, base, size):
    return servers.Qemu(area, "base", servers.qemu_file("base", base, store))


def nbdkit_plain(area, store, base, size):
    return servers.Nbdkit(area, "file", base)


# ------------------------------------------------------------------------------------------------- copy
def udm_origin(snapshots, chunk):
    def start(area, store, base, size):
        files = [sparse(area.fresh(".cow", area.of(store)), store_size(size)) for _ in range(snapshots)]

        def prepare(daemon):
            # First: many snapshots of a base without an origin are spread over the reactors.
            daemon.create("vol", f"0 {size // 512} snapshot-origin {base}")
            for i, path in enumerate(files):
                daemon.create(f"snap{i}", f"0 {size // 512} snapshot {base} {path} P {chunk // 512}")
            return "vol"

        return servers.Udm(area, prepare, files=files)

    return start


def qemu_copy_before_write(targets):
    """A chain of copy-before-write filters; raw targets, which cost the least."""

    def start(area, store, base, size):
        blockdevs, files, node = [servers.qemu_file("base", base, store)], [], "base"
        for i in range(targets):
            files.append(sparse(area.fresh(".view", area.of(store)), size))
            blockdevs.append(servers.qemu_file(f"t{i}", files[-1], store))
            blockdevs.append(f"driver=copy-before-write,node-name=c{i},file={node},target=t{i}")
            node = f"c{i}"
        return servers.Qemu(area, node, *blockdevs, files=files)

    return start


# --------------------------------------------------------------------------------------------- redirect
def udm_snapshot(chunk):
    def start(area, store, base, size):
        cow = sparse(area.fresh(".cow", area.of(store)), store_size(size))

        def prepare(daemon):
            daemon.create("vol", f"0 {size // 512} snapshot {base} {cow} P {chunk // 512}")
            return "vol"

        return servers.Udm(area, prepare, files=[cow])

    return start


def qemu_overlay(options):
    def start(area, store, base, size):
        path = area.fresh(".qcow2", area.of(store))
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, "-b", base, "-F", "raw", path], check=True)
        return servers.Qemu(area, "top", servers.qemu_file("base", base, store).replace("discard=unmap", "read-only=on"),
                            servers.qemu_file("file", path, store),
                            "driver=qcow2,node-name=top,file=file,backing=base", files=[path])

    return start


def nbdkit_cow(area, store, base, size):
    """Keeps its overlay in an unlinked file in TMPDIR and its map in memory only."""
    return servers.Nbdkit(area, "--filter=cow", "file", base, "cow-block-size=4096", environment={"TMPDIR": area.of(store)})


# name -> (server that has to be there, way)
COPY = {
    "udm plain": ("udm", udm_plain),
    "udm origin, 0 snapshots": ("udm", udm_origin(0, 0)),
    "udm origin, 1 snapshot, 4 KiB": ("udm", udm_origin(1, 4096)),
    "udm origin, 1 snapshot, 16 KiB": ("udm", udm_origin(1, 16384)),
    "udm origin, 8 snapshots, 4 KiB": ("udm", udm_origin(8, 4096)),
    "udm origin, 8 snapshots, 16 KiB": ("udm", udm_origin(8, 16384)),
    "qemu plain": ("qemu", qemu_plain),
    "qemu copy-before-write, 1 target, 64 KiB": ("qemu", qemu_copy_before_write(1)),
    "qemu copy-before-write, 8 targets, 64 KiB": ("qemu", qemu_copy_before_write(8)),
}
FLEET = {
    "udm plain": ("udm", udm_plain),
    **{f"udm origin, {count} snapshot{'s' if count > 1 else ''}, 4 KiB": ("udm", udm_origin(count, 4096)) for count in (1, 8, 64)},
    "qemu plain": ("qemu", qemu_plain),
    "qemu copy-before-write, 8 targets, 64 KiB": ("qemu", qemu_copy_before_write(8)),
    "qemu copy-before-write, 64 targets, 64 KiB": ("qemu", qemu_copy_before_write(64)),
}
REDIRECT = {
    "udm plain": ("udm", udm_plain),
    "udm snapshot, 4 KiB": ("udm", udm_snapshot(4096)),
    "udm snapshot, 16 KiB": ("udm", udm_snapshot(16384)),
    "qemu plain": ("qemu", qemu_plain),
    "qcow2 overlay, 64 KiB clusters": ("qemu", qemu_overlay("cluster_size=65536")),
    "qcow2 overlay, 4 KiB subclusters": ("qemu", qemu_overlay("cluster_size=131072,extended_l2=on")),
    "nbdkit plain": ("nbdkit", nbdkit_plain),
    "nbdkit cow filter, 4 KiB": ("nbdkit", nbdkit_cow),
}
