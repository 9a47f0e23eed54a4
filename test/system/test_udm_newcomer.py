"""What somebody meets who is new to udm: what it tells when something is wrong, and what it refuses before it is."""

import json
import os
import re
import subprocess
import threading

import nbd
import pytest

from snapstack import MIB, write_some
from udmtest import ROOT, Daemon, program, wait_until
from volume import Volume, content

SIZE = 8 * MIB


@pytest.fixture
def daemon(tmp_path):
    with Daemon(tmp_path, state_dir=True) as running:
        yield running


@pytest.fixture
def vol(daemon, tmp_path):
    """The daemon, with a volume `vol` of random content over disk.img."""
    (tmp_path / "disk.img").write_bytes(os.urandom(SIZE))
    daemon.udm("create", "vol", str(tmp_path / "disk.img"))
    return daemon


def refused(daemon, *words, code=1):
    done = daemon.udm(*words, check=False)
    assert done.returncode == code, (words, done.returncode, done.stderr)
    assert done.stderr.startswith("udm: "), done.stderr
    return done.stderr


def events_of(daemon):
    """What happens from now on, as a list of (device, words) that fills by itself."""
    connection = daemon.connect()
    connection.rpc("events.subscribe")
    seen = []

    def listen():
        try:
            while True:
                event = connection.read()["params"]
                seen.append((event["device"], event["what"]))
        except (AssertionError, OSError, ValueError):
            pass

    threading.Thread(target=listen, daemon=True).start()
    return seen


def told(seen, device, words):
    return any(name == device and words in what for name, what in seen)


# -------------------------------------------------------------------------------- files that go while they are in use
def test_a_store_that_is_cut_off_is_told_and_costs_its_snapshot_only(vol, tmp_path):
    before = content(vol, "vol")
    vol.udm("snapshot", "take", "vol=cut")
    vol.udm("snapshot", "take", "vol=other")
    write_some(vol)
    seen = events_of(vol)
    os.truncate(tmp_path / "cut.cow", 64 << 10)
    wait_until(lambda: told(seen, "cut", "cut.cow was cut off from outside"), "the event")
    listed = vol.udm("snapshot", "list").stdout
    assert "cut is invalid: " in listed and "cut.cow was cut off" in listed
    assert "because  " in vol.udm("show", "cut").stdout
    assert "cut.cow was cut off" in vol.read_log()
    with pytest.raises(Exception):
        content(vol, "cut")
    assert content(vol, "other") == before
    write_some(vol, seed=2)
    assert content(vol, "other") == before
    vol.udm("snapshot", "drop", "cut")
    assert "other" in vol.udm("snapshot", "list").stdout


def test_a_store_that_is_emptied_under_load_is_told(vol, tmp_path):
    """Writes make the file longer again at once; that must not hide it."""
    vol.udm("snapshot", "take", "vol=cut")
    write_some(vol)
    seen = events_of(vol)
    os.truncate(tmp_path / "cut.cow", 0)
    for seed in range(2, 6):
        write_some(vol, seed=seed)
    wait_until(lambda: told(seen, "cut", "was cut off from outside"), "the event")
    vol.kill()
    vol.start()
    assert "invalid" in vol.udm("snapshot", "list").stdout, "for ever"
    write_some(vol, seed=7)


def test_a_store_that_is_removed_or_moved_is_told_until_it_is_back(vol, tmp_path):
    before = content(vol, "vol")
    vol.udm("snapshot", "take", "vol=gone")
    seen = events_of(vol)
    os.rename(tmp_path / "gone.cow", tmp_path / "elsewhere")
    wait_until(lambda: told(seen, "gone", "gone.cow is gone"), "the event")
    for words in (["show", "gone"], ["ls"], ["status"]):
        assert "gone.cow is gone" in vol.udm(*words).stdout, words
    assert "snapshot drop gone" in vol.udm("show", "gone").stdout, "what to do"
    assert "gone.cow is gone" in vol.read_log()
    write_some(vol)
    assert content(vol, "gone") == before, "it works on"
    os.rename(tmp_path / "elsewhere", tmp_path / "gone.cow")
    wait_until(lambda: told(seen, "gone", "there again"), "the event")
    assert "gone.cow is gone" not in vol.udm("status").stdout
    os.unlink(tmp_path / "gone.cow")
    wait_until(lambda: "gone.cow is gone" in vol.udm("status").stdout, "the warning")
    assert "gone dropped" in vol.udm("snapshot", "drop", "gone").stdout
    assert "gone.cow is gone" not in vol.udm("status").stdout


def test_an_image_that_is_removed_or_cut_off_is_told(vol, tmp_path):
    seen = events_of(vol)
    os.truncate(tmp_path / "disk.img", MIB)
    wait_until(lambda: told(seen, "vol", "disk.img was cut off"), "the event")
    assert f"truncate -s {SIZE} " in vol.udm("show", "vol").stdout
    os.truncate(tmp_path / "disk.img", SIZE)
    wait_until(lambda: told(seen, "vol", "there again"), "the event")
    os.unlink(tmp_path / "disk.img")
    wait_until(lambda: told(seen, "vol", "disk.img is gone"), "the event")
    assert "copy all there is in vol" in vol.udm("show", "vol").stdout
    write_some(vol)


# ------------------------------------------------------------------------------------ a second volume of the same image
def test_create_refuses_to_write_past_a_volumes_snapshots(vol, tmp_path):
    path = str(tmp_path / "disk.img")
    vol.udm("create", "twin", path)
    vol.udm("remove", "twin")    # nothing there could break
    vol.udm("snapshot", "take", "vol=one")
    vol.udm("snapshot", "take", "vol=two")
    os.link(path, tmp_path / "by-another-name")
    for words in (["create", "twin", path], ["create", "twin", str(tmp_path / "by-another-name")], ["serve", path, "--name", "twin"],
                  ["create", "twin", "0", "8", "linear", path, "0"]):
        said = refused(vol, *words)
        assert "one, two" in said and "Use vol" in said, said
    said = refused(vol, "create", "twin", str(tmp_path / "one.cow"))
    assert "the store of one" in said
    assert vol.udm("ls", "--names").stdout.split() == ["one", "two", "vol"]
    vol.udm("create", "--read-only", "looks", path)
    vol.udm("create", "--force", "forced", path)
    vol.udmsetup("create", "kernel", "--table", f"0 8 linear {path} 0")    # as dmsetup does
    vol.udm("create", "over", "0", "8", "linear", "udm:vol", "0")    # through the volume: it sees what is written


def test_create_refuses_the_image_of_redirected_volumes_and_of_snapshots_made_by_hand(vol, tmp_path):
    path = str(tmp_path / "disk.img")
    vol.udm("snapshot", "take", "--redirect", "vol=still")
    said = refused(vol, "create", "twin", path)
    assert "still image still" in said and "Use vol" in said
    (tmp_path / "base.img").write_bytes(bytes(MIB))
    for name in ("a", "b", "c", "d", "e"):
        (tmp_path / f"{name}.cow").write_bytes(bytes(MIB))
        vol.udmsetup("create", name, "--table", f"0 2048 snapshot {tmp_path}/base.img {tmp_path}/{name}.cow P 8")
    assert "a, b, c, d and 1 more" in refused(vol, "create", "twin", str(tmp_path / "base.img"))


def test_create_looks_through_the_devices_in_between(vol, tmp_path):
    for name in ("p", "q"):
        (tmp_path / name).write_bytes(bytes(MIB))
    vol.udm("create", "wide", "0", "4096", "striped", "2", "8", f"{tmp_path}/p", "0", f"{tmp_path}/q", "0")
    vol.udm("snapshot", "take", "wide=then", "--cow-dir", str(tmp_path))
    assert "Use wide" in refused(vol, "create", "twin", f"{tmp_path}/q")


# ----------------------------------------------------------------------------------------------------------- settings
def test_all_settings_are_set_or_none(vol):
    vol.udm("snapshot", "take", "vol=snap")
    said = refused(vol, "set", "snap", "auto_extend=1M", "thresholds=soon")
    assert "thresholds cannot be set to soon" in said
    assert "has no settings" in vol.udm("set", "snap").stdout
    said = refused(vol, "set", "snap", "thresholds=50", "colour=red")
    assert "snap has no setting colour; it has auto_extend, auto_extend_at, thresholds" in said
    assert "has no settings" in vol.udm("set", "snap").stdout
    assert vol.udm("set", "snap", "auto_extend=1M", "thresholds=50").stdout == "auto_extend=1M\nthresholds=50\n"
    assert vol.udm("set", "snap", "auto_extend=", "thresholds=60").stdout == "thresholds=60\n"
    assert "vol has no setting thresholds, nor any: snapshots have thresholds" in refused(vol, "set", "vol", "thresholds=50")
    before = vol.udm("set", "--daemon").stdout
    assert "snapshot_copy_throttle" in refused(vol, "set", "--daemon", "snapshot_cow_threshold=7", "snapshot_copy_throttle=1000")
    assert vol.udm("set", "--daemon").stdout == before


# ------------------------------------------------------------------------------------------- merges and the last still
@pytest.mark.parametrize("options, verb", [([], "merge"), (["--redirect"], "drop")], ids=["copying", "redirected"])
def test_list_shows_merges_and_how_far_they_are(daemon, tmp_path, options, verb):
    (tmp_path / "disk.img").write_bytes(os.urandom(SIZE))
    fast = f"0 {SIZE // 512} linear {tmp_path}/disk.img 0"
    slow = f"0 {SIZE // 512} delay {tmp_path}/disk.img 0 0 {tmp_path}/disk.img 0 500"
    daemon.udm("create", "below", "--table", fast)
    daemon.udm("create", "vol", "0", str(SIZE // 512), "linear", "udm:below", "0")
    daemon.udm("snapshot", "take", *options, "vol=then", "--cow-dir", str(tmp_path))
    write_some(daemon, times=400)
    daemon.udmsetup("reload", "below", "--table", slow)
    daemon.udmsetup("resume", "below")
    begun = json.loads(daemon.udm("--json", "snapshot", verb, "--background", "then").stdout)
    merging = begun["device"] if verb == "merge" else begun[0]["merging"]
    daemon.udmsetup("message", merging, "0", "merge_pause")
    listed = json.loads(daemon.udm("--json", "snapshot", "list").stdout)
    assert [(one["snapshot"], one["origin"], one["state"]) for one in listed] == [("then", "vol", "merging")]
    assert listed[0]["merge_left_bytes"] > 0
    shown = daemon.udm("snapshot", "list", "vol").stdout
    assert "merging " in shown and "%" in shown.split("merging ")[1].split()[0], shown
    daemon.udmsetup("reload", "below", "--table", fast)
    daemon.udmsetup("resume", "below")
    daemon.udmsetup("message", merging, "0", "merge_resume")
    wait_until(lambda: daemon.udm("snapshot", "list", "--names").stdout == "", "the merge to end")
    finished = [line for line in daemon.read_log().splitlines() if "merge finished" in line]
    assert finished and not any("warn" in line for line in finished), finished


def test_a_merge_of_a_still_image_points_to_drop(vol):
    vol.udm("snapshot", "take", "--redirect", "vol=still")
    said = refused(vol, "snapshot", "merge", "still")
    assert "still image of a redirected volume" in said and "udm snapshot drop still" in said


def test_with_its_last_still_image_a_redirected_volume_is_as_before(vol, tmp_path):
    table = vol.udmsetup("table", "vol").stdout
    for round in range(2):
        for name in ("first", "second"):
            vol.udm("snapshot", "take", "--redirect", f"vol={name}")
            now = write_some(vol, seed=round)
        with Volume(vol, "vol") as client:    # is there all the while
            vol.udm("snapshot", "drop", "first", "second")
            wait_until(lambda: vol.udmsetup("table", "vol").stdout == table, "the volume to have its own table again")
            assert vol.udm("ls", "--names").stdout == "vol\n"
            assert client.read(0, SIZE) == now
    assert (tmp_path / "disk.img").read_bytes() == now
    vol.kill()
    vol.start()
    assert vol.udmsetup("table", "vol").stdout == table
    assert vol.udm("ls", "--names").stdout == "vol\n"
    vol.udm("snapshot", "take", "--redirect", "vol=third")
    assert vol.udm("snapshot", "list", "--names").stdout == "third\n"


def test_a_snapshot_made_by_hand_shows_its_volume(vol, tmp_path):
    vol.udm("snapshot", "take", "vol=mine")
    vol.udmsetup("remove", "mine")
    vol.udmsetup("create", "again", "--table", f"0 {SIZE // 512} snapshot {tmp_path}/disk.img {tmp_path}/mine.cow P 8")
    assert json.loads(vol.udm("--json", "snapshot", "list").stdout)[0]["origin"] == "vol"


def test_an_invalid_snapshot_says_why(vol):
    said = vol.udm("snapshot", "take", "vol=small", "--size", "64K").stdout
    assert "When its store is full, the snapshot is lost. `udm set small auto_extend=1G`" in said
    write_some(vol)
    assert "because  the COW device is full" in vol.udm("show", "small").stdout
    assert "small is invalid: the COW device is full" in vol.udm("snapshot", "list").stdout


# -------------------------------------------------------------------------------------------------------------- words
def test_wrong_words_are_told_in_one_manner(vol, tmp_path):
    for words in (["create"], ["create", "x", "--size"], ["ls", "--nonsense"], ["snapshot"], ["snapshot", "take"], ["top", "--interval", "soon"],
                  ["nonsense"], []):
        said = refused(vol, *words, code=2)
        assert "--help`" in said, (words, said)
    for chunk in ("5K", "2K", "2G", "much"):
        assert f"'{chunk}' is no size of a chunk" in refused(vol, "snapshot", "take", "vol", "--chunk", chunk, code=2)
    assert '"a/b" invalid' in refused(vol, "snapshot", "take", "vol=a/b")
    vol.udm("create", "other", "ram:o", "--size", "1M")
    for redirect in ([], ["--redirect"]):
        said = refused(vol, "snapshot", "take", *redirect, "vol=other")
        assert "a device other exists already" in said and "ORIGIN=NAME" in said
    vol.udm("snapshot", "take", "--redirect", "vol=one")
    assert "a device one exists already" in refused(vol, "snapshot", "take", "--redirect", "vol=one"), "also when there are layers"
    said = refused(vol, "create", "odd", "0", "8", "lineal", "x", "0")
    assert "unknown target type: there are" in said and "linear" in said
    vol.udm("snapshot", "drop", "one")
    vol.udm("snapshot", "take", "vol=snap")
    said = refused(vol, "resize", "snap", "1G")
    assert "snap is a snapshot" in said and "auto_extend" in said and "truncate -s" in said
    nowhere = vol.udm("--socket", str(tmp_path / "nope"), "ls", check=False)
    assert nowhere.returncode == 1 and "udm serve" not in nowhere.stderr and "--socket" in nowhere.stderr


def test_a_command_in_the_wrong_place_is_pointed_to(daemon):
    assert "`udm snapshot take`?" in refused(daemon, "take", "vol", code=2)
    assert "`udm snapshot --help` lists them" in refused(daemon, "snapshot", "nonsense", code=2)
    assert "`udm snapshot list`" in refused(daemon, "snapshot", "drop", "nosuch")


def test_help_is_a_command_too(daemon):
    assert daemon.udm("help").stdout == daemon.udm("--help").stdout
    assert daemon.udm("help", "snapshot", "take").stdout == daemon.udm("snapshot", "take", "--help").stdout
    assert "--redirect" in daemon.udm("help", "snapshot", "take").stdout
    assert "no command 'nonsense'" in refused(daemon, "help", "nonsense", code=2)


def test_the_tree_shows_files_by_name(vol):
    vol.udm("snapshot", "take", "--redirect", "vol=still")
    image = os.path.join(vol.folder, "disk.img")
    assert vol.udm("ls", "--tree").stdout == f"vol\n  vol-live\n    still\n      {image}\n    {os.path.dirname(image)}/still.cow\n"
    told = json.loads(vol.udm("--json", "ls", "--tree").stdout)
    assert {one["name"]: one["uses"] for one in told}["still"] == [{"file": image}]


# ----------------------------------------------------------------------------------------------- what is in use stays
def test_remove_force_leaves_what_is_exported_or_used_as_it_is(vol, tmp_path):
    uri = vol.export("vol")
    table, before = vol.udmsetup("table", "vol").stdout, (tmp_path / "disk.img").read_bytes()
    said = refused(vol, "remove", "--force", "vol")
    assert "vol is in use: exported" in said and "udm unexport vol" in said and uri in said
    assert vol.udmsetup("table", "vol").stdout == table
    client = nbd.NBD()
    client.connect_uri(uri)
    assert client.pread(MIB, 0) == before[:MIB]
    client.shutdown()
    vol.udm("create", "over", "0", "8", "linear", "udm:vol", "0")
    said = refused(vol, "remove", "--force", "--unexport", "vol")
    assert "remove over first" in said
    assert vol.udmsetup("table", "vol").stdout == table
    vol.udm("remove", "over")
    assert vol.udm("remove", "--force", "vol").stdout == "vol removed\n"


def test_a_redirected_volume_that_is_removed_by_force_leaves_its_data(vol, tmp_path):
    vol.udm("snapshot", "take", "--redirect", "vol=fs")
    now = write_some(vol)
    assert "rely on it: fs" in refused(vol, "remove", "vol")
    vol.export("vol")
    refused(vol, "remove", "--force", "vol")
    assert [one["state"] for one in json.loads(vol.udm("--json", "snapshot", "list").stdout)] == ["active"]
    vol.unexport("vol")
    done = vol.udm("remove", "--force", "vol")
    assert f"is in {tmp_path}/fs.cow, which stays" in done.stderr
    wait_until(lambda: vol.udm("ls", "--names").stdout == "fs\n", "the layer to go")
    listed = json.loads(vol.udm("--json", "snapshot", "list").stdout)
    assert [(one["snapshot"], one["state"]) for one in listed] == [("fs", "unused")]
    # As the manual says, it can be had back.
    vol.udmsetup("create", "back", "--table", f"0 {SIZE // 512} snapshot udm:fs {tmp_path}/fs.cow PO 8")
    assert content(vol, "back") == now
    vol.udm("remove", "back")
    vol.udm("snapshot", "drop", "fs")
    assert vol.udm("ls", "--names").stdout == "" and (tmp_path / "fs.cow").exists()


# ----------------------------------------------------------------------------------------------------------- merges
def test_merge_says_what_is_lost_and_wants_force_under_clients(vol):
    before = content(vol, "vol")
    vol.udm("snapshot", "take", "vol=then")
    write_some(vol)
    uri = vol.export("vol")
    client = nbd.NBD()
    client.connect_uri(uri)
    said = refused(vol, "snapshot", "merge", "then")
    assert "vol has 1 client at " + uri in said and "--force" in said
    assert vol.udm("snapshot", "list", "--names").stdout == "then\n", "nothing was begun"
    done = vol.udm("snapshot", "merge", "--force", "then")
    assert "vol goes back to then: what was written to vol since 20" in done.stderr and "at most) is lost" in done.stderr
    assert client.pread(SIZE, 0) == before
    client.shutdown()
    vol.unexport("vol")
    vol.udm("snapshot", "take", "vol=next")
    vol.export("vol")    # without a client nobody is in the way
    assert vol.udm("snapshot", "merge", "next").stderr == "", "nothing was written, nothing is lost"
    assert "is lost" in " ".join(vol.udm("help", "snapshot", "merge").stdout.split())


def test_merge_of_an_overflowed_snapshot_succeeds_and_says_so(vol, tmp_path):
    """Its own writes filled the store; the merge makes room."""
    (tmp_path / "small.cow").write_bytes(bytes(64 << 10))
    vol.udmsetup("suspend", "vol")
    vol.udmsetup("reload", "vol", "--table", f"0 {SIZE // 512} snapshot-origin {tmp_path}/disk.img")
    vol.udmsetup("create", "small", "--table", f"0 {SIZE // 512} snapshot {tmp_path}/disk.img {tmp_path}/small.cow PO 8")
    vol.udmsetup("resume", "vol")
    client = nbd.NBD()
    client.connect_uri(vol.export("small"))
    written = 0
    while True:
        try:
            client.pwrite(b"x" * 4096, written)
        except nbd.Error:
            break
        written += 4096
    client.shutdown()
    vol.unexport("small")
    assert 0 < written < 64 << 10 and "Overflow" in vol.udmsetup("status", "small").stdout
    for words in (["ls"], ["status"], ["show", "small"]):
        assert "small overflows: " in vol.udm(*words).stdout, words
    done = vol.udm("snapshot", "merge", "small")
    assert done.stdout == "vol is what small was; the snapshot is gone\n"
    assert content(vol, "vol")[:written] == b"x" * written


@pytest.mark.parametrize("size, said", [("4M", "up to its end at 4.0 MiB"), ("12M", "up to 8.0 MiB, where the snapshot ended; what is behind is as it was")])
def test_merge_into_a_volume_of_another_size_says_what_it_is_now(vol, size, said):
    before = content(vol, "vol")
    vol.udm("snapshot", "take", "vol=then")
    write_some(vol)
    vol.udm("resize", "--shrink", "vol", size)
    assert f"vol is what then was {said}" in vol.udm("snapshot", "merge", "then").stdout
    with Volume(vol, "vol") as client:
        assert client.size == int(size[:-1]) * MIB
        least = min(client.size, SIZE)
        assert client.read(0, least) == before[:least]


def test_a_merge_whose_store_was_cut_off_does_not_call_it_safe(daemon, tmp_path):
    (tmp_path / "disk.img").write_bytes(os.urandom(SIZE))
    daemon.udm("create", "below", str(tmp_path / "disk.img"))
    daemon.udm("create", "vol", "0", str(SIZE // 512), "linear", "udm:below", "0")
    daemon.udm("snapshot", "take", "vol=then", "--cow-dir", str(tmp_path))
    write_some(daemon, times=400)
    daemon.udmsetup("reload", "below", "--table", f"0 {SIZE // 512} delay {tmp_path}/disk.img 0 0 {tmp_path}/disk.img 0 500")
    daemon.udmsetup("resume", "below")
    merge = subprocess.Popen([program("udm"), "--socket", daemon.socket, "snapshot", "merge", "then"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: "snapshot-merge" in daemon.udmsetup("table", "vol").stdout, "the merge to begin")
        daemon.udmsetup("message", "vol", "0", "merge_pause")
        os.truncate(tmp_path / "then.cow", 16 << 10)
        _, said = merge.communicate(timeout=60)
    finally:
        merge.kill()
    assert merge.returncode == 1 and "then.cow was cut off from outside" in said and "is lost" in said and "safe" not in said, said
    assert "was cut off from outside" in daemon.udm("show", "vol").stdout


def test_verbs_of_others_and_volumes_in_a_snapshots_place_are_told(vol):
    assert "`udm snapshot merge`?" in refused(vol, "merge", "vol", code=2)
    for word, meant in (("rm", "remove"), ("list", "ls"), ("rollback", "snapshot merge")):
        assert f"`udm {meant}`?" in refused(vol, word, code=2)
    assert "take, drop, merge, list, diff" in refused(vol, "snapshot", code=2)
    vol.udm("snapshot", "take", "vol=a")
    vol.udm("snapshot", "take", "vol=b")
    said = refused(vol, "snapshot", "merge", "vol")
    assert "nothing to merge it into" in said and "a, b" in said
    said = refused(vol, "snapshot", "take", "vol=a")
    assert "a device a exists already" in said and "cannot be a store" not in said
    assert vol.udm("snapshot", "list", "--names", "a").stdout == "a\n"
    assert vol.udm("snapshot", "list", "--names", "vol").stdout == "a\nb\n"
    vol.udm("create", "other", "ram:o", "--size", "1M")
    assert vol.udm("snapshot", "list", "other").stdout == "other has no snapshots. `udm snapshot take other` takes one.\n"
    assert "no device nosuch" in refused(vol, "snapshot", "list", "nosuch")


def test_resize_says_what_keeps_its_size(vol):
    vol.udm("snapshot", "take", "--redirect", "vol=one")
    vol.udm("snapshot", "take", "--redirect", "vol=two")
    assert {one["state"] for one in json.loads(vol.udm("--json", "snapshot", "list").stdout)} == {"active"}
    for words in (["resize", "vol", "16M"], ["resize", "vol"]):
        said = refused(vol, *words)
        assert "vol is redirected" in said and "udm snapshot drop one two" in said
    vol.udm("snapshot", "drop", "one", "two")
    assert "8.0 MiB -> 16.0 MiB" in vol.udm("resize", "vol", "16M").stdout


# ---------------------------------------------------------------------------------------------- lost, full, and held
def test_an_invalid_snapshot_is_seen_everywhere_and_not_exported(vol, tmp_path):
    vol.udm("snapshot", "take", "vol=small", "--size", "64K")
    write_some(vol)
    for words in (["ls"], ["status"], ["show", "small"]):
        said = vol.udm(*words).stdout
        assert "small is invalid, the COW device is full" in said and "it is lost for good" in said and "udm snapshot drop small" in said, words
    said = refused(vol, "export", "small", f"nbd+unix:///small?socket={tmp_path}/s")
    assert "small is invalid" in said and "udm snapshot drop small" in said
    assert not (tmp_path / "s").exists()
    vol.udm("snapshot", "drop", "small")
    assert "small is invalid" not in vol.udm("status").stdout


def test_held_devices_say_what_to_do(vol, tmp_path):
    vol.udm("create", "memory", "ram:m", "--size", "1M")
    vol.udm("create", "other", str(tmp_path / "other.img"), "--size", "1M")
    vol.udm("snapshot", "take", "--transient", "vol=brief")
    vol.udm("snapshot", "take", "vol=lost")
    vol.stop()
    os.rename(tmp_path / "other.img", tmp_path / "away")
    os.unlink(tmp_path / "lost.cow")
    vol.start()
    told_of = vol.udm("status").stdout
    listed = vol.udm("ls").stdout
    for name, what in (("memory", "nothing brings that back: `udm remove memory`"), ("brief", "nothing brings that back: `udm snapshot drop brief`"),
                       ("lost", "nothing brings that back: `udm snapshot drop lost`"), ("other", "mend that, then `udmsetup resume other` tries again")):
        assert what in told_of and what in listed and what in vol.udm("show", name).stdout, name
    os.rename(tmp_path / "away", tmp_path / "other.img")
    vol.udmsetup("resume", "other")
    vol.udm("remove", "memory")
    vol.udm("snapshot", "drop", "brief", "lost")
    assert "held" not in vol.udm("ls").stdout and vol.udm("ls", "--names").stdout == "other\nvol\n"


def test_a_redirected_volume_that_is_held_goes_with_its_layer_and_leaves_its_store(vol, tmp_path):
    vol.udm("snapshot", "take", "--redirect", "vol=fs")
    vol.stop()
    os.rename(tmp_path / "fs.cow", tmp_path / "away")
    vol.start()
    os.rename(tmp_path / "away", tmp_path / "fs.cow")
    assert "udmsetup resume vol-live` tries again\n" in vol.udm("ls").stdout
    assert "keeps there what was written" in refused(vol, "snapshot", "drop", "vol-live")
    assert f"{tmp_path}/fs.cow, which stays" in vol.udm("remove", "--force", "vol").stderr
    wait_until(lambda: vol.udm("ls", "--names").stdout == "fs\n", "the layer to go")
    vol.udm("snapshot", "drop", "fs")
    assert (tmp_path / "fs.cow").exists()


def test_auto_extends_limit_is_told_once(vol, tmp_path):
    vol.udm("snapshot", "take", "vol=snap", "--size", "256K")
    vol.udm("set", "snap", "auto_extend=64K,512K")
    seen = events_of(vol)
    write_some(vol)
    wait_until(lambda: told(seen, "snap", "auto_extend has a MAX of 512 KiB"), "the event")
    assert sum("MAX of 512" in what for _, what in seen) == 1
    assert (tmp_path / "snap.cow").stat().st_size == 512 << 10


def test_percentages_are_the_same_everywhere(vol, tmp_path):
    vol.udm("snapshot", "take", "vol=snap")
    for seed in range(4):
        write_some(vol, seed=seed, times=37)
        found = {re.search(r"(\d+)%", vol.udm(*words).stdout).group(1)
                 for words in (["snapshot", "list"], ["show", "snap"], ["cow", "info", str(tmp_path / "snap.cow")])}
        assert len(found) == 1, found


def test_sizes_that_are_too_small_are_refused_in_words(vol):
    said = refused(vol, "snapshot", "take", "vol=s", "--size", "4K")
    assert "size 4096 is too small: a store with chunks of 4 KiB takes 16 KiB at least" in said
    assert "power of two from 4K to 1G" in refused(vol, "snapshot", "take", "vol=s", "--chunk", "5", code=2)


def test_messages_have_no_raw_words(vol, tmp_path):
    vol.udm("snapshot", "take", "vol=small", "--size", "64K")
    write_some(vol)
    assert not re.search(r"no_space|io_error|timed_out", vol.read_log() + vol.udm("show", "small").stdout)


# -------------------------------------------------------------------------------------------- others, paths and names
def test_an_image_that_another_daemon_has_is_told_as_that(vol, tmp_path):
    (tmp_path / "second").mkdir()
    with Daemon(tmp_path / "second") as second:
        for words in (["serve", str(tmp_path / "disk.img")], ["create", "mine", str(tmp_path / "disk.img")]):
            said = refused(second, *words)
            assert "in use by another process" in said and "another name" not in said and "--name" not in said, said


def test_take_tells_of_devices_that_write_past_the_volume(vol, tmp_path):
    vol.udm("create", "twin", str(tmp_path / "disk.img"))
    vol.udm("create", "looks", "--read-only", str(tmp_path / "disk.img"))
    done = vol.udm("snapshot", "take", "vol=snap")
    assert "twin can write what vol stands on" in done.stderr and "looks" not in done.stderr
    assert json.loads(vol.udm("--json", "snapshot", "take", "vol=again").stdout)[0]["beside"] == ["twin"]
    vol.udm("remove", "twin")
    assert vol.udm("snapshot", "take", "vol=third").stderr == ""


def test_names_may_have_an_equals_sign(vol, tmp_path):
    vol.udm("create", "a=b", str(tmp_path / "ab.img"), "--size", "1M")
    assert vol.udm("snapshot", "take", "a=b=c=d").stdout.startswith("c=d is a=b as of now")
    assert vol.udm("snapshot", "take", "a=b").stdout.startswith("a=b-20")
    assert vol.udm("snapshot", "take", "vol=x=y").stdout.startswith("x=y is vol as of now")
    assert vol.udm("set", "c=d", "thresholds=50").stdout == "thresholds=50\n"
    assert "no device nosuch" in refused(vol, "snapshot", "take", "nosuch=a")


def test_relative_paths_are_the_callers_in_every_table(vol, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in ("a", "b", "c", "d", "log"):
        with open(name, "wb") as file:
            file.truncate(MIB)
    vol.udm("create", "m", "0", "2048", "mirror", "disk", "2", "log", "64", "2", "a", "0", "b", "0", "1", "handle_errors")
    vol.udmsetup("create", "core", "--table", "0 2048 mirror core 2 64 nosync 2 c 0 d 0")
    folder = tmp_path / "here"
    assert vol.udmsetup("table", "m").stdout == f"0 2048 mirror disk 2 {folder}/log 64 2 {folder}/a 0 {folder}/b 0 1 handle_errors\n"
    assert f"{folder}/c 0 {folder}/d 0" in vol.udmsetup("table", "core").stdout
    vol.udm("remove", "m", "core")


def test_a_new_device_does_not_inherit_the_snapshots_of_one_that_is_gone(vol, tmp_path):
    vol.udm("snapshot", "take", "vol=snap")
    vol.udm("remove", "--force", "vol")
    vol.udm("create", "new", "ram:n", "--size", "1M")
    assert "new has no snapshots" in vol.udm("snapshot", "list", "new").stdout
    assert json.loads(vol.udm("--json", "snapshot", "list").stdout)[0]["origin"] == str(tmp_path / "disk.img")
    vol.udm("remove", "new")


# ------------------------------------------------------------------------------------------- docs/broken-stores.md
def recipe_of_the_manual(tmp_path):
    with open(f"{ROOT}/docs/broken-stores.md", encoding="utf-8") as manual:
        return re.search(r"```sh\n(.*?)```", manual.read(), re.S).group(1)


def test_a_redirected_volume_whose_store_is_lost_goes_on_from_its_still_image(vol, tmp_path):
    for name in ("first", "still"):
        vol.udm("snapshot", "take", "--redirect", f"vol={name}")
        before = content(vol, name)
        write_some(vol)
    os.truncate(tmp_path / "still.cow", 8 << 10)
    wait_until(lambda: "vol is invalid" in vol.udm("status").stdout, "the loss to be seen")
    assert "still is whole, as of 20" in vol.udm("ls").stdout
    assert "all that is left: keep it" in refused(vol, "snapshot", "drop", "still")
    subprocess.run(["bash", "-euc", recipe_of_the_manual(tmp_path)], cwd=tmp_path, check=True,
                   env={**os.environ, "UDM_SOCKET": vol.socket, "PATH": os.path.dirname(program("udm")) + ":" + os.environ["PATH"]})
    assert content(vol, "vol") == before
    now = write_some(vol)
    vol.stop()
    vol.start()
    assert content(vol, "vol") == now and content(vol, "still") == before


def test_files_that_were_only_away_at_a_restart_come_back_with_resume(vol, tmp_path):
    vol.udm("create", "two", str(tmp_path / "two.img"), "--size", "8M")
    vol.udm("snapshot", "take", "vol=snap")
    write_some(vol)
    vol.udm("snapshot", "take", "--redirect", "two=still")
    now, old, latest = content(vol, "vol"), content(vol, "snap"), write_some(vol, name="two")
    vol.stop()
    for name in ("disk.img", "still.cow"):
        os.rename(tmp_path / name, tmp_path / f"{name}-away")
    vol.start()
    assert {"vol", "snap", "two", "two-live"} <= set(re.findall(r"^(\S+) is held", vol.udm("ls").stdout, re.M))
    for name in ("disk.img", "still.cow"):
        os.rename(tmp_path / f"{name}-away", tmp_path / name)
    assert "it stands on two-live, which is held; it comes up with that one" in vol.udm("show", "two").stdout
    for name in ("vol", "two"):
        vol.udmsetup("resume", name)
    assert (content(vol, "vol"), content(vol, "snap"), content(vol, "two")) == (now, old, latest)


def test_the_manuals_example_of_an_error_is_what_udmsetup_prints(daemon):
    with open(f"{ROOT}/docs/udmsetup.md", encoding="utf-8") as manual:
        command, *lines = [line[6:].rstrip("\n") for line in manual if line.startswith("      ")][:4]
    assert command == "# udmsetup create v --table '0 8192 linear /dev/none 0'"
    done = daemon.udmsetup("create", "v", "--table", "0 8192 linear /dev/none 0", check=False)
    assert done.stderr.splitlines() == lines


def test_advice_names_what_it_is_about_and_options_there_are(vol, tmp_path):
    vol.udm("snapshot", "take", "vol=snap")
    vol.export("snap")
    assert "`udm unexport snap` ends its exports" in refused(vol, "snapshot", "drop", "snap")
    for verb in ("create", "serve"):
        said = refused(vol, *(["create", "twin"] if verb == "create" else ["serve"]), str(tmp_path / "disk.img"))
        assert "--force" in said and "--force" in vol.udm("help", verb).stdout
    assert "`udm show NAME`" in refused(vol, "unexport", "vol", "nbd://localhost/none")
