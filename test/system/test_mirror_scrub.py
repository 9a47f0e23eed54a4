"""udm mirror check and repair: legs whose files change behind the daemon's back, with clients writing, and with kills."""

import json
import os

import pytest

import crashload
from udmtest import Daemon, wait_until

MIB = 1 << 20
SIZE = 16 * MIB


def overwrite(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def content(path):
    with open(path, "rb") as file:
        return file.read()


@pytest.fixture
def legs(folder):
    """Two files that are equal."""
    data = os.urandom(SIZE)
    paths = [os.path.join(folder, name) for name in ("a.img", "b.img")]
    for path in paths:
        with open(path, "wb") as file:
            file.write(data)
    with open(os.path.join(folder, "log.img"), "wb") as file:
        file.truncate(MIB)
    return paths


def make_mirror(daemon, folder, legs, log="disk 3 {}/log.img 512 nosync"):
    daemon.create("m", f"0 {SIZE // 512} mirror {log.format(folder)} {len(legs)} {' '.join(leg + ' 0' for leg in legs)} 2 handle_errors keep_log")


def scrub(daemon, mode, *words):
    """The answer of udm mirror check|repair m --json, and its exit status."""
    done = daemon.udm("mirror", mode, "m", "--json", *words, check=False)
    return json.loads(done.stdout), done.returncode


def places(answer):
    return [(place["offset"], place["length"]) for place in answer["places"]]


def test_what_changed_on_a_leg_is_found_told_and_repaired(folder, legs):
    a, b = legs
    with Daemon(folder) as daemon:
        make_mirror(daemon, folder, legs)
        answer, status = scrub(daemon, "check")
        assert status == 0 and answer["state"] == "done" and answer["compared_bytes"] == SIZE and not answer["places"]

        overwrite(b, 3 * MIB, b"\0" * 4096)
        overwrite(b, SIZE - 512, b"x" * 512)
        answer, status = scrub(daemon, "check")
        assert status == 1
        assert places(answer) == [(3 * MIB, 4096), (SIZE - 512, 512)]
        assert answer["differing_bytes"] == 4608 and answer["repaired_bytes"] == 0
        first = answer["places"][0]
        assert (first["why"], first["believed"], first["repaired"]) == ("source", 0, False)
        assert [(leg["device"], leg["is"], leg["zeroes"]) for leg in first["legs"]] == [(a, "believed", False), (b, "wrong", True)]
        assert content(b)[3 * MIB:3 * MIB + 4096] == b"\0" * 4096  # a check changes nothing
        text = daemon.udm("mirror", "check", "m", "--status", check=False)
        assert text.returncode == 1
        for words in ("check: done, 16.0 MiB of 16.0 MiB compared, 4.5 KiB differ", f"leg 1 {b} (zeroes)", "the source leg", "`udm mirror repair m`"):
            assert words in text.stdout, text.stdout

        answer, status = scrub(daemon, "repair")
        assert status == 0 and answer["repaired_bytes"] == 4608 and all(place["repaired"] for place in answer["places"])
        assert scrub(daemon, "check")[1] == 0
        daemon.remove("m")
    assert content(a) == content(b)


def test_most_of_three_legs_are_believed_under_snapshots_too(folder, legs):
    third = os.path.join(folder, "c.img")
    original = content(legs[0])
    with open(third, "wb") as file:
        file.write(original)
    with Daemon(folder) as daemon:
        make_mirror(daemon, folder, [*legs, third])
        daemon.udm("snapshot", "take", "m=before", "--cow-dir", folder)  # the mirror is m-real now
        overwrite(legs[0], 5 * MIB, b"x" * 1024)  # the source
        answer, status = scrub(daemon, "repair", "--from", "4M")
        assert status == 0 and answer["device"] == "m-real" and answer["from"] == 4 * MIB
        assert [(place["offset"], place["why"], place["legs"][0]["is"]) for place in answer["places"]] == [(5 * MIB, "majority", "wrong")]
        daemon.udm("snapshot", "drop", "before")
        daemon.remove("m")
    assert content(legs[0]) == original == content(third)


def test_under_load_nothing_else_is_found_and_nothing_of_the_clients_is_lost(folder, legs):
    with Daemon(folder) as daemon:
        make_mirror(daemon, folder, legs)
        daemon.create("front", f"0 {SIZE // 2 // 512} linear udm:m 0")  # the clients' half
        for path in legs:
            crashload.fill(path, SIZE // 2)
        os.truncate(legs[0], SIZE)
        os.truncate(legs[1], SIZE)
        with crashload.CrashLoad(os.path.join(folder, "journal"), {"front": daemon.export("front")}) as load:
            load.wait_for_writes(200)
            overwrite(legs[1], SIZE // 2 + MIB, b"y" * 8192)
            answer, status = scrub(daemon, "check")
            assert (status, places(answer)) == (1, [(SIZE // 2 + MIB, 8192)])
            load.wait_for_writes(200)
            answer, status = scrub(daemon, "repair")
            assert (status, places(answer), answer["repaired_bytes"]) == (0, [(SIZE // 2 + MIB, 8192)], 8192)
            load.wait_for_writes(200)
            answer, status = scrub(daemon, "check")
            assert (status, places(answer)) == (0, [])
            counters = load.finish()
        assert counters["losses"] == 0
        daemon.unexport("front")
        daemon.remove("front")
        daemon.remove("m")
    assert content(legs[0]) == content(legs[1])


@pytest.mark.parametrize("mode", ["check", "repair"])
def test_goes_on_after_a_kill(folder, legs, mode):
    with Daemon(folder, state_dir=True) as daemon:
        make_mirror(daemon, folder, legs)
        overwrite(legs[1], MIB, b"x" * 512)
        overwrite(legs[1], SIZE - MIB, b"y" * 512)
        daemon.udm("mirror", mode, "m", "--rate", "4M", "--background")
        wait_until(lambda: scrub(daemon, mode, "--status")[0]["at"] >= 4 * MIB, "a quarter to be done")
        kept = scrub(daemon, mode, "--pause")[0]
        daemon.kill()
        daemon.start()
        again = scrub(daemon, mode, "--status")[0]
        assert (again["state"], again["mode"]) == ("paused", mode)
        assert again["at"] <= kept["at"] and again["at"] >= 3 * MIB
        assert places(again) == [(MIB, 512)]
        daemon.udm("set", "m", "scrub_rate=")
        daemon.udm("mirror", mode, "m", "--resume")
        answer, status = scrub(daemon, mode)  # waits for the one that is under way, if it still is
        wait_until(lambda: scrub(daemon, mode, "--status")[0]["state"] == "done", "its end")
        answer, status = scrub(daemon, mode, "--status")
        assert places(answer) == [(MIB, 512), (SIZE - MIB, 512)]
        assert status == (0 if mode == "repair" else 1)
        daemon.remove("m")
    assert (content(legs[0]) == content(legs[1])) == (mode == "repair")


def test_words_that_make_no_sense_are_refused_with_what_would(daemon):
    daemon.create("zero", "0 8192 zero")
    for words, part in ((["check", "zero"], "zero is no mirror"), (["check", "what"], "what"), (["repair", "zero", "--stop"], "zero is no mirror")):
        done = daemon.udm("mirror", *words, check=False)
        assert done.returncode == 1 and part in done.stderr, done.stderr
    assert daemon.udm("mirror", "check", "zero", "--stop", "--background", check=False).returncode == 2
