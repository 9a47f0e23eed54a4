"""udm as people use it: against a real daemon, with what it prints."""

import errno
import json
import os
import pty
import signal
import subprocess
import time

import pytest

from udmtest import Daemon, program, wait_until

MIB = 1 << 20


@pytest.fixture
def daemon(tmp_path):
    with Daemon(tmp_path, state_dir=True) as running:
        yield running


def image(folder, name="disk.img", size=8 * MIB):
    path = os.path.join(str(folder), name)
    with open(path, "wb") as file:
        file.write(os.urandom(MIB))
        file.truncate(size)
    return path


def qemu_io(uri, *commands, read_only=False):
    words = ["-r"] * read_only + [w for c in commands for w in ("-c", c)]
    done = subprocess.run(["qemu-io", "-f", "raw", *words, uri], text=True, capture_output=True, timeout=60)
    assert done.returncode == 0 and "failed" not in done.stdout, done.stdout + done.stderr


def test_without_a_daemon_it_says_how_to_start_one(tmp_path):
    done = subprocess.run([program("udm"), "--socket", str(tmp_path / "none.sock"), "ls"], text=True, capture_output=True)
    assert done.returncode == 1
    assert "start one with: udmd" in done.stderr and "none.sock" in done.stderr and "--socket another path?" in done.stderr
    done = subprocess.run([program("udm"), "ls"], text=True, capture_output=True, env={**os.environ, "UDM_SOCKET": str(tmp_path / "none.sock")})
    assert done.returncode == 1 and "udm serve" in done.stderr, "which would not use the daemon that --socket asks for"


def test_wrong_words_end_with_2_and_say_what_is_right(daemon):
    for words in (["nonsense"], ["create"], ["snapshot"], ["top", "--interval", "soon"]):
        done = daemon.udm(*words, check=False)
        assert done.returncode == 2, words
        assert done.stderr.strip(), words
    assert "no command 'nonsense'" in daemon.udm("nonsense", check=False).stderr
    assert "no command 'taek'" in daemon.udm("snapshot", "taek", check=False).stderr


def test_create_show_list_remove(daemon, tmp_path):
    path = image(tmp_path)
    assert "8.0 MiB" in daemon.udm("create", "disk", path).stdout
    assert "disk" in daemon.udm("ls").stdout and "linear" in daemon.udm("ls").stdout
    shown = json.loads(daemon.udm("--json", "show", "disk").stdout)
    assert shown["size"] == 8 * MIB // 512 and shown["table"][0]["text"] == f"{path} 0"
    again = daemon.udm("create", "disk", path, check=False)
    assert again.returncode == 1 and "udm:" in again.stderr
    assert "removed" in daemon.udm("remove", "disk").stdout
    assert "No devices" in daemon.udm("ls").stdout
    gone = daemon.udm("show", "disk", check=False)
    assert gone.returncode == 1 and "udm ls" in gone.stderr


def test_create_makes_a_sparse_file_when_it_is_told_a_size(daemon, tmp_path):
    path = str(tmp_path / "new.img")
    refused = daemon.udm("create", "new", path, check=False)
    assert refused.returncode == 1 and "--size" in refused.stderr
    daemon.udm("create", "new", path, "--size", "16M")
    assert os.stat(path).st_size == 16 * MIB and os.stat(path).st_blocks == 0
    bad = daemon.udm("create", "other", path + "2", "--size", "16Q", check=False)
    assert bad.returncode == 2 and "16Q" in bad.stderr
    assert not os.path.exists(path + "2")


def test_create_takes_a_table_with_paths_of_the_caller(daemon, tmp_path):
    image(tmp_path, "a disk.img")
    os.mkdir(tmp_path / "inner")

    def create(*words, input=None):
        return subprocess.run([program("udm"), "create", *words], cwd=tmp_path / "inner", text=True, capture_output=True, input=input,
                              env={**os.environ, "UDM_SOCKET": daemon.socket})

    assert create("one", "0", "8", "linear", "../a\\ disk.img", "0").returncode == 0
    assert daemon.table("one") == f"0 8 linear {tmp_path}/a\\ disk.img 0"
    assert create("two", "--table", "-", input="0 8 zero\n# comment\n8 8 error\n").returncode == 0
    assert daemon.table("two") == "0 8 zero \n8 8 error "
    bad = create("three", "--table", "0 8")
    assert bad.returncode == 2 and "line 1" in bad.stderr
    refused = create("three", "0", "8", "linear", "../none.img", "0")
    assert refused.returncode == 1 and f"{tmp_path}/none.img" in refused.stderr
    assert "three" not in daemon.udm("ls", "--names").stdout.split()


def test_errors_are_data_with_json(daemon):
    done = daemon.udm("--json", "show", "nosuch", check=False)
    error = json.loads(done.stdout)["error"]
    assert done.returncode == 1 and error["errno"] == errno.ENXIO and "nosuch" in error["message"] and "udm ls" in error["advice"]
    done = daemon.udm("--json", "create", "x", check=False)
    assert done.returncode == 2 and json.loads(done.stdout)["error"]["message"]


def test_show_says_who_uses_a_device(daemon, tmp_path):
    daemon.udm("create", "base", image(tmp_path))
    daemon.udm("create", "upper", "0", "8", "linear", "udm:base", "0")
    assert "used by  upper" in daemon.udm("show", "base").stdout
    assert json.loads(daemon.udm("--json", "show", "base").stdout)["users"] == ["upper"]
    assert "1 table" in daemon.udm("ls").stdout
    refused = daemon.udm("remove", "base", check=False)
    assert refused.returncode == 1 and "used by upper" in refused.stderr and "remove upper first" in refused.stderr


def test_status_tells_of_the_daemon(daemon, tmp_path):
    said = daemon.udm("status").stdout
    assert f"process {daemon.process.pid}" in said and f"state kept in {tmp_path}/state" in said
    assert json.loads(daemon.udm("--json", "status").stdout)["pid"] == daemon.process.pid


def test_an_exported_device_is_not_removed_before_its_export(daemon, tmp_path):
    daemon.udm("create", "disk", image(tmp_path))
    uri = daemon.udm("export", "disk", f"nbd+unix:///disk?socket={tmp_path}/n.sock").stdout.strip()
    assert uri.startswith("nbd+unix:///disk?socket=")
    refused = daemon.udm("remove", "disk", check=False)
    assert refused.returncode == 1 and "unexport" in refused.stderr
    daemon.udm("unexport", "disk")
    daemon.udm("remove", "disk")


def test_resize_grows_the_file_and_refuses_to_cut_off_unasked(daemon, tmp_path):
    path = image(tmp_path)
    daemon.udm("create", "disk", path)
    assert "16.0 MiB" in daemon.udm("resize", "disk", "16M").stdout
    assert os.stat(path).st_size == 16 * MIB
    refused = daemon.udm("resize", "disk", "4M", check=False)
    assert refused.returncode == 1 and "--shrink" in refused.stderr
    daemon.udm("resize", "disk", "4M", "--shrink")
    assert json.loads(daemon.udm("--json", "show", "disk").stdout)["size"] == 4 * MIB // 512


def test_resize_takes_the_size_the_file_has_got(daemon, tmp_path):
    path = image(tmp_path)
    daemon.udm("create", "disk", "0", "8192", "linear", path, "2048")
    os.truncate(path, 32 * MIB)
    daemon.udm("resize", "disk")
    assert json.loads(daemon.udm("--json", "show", "disk").stdout)["size"] == 32 * MIB // 512 - 2048


def test_resize_of_a_stacked_device_names_the_one_below(daemon, tmp_path):
    daemon.udm("create", "base", image(tmp_path))
    daemon.udm("create", "upper", "0", "16384", "linear", "udm:base", "0")
    refused = daemon.udm("resize", "upper", "16M", check=False)
    assert refused.returncode == 1 and "udm resize base" in refused.stderr
    daemon.udm("resize", "base", "16M")
    daemon.udm("resize", "upper", "16M")
    refused = daemon.udm("create", "odd", "--table", "0 8 zero", check=True)
    refused = daemon.udm("resize", "odd", "1M", check=False)
    assert refused.returncode == 1 and "udmsetup load" in refused.stderr


def test_a_volume_with_snapshots_is_not_removed_by_the_way(daemon, tmp_path):
    daemon.udm("create", "vol", image(tmp_path))
    daemon.udm("snapshot", "take", "vol=kept")
    refused = daemon.udm("remove", "vol", check=False)
    assert refused.returncode == 1 and "kept" in refused.stderr and "snapshot drop" in refused.stderr
    assert daemon.udm("snapshot", "list", "--names").stdout == "kept\n"
    daemon.udm("snapshot", "drop", "kept")
    daemon.udm("remove", "vol")


def test_the_socket_of_an_export_may_be_a_relative_path(daemon, tmp_path):
    daemon.udm("create", "disk", image(tmp_path))
    folder = tmp_path / "a folder"
    os.mkdir(folder)
    done = subprocess.run([program("udm"), "export", "disk", "nbd+unix:///disk?socket=n.sock"], cwd=folder, text=True, capture_output=True,
                          env={**os.environ, "UDM_SOCKET": daemon.socket})
    assert done.returncode == 0, done.stderr
    assert os.path.exists(folder / "n.sock")
    assert int(subprocess.run(["nbdinfo", "--size", done.stdout.strip()], text=True, capture_output=True, check=True).stdout) == 8 * MIB


def test_snapshots_are_taken_listed_and_dropped(daemon, tmp_path):
    path = image(tmp_path)
    daemon.udm("create", "vol", path)
    uri = daemon.udm("export", "vol", f"nbd+unix:///vol?socket={tmp_path}/n.sock").stdout.strip()
    qemu_io(uri, "write -P 1 0 1M")
    said = daemon.udm("snapshot", "take", "vol=before", "--chunk", "16K", "--size", "50%").stdout
    assert "before" in said and "rash-consistent" in said and "16.0 KiB" in said
    qemu_io(uri, "write -P 2 0 1M")
    before = daemon.udm("export", "before", f"nbd+unix:///before?socket={tmp_path}/s.sock").stdout.strip()
    qemu_io(before, "read -P 1 0 1M")
    qemu_io(uri, "read -P 2 0 1M")
    listed = json.loads(daemon.udm("--json", "snapshot", "list").stdout)
    assert [s["snapshot"] for s in listed] == ["before"] and listed[0]["chunk"] == 16384
    cow = listed[0]["cow"]
    assert os.path.exists(cow)
    daemon.udm("unexport", "before")
    daemon.udm("snapshot", "drop", "before")
    assert not os.path.exists(cow)
    named = json.loads(daemon.udm("--json", "snapshot", "take", "vol").stdout)[0]["snapshot"]
    assert named.startswith("vol-2") and named.endswith("Z")


def test_two_volumes_are_taken_at_the_same_instant_or_not_at_all(daemon, tmp_path):
    for name in ("a", "b"):
        daemon.udm("create", name, image(tmp_path, name + ".img"))
    taken = json.loads(daemon.udm("--json", "snapshot", "take", "a=a1", "b=b1").stdout)
    assert [t["snapshot"] for t in taken] == ["a1", "b1"]
    refused = daemon.udm("snapshot", "take", "a=a2", "none=n2", check=False)
    assert refused.returncode == 1 and "none" in refused.stderr
    assert "a2" not in daemon.udm("ls").stdout


def test_a_redirected_volume_keeps_its_image_still(daemon, tmp_path):
    path = image(tmp_path)
    daemon.udm("create", "vol", path)
    uri = daemon.udm("export", "vol", f"nbd+unix:///vol?socket={tmp_path}/n.sock").stdout.strip()
    qemu_io(uri, "write -P 1 0 1M", "flush")
    said = daemon.udm("snapshot", "take", "vol=still", "--redirect").stdout
    assert "base" in said
    with open(path, "rb") as file:
        before = file.read()
    qemu_io(uri, "write -P 2 0 1M", "flush")
    with open(path, "rb") as file:
        assert file.read() == before
    qemu_io(uri, "read -P 2 0 1M")
    still = daemon.udm("export", "still", f"nbd+unix:///still?socket={tmp_path}/s.sock").stdout.strip()
    qemu_io(still, "read -P 1 0 1M", read_only=True)


def test_top_and_events(daemon, tmp_path):
    daemon.udm("create", "disk", image(tmp_path))
    assert "READS/S" in daemon.udm("top", "--once", "--interval", "0.1").stdout
    rates = json.loads(daemon.udm("--json", "top", "--once", "--interval", "0.1").stdout)
    assert rates[0]["device"] == "disk" and rates[0]["reads_per_s"] == 0
    follower = subprocess.Popen([program("udm"), "--json", "events", "--follow"], stdout=subprocess.PIPE, text=True,
                                env={**os.environ, "UDM_SOCKET": daemon.socket})
    try:
        seen = None
        deadline = time.monotonic() + 20
        while seen is None and time.monotonic() < deadline:    # until the follower has subscribed
            daemon.udm("create", "other", "ram:x", "--size", "1M")
            daemon.udm("remove", "other")
            os.set_blocking(follower.stdout.fileno(), False)
            for line in iter(follower.stdout.readline, ""):
                event = json.loads(line)
                if event["device"] == "other" and event["kind"] == "removed":
                    seen = event
        assert seen, "no event came"
        follower.send_signal(signal.SIGINT)
        assert follower.wait(10) == 0
    finally:
        if follower.poll() is None:
            follower.kill()
            follower.wait()


def test_top_into_a_pipe_prints_a_line_a_device_and_sample(daemon, tmp_path):
    daemon.udm("create", "disk", image(tmp_path))
    watching = subprocess.Popen([program("udm"), "top", "--interval", "0.05"], stdout=subprocess.PIPE, text=True,
                                env={**os.environ, "UDM_SOCKET": daemon.socket})
    try:
        assert watching.stdout.readline().split()[:2] == ["TIME", "DEVICE"]
        for _ in range(3):
            assert watching.stdout.readline().split()[1] == "disk"
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == 0
    finally:
        watching.kill()
        watching.wait()


def test_top_on_a_terminal_refreshes_a_screen_until_q(daemon, tmp_path):
    daemon.udm("create", "disk", image(tmp_path))
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["UDM_SOCKET"] = daemon.socket
        os.execv(program("udm"), ["udm", "top", "--interval", "0.05"])
    shown = b""
    try:
        while shown.count(b"udm top") < 3:
            shown += os.read(terminal, 4096)
        assert b"disk" in shown and shown.startswith(b"\x1b[?1049h")
        os.write(terminal, b"q")
        try:
            while True:
                piece = os.read(terminal, 4096)
                shown += piece
                if not piece:
                    break
        except OSError:  # the terminal went with its program
            pass
        assert shown.endswith(b"\x1b[?1049l")
    finally:
        os.close(terminal)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_events_want_to_be_followed(daemon):
    done = daemon.udm("events", check=False)
    assert done.returncode == 2 and "--follow" in done.stderr


def serve(arguments, environment):
    return subprocess.Popen([program("udm"), "serve", *arguments], stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})


def test_serve_starts_a_daemon_of_its_own_and_takes_it_away(tmp_path):
    path = image(tmp_path)
    serving = serve([path], {"UDM_SOCKET": "", "XDG_RUNTIME_DIR": str(tmp_path / "nothing"), "TMPDIR": str(tmp_path)})
    try:
        uri = serving.stdout.readline().strip()
        assert uri.startswith("nbd+unix:///disk?socket=")
        assert int(subprocess.run(["nbdinfo", "--size", uri], text=True, capture_output=True, check=True).stdout) == 8 * MIB
        serving.send_signal(signal.SIGINT)
        assert serving.wait(20) == 0
        assert not [f for f in os.listdir(tmp_path) if f.startswith("udm-serve-")]
    finally:
        if serving.poll() is None:
            serving.kill()
            serving.wait()


def test_serve_uses_the_running_daemon(daemon, tmp_path):
    path = image(tmp_path, "my disk.img")
    serving = serve([path, "--read-only", "--name", "served"], {"UDM_SOCKET": daemon.socket})
    try:
        uri = serving.stdout.readline().strip()
        assert "served" in daemon.udm("ls").stdout
        told = json.loads(subprocess.run(["nbdinfo", "--json", uri], text=True, capture_output=True, check=True).stdout)
        assert told["exports"][0]["is_read_only"] is True
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(20) == 0
        wait_until(lambda: "No devices" in daemon.udm("ls").stdout, "the device to go")
    finally:
        if serving.poll() is None:
            serving.kill()
            serving.wait()


def test_serve_says_what_is_wrong_and_leaves_nothing(daemon, tmp_path):
    missing = daemon.udm("serve", str(tmp_path / "none.img"), check=False)
    assert missing.returncode == 1 and "does not exist" in missing.stderr
    path = image(tmp_path)
    daemon.udm("create", "disk", path)
    taken = daemon.udm("serve", path, check=False)
    assert taken.returncode == 1 and "--name" in taken.stderr
    nowhere = daemon.udm("serve", path, "--name", "other", "--uri", "nbd+unix:///x?socket=/nosuch/n.sock", check=False)
    assert nowhere.returncode == 1 and "/nosuch" in nowhere.stderr
    assert "stays" not in nowhere.stderr, "nothing does"
    assert daemon.udm("ls", "--names").stdout == "disk\n"


def test_serve_ends_when_the_daemon_does(tmp_path):
    with Daemon(tmp_path) as running:
        serving = serve([image(tmp_path)], {"UDM_SOCKET": running.socket})
        try:
            assert serving.stdout.readline()
            running.stop()
            assert serving.wait(20) == 1
        finally:
            serving.kill()
            serving.wait()


def test_a_private_daemon_does_not_outlive_a_killed_serve(tmp_path):
    serving = serve([image(tmp_path)], {"UDM_SOCKET": "", "XDG_RUNTIME_DIR": str(tmp_path / "nothing"), "TMPDIR": str(tmp_path)})
    try:
        socket = serving.stdout.readline().strip().split("socket=")[1]
        control = os.path.join(os.path.dirname(socket), "control.sock")
        assert os.path.exists(control)
    finally:
        serving.kill()
        serving.wait()
    wait_until(lambda: not os.path.exists(control), "the private daemon to end")


def test_set_shows_and_refuses_by_name(daemon):
    daemon.udm("create", "disk", "ram:x", "--size", "1M")
    assert "no settings" in daemon.udm("set", "disk").stdout
    bad = daemon.udm("set", "disk", "nonsense", check=False)
    assert bad.returncode == 2 and "KEY=VALUE" in bad.stderr
    unknown = daemon.udm("set", "disk", "nonsense=1", check=False)
    assert unknown.returncode == 1 and "nonsense" in unknown.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(daemon, shell):
    script = daemon.udm("completion", shell).stdout
    for word in ("serve", "snapshot", "take", "redirect", "unexport"):
        assert word in script
    if shell == "bash":
        daemon.udm("create", "disk", "ram:x", "--size", "1M")

        def offers(*words):
            asked = f"source /dev/stdin; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _udm; echo ${{COMPREPLY[@]}}"
            done = subprocess.run(["bash", "-c", asked], input=script, text=True, capture_output=True,
                                  env={**os.environ, "UDM_SOCKET": daemon.socket, "PATH": f"{os.path.dirname(program('udm'))}:{os.environ['PATH']}"})
            return done.stdout.strip()

        assert offers("udm", "snapshot", "ta") == "take"
        assert offers("udm", "sna") == "snapshot"
        assert offers("udm", "show", "di") == "disk"
        assert offers("udm", "snapshot", "take", "--red") == "--redirect"
        assert offers("udm", "show", "''") == offers("udm", "set", "''") == offers("udm", "snapshot", "list", "''") == "disk", "options when asked for"
        assert offers("udm", "help", "snapshot", "m") == "merge"
        assert offers("udm", "completion", "z") == "zsh"
        assert "--json" in offers("udm", "show", "--")


def test_a_store_has_one_owner_also_when_the_second_lives_on_another_reactor(tmp_path):
    for name in ("base0", "base1", "cow"):
        (tmp_path / name).write_bytes(b"")
        os.truncate(tmp_path / name, 4 << 20)
    with Daemon(tmp_path, arguments=["--reactors", "2"]) as daemon:
        for n in (0, 1):
            daemon.udmsetup("create", f"o{n}", "--table", f"0 8192 snapshot-origin {tmp_path}/base{n}")
        daemon.udmsetup("create", "s0", "--table", f"0 8192 snapshot {tmp_path}/base0 {tmp_path}/cow P 8")
        second = daemon.udmsetup("create", "s1", "--table", f"0 8192 snapshot {tmp_path}/base1 {tmp_path}/cow P 8", check=False)
        assert second.returncode != 0
        assert "Snapshot cow pairing for exception table handover failed" in second.stderr
        assert "Invalid" not in daemon.status("s0")
