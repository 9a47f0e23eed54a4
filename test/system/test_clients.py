"""The clients people use, against real exports: nbdinfo, nbdcopy, qemu-img, qemu-io, fio."""

import hashlib
import json
import os
import subprocess

import pytest

from udmtest import Daemon

MIB = 1 << 20
SIZE = 32 * MIB
SECTORS = SIZE // 512


def run(*command, check=True, timeout=120):
    done = subprocess.run(command, text=True, capture_output=True, timeout=timeout)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.fixture
def folder(tmp_path):
    return tmp_path


@pytest.fixture
def daemon(folder):
    with Daemon(folder) as running:
        yield running


@pytest.fixture
def image(folder):
    """Data, a hole, data, zeroes that are written, a hole to the end."""
    path = folder / "image.raw"
    with open(path, "wb") as file:
        file.write(os.urandom(2 * MIB))
        file.seek(8 * MIB)
        file.write(os.urandom(MIB))
        file.write(bytes(MIB))
        file.truncate(SIZE)
    return path


@pytest.fixture
def volume(daemon, image):
    """The image behind a snapshot-origin, with two snapshots on COW files of chunks of 4 and 32 KiB."""
    daemon.create("vol", f"0 {SECTORS} snapshot-origin {image}")
    for name, chunk in (("one", 8), ("two", 64)):
        cow = image.parent / f"{name}.cow"
        with open(cow, "wb") as file:
            file.truncate(2 * SIZE)
        daemon.create(name, f"0 {SECTORS} snapshot {image} {cow} P {chunk}")
    return daemon


def test_nbdinfo_tells_what_the_export_can_do(daemon, image):
    daemon.create("lin", f"0 {SECTORS} linear {image} 0")
    told = json.loads(run("nbdinfo", "--json", daemon.export("lin")).stdout)
    export = told["exports"][0]
    assert told["protocol"] == "newstyle-fixed" and told["structured"] is True
    assert export["export-size"] == SIZE
    for can in ("can_flush", "can_fua", "can_multi_conn", "can_trim", "can_zero", "can_df", "can_cache", "can_fast_zero"):
        assert export[can] is True, can
    assert export["is_read_only"] is False
    assert "base:allocation" in export["contexts"]
    assert export["block_size_minimum"] == 512 and export["block_size_maximum"] == 32 * MIB


def test_nbdinfo_of_a_read_only_export(daemon, image):
    before = sha256(image)
    daemon.create("lin", f"0 {SECTORS} linear {image} 0")
    uri = daemon.rpc("export.add", device="lin", uri=f"nbd+unix:///ro?socket={daemon.folder}/ro.sock", read_only=True)["uri"]
    assert json.loads(run("nbdinfo", "--json", uri).stdout)["exports"][0]["is_read_only"] is True
    refused = run("qemu-io", "-f", "raw", "-c", "write 0 4k", uri, check=False)
    assert refused.returncode != 0
    assert sha256(image) == before


def test_nbdinfo_lists_several_exports_of_a_listener(daemon, image):
    for name in ("a", "b"):
        daemon.create(name, f"0 {SECTORS} linear {image} 0")
        daemon.rpc("export.add", device=name, uri=f"nbd+unix:///{name}?socket={daemon.folder}/both.sock")
    told = json.loads(run("nbdinfo", "--list", "--json", f"nbd+unix:///?socket={daemon.folder}/both.sock").stdout)
    assert sorted(e["export-name"] for e in told["exports"]) == ["a", "b"]


def test_the_map_shows_holes_and_data(daemon, image):
    daemon.create("lin", f"0 {SECTORS} linear {image} 0")
    extents = json.loads(run("nbdinfo", "--map", "--json", daemon.export("lin")).stdout)
    assert sum(e["length"] for e in extents) == SIZE
    assert extents[0]["offset"] == 0 and extents[0]["type"] == 0 and extents[0]["length"] == 2 * MIB
    assert extents[1]["type"] == 3 and extents[1]["length"] == 6 * MIB    # a hole, reads as zeroes
    assert extents[-1]["type"] == 3 and extents[-1]["offset"] == 10 * MIB


def test_the_map_of_a_snapshot_follows_origin_and_store(volume):
    run("qemu-io", "-f", "raw", "-c", "write -P 1 20M 64k", volume.export("one"))
    extents = json.loads(run("nbdinfo", "--map", "--json", volume.export("one")).stdout)
    data = [(e["offset"], e["length"]) for e in extents if e["type"] == 0]
    assert (20 * MIB, 65536) in data
    assert sum(e["length"] for e in extents) == SIZE


def test_nbdcopy_both_ways(daemon, image, folder):
    other = folder / "other.raw"
    other.touch()
    os.truncate(other, SIZE)
    daemon.create("from", f"0 {SECTORS} linear {image} 0")
    daemon.create("to", f"0 {SECTORS} linear {other} 0")
    out = folder / "out.raw"
    run("nbdcopy", daemon.export("from"), str(out))
    assert sha256(out) == sha256(image)
    run("nbdcopy", "--flush", str(image), daemon.export("to"))
    assert sha256(other) == sha256(image)
    run("nbdcopy", "--connections=4", "--flush", daemon.export("from"), daemon.export("to"))
    assert sha256(other) == sha256(image)


def test_nbdcopy_zeroes_long_stretches_with_one_request(daemon, folder):
    """It asks for up to 4 GiB of zeroes at once, more than the largest payload."""
    full, sparse = os.path.join(folder, "full"), os.path.join(folder, "sparse")
    with open(full, "wb") as file:
        for _ in range(80):
            file.write(b"x" * MIB)
    with open(sparse, "wb") as file:
        file.write(b"y" * MIB)
        file.truncate(80 * MIB)
    daemon.create("full", f"0 {80 * MIB // 512} linear {full} 0")
    run("nbdcopy", "--flush", sparse, daemon.export("full"))
    assert subprocess.run(["cmp", full, sparse]).returncode == 0


def test_qemu_img_converts_and_compares(volume, image, folder):
    still = sha256(image)
    run("qemu-io", "-f", "raw", "-c", "write -P 7 1M 1M", "-c", "flush", volume.export("vol"))
    converted = folder / "snap.qcow2"
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", volume.export("one"), str(converted))
    run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", str(converted), volume.export("two"))
    assert run("qemu-img", "compare", "-f", "raw", "-F", "raw", volume.export("one"), volume.export("vol"), check=False).returncode == 1
    raw = folder / "back.raw"
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(converted), str(raw))
    assert sha256(raw) == still
    target = folder / "target.raw"
    target.touch()
    os.truncate(target, SIZE)
    volume.create("target", f"0 {SECTORS} linear {target} 0")
    run("qemu-img", "convert", "-n", "-f", "qcow2", "-O", "raw", str(converted), volume.export("target"))
    assert sha256(target) == still


def test_qemu_io_with_fua_discard_and_zeroes(volume, image):
    uri = volume.export("vol")
    before = sha256(image)
    run("qemu-io", "-f", "raw",
        "-c", "write -f -P 0x11 0 64k",       # FUA
        "-c", "write -z 64k 64k",             # zeroes
        "-c", "write -z -u 128k 64k",         # zeroes that may be holes
        "-c", "discard 1M 1M",
        "-c", "flush",
        "-c", "read -P 0x11 0 64k",
        "-c", "read -P 0 64k 128k",
        "-c", "aio_write -P 0x22 4M 1M", "-c", "aio_write -P 0x33 5M 1M", "-c", "aio_flush",
        "-c", "read -P 0x22 4M 1M", "-c", "read -P 0x33 5M 1M", uri)
    for name in ("one", "two"):
        digest = hashlib.sha256(subprocess.run(["nbdcopy", volume.export(name), "-"], stdout=subprocess.PIPE, check=True).stdout)
        assert digest.hexdigest() == before, name


def fio(*jobs, **options):
    """Runs jobs (dicts) at once, in one fio process."""
    command = ["fio", "--output-format=json", "--verify_state_save=0"] + [f"--{k}={v}" for k, v in options.items()]
    for job in jobs:
        command += [f"--{k}={v}" for k, v in job.items()]
    said = run(*command, timeout=300).stdout
    return json.loads(said[said.index("{"):])    # its NBD engine talks before


def test_fio_verifies_origin_and_two_snapshots_at_once_over_several_connections(volume):
    """Each job is a connection of its own and verifies what it wrote in its own part; all three volumes are written at once."""
    jobs = []
    for name in ("vol", "one", "two"):
        uri = volume.export(name)
        for part in range(2):
            jobs.append({"name": f"{name}{part}", "uri": uri, "offset": f"{part * 16}M", "size": "16M"})
    told = fio(*jobs, ioengine="nbd", rw="randwrite", bsrange="4k-64k", iodepth=16, verify="crc32c", verify_fatal=1,
               do_verify=1, verify_state_save=0, fsync=64, group_reporting=0, randrepeat=0)
    assert len(told["jobs"]) == 6
    for job in told["jobs"]:
        assert job["error"] == 0, job["jobname"]
        assert job["write"]["total_ios"] > 0 and job["read"]["total_ios"] > 0


def test_resize_is_seen_by_new_connections(daemon, image):
    daemon.create("lin", f"0 {SECTORS} linear {image} 0")
    uri = daemon.export("lin")
    assert int(run("nbdinfo", "--size", uri).stdout) == SIZE
    os.truncate(image, 2 * SIZE)
    daemon.rpc("table.load", device="lin", table=f"0 {2 * SECTORS} linear {image} 0")
    daemon.rpc("device.resume", device="lin")
    assert int(run("nbdinfo", "--size", uri).stdout) == 2 * SIZE
