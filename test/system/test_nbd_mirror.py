"""A mirror over hosts: one leg is an NBD export, whose server is killed and stays away while the mirror is written."""

import os

import pytest

import crashload
import nbdserver
from udmtest import Daemon, let_time_pass, wait_until

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
