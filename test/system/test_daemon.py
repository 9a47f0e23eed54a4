"""udmd as a process: its life, its socket, who may ask, what it keeps, and what it costs to do nothing."""

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

import nbd
import pytest

import udmtest
from udmtest import RpcError
from volume import Volume, connect, image


def refused(what, name):
    with pytest.raises(RpcError) as caught:
        what()
    assert caught.value.data.get("name") == name, caught.value
    return caught.value


# ------------------------------------------------------------------------------------------------- life
def test_create_suspend_resume_rename_remove(daemon, folder):
    made = daemon.create("vol", f"0 2048 linear {image(folder)} 0")
    assert made["state"] == "active" and made["size"] == 2048 and made["minor"] == 0
    assert daemon.rpc("device.suspend", device="vol")["state"] == "suspended"
    assert daemon.rpc("device.resume", device="vol")["state"] == "active"
    assert daemon.rpc("device.rename", device="vol", new_name="new")["event_number"] == 1
    assert [d["name"] for d in daemon.rpc("device.list")] == ["new"]
    assert daemon.rpc("device.info", device={"major": 253, "minor": 0})["name"] == "new"
    assert daemon.rpc("device.remove", device="new") == {"deferred": False}
    refused(lambda: daemon.rpc("device.info", device="new"), "ENXIO")


def test_what_it_says_of_itself(daemon):
    version = daemon.rpc("version")
    assert version["driver"] == [4, 47, 0] and version["library"].startswith("1.02.185")
    assert {"linear", "zero", "error", "snapshot", "snapshot-origin"} <= {t["name"] for t in daemon.rpc("target.list")}
    status = daemon.rpc("daemon.status")
    assert status["pid"] == daemon.process.pid and status["devices"] == 0 and status["state_dir"] is None
    said = subprocess.run([udmtest.program("udmd"), "--version"], capture_output=True, text=True, check=True).stdout
    assert said.strip() == f"udmd {version['udm']}"


def test_it_stops_in_order_when_asked_to(folder):
    with udmtest.Daemon(folder, state_dir=True, arguments=["--pid-file", f"{folder}/pid"]) as daemon:
        daemon.create("vol", f"0 2048 linear {image(folder)} 0")
        handle = connect(daemon.export("vol"))
        handle.pwrite(b"A" * 512, 0)
        with open(f"{folder}/pid", encoding="ascii") as file:
            assert int(file.read()) == daemon.process.pid
        assert daemon.rpc("daemon.stop") == {}
        assert daemon.process.wait(30) == 0
    assert not os.path.exists(daemon.socket) and not os.path.exists(f"{folder}/pid")
    with open(f"{folder}/image", "rb") as file:
        assert file.read(1) == b"A"


def test_a_second_signal_does_not_wait(folder):
    daemon = udmtest.Daemon(folder).start()
    try:
        # A request that takes a minute keeps the first from ending.
        daemon.create("slow", f"0 2048 delay {image(folder)} 0 60000")
        handle = connect(daemon.export("slow"))
        buffer = nbd.Buffer(512)
        handle.aio_pread(buffer, 0)
        handle.aio_peek_command_completed()
        udmtest.wait_until(lambda: daemon.rpc("device.counters", device="slow")[0]["in_flight"], "the slow request to be there")
        daemon.process.send_signal(signal.SIGTERM)
        udmtest.wait_until(lambda: "stopping" in daemon.read_log(), "the daemon to begin to stop")
        assert daemon.process.poll() is None
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(10) == 1
    finally:
        daemon.process.kill()
        daemon.process.wait()


def test_it_tells_systemd_when_it_is_ready_and_when_it_stops(folder):
    path = f"{folder}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(path)
        notify.settimeout(30)
        with udmtest.Daemon(folder, environment={"NOTIFY_SOCKET": path}) as daemon:
            said = notify.recv(4096).decode()
            assert "READY=1" in said and "STATUS=0 devices, 0 exports" in said
            daemon.stop()
            assert "STOPPING=1" in notify.recv(4096).decode()


def test_background_returns_when_the_daemon_serves(folder):
    sock, pid = f"{folder}/s", f"{folder}/pid"
    command = [udmtest.program("udmd"), "--background", "--socket", sock, "--pid-file", pid, "--log-file", f"{folder}/log"]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    with open(pid, encoding="ascii") as file:
        process = int(file.read())
    try:
        with udmtest.Connection(sock) as connection:
            assert connection.rpc("version")["pid"] == process
        again = subprocess.run(command, timeout=60, capture_output=True, text=True, check=False)
        assert again.returncode == 1 and "another udmd answers" in again.stderr
    finally:
        os.kill(process, signal.SIGTERM)
        udmtest.wait_until(lambda: not os.path.exists(pid), "the daemon to end")


@pytest.mark.parametrize("arguments, words", [
    (["--socket", "/nonexistent/folder/s"], "does its folder exist"),
    (["--socket", "{folder}/plain"], "is no socket"),
    (["--socket", "{folder}/s", "--state-dir", "{folder}/plain"], "state directory"),
    (["--socket", "{folder}/s", "--state-dir", "{folder}/state"], "in use by another udmd"),
    (["--socket", "{folder}/control.sock"], "another udmd answers"),
    (["--engine", "magic"], "magic"),
    (["--reactors", "0"], "reactors"),
    (["--group", "no-such-group"], "no-such-group"),
    (["--nonsense"], "nonsense"),
])
def test_what_cannot_be_is_said_at_the_start(folder, arguments, words):
    with open(f"{folder}/plain", "w", encoding="ascii") as file:
        file.write("x")
    with udmtest.Daemon(folder, state_dir=True):
        done = subprocess.run([udmtest.program("udmd"), *[a.format(folder=folder) for a in arguments]],
                              capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode in (1, 2) and words in done.stderr + done.stdout


@pytest.mark.parametrize("engine", ["uring", "threads"])
def test_both_engines_serve(folder, engine):
    with udmtest.Daemon(folder, arguments=["--engine", engine, "--reactors", "1"]) as daemon:
        if daemon.rpc("version")["engine"] != engine:
            pytest.skip(f"{engine} is not to be had here")
        daemon.create("vol", f"0 2048 linear {image(folder)} 0")
        handle = connect(daemon.export("vol"))
        handle.pwrite(b"A" * 512, 512)
        assert handle.pread(512, 512) == b"A" * 512


# ---------------------------------------------------------------------------------------------- restart
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_devices_exports_and_data_come_back(folder, how):
    with udmtest.Daemon(folder, state_dir=True) as daemon:
        daemon.create("low", f"0 2048 linear {image(folder)} 0")
        daemon.rpc("device.create", name="high", uuid="U-1", table="0 1024 linear udm:low 1024")
        uri = daemon.export("high")
        port = daemon.rpc("export.add", device="low", uri="nbd://localhost:0/")["uri"]
        handle = connect(uri)
        handle.pwrite(b"A" * 512, 0)
        handle.flush()
        before = daemon.rpc("device.list"), daemon.rpc("export.list")
        getattr(daemon, how)()
        daemon.start()
        after = daemon.rpc("device.list"), daemon.rpc("export.list")
        assert [d["name"] for d in after[0]] == ["high", "low"]
        assert [{**d, "home": 0, "event_number": 0} for d in before[0]] == [{**d, "home": 0, "event_number": 0} for d in after[0]]
        assert [{**e, "connections": 0} for e in before[1]] == [{**e, "connections": 0} for e in after[1]]
        assert connect(uri).pread(512, 0) == b"A" * 512
        assert connect(port).pread(512, 1024 * 512) == b"A" * 512
        assert daemon.rpc("daemon.status")["warnings"] == daemon_warnings_of_the_machine(daemon)


def daemon_warnings_of_the_machine(daemon):
    """Those about limits of the system, which every daemon here has."""
    return [w for w in daemon.rpc("daemon.status")["warnings"] if "ulimit" in w or "memlock" in w.lower() or "ring" in w]


def test_without_a_state_directory_nothing_comes_back(folder):
    with udmtest.Daemon(folder) as daemon:
        daemon.create("vol", "0 8 zero")
        daemon.kill()
        daemon.start()
        assert daemon.rpc("device.list") == []


def test_a_damaged_state_is_kept_aside_and_told(folder):
    with udmtest.Daemon(folder, state_dir=True) as daemon:
        daemon.create("vol", "0 8 zero")
        daemon.stop()
        path = f"{folder}/state/state.log"
        with open(path, "r+b") as file:
            file.seek(-20, os.SEEK_END)
            byte = file.read(1)
            file.seek(-20, os.SEEK_END)
            file.write(bytes([byte[0] ^ 1]))
        daemon.start()
        assert daemon.rpc("device.list") == []
        assert any("damaged" in w for w in daemon.rpc("daemon.status")["warnings"])
        assert any(n.startswith("state.log.damaged-") for n in os.listdir(f"{folder}/state"))
        assert "damaged" in daemon.read_log()


def test_an_export_whose_address_is_taken_is_told_and_tried_again(folder):
    with udmtest.Daemon(folder, state_dir=True) as daemon:
        daemon.create("vol", "0 2048 zero")
        uri = daemon.rpc("export.add", device="vol", uri="nbd://localhost:0/x")["uri"]
        number = int(uri.split(":")[2].split("/")[0])
        daemon.stop()
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", number))
            other.listen()
            daemon.start()
            assert daemon.rpc("export.list") == []
            assert any(uri in w for w in daemon.rpc("daemon.status")["warnings"])
        daemon.rpc("device.suspend", device="vol")
        daemon.rpc("device.resume", device="vol")
        assert [e["uri"] for e in daemon.rpc("export.list")] == [uri]


# ------------------------------------------------------------------------------------------------ events
def test_waits_and_notifications(daemon):
    daemon.create("vol", "0 8 zero")
    with daemon.connect() as waiting, daemon.connect() as listening:
        assert listening.rpc("events.subscribe") == {}
        answers = []
        thread = threading.Thread(target=lambda: answers.append(
            waiting.rpc("device.wait", device={"major": 253, "minor": 0}, event_number=0)))
        thread.start()
        daemon.rpc("device.rename", device="vol", new_name="new")
        thread.join(30)
        assert answers[0]["event_number"] == 1 and answers[0]["name"] == "new"
        kinds = [listening.read()["params"]["kind"] for _ in range(2)]
        assert "renamed" in kinds
        refused(lambda: daemon.rpc("device.wait", device="new", event_number=1, timeout_ms=10), "ETIMEDOUT")
        thread = threading.Thread(target=lambda: answers.append(refused(
            lambda: waiting.rpc("device.wait", device="new", event_number=1), "ENXIO")))
        thread.start()
        daemon.rpc("device.remove", device="new")
        thread.join(30)
        assert len(answers) == 2


def test_a_slow_load_does_not_stop_others(daemon, folder):
    # A load that reads through a device that answers after a second.
    daemon.create("slow", f"0 2048 delay {image(folder, 'cow')} 0 1000")
    daemon.create("fast", "0 8 zero")
    base = image(folder, "base")
    with daemon.connect() as other:
        thread = threading.Thread(target=lambda: other.rpc("device.create", name="snap", table=f"0 2048 snapshot {base} udm:slow P 8"))
        thread.start()
        udmtest.wait_until(lambda: daemon.rpc("device.counters", device="slow")[0]["in_flight"], "the load to wait")
        started = time.monotonic()
        for _ in range(20):
            daemon.rpc("device.suspend", device="fast")
            daemon.rpc("device.resume", device="fast")
            assert len(daemon.rpc("device.list")) == 3
        assert time.monotonic() - started < 0.9
        thread.join(60)
        assert daemon.status("snap").endswith("16/2048 16")


# ------------------------------------------------------------------------------------------------- peers
def as_user(uid, gid, code, groups=()):
    """Runs code(connection) in a child that is somebody else; returns what it returned."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(list(groups))
            os.setgid(gid)
            os.setuid(uid)
            said = code()
        except Exception as error:  # noqa: BLE001: all of it goes to the parent
            said = repr(error)
        os.write(writing, json.dumps(said).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = json.loads(pipe.read())
    os.waitpid(child, 0)
    return said


def first_line(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(path)
        sock.sendall(b'{"jsonrpc":"2.0","id":1,"method":"version"}\n')
        return json.loads(sock.makefile().readline())


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming somebody else takes root")
def test_only_root_and_the_group_are_answered(folder):
    os.chmod(folder, 0o755)
    with udmtest.Daemon(folder, arguments=["--group", "4242"]) as daemon:
        assert os.stat(daemon.socket).st_mode & 0o777 == 0o660
        assert os.stat(daemon.socket).st_gid == 4242
        said = as_user(1000, 4242, lambda: first_line(daemon.socket))
        assert said.get("id") == 1, said
        assert as_user(1000, 1000, lambda: first_line(daemon.socket), [1, 4242])["id"] == 1
        assert "PermissionError" in as_user(1000, 1000, lambda: first_line(daemon.socket))
        os.chmod(daemon.socket, 0o666)  # even if the file lets them
        answer = as_user(1000, 1000, lambda: first_line(daemon.socket))
        assert answer["error"]["data"]["name"] == "EACCES"


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming somebody else takes root")
def test_a_user_has_a_daemon_of_his_own(folder):
    os.chown(folder, 1000, 1000)
    daemon = udmtest.Daemon(folder)
    daemon.command[0] = shutil.copy(daemon.command[0], folder)  # the tree may be where others cannot look
    with open(daemon.log, "ab") as log:
        daemon.process = subprocess.Popen(daemon.command, user=1000, group=1000, extra_groups=[], stdout=log, stderr=log)
    try:
        daemon.connection = udmtest.wait_until(daemon._connect, "the daemon to answer")
        assert daemon.rpc("version")["pid"] == daemon.process.pid  # root is answered
        assert as_user(1000, 1000, lambda: first_line(daemon.socket))["id"] == 1
        daemon.stop()
    finally:
        if daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait()


# --------------------------------------------------------------------------------------------- exports
def test_exports_follow_their_device(daemon, folder):
    daemon.create("vol", f"0 2048 linear {image(folder, size=4 << 20)} 0")
    uri = daemon.export("vol")
    old = connect(uri)
    refused(lambda: daemon.rpc("device.remove", device="vol"), "EBUSY")
    assert daemon.rpc("device.info", device="vol")["open_count"] == 1
    daemon.rpc("table.load", device="vol", table=f"0 4096 linear {folder}/image 0")
    daemon.rpc("device.resume", device="vol")
    assert old.get_size() == 2048 * 512 and connect(uri).get_size() == 4096 * 512
    assert daemon.rpc("export.list")[0]["connections"] >= 1
    assert daemon.rpc("export.remove", device="vol") == {"removed": [uri]}
    with pytest.raises(nbd.Error):
        old.pread(512, 0)
    daemon.rpc("device.remove", device="vol")


def test_several_exports_share_a_listener(daemon, folder):
    uris = []
    for name in ("a", "b", "c d/e"):
        daemon.create(name.replace("/", "-"), "0 2048 zero")
        uris.append(daemon.rpc("export.add", device=name.replace("/", "-"),
                               uri=f"nbd+unix:///{name.replace(' ', '%20')}?socket={folder}/nbd")["uri"])
    for uri in uris:
        assert connect(uri).get_size() == 2048 * 512
    refused(lambda: daemon.rpc("export.add", device="b", uri=f"nbd+unix:///a?socket={folder}/nbd"), "EEXIST")
    daemon.rpc("export.remove", device="a")
    with pytest.raises(nbd.Error):
        connect(uris[0])
    assert connect(uris[2]).get_size() == 2048 * 512
    for name in ("b", "c d-e"):
        daemon.rpc("export.remove", device=name)
    assert not os.path.exists(f"{folder}/nbd")


@pytest.mark.parametrize("uri", ["", "nbd", "http://localhost/x", "nbd+unix:///x", "nbd+unix:///x?socket=relative", "nbds://localhost/x",
                                 "nbd://localhost:99999/x", "nbd://localhost/%zz", "nbd://::1/x", "nbd+unix://host/x?socket=/s"])
def test_a_wrong_uri_is_refused_with_the_right_forms(daemon, uri):
    daemon.create("vol", "0 2048 zero")
    with pytest.raises(RpcError) as caught:
        daemon.rpc("export.add", device="vol", uri=uri)
    assert caught.value.data["name"] in ("EINVAL", "EOPNOTSUPP")
    assert uri in str(caught.value) or "URI" in str(caught.value)


# ------------------------------------------------------------------------------------------------- rest
def resident_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))


def cpu_ticks(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def switches(pid):
    """How often its threads were woken."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status", encoding="ascii") as file:
            total += sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)
    return total


def test_a_hundred_idle_devices_cost_nothing(folder):
    with udmtest.Daemon(folder, state_dir=True) as daemon:
        for i in range(100):
            daemon.create(f"vol{i}", f"0 2048 linear {image(folder, f'image{i}')} 0")
        for i in range(10):
            daemon.export(f"vol{i}")
        pid = daemon.process.pid
        if not udmtest.SANITIZER:
            assert resident_kib(pid) < 40 * 1024
        udmtest.wait_until(lambda: settled(pid), "the daemon to come to rest")
        before = cpu_ticks(pid), switches(pid)
        udmtest.let_time_pass(2)
        assert cpu_ticks(pid) - before[0] <= 1 and switches(pid) - before[1] <= 4


def settled(pid):
    before = switches(pid)
    udmtest.let_time_pass(0.2)
    return switches(pid) == before


def test_a_stop_does_not_wait_for_ever_for_what_a_suspended_device_holds(folder):
    with open(f"{folder}/image", "xb") as file:
        file.truncate(1 << 20)
    with udmtest.Daemon(folder, state_dir=True) as daemon:
        daemon.udmsetup("create", "low", "--table", f"0 2048 linear {folder}/image 0")
        daemon.udmsetup("create", "vol", "--table", "0 2048 linear udm:low 0")
        with Volume(daemon, "vol") as volume:
            volume.write(0, b"a" * 4096)
            volume.flush()
        handle = nbd.NBD()
        handle.connect_uri(daemon.export("vol"))
        daemon.udmsetup("suspend", "--noflush", "--nolockfs", "low")
        buffer = nbd.Buffer.from_bytearray(bytearray(b"b" * 4096))
        write = handle.aio_pwrite(buffer, 0)
        started = time.monotonic()
        daemon.kill_by(signal.SIGTERM)
        assert daemon.process.returncode == 1 and time.monotonic() - started < 20
        assert "low" in daemon.read_log().splitlines()[-1] and "still under way" in daemon.read_log()
        with pytest.raises(nbd.Error):
            while not handle.aio_command_completed(write):
                handle.poll(-1)
        daemon.start()
        with Volume(daemon, "vol") as volume:
            assert volume.read(0, 4096) == b"a" * 4096
