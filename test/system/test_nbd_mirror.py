"""A mirror over hosts: one leg is an NBD export, whose server is killed and stays away while the mirror is written, or is away when the daemon starts."""

import os

import pytest

import crashload
import nbdserver
import pattern
from udmtest import Daemon, RpcError, let_time_pass, wait_until
from volume import Volume

SIZE = 8 << 20


def health(daemon):
    """The letters of the legs, and whether all regions are in sync."""
    words = daemon.status("m").split()
    in_sync, regions = words[6].split("/")
    return words[8], in_sync == regions


@pytest.mark.parametrize("engine", ["uring", "threads"])
def test_a_leg_whose_server_is_killed_comes_back_and_is_equal(folder, engine):
    near, far = os.path.join(folder, "near"), os.path.join(folder, "far")
    crashload.fill(near, SIZE)
    with open(far, "wb") as file:
        file.truncate(SIZE)
    with nbdserver.Nbdkit(folder, "file", far) as server, Daemon(folder, arguments=["--engine", engine]) as daemon:
        daemon.create("m", f"0 {SIZE // 512} mirror core 1 128 2 {near} 0 {server.uri} 0 2 handle_errors keep_log")
        daemon.udm("set", "m", "nbd_timeout=1")
        wait_until(lambda: health(daemon) == ("AA", True), "the first copy", 60)
        with crashload.CrashLoad(os.path.join(folder, "journal"), {"m": daemon.export("m")}) as load:
            for _ in range(2):
                load.wait_for_writes(500)
                server.kill()
                wait_until(lambda: "D" in health(daemon)[0] or "F" in health(daemon)[0], "the leg to be away", 30)
                load.wait_for_writes(500)
                server.start()
                let_time_pass(0.5)
                wait_until(lambda: health(daemon) == ("AA", True), "the leg to have all again", 90)
            counters = load.finish()
            print(engine, counters)
        assert counters["losses"] == 0
        daemon.unexport("m")
        daemon.remove("m")
    with open(near, "rb") as one, open(far, "rb") as other:
        assert one.read() == other.read()


# --------------------------------------------------------------------------------------------- legs away at the start
class Far:
    """A mirror with a disk log, one leg of which is an export; with a daemon that is started again and again."""

    def __init__(self, folder, leg, features="2 handle_errors keep_log"):
        self.folder, self.leg = folder, leg
        self.paths = [os.path.join(folder, f"leg{i}") for i in range(2)]
        log = os.path.join(folder, "log")
        crashload.fill(self.paths[0], SIZE)
        for path, size in ((self.paths[1], SIZE), (log, 1 << 20)):
            with open(path, "wb") as file:
                file.truncate(size)
        self.server = nbdserver.Nbdkit(folder, "file", self.paths[leg]).start()
        words = " ".join(f"{self.server.uri if i == leg else path} 0" for i, path in enumerate(self.paths))
        with Daemon(folder, state_dir=True) as daemon:
            daemon.create("m", f"0 {SIZE // 512} mirror disk 2 {log} 128 2 {words} {features}")
            daemon.udm("set", "m", "nbd_timeout=1", "leg_retry=100")
            wait_until(lambda: health(daemon) == ("AA", True), "the first copy", 60)

    def start(self):
        return Daemon(self.folder, state_dir=True)

    def equal(self):
        with open(self.paths[0], "rb") as one, open(self.paths[1], "rb") as other:
            return one.read() == other.read()


@pytest.fixture
def far(folder):
    made = []

    def make(*options):
        made.append(Far(folder, *options))
        return made[0]

    yield make
    for each in made:
        each.server.__exit__(None)


def held(daemon):
    return daemon.rpc("device.info", device="m").get("held_because") or ""


@pytest.mark.parametrize("leg", [0, 1])
def test_a_mirror_comes_up_without_a_leg_that_is_away(far, leg):
    """Also without its first leg: nothing is in doubt. Who has what was written then is on record."""
    mirror = far(leg)
    mirror.server.kill()
    with mirror.start() as daemon:
        wait_until(lambda: not held(daemon), "the mirror to come up alone")
        assert health(daemon) == ("DA" if leg == 0 else "AD", True)
        with Volume(daemon, "m") as volume:
            assert volume.write_pattern(5, 1000, 300)
            volume.flush()
        assert not health(daemon)[1]
    mirror.server.start()
    with mirror.start() as daemon:
        with Volume(daemon, "m") as volume:
            assert volume.read(1000 * 512, 300 * 512) == pattern.sectors(5, 1000, 300)
        wait_until(lambda: health(daemon) == ("AA", True), "the leg to be copied what it missed", 60)
        daemon.remove("m")
    assert mirror.equal()


def test_a_leg_that_was_away_at_the_start_comes_back_by_itself(far):
    mirror = far(1)
    mirror.server.kill()
    with mirror.start() as daemon:
        wait_until(lambda: not held(daemon), "the mirror to come up alone")
        with Volume(daemon, "m") as volume:
            assert volume.write_pattern(6, 0, 500)
            mirror.server.start()
            wait_until(lambda: health(daemon) == ("AA", True), "the leg to be copied what it missed", 60)
            assert volume.write_pattern(7, 5000, 500)
            volume.flush()
        daemon.remove("m")
    assert mirror.equal()


def test_without_the_leg_that_counts_a_mirror_in_doubt_waits_for_it(far):
    mirror = far(0)
    with mirror.start() as daemon:
        volume = Volume(daemon, "m")
        assert volume.write_pattern(5, 1000, 300)
        volume.flush()
        daemon.kill()    # with the marks of the regions on the log
    volume.handle = None
    mirror.server.kill()
    with mirror.start() as daemon:
        wait_until(lambda: "leg 0" in held(daemon), "it to say what it waits for")
        assert "is away, and what is out of sync is on no other" in held(daemon)
        mirror.server.start()
        wait_until(lambda: not held(daemon), "the mirror to come up")
        daemon.unexport("m")    # which came back, too
        with Volume(daemon, "m") as volume:
            assert volume.read(1000 * 512, 300 * 512) == pattern.sectors(5, 1000, 300)
        wait_until(lambda: health(daemon) == ("AA", True), "the copy", 60)


def test_a_mirror_that_holds_writes_waits_for_all_its_legs(far):
    mirror = far(1, "1 handle_errors")
    mirror.server.kill()
    with mirror.start() as daemon:
        let_time_pass(2.5)
        assert mirror.server.uri in held(daemon)
        mirror.server.start()
        wait_until(lambda: not held(daemon), "the mirror to come up")
        assert health(daemon) == ("AA", True)


def test_a_mirror_that_would_forget_what_a_leg_missed_waits_for_it(folder):
    """A log in memory with `nosync`: after the next start nobody would know that the leg was away."""
    near, far = os.path.join(folder, "near"), os.path.join(folder, "far")
    for path in (near, far):
        with open(path, "wb") as file:
            file.truncate(SIZE)
    with nbdserver.Nbdkit(folder, "file", far) as server:
        with Daemon(folder, state_dir=True) as daemon:
            daemon.create("m", f"0 {SIZE // 512} mirror core 2 128 nosync 2 {near} 0 {server.uri} 0 2 handle_errors keep_log")
            daemon.udm("set", "m", "nbd_timeout=1")
        server.kill()
        with Daemon(folder, state_dir=True) as daemon:
            let_time_pass(2.5)
            assert server.uri in held(daemon)
            server.start()
            wait_until(lambda: not held(daemon), "the mirror to come up")
            assert health(daemon) == ("AA", True)


def test_nobody_else_gets_an_export_that_only_a_mirror_can_do_without(far):
    mirror = far(1)
    with mirror.start() as daemon:
        daemon.create("other", f"0 {SIZE // 512} linear {mirror.server.uri} 0")
    mirror.server.kill()
    with mirror.start() as daemon:
        wait_until(lambda: not held(daemon), "the mirror to come up alone")
        assert daemon.rpc("device.info", device="other")["held_because"]
        with pytest.raises(RpcError, match="its server is away"):
            daemon.create("third", f"0 1024 linear {mirror.server.uri} 0")
        mirror.server.start()
        wait_until(lambda: not daemon.rpc("device.info", device="other")["held_because"], "the other one to come up")
        wait_until(lambda: health(daemon) == ("AA", True), "the leg to be back", 60)


@pytest.mark.parametrize("what, said", [("read-only", "the export is read-only"), ("smaller", "and a table needs 8388608")])
def test_a_leg_that_is_not_what_the_table_needs_is_not_used(far, what, said):
    mirror = far(1)
    mirror.server.kill()
    with mirror.start() as daemon:
        wait_until(lambda: not held(daemon), "the mirror to come up alone")
        if what == "smaller":
            os.truncate(mirror.paths[1], SIZE // 2)
        else:
            mirror.server.command.insert(1, "-r")
        mirror.server.start()
        wait_until(lambda: said in daemon.read_log(), "the log to say why")
        with Volume(daemon, "m") as volume:
            assert volume.write_pattern(6, 0, 500)
        assert "D" in health(daemon)[0]
