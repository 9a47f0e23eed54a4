"""A merge in the daemon: told how fast, watched, killed, and gone on with."""

import json
import os

import pattern
from udmtest import Daemon, wait_until
from volume import Volume

SIZE = 32768  # sectors


def test_a_merge_keeps_its_rate_shows_its_progress_and_goes_on_after_a_kill(folder):
    origin, cow = os.path.join(folder, "origin.img"), os.path.join(folder, "cow.img")
    with open(origin, "wb") as file:
        file.write(pattern.sectors(1, 0, SIZE))
    with open(cow, "wb") as file:
        file.truncate(2 * SIZE * pattern.SECTOR)
    with Daemon(folder, state_dir=True) as daemon:
        daemon.create("vol", f"0 {SIZE} snapshot-origin {origin}")
        daemon.create("snap", f"0 {SIZE} snapshot {origin} {cow} P 16")
        with Volume(daemon, "snap") as snap:
            assert snap.write_pattern(7, 1024, 16384)
            snap.flush()
            content = snap.sha256()

        def status():
            (line,) = daemon.rpc("table.status", device="vol")
            return line

        # As LVM does it; the snapshot's own device goes once the origin's has its store.
        daemon.udmsetup("load", "vol", "--table", f"0 {SIZE} snapshot-merge {origin} {cow} P 16")
        daemon.udmsetup("suspend", "snap")
        daemon.rpc("device.resume", device="vol")
        daemon.rpc("device.message", device="vol", sector=0, message="merge_pause")  # a program takes longer than the merge may
        daemon.remove("snap")
        assert daemon.udm("set", "vol", "merge_rate=2M").stdout == "merge_rate=2M\n"
        daemon.udmsetup("message", "vol", "0", "merge_resume")
        wait_until(lambda: status()["details"]["merged_bytes"] != 0, "the merge to get on")
        shown = json.loads(daemon.udm("--json", "show", "vol").stdout)
        assert shown["status"][0]["details"]["merge_left_bytes"] > 0
        assert "merge left" in daemon.udm("show", "vol").stdout

        daemon.kill()
        daemon.start()
        left = status()["details"]["merge_left_bytes"]
        assert left > 0, "the rate did not hold for the table that came back"
        with Volume(daemon, "vol") as vol:
            assert vol.sha256() == content
            assert vol.write_pattern(8, 2000, 64)
        daemon.udm("set", "vol", "merge_rate=")
        wait_until(lambda: status()["text"] == f"32/{2 * SIZE} 32", "the merge's end")
        daemon.udmsetup("load", "vol", "--table", f"0 {SIZE} snapshot-origin {origin}")
        daemon.udmsetup("resume", "vol")
        with Volume(daemon, "vol") as vol:
            assert vol.read(2000 * pattern.SECTOR, 64 * pattern.SECTOR) == pattern.sectors(8, 2000, 64)
            vol.write(2000 * pattern.SECTOR, pattern.sectors(7, 2000, 64))
            assert vol.sha256() == content
