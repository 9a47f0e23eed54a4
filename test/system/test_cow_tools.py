"""`udm cow`: stores looked into and repaired with nobody's help, and also while udmd has them; what was repaired loads."""

import fcntl
import glob
import hashlib
import json
import os
import resource
import struct
import subprocess

import pytest

import pattern
from udmtest import ROOT, SANITIZER, Daemon, program
from volume import Volume

CHUNK = 4096
PER_AREA = CHUNK // 16
FIXTURES = os.path.join(ROOT, "test/conformance/kernel-6.1")


def cow(*arguments, code=0):
    done = subprocess.run([program("udm"), "cow", *arguments], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "UDM_SOCKET": "/nonexistent"})
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def cow_json(*arguments, code=0):
    return json.loads(cow(*arguments, "--json", code=code).stdout)


def area(index):
    return 1 + index * (PER_AREA + 1)


def put(path, index, old, new):
    with open(path, "r+b") as file:
        file.seek(area(index // PER_AREA) * CHUNK + index % PER_AREA * 16)
        file.write(struct.pack("<QQ", old, new))


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.fixture
def store(folder):
    """A store with 300 exceptions: the origin's chunk i in the COW's, whose bytes all are i % 251."""
    path = f"{folder}/s.cow"
    with open(path, "wb") as file:
        file.truncate(1000 * CHUNK)
        file.write(struct.pack("<IIII", 0x70416E53, 1, 1, 8))
        for i in range(300):
            file.seek((2 + i + i // PER_AREA) * CHUNK)
            file.write(bytes([i % 251]) * CHUNK)
    for i in range(300):
        put(path, i, i, 2 + i + i // PER_AREA)
    return path


def load(daemon, path, size=400 * CHUNK, origin="ram:4M"):
    daemon.create("s", f"0 {size // 512} snapshot {origin} {path} P 8")


# ----------------------------------------------------------------------------------------------- looking
def test_info_check_and_dump_of_a_whole_store(store):
    info = cow_json("info", store)
    assert (info["exceptions"], info["runs"], info["largest_run"], info["areas"], info["chunk"]) == (300, 2, 256, 2, CHUNK)
    assert (info["valid"], info["in_use"], info["faults"], info["holes"]) == (True, False, {}, 0)
    assert info["allocated_sectors"] == (2 + 300 + 1) * 8 and info["metadata_sectors"] == 3 * 8
    text = cow("info", store).stdout
    assert text.startswith(f"{store}: a valid store with chunks of 4.0 KiB\n")
    assert "  exceptions  300 (1.2 MiB), in 2 runs; the largest has 256 chunks\n" in text
    assert cow("check", store).stdout == f"{store}: a valid store with chunks of 4.0 KiB\n  300 exceptions, no fault\n"
    lines = cow("dump", store).stdout.splitlines()
    assert [line.split() for line in lines[1:3]] == [["0", "2", "256"], ["256", "259", "44"]]
    assert lines[3] == "300 exceptions in 2 runs, chunks of 4.0 KiB"
    assert cow_json("dump", store)["exceptions"] == [{"origin": 0, "cow": 2, "count": 256}, {"origin": 256, "cow": 259, "count": 44}]


@pytest.mark.parametrize("name", sorted(os.path.basename(p) for p in glob.glob(f"{FIXTURES}/snapshot-*")))
def test_stores_that_linux_wrote_have_no_fault(folder, name):
    path = f"{folder}/cow"
    subprocess.run(["zstd", "-dq", f"{FIXTURES}/{name}/cow.img.zst", "-o", path], check=True)
    invalid = cow_json("info", path)["valid"] is False
    checked = cow_json("check", path, code=1 if invalid else 0)
    assert checked["faults"] == {} and checked["kind"] == "store"
    assert invalid == name.endswith("invalid")
    if invalid:
        assert "an invalid store" in cow("check", path, code=1).stdout
        assert "invalid" in cow("repair", path, code=1).stderr


def test_a_store_in_use_is_looked_at_and_not_touched(daemon, folder):
    with open(f"{folder}/disk.img", "wb") as file:
        file.truncate(16 << 20)
    daemon.udm("create", "vol", f"{folder}/disk.img")
    daemon.udm("snapshot", "take", "vol=before")
    with Volume(daemon, "vol") as vol:
        vol.write_pattern(1, 0, 4096)
        vol.flush()
    path = f"{folder}/before.cow"
    info = cow_json("info", path)
    assert info["in_use"] and info["exceptions"] == 512
    assert [info["allocated_sectors"], info["total_sectors"], info["metadata_sectors"]] == [
        int(word) for word in daemon.status("before").split(" ", 3)[3].replace("/", " ").split()]
    assert "in use: figures may be moving" in cow("info", path).stdout
    assert "in use" in cow("check", path).stdout and "in use" in cow("dump", path).stderr
    assert f"{path} is in use: nothing was changed" in cow("repair", path, code=1).stderr
    cow("repair", "--dry-run", path)
    assert not glob.glob(f"{path}.before-repair*")


def test_files_that_are_no_stores(folder):
    assert "No such file" in cow("info", f"{folder}/none", code=3).stderr
    assert "no file or block device" in cow("check", folder, code=3).stderr
    path = f"{folder}/f"
    with open(path, "wb") as file:
        file.truncate(1 << 20)
    assert "blank: no store yet" in cow("check", path).stdout
    assert "nothing to repair" in cow("repair", path).stdout
    with open(path, "r+b") as file:
        file.write(b"QFI\xfb")
    assert cow_json("check", path, code=1)["faults"] == {"bad-magic": 1}
    assert "Is this the right file?" in cow("check", path, code=1).stdout
    assert "no store" in cow("dump", path, code=1).stderr
    with open(path, "r+b") as file:
        file.truncate(100)
    assert cow_json("check", path, code=1)["faults"] == {"too-small": 1}
    for words in (["--chunk", "3K"], ["--chunk", "2G"], ["--chunk", "x"]):
        assert "chunk" in cow("check", path, *words, code=2).stderr


def test_faults_by_chunk_number(store):
    put(store, 3, 3, 5000)
    put(store, 260, 260, 258)
    put(store, 299, 7, 290)
    put(store, 310, 9, 9)
    checked = cow_json("check", store, "--origin", str(300 * CHUNK), code=1)
    assert checked["faults"] == {"after-end": 1, "beyond-device": 1, "cow-twice": 1, "in-metadata": 1, "origin-twice": 1}
    assert [(f["fault"], f.get("origin_chunk"), f.get("cow_chunk")) for f in checked["findings"]] == [
        ("beyond-device", 3, 5000), ("in-metadata", 260, 258), ("cow-twice", 7, 290), ("origin-twice", 7, 290), ("after-end", None, None)]
    text = cow("check", store, code=1).stdout
    assert "area 0, entry 3 (origin chunk 3 -> COW chunk 5000): the store has chunks 0 to 999: its data are not there." in text
    assert "area 1, entry 4 (origin chunk 260 -> COW chunk 258): COW chunk 258 is area 1 of the list" in text
    assert "udm cow repair" in text
    for word in checked["faults"]:
        assert f"\n  {word}: " in text or word == "beyond-origin", word
    assert cow_json("check", store, "--origin", str(100 * CHUNK), code=1)["faults"]["beyond-origin"] == 199


@pytest.mark.skipif(SANITIZER != "", reason="a sanitizer's own memory is more than what is allowed here")
def test_millions_of_exceptions_are_listed_in_little_memory(folder):
    path, count = f"{folder}/big.cow", 2_000_000
    with open(path, "wb") as file:
        file.write(struct.pack("<IIII", 0x70416E53, 1, 1, 8))
        for index in range(count // PER_AREA + 1):
            first, entries = index * PER_AREA, min(PER_AREA, count - index * PER_AREA)
            file.seek(area(index) * CHUNK)
            # Odd chunks only, so that no two make a run.
            file.write(b"".join(struct.pack("<QQ", 2 * (first + k) + 1, area(index) + 1 + k) for k in range(entries)))
        file.truncate(area(count // PER_AREA + 2) * CHUNK)
    list_bytes = count * 16

    def little_memory():
        resource.setrlimit(resource.RLIMIT_DATA, (list_bytes // 2, list_bytes // 2))

    for options in ([], ["--json"]):
        dump = subprocess.Popen([program("udm"), "cow", "dump", path, *options], stdout=subprocess.PIPE, preexec_fn=little_memory)
        lines = sum(1 for _ in dump.stdout)
        assert dump.wait() == 0 and lines >= count
    info = cow_json("info", path)
    assert info["exceptions"] == info["runs"] == count


# ---------------------------------------------------------------------------------------------- mending
def test_what_was_repaired_loads_and_has_all_that_was_good(daemon, folder, store):
    put(store, 3, 3, 5000)
    put(store, 100, 100, 1)
    put(store, 200, 200, 2)
    put(store, 305, 9, 9)
    with pytest.raises(Exception, match="area 0, entry 3"):
        load(daemon, store)
    before = sha256(store)
    dry = cow_json("repair", "--dry-run", store)
    assert dry["lost"] == [3, 100, 200] and dry["doubtful"] == [0] and dry["backup"] is None
    assert sha256(store) == before
    done = cow("repair", store).stdout
    assert "LOST: the old data of 3 chunks of 4.0 KiB: origin chunks 3, 100, 200\n" in done
    assert "DOUBTFUL: two exceptions contradicted each other, and the one listed first stays, for origin chunk 0\n" in done
    [copy] = glob.glob(f"{store}.before-repair-*")
    assert f"kept in {copy}" in done and sha256(copy) == before
    cow("check", store)
    load(daemon, store)
    with Volume(daemon, "s") as s:
        for i in range(300):
            assert s.read(i * CHUNK, CHUNK) == bytes([0 if i in (3, 100, 200) else i % 251]) * CHUNK
    assert "is in use" in cow("repair", store, code=1).stderr


def test_repair_of_a_whole_store_changes_nothing(store, folder):
    before = sha256(store)
    assert "nothing to repair" in cow("repair", store).stdout
    assert sha256(store) == before and not glob.glob(f"{store}.before-repair*")


def test_a_copy_that_is_there_already_is_not_overwritten(store, folder):
    put(store, 3, 3, 5000)
    before = sha256(store)
    with open(f"{folder}/copy", "wb") as file:
        file.write(b"mine")
    assert "is there already" in cow("repair", store, "--backup", f"{folder}/copy", code=1).stderr
    assert sha256(store) == before and open(f"{folder}/copy", "rb").read() == b"mine"
    assert "Not a directory" in cow("repair", store, "--backup", "/dev/null/copy", code=1).stderr
    assert sha256(store) == before


def test_a_locked_store_is_not_repaired(store):
    put(store, 3, 3, 5000)
    before = sha256(store)
    with open(store, "r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        assert "is in use" in cow("repair", store, code=1).stderr
        assert "in use" in cow("check", store, code=1).stdout
    assert sha256(store) == before and not glob.glob(f"{store}.before-repair*")


def test_a_truncated_store_gets_its_end_back(daemon, store):
    os.truncate(store, area(1) * CHUNK)
    assert cow_json("check", store, code=1)["faults"] == {"no-end": 1}
    done = cow("repair", store).stdout
    assert "0 of 256 exceptions dropped\n" in done and "an unknown number is lost" in done and "No chunk's" not in done
    assert os.path.getsize(store) == (area(1) + 1) * CHUNK
    load(daemon, store)
    with Volume(daemon, "s") as s:
        assert s.read(255 * CHUNK, CHUNK) == bytes([255 % 251]) * CHUNK


def test_what_a_cut_off_store_had_behind_its_end_is_lost_by_name(daemon, store):
    os.truncate(store, 1 << 20)
    before = sha256(store)
    dry = cow_json("repair", "--dry-run", store)
    assert (dry["lost"], dry["lost_beyond_end"], dry["kept"]) == ([254, 255], "yes", 254)
    assert sha256(store) == before
    done = cow("repair", store).stdout
    assert "2 of 256 exceptions dropped\nLOST: the old data of 2 chunks of 4.0 KiB: origin chunks 254-255\n" in done
    assert "LOST: the list went on behind the end: an unknown number is lost, too.\n" in done and "No chunk's" not in done
    assert os.path.getsize(store) == 1 << 20
    cow("check", store)
    with open(f"{store}.origin", "wb") as file:
        file.write(b"o" * (400 * CHUNK))
    load(daemon, store, origin=f"{store}.origin")
    with Volume(daemon, "s") as s:
        for i in range(300):
            assert s.read(i * CHUNK, CHUNK) == (bytes([i % 251]) if i < 254 else b"o") * CHUNK


def test_a_good_header_is_not_replaced(store):
    before = sha256(store)
    refused = cow("repair", store, "--chunk", "8K", code=1).stderr
    assert "its header is whole and says chunks of 4K, not 8K" in refused
    assert "its header is whole and says chunks of 4K, not 8K" in cow("repair", "-n", "--chunk", "8K", store, code=1).stderr
    text = cow("check", store, "--chunk", "8K", code=1).stdout
    assert "the header is whole and says chunks of 4.0 KiB" in text and "Nothing can be repaired here" in text
    assert "nothing to repair" in cow("repair", store, "--chunk", "4K").stdout
    assert sha256(store) == before and not glob.glob(f"{store}.before-repair*")


def test_a_lost_header_is_not_made_with_a_chunk_size_that_empties_the_list(store):
    with open(store, "r+b") as file:
        file.write(bytes(4096))
    before = sha256(store)
    for size, why in (("512", "its list would be empty"), ("8K", "its list would be empty"), ("16K", "its first area is no list of exceptions")):
        refused = cow("repair", store, "--chunk", size, code=1).stderr
        assert f"with chunks of {size} {why}" in refused and "chunks of 4K fit what stands there" in refused and "--dry-run" in refused
        assert f"with chunks of {size} {why}" in cow("check", store, "--chunk", size, code=1).stdout
    assert sha256(store) == before and not glob.glob(f"{store}.before-repair*")


def test_numbers_that_are_no_chunks_are_not_listed_as_chunks(store):
    put(store, 3, (1 << 64) - 1, 5)
    put(store, 4, 1 << 40, 6)
    put(store, 5, 5, 5000)
    done = cow("repair", store).stdout
    assert "3 of 300 exceptions dropped\n" in done
    assert "LOST: the old data of 1 chunk of 4.0 KiB: origin chunk 5\n" in done
    assert "LOST: 2 exceptions are for no origin chunk that can be; which were meant, nobody can tell.\n" in done
    assert "18446744073709551615" not in done


@pytest.mark.parametrize("block", [1024, 4096])
def test_a_file_system_without_a_boot_block_is_no_store(folder, block):
    path = f"{folder}/disk.img"
    subprocess.run(["mkfs.ext4", "-q", "-F", "-b", str(block), path, "64M"], check=True)
    with open(path, "rb") as file:
        assert file.read(1024) == bytes(1024)
    before = sha256(path)
    text = cow("check", path, code=1).stdout
    assert "bad-magic: no snapshot store" in text and "Is this the right file? Nothing can be repaired here" in text
    checked = cow_json("check", path, code=1)
    assert (checked["kind"], checked["faults"], checked["fitting_chunks"]) == ("unknown", {"bad-magic": 1}, [])
    assert f"Nothing can be read: `udm cow check {path}` says why.\n" in cow("info", path).stdout
    assert "no snapshot store" in cow("repair", path, code=1).stderr
    for size in [str(512)] + [f"{1 << k}K" for k in range(10)] + ["1M", "16M"]:
        assert "cannot be repaired" in cow("repair", "--chunk", size, path, code=1).stderr
    assert sha256(path) == before and not glob.glob(f"{path}.*")


def test_check_agrees_with_repair_about_a_header_of_noise(daemon, store):
    with open(store, "r+b") as file:
        file.write(bytes(range(1, 17)) * 256)
    assert "fits chunks of 4K" in cow("check", store, code=1).stdout
    assert cow_json("check", store, code=1)["fitting_chunks"] == [CHUNK]
    text = cow("check", store, "--chunk", "4K", code=1).stdout
    assert "bad-magic: " in text and "`udm cow repair --chunk 4K` makes a new header" in text and "Nothing can be repaired" not in text
    done = cow("repair", store, "--chunk", "4K").stdout
    assert "0 of 300 exceptions dropped\nNo chunk's old data are lost.\n" in done
    assert "makes a snapshot of it again, unless a daemon has it on record\nas lost" in done
    load(daemon, store)
    with Volume(daemon, "s") as s:
        assert s.read(299 * CHUNK, CHUNK) == bytes([299 % 251]) * CHUNK


@pytest.mark.parametrize("command", ["info", "check", "dump", "repair"])
def test_options_stand_before_and_behind_the_file(store, command):
    options = ["--origin", str(300 * CHUNK), "--chunk", "4K"]
    assert cow(command, *options, store).stdout == cow(command, store, *options).stdout == cow(command, *options[:2], store, *options[2:]).stdout


def test_dump_tells_what_is_beyond_the_origin(store):
    lines = cow("dump", "--origin", str(100 * CHUNK), store).stdout.splitlines()
    assert [line.split(maxsplit=3) for line in lines[1:4]] == [["0", "2", "100"], ["100", "102", "156", "beyond the origin"],
                                                               ["256", "259", "44", "beyond the origin"]]
    assert [run.get("beyond_origin") for run in cow_json("dump", "--origin", str(100 * CHUNK), store)["exceptions"]] == [None, True, True]


def test_a_lost_header_is_made_anew(daemon, store):
    with open(store, "r+b") as file:
        file.write(bytes(512))
    assert "makes a new, empty store of it" in cow("check", store, code=1).stdout
    assert "--chunk SIZE" in cow("repair", store, code=1).stderr
    assert cow_json("repair", store, "--chunk", "4K")["new_header"]
    load(daemon, store)
    with Volume(daemon, "s") as s:
        assert s.sha256() == hashlib.sha256(b"".join(bytes([i % 251]) * CHUNK for i in range(300)) + bytes(100 * CHUNK)).hexdigest()


def test_what_a_daemon_has_on_record_as_lost_is_repaired_and_stays_invalid(folder):
    disk, path = f"{folder}/disk.img", f"{folder}/before.cow"
    with open(disk, "wb") as file:
        file.truncate(16 << 20)
    with Daemon(folder, state_dir=True) as daemon:
        daemon.udm("create", "vol", disk)
        daemon.udm("snapshot", "take", "vol=before")
        with Volume(daemon, "vol") as vol:
            vol.write_pattern(1, 0, 256)
            vol.flush()
        daemon.stop()
        put(path, 3, 3, 1 << 30)
        daemon.start()
        assert f"{path} is no longer a snapshot's store" in daemon.udm("status").stdout
        daemon.stop()
        assert "unless a daemon has it on record\nas lost; see `udm status`" in cow("repair", path).stdout
        assert "no fault" in cow("check", path).stdout
        daemon.start()
        daemon.create("again", f"0 {(16 << 20) // 512} snapshot {disk} {path} P 8")
        assert "Invalid" in daemon.status("again")


def test_holes_stay_holes_in_the_copy(store):
    os.truncate(store, 1 << 30)
    put(store, 3, 3, 1 << 40)
    cow("repair", store)
    [copy] = glob.glob(f"{store}.before-repair-*")
    assert os.path.getsize(copy) == 1 << 30
    assert os.stat(copy).st_blocks * 512 < 16 << 20
