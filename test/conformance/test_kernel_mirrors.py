"""Linux takes whole mirrors over from udm, and udm from Linux: clean, after a power cut, half copied, with a leg that failed. The legs are equal
then, what was written is there, and nothing is copied that the log says to be equal.

Linux runs in tools/kernel-oracle, once for all of them. Where it can't be had, what udm leaves is compared with what Linux took over when that was
recorded (recorded/mirror-*.json), and of the other way test_mirror_fixtures.py has what Linux left once. So it is as well without UDM_ORACLE=require
(./dev soak), or UDM_ORACLE_RECORD as in test_kernel_accepts.py: the machine needs half a minute."""

import datetime
import hashlib
import json
import os
import shutil
import tempfile

import nbd
import pytest

import pattern
from test_kernel_accepts import RECORDED, linux, oracle, said  # noqa: F401 (linux is a fixture)
from udmtest import Daemon, RpcError, wait_until
from volume import Volume

SECTORS, REGION, REGIONS = 8192, 128, 64  # of each mirror; all are on the same two legs, one behind the other
BITMAP = 1024
ASKED = os.environ.get("UDM_ORACLE") == "require" or bool(os.environ.get("UDM_ORACLE_RECORD"))
OURS = ("clean", "cut", "half", "failed", "failed-source")
THEIRS = ("linux-clean", "linux-half", "linux-failed", "linux-cut")

# `at` NAME says where a mirror is on its legs.
LINUX = r"""
size=8192
at() { n=0; for name in $NAMES; do [ $name = $1 ] && break; n=$((n + size)); done; echo $n; }
up() { echo "0 $size mirror disk 2 /dev/disk/log-$1 128 2 $2 $3 2 handle_errors keep_log" | dmsetup create $1; }
synced() {
    while :; do
        set -- $1 $(dmsetup status $1)
        [ "${8%%/*}" = "${8#*/}" ] && break
        sleep 0.1
    done
}
sha() { dd if=/dev/mapper/$1 bs=1M iflag=direct 2>/dev/null | sha256sum | cut -c1-64; }
put() { yes "written by Linux, $2" | head -c 4096 | dd of=/dev/mapper/$1 bs=4096 seek="$2" conv=notrunc oflag=direct iflag=fullblock 2>/dev/null; }
told() { echo "$1 status: $(dmsetup status $1 | sed 's/ [0-9]*:[0-9]*/ DEV/g')"; }
take_over() {
    up $1 "/dev/disk/$2 $(at $1)" "/dev/disk/$3 $(at $1)"
    synced $1
    told $1
    echo "$1 mapped: $(sha $1)"
    dmsetup remove $1
}
for name in clean cut half failed; do take_over $name leg0 leg1; done
take_over failed-source leg1 leg0

m=linux-clean
up $m "/dev/disk/leg0 $(at $m)" "/dev/disk/leg1 $(at $m)"
synced $m
for i in 0 1 500 1023; do put $m $i; done
told $m
dmsetup remove $m

m=linux-half
echo "0 $size delay /dev/disk/leg1 $(at $m) 0 /dev/disk/leg1 $(at $m) 100" | dmsetup create slow
up $m "/dev/disk/leg0 $(at $m)" "/dev/mapper/slow 0"
sleep 2
put $m 1000
told $m
dmsetup remove $m
dmsetup remove slow

m=linux-failed
echo "0 $size linear /dev/disk/leg1 $(at $m)" | dmsetup create front
up $m "/dev/disk/leg0 $(at $m)" "/dev/mapper/front 0"
synced $m
dmsetup suspend front
echo "0 $size error" | dmsetup reload front
dmsetup resume front
for i in 3 300 900; do put $m $i; done
told $m
dmsetup remove $m
dmsetup remove front

# Not removed: the machine is switched off with writes that leg 1 has not got.
m=linux-cut
up $m "/dev/disk/leg0 $(at $m)" "/dev/disk/leg1 $(at $m)"
synced $m
dmsetup remove $m
echo "0 $size delay /dev/disk/leg1 $(at $m) 0 /dev/disk/leg1 $(at $m) 60000" | dmsetup create slow
up $m "/dev/disk/leg0 $(at $m)" "/dev/mapper/slow 0"
for i in 7 250 777; do put $m $i & done
sleep 2
told $m
"""


class Stand:
    """The disks; the mirrors as udm left them, and what Linux said of them (None where there is no Linux)."""

    def __init__(self, folder, linux):
        self.folder = folder
        self.legs = [os.path.join(folder, f"leg{i}.img") for i in range(2)]
        names = OURS + THEIRS
        self.first = {name: SECTORS * i for i, name in enumerate(names)}
        for i, leg in enumerate(self.legs):
            with open(leg, "wb") as file:
                file.write(pattern.sectors(1 + i, 0, SECTORS * len(names)))
        for name in names:
            with open(self.log(name), "wb") as file:
                file.truncate(64 << 10)
        self.made, self.content, self.marked = {}, {}, {}
        for name in OURS:
            globals()["leave_" + name.replace("-", "_")](self)
            # A region that is clean is not copied: so what only one leg has there stays.
            self.made[name] = {"out_of_sync": self.out_of_sync(name), "leg0_sha256": sha256(self.read(0, name)), "leg1_sha256": sha256(self.read(1, name))}
            self.mark(name)
        self.answer = None
        if isinstance(linux, oracle.NoOracle) or not ASKED:
            return
        disks = {f"leg{i}": leg for i, leg in enumerate(self.legs)} | {f"log-{name}": self.log(name) for name in names}
        self.answer = linux.run(LINUX, disks, {"NAMES": " ".join(names)}, 300)
        assert self.answer.status == 0, self.answer.output + self.answer.kernel_log
        for name in THEIRS:
            self.mark(name)

    # --- disks
    def log(self, name):
        return os.path.join(self.folder, f"log-{name}.img")

    def read(self, leg, name, region=0, count=REGIONS):
        with open(self.legs[leg], "rb") as file:
            file.seek((self.first[name] + region * REGION) * pattern.SECTOR)
            return file.read(min(count, REGIONS - region) * REGION * pattern.SECTOR)

    def out_of_sync(self, name):
        with open(self.log(name), "rb") as file:
            file.seek(BITMAP)
            bits = file.read(REGIONS // 8)
        return [r for r in range(REGIONS) if not bits[r // 8] >> r % 8 & 1]

    def mark(self, name):
        """Changes a sector of a clean region on the leg that does not count."""
        clean = sorted(set(range(REGIONS)) - set(self.out_of_sync(name)))
        assert clean, f"{name}: no region is clean"
        self.marked[name] = region = clean[len(clean) // 2]
        with open(self.legs[0 if name == "failed-source" else 1], "r+b") as file:
            file.seek((self.first[name] + region * REGION) * pattern.SECTOR)
            file.write(b"only here".ljust(pattern.SECTOR, b"."))

    def check_equal_but_for_the_mark(self, name):
        for region in range(REGIONS):
            equal = self.read(0, name, region, 1) == self.read(1, name, region, 1)
            assert equal == (region != self.marked[name]), f"{name}: region {region}"

    # --- mirrors of udm
    def table(self, name, leg0=None, leg1=None, log=None, word=""):
        legs = [leg or f"{path} {self.first[name]}" for leg, path in ((leg0, self.legs[0]), (leg1, self.legs[1]))]
        log = log or f"disk {3 if word else 2} {self.log(name)} {REGION}{word}"
        return f"0 {SECTORS} mirror {log} 2 {legs[0]} {legs[1]} 2 handle_errors keep_log"

    def make(self, daemon, name, **changes):
        """In sync and clean, with some writes."""
        create(daemon, "m", self.table(name, **changes))
        daemon.udm("set", "m", "log_rest=10")
        with Volume(daemon, "m") as volume:
            for seed, first, count in ((11, 0, 8), (12, 700, 300), (13, SECTORS - 16, 16)):
                assert volume.write_pattern(seed, first, count)
            volume.flush()
        wait_until(lambda: not self.out_of_sync(name), "all to be clean")

    def copied(self, daemon):
        return int(daemon.status("m").split()[6].split("/")[0])


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def create(daemon, name, table):
    """Linux lets go of the locks of a daemon that was killed some milliseconds after it is gone."""
    def created():
        try:
            return daemon.create(name, table)
        except RpcError as refused:
            assert "in use by another process" in str(refused)
            return None

    wait_until(created, "the legs to be free")


# ------------------------------------------------------------------------------------------- what udm leaves
def leave_clean(stand):
    with Daemon(stand.folder) as daemon:
        stand.make(daemon, "clean")
        daemon.remove("m")
    stand.content["clean"] = stand.read(0, "clean")


def leave_cut(stand):
    """Killed with writes that leg 1 has not got."""
    with Daemon(stand.folder) as daemon:
        stand.make(daemon, "cut")
        daemon.remove("m")
        first = stand.first["cut"]
        daemon.create("slow", f"0 {SECTORS} delay {stand.legs[1]} {first} 0 {stand.legs[1]} {first} 60000")
        daemon.create("m", stand.table("cut", leg1="udm:slow 0"))
        handle = nbd.NBD()
        handle.connect_uri(daemon.export("m"))
        written = {at: pattern.sectors(21, at, 8) for at in (40, 1000, 5000)}
        for at, data in written.items():
            handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), at * pattern.SECTOR)
        wait_until(lambda: handle.poll(0) >= 0 and all(
            stand.read(0, "cut")[at * pattern.SECTOR:][:len(data)] == data for at, data in written.items()), "leg 0 to have them")
        daemon.kill()
    stand.content["cut"] = stand.read(0, "cut")
    assert stand.out_of_sync("cut") == [0, 7, 39]
    assert stand.read(1, "cut") != stand.content["cut"]


def leave_half(stand):
    with Daemon(stand.folder) as daemon:
        create(daemon, "m", stand.table("half", log=f"core 2 {REGION} nosync"))
        daemon.udm("set", "m", "resync_rate=1M", "log_rest=10")
        daemon.udmsetup("reload", "m", "--table", stand.table("half"))
        daemon.udmsetup("resume", "m")
        wait_until(lambda: stand.copied(daemon) >= 8, "some regions to be copied")
        with Volume(daemon, "m") as volume:
            assert volume.write_pattern(31, 8000, 16)    # not copied yet
            volume.flush()
        daemon.remove("m")
    stand.content["half"] = stand.read(0, "half")
    assert 62 in stand.out_of_sync("half")


def fail_leg(stand, name, leg):
    with Daemon(stand.folder) as daemon:
        daemon.create("front", f"0 {SECTORS} linear {stand.legs[leg]} {stand.first[name]}")
        stand.make(daemon, name, **{f"leg{leg}": "udm:front 0"})
        daemon.udmsetup("suspend", "front")
        daemon.udmsetup("reload", "front", "--table", f"0 {SECTORS} error")
        daemon.udmsetup("resume", "front")
        with Volume(daemon, "m") as volume:
            for seed, first in ((41, 128), (42, 4000), (43, 8000)):
                assert volume.write_pattern(seed, first, 8)
            volume.flush()
        assert daemon.status("m").split()[8] == ("AD" if leg == 1 else "DA")
        daemon.remove("m")
        daemon.remove("front")
    stand.content[name] = stand.read(1 - leg, name)
    assert stand.out_of_sync(name) == [1, 31, 62]


def leave_failed(stand):
    fail_leg(stand, "failed", 1)


def leave_failed_source(stand):
    """Linux knows nothing of udm's record: it is given the leg that counts as the first."""
    fail_leg(stand, "failed-source", 0)


# -------------------------------------------------------------------------------------------------- tests
@pytest.fixture(scope="module")
def stand(linux):  # noqa: F811
    folder = tempfile.mkdtemp(prefix="udm-")
    try:
        yield Stand(folder, linux)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("name", OURS)
def test_linux_takes_a_mirror_over_from_udm(name, stand):
    path = os.path.join(RECORDED, f"mirror-{name}.json")
    if stand.answer is None:
        with open(path, encoding="utf-8") as file:
            recorded = json.load(file)
        if {key: recorded[key] for key in stand.made[name]} != stand.made[name]:
            pytest.skip(f"what udm left differs from what Linux took over on {recorded['date']}, and Linux is not asked here")
        return
    assert said(stand.answer, f"{name} status") == f"0 {SECTORS} mirror 2 DEV DEV {REGIONS}/{REGIONS} 1 AA 3 disk DEV A"
    assert said(stand.answer, f"{name} mapped") == sha256(stand.content[name])
    assert stand.read(1 if name == "failed-source" else 0, name) == stand.content[name]
    stand.check_equal_but_for_the_mark(name)
    if os.environ.get("UDM_ORACLE_RECORD"):
        result = {**stand.made[name], "status": said(stand.answer, f"{name} status"), "linux": oracle.version(),
                  "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat()}
        with open(path, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)
            file.write("\n")


@pytest.mark.parametrize("name, health, least", [("linux-clean", "AA", 0), ("linux-half", "AA", 1), ("linux-failed", "AD", 3), ("linux-cut", "AA", 3)])
def test_udm_takes_a_mirror_over_from_linux(name, health, least, stand, daemon):
    if stand.answer is None:
        pytest.skip("in ./dev soak oracle (test_mirror_fixtures.py takes over what Linux left once)")
    assert said(stand.answer, f"{name} status").split()[8] == health
    out = stand.out_of_sync(name)
    assert len(out) >= least
    content = stand.read(0, name)
    assert b"written by Linux" in content
    daemon.create("m", stand.table(name))
    wait_until(lambda: stand.copied(daemon) == REGIONS, "what is out of sync to be copied")
    assert stand.read(0, name) == content
    stand.check_equal_but_for_the_mark(name)
    wait_until(lambda: not stand.out_of_sync(name), "all to be clean")
    daemon.remove("m")
