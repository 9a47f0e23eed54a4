"""The snapshot scenarios of device-mapper-test-suite, by its names, each for a persistent (P) and a transient (N) store.

docs/scenarios.md has the whole list, with what was left out.
"""

import threading

import pytest

from snapstack import MIB, Stack, Writer, block_device, check_tree, fill_tree, mounted, needs_mounts, run

both_stores = pytest.mark.parametrize("kind", ["P", "N"])
SIZE = 8 * MIB


@pytest.fixture
def stack(daemon, folder, kind):
    return Stack(daemon, folder, SIZE, kind)


@both_stores
def test_bring_up(stack, kind):
    stack.take("snap")
    assert stack.daemon.udmsetup("table", "snap").stdout.strip() == stack.snapshot_table("snap")
    total = (SIZE + SIZE // 8 + 4 * MIB) // 512
    assert stack.status("snap") == (f"16/{total} 16" if kind == "P" else f"0/{total} 0")
    stack.drop("snap")
    stack.daemon.udmsetup("remove", "vol")


@needs_mounts()
@both_stores
@pytest.mark.parametrize("system", ["ext4", "xfs"])
def test_create_snap(daemon, folder, kind, system):
    size = (64 if system == "ext4" else 320) * MIB  # xfs takes no less than 300 MiB
    stack = Stack(daemon, folder, size, kind)
    with block_device(stack, "vol") as disk:
        run(f"mkfs.{system}", "-q", disk)
        with mounted(disk, f"{folder}/then"):
            fill_tree(f"{folder}/then", 1, 30)
            run("sync", "-f", f"{folder}/then")
            stack.take("snap", chunk=32)
            fill_tree(f"{folder}/then", 2, 30)
        with block_device(stack, "snap") as copy:
            # Mounted to replay the journal: the snapshot is of a mounted file system. nouuid: xfs sees the origin's again.
            with mounted(copy, f"{folder}/copy", "nouuid" if system == "xfs" else "rw"):
                check_tree(f"{folder}/copy", 1, 30)
                with pytest.raises(FileNotFoundError):
                    check_tree(f"{folder}/copy", 2, 30)
                fill_tree(f"{folder}/copy", 3, 10)
            run(*(["e2fsck", "-fn", copy] if system == "ext4" else ["xfs_repair", "-n", copy]))
        with mounted(disk, f"{folder}/then"):
            check_tree(f"{folder}/then", 1, 30)
            check_tree(f"{folder}/then", 2, 30)


@both_stores
def test_many_snaps_with_changes(stack, kind):
    with stack.open("vol") as origin:
        writer = Writer(origin, 1)
        writer.write(100)
        then = {}
        for i in range(8):
            name = f"snap{i}"
            stack.take(name)
            then[name] = bytes(writer.content)
            writer.write(60)
        for name, content in then.items():
            with stack.open(name) as snapshot:
                assert snapshot.read(0, SIZE) == content, name
        writer.verify()


@both_stores
def test_parallel_io_to_many_snaps(stack, kind):
    names = [f"snap{i}" for i in range(16)]
    stack.take(*names)
    broken = []

    def work(name, seed):
        try:
            with stack.daemon.connect() as connection:
                path = f"{stack.folder}/p{seed}.sock"
                uri = connection.rpc("export.add", device=name, uri=f"nbd+unix:///{name}?socket={path}")["uri"]
            import nbd

            handle = nbd.NBD()
            handle.connect_uri(uri)
            handle.size = handle.get_size()
            handle.read = lambda offset, length: bytes(handle.pread(length, offset))
            handle.write = lambda offset, data: handle.pwrite(data, offset)
            writer = Writer(handle, seed)
            for _ in range(3):
                writer.write(40)
                handle.flush()
                writer.verify()
            handle.shutdown()
        except BaseException as error:  # noqa: BLE001: the thread's failure is the test's
            broken.append((name, error))

    threads = [threading.Thread(target=work, args=(n, i)) for i, n in enumerate(["vol", *names])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not broken


@both_stores
def test_many_snapshots_of_same_volume(stack, kind):
    names = [f"snap{i}" for i in range(16)]
    with stack.open("vol") as origin:
        writer = Writer(origin, 2)
        writer.write(50)
        old = bytes(writer.content)
        stack.take(*names)
        writer.write_all()
        writer.verify()
    for name in names:
        with stack.open(name) as snapshot:
            assert snapshot.read(0, SIZE) == old, name


@both_stores
def test_snapshot_writes_do_not_affect_origin(stack, kind):
    with stack.open("vol") as origin:
        Writer(origin, 3).write(100)
    before = stack.sha256("vol")
    stack.take("snap")
    with stack.open("snap") as snapshot:
        writer = Writer(snapshot, 4)
        writer.write(200)
        writer.write_all()
        writer.verify()
    assert stack.sha256("vol") == before


@both_stores
def test_origin_writes_do_not_affect_snapshot(stack, kind):
    with stack.open("vol") as origin:
        writer = Writer(origin, 5)
        writer.write(100)
        stack.take("snap")
        before = stack.sha256("snap")
        writer.write(200)
        writer.write_all()
        writer.verify()
    assert stack.sha256("snap") == before


@both_stores
def test_create_lots_of_snaps(stack, kind):
    with stack.open("vol") as origin:
        writer = Writer(origin, 6)
        for i in range(100):
            stack.take(f"snap{i}")
            if i % 20 == 0:
                writer.write(1)
        assert len(stack.daemon.udmsetup("ls", "--target", "snapshot").stdout.splitlines()) == 100
        first = stack.sha256("snap0")
        writer.write(2)  # 100 copies each
        assert stack.sha256("snap0") == first
    for name in list(stack.snapshots):
        stack.drop(name)
    stack.daemon.udmsetup("remove", "vol")


@both_stores
@pytest.mark.parametrize("chunk", [524288, 1 << 21], ids=["huge_chunk_size", "largest_chunk_size_succeeds"])
def test_chunk_sizes_that_are_large(stack, kind, chunk):
    """Chunks of 256 MiB and 1 GiB; the origin is smaller than one, and a copy ends where it ends."""
    with stack.open("vol") as origin:
        writer = Writer(origin, 7)
        writer.write(20)
        before = bytes(writer.content)
        stack.take("snap", chunk=chunk, cow_size=4 * chunk * 512)
        writer.write(20)
        writer.verify()
    with stack.open("snap") as snapshot:
        assert snapshot.read(0, SIZE) == before


@both_stores
@pytest.mark.parametrize("chunk,word", [(7, "power of two"), (1 << 22, "2097152")],
                         ids=["non_power_of_2_chunk_size_fails", "too_large_chunk_size_fails"])
def test_chunk_sizes_that_are_refused(stack, kind, chunk, word):
    open(stack.cow("snap"), "xb").close()
    refused = stack.daemon.udmsetup("create", "snap", "--table", stack.snapshot_table("snap", chunk), check=False)
    assert refused.returncode == 1
    assert str(chunk) in refused.stderr and word in refused.stderr.lower()
    assert "snap" not in stack.daemon.udmsetup("ls").stdout
