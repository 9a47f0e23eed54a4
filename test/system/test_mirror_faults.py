"""Mirrors with legs that fail for real, below a load that judges what it reads: nothing fails that one leg can still do, and the legs are equal afterwards.

(Legs whose server is killed: test_nbd_mirror.py, test_kill_mirror.py.)"""

import os

import pytest

import crashload
import nbdserver
from udmtest import wait_until

SIZE = 8 << 20
SECTORS = SIZE // 512
HEALTHY = "AA"


class Mirror:
    """Two legs, one of them behind `faulty`, the words of a device; and a load."""

    def __init__(self, folder, daemon, legs, faulty, faulty_leg):
        self.daemon, self.legs = daemon, legs
        log = os.path.join(folder, "log")
        with open(log, "wb") as file:
            file.truncate(1 << 20)
        words = " ".join(f"{faulty if i == faulty_leg else leg} 0" for i, leg in enumerate(legs))
        daemon.create("m", f"0 {SECTORS} mirror disk 2 {log} 128 2 {words} 2 handle_errors keep_log")
        daemon.udm("set", "m", "leg_retry=100", "log_rest=50")
        self.load = crashload.CrashLoad(os.path.join(folder, "journal"), {"m": daemon.export("m")})

    def state(self):
        words = self.daemon.status("m").split()
        in_sync, regions = words[6].split("/")
        return words[8], in_sync == regions

    def is_healthy(self):
        return self.state() == (HEALTHY, True)

    def end(self):
        """The fault is over: judges everything."""
        self.load.wait_for_writes(200)
        counters = self.load.finish()
        self.load.__exit__(None)
        assert counters["losses"] == 0
        wait_until(self.is_healthy, "all to be in sync again", 60)
        self.daemon.unexport("m")
        self.daemon.remove("m")
        first, second = (open(leg, "rb").read() for leg in self.legs)
        assert first == second
        return counters


@pytest.fixture
def legs(folder):
    paths = [os.path.join(folder, f"leg{i}") for i in range(2)]
    crashload.fill(paths[0], SIZE)
    with open(paths[1], "wb") as file:
        file.truncate(SIZE)
    return paths


@pytest.fixture
def mirror(folder, daemon, legs):
    made = []

    def make(faulty, faulty_leg=1):
        made.append(Mirror(folder, daemon, legs, faulty, faulty_leg))
        return made[0]

    yield make
    for each in made:
        each.load.__exit__(None)


def front(daemon, table):
    """The device `front`, with another table from now on."""
    daemon.udmsetup("suspend", "--noflush", "front")
    daemon.udmsetup("reload", "front", "--table", table)
    daemon.udmsetup("resume", "front")


@pytest.mark.parametrize("leg", [0, 1])
@pytest.mark.parametrize("how", ["", " 1 error_writes"])
def test_a_leg_that_fails_every_other_second(daemon, mirror, legs, leg, how):
    daemon.create("front", f"0 {SECTORS} linear {legs[leg]} 0")
    m = mirror("udm:front", faulty_leg=leg)
    wait_until(m.is_healthy, "the first copy", 60)
    front(daemon, f"0 {SECTORS} flakey {legs[leg]} 0 1 1{how}")
    for _ in range(2):
        wait_until(lambda: m.state()[0] != HEALTHY, "the leg to fail")
        m.load.wait_for_writes(100)
        wait_until(m.is_healthy, "the leg to have all again", 60)
    front(daemon, f"0 {SECTORS} linear {legs[leg]} 0")
    m.end()


@pytest.mark.parametrize("leg", [0, 1])
def test_a_leg_of_which_a_part_cannot_be_read(daemon, mirror, legs, leg):
    """The other one is read; what is written anew there does not help, and that is seen."""
    whole = f"0 {SECTORS} linear {legs[leg]} 0"
    daemon.create("front", whole)
    m = mirror("udm:front", faulty_leg=leg)
    wait_until(m.is_healthy, "the first copy", 60)
    front(daemon, f"0 512 linear {legs[leg]} 0\n512 512 error\n1024 {SECTORS - 1024} linear {legs[leg]} 1024")
    wait_until(lambda: m.state()[0][leg] != "A", "the bad part to be noticed")
    m.load.wait_for_writes(500)
    front(daemon, whole)
    m.end()


def test_a_leg_that_is_slow(daemon, mirror, legs):
    daemon.create("front", f"0 {SECTORS} delay {legs[1]} 0 20")
    m = mirror("udm:front")
    m.load.wait_for_writes(300)
    wait_until(lambda: "is slow: a read takes" in daemon.read_log(), "an event that says so")
    m.end()


def test_a_leg_of_nbdkit_that_fails_some_requests(folder, mirror, legs):
    trigger = os.path.join(folder, "fail")
    with nbdserver.Nbdkit(folder, "--filter=error", "file", legs[1], "error=EIO", "error-rate=2%", f"error-file={trigger}") as server:
        m = mirror(server.uri)
        wait_until(m.is_healthy, "the first copy", 60)
        with open(trigger, "wb"):
            pass
        for _ in range(3):
            wait_until(lambda: m.state()[0] != HEALTHY, "a request to fail")
            m.load.wait_for_writes(100)
        os.unlink(trigger)
        m.end()


def test_a_leg_of_nbdkit_that_is_slow(folder, mirror, legs):
    with nbdserver.Nbdkit(folder, "--filter=delay", "file", legs[1], "rdelay=20ms", "wdelay=10ms", "delay-zero=10ms") as server:
        m = mirror(server.uri)
        m.load.wait_for_writes(300)
        m.end()
