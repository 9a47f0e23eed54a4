"""What somebody meets who is new to udm: what it tells when something is wrong, and what it refuses before it is."""

import json
import os
import threading

import pytest

from snapstack import MIB, Writer
from udmtest import Daemon, wait_until
from volume import Volume

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


def write_some(daemon, name="vol", seed=1, times=100):
    with Volume(daemon, name) as volume:
        writer = Writer(volume, seed)
        writer.write(times)
        volume.flush()
        return bytes(writer.content)


def content(daemon, name):
    with Volume(daemon, name) as volume:
        return volume.read(0, SIZE)


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
