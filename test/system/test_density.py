"""Thousands of snapshots of one base in one daemon. UDM_SNAPSHOTS: how many (1,000; 10,000 in `./dev soak`)."""

import os
import re
import resource
import statistics
import time

import pytest
from udmtest import SANITIZER, Daemon, RpcError, let_time_pass, wait_until

COUNT = int(os.environ.get("UDM_SNAPSHOTS", "1000"))
EDGE = 100
SECTORS = 2048
BUFFERS_TRIMMED_S = 6  # the engine gives unused buffers back after five seconds


def names(count=COUNT):
    return [f"m{i:05}" for i in range(count)]


def sparse(path, size=SECTORS * 512):
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def timed(act, items):
    """Milliseconds of each."""
    times = []
    for item in items:
        at = time.monotonic()
        act(item)
        times.append((time.monotonic() - at) * 1000)
    return times


def check_growth(times, what):
    """The last hundred cost no more than three times what the first hundred cost: of each the quicker quarter, since others use the
    machine, too. How long they take on a quiet one is in docs/benchmarks.md."""
    first, last = (statistics.quantiles(part, n=4)[0] for part in (times[:EDGE], times[-EDGE:]))
    print(f"{what}: {statistics.mean(times):.2f} ms each; the first {EDGE} {first:.2f}, the last {EDGE} {last:.2f}")
    assert last <= 3 * first + 0.3, (what, first, last)


def rss_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.fixture
def fleet(folder):
    """A daemon with a state directory and COUNT writable snapshots of a still image; how long each took to make."""
    base = sparse(f"{folder}/base")
    for name in names():
        sparse(f"{folder}/{name}.cow")
    with Daemon(folder, state_dir=True, arguments=["--reactors", "2", "--log-level", "warning"]) as daemon:
        daemon.base = base
        daemon.rss_before = rss_kib(daemon.process.pid)
        daemon.create_times = timed(lambda name: daemon.create(name, f"0 {SECTORS} snapshot {base} {folder}/{name}.cow P 8"), names())
        yield daemon


def test_a_fleet_of_snapshots_stays_small_and_quick(fleet):
    pid = fleet.process.pid
    check_growth(fleet.create_times, "create")
    status = fleet.rpc("daemon.status")
    assert status["devices"] == COUNT
    spread = [reactor["devices"] for reactor in status["reactors"]]
    assert sum(spread) == COUNT and max(spread) - min(spread) <= 1, spread
    # The image is open once, each store once.
    assert COUNT < descriptors(pid) < COUNT + 64
    let_time_pass(BUFFERS_TRIMMED_S)
    each = (rss_kib(pid) - fleet.rss_before) / COUNT
    print(f"memory of an idle one: {each:.1f} KiB")
    assert SANITIZER or each < 64

    for command in (["udm", "ls"], ["udm", "snapshot", "list"], ["udmsetup", "ls"], ["udmsetup", "info"], ["udmsetup", "status"],
                    ["udmsetup", "table"]):
        at = time.monotonic()
        shown = fleet.run(*command, check=True).stdout
        print(f"{' '.join(command)}: {time.monotonic() - at:.2f} s")
        assert time.monotonic() - at < 1 + COUNT / 1000
        for name in (names()[0], names()[COUNT // 2], names()[-1]):
            assert name in shown, command
    assert len(fleet.udmsetup("status").stdout.splitlines()) == COUNT

    # One small write for each change of one device.
    log = os.path.join(fleet.folder, "state", "state.log")
    before = os.path.getsize(log)
    fleet.rpc("device.rename", device=names()[5], new_name="renamed")
    assert 0 < os.path.getsize(log) - before < 1024
    fleet.rpc("device.rename", device="renamed", new_name=names()[5])

    with pytest.raises(RpcError) as refused:
        fleet.create("vol", f"0 {SECTORS} snapshot-origin {fleet.base}")
    assert "an origin and its snapshots share one reactor" in refused.value.message
    assert "m0" in refused.value.message and "more on" in refused.value.message

    at = time.monotonic()
    fleet.stop(timeout=120)
    stopped = time.monotonic()
    fleet.start()
    print(f"stop: {stopped - at:.2f} s, start: {time.monotonic() - stopped:.2f} s")
    status = fleet.rpc("daemon.status")
    assert (status["devices"], status["warnings"]) == (COUNT, [])
    check_growth(timed(lambda name: fleet.rpc("snapshot.drop", snapshot=name), names()), "drop")
    assert fleet.rpc("daemon.status")["devices"] == 0


def test_taking_and_dropping_do_not_slow_down(folder):
    disk = sparse(f"{folder}/disk")
    with Daemon(folder, state_dir=True, arguments=["--log-level", "warning"]) as daemon:
        daemon.create("vol", f"0 {SECTORS} linear {disk} 0")
        check_growth(timed(lambda name: daemon.rpc("snapshot.take", origins=[{"origin": "vol", "snapshot": name}]), names()), "take")
        assert len(daemon.udm("snapshot", "list", "vol", "--names").stdout.splitlines()) == COUNT
        check_growth(timed(lambda name: daemon.rpc("snapshot.drop", snapshot=name), names()), "drop")
        assert [name for name in os.listdir(folder) if name.endswith(".cow")] == []


def test_the_limit_of_open_files_is_told_before_nothing_works_any_more(folder):
    limit = 512
    base = sparse(f"{folder}/base")

    with Daemon(folder) as daemon:
        pid = daemon.process.pid
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limit))
        made = 0
        with pytest.raises(RpcError) as refused:
            for made in range(limit):
                daemon.create(f"d{made}", f"0 {SECTORS} snapshot {base} {sparse(f'{folder}/{made}.cow')} P 8")
        message = refused.value.message
        assert refused.value.data["name"] == "EMFILE"
        assert f"at most {limit}" in message and "LimitNOFILE=" in message and "ulimit -n" in message, message
        told = int(re.search(r"(\d+) are open", message)[1])
        assert abs(told - descriptors(pid)) <= 3, (message, descriptors(pid))
        assert limit // 2 < told < limit - 64, message
        # What is there works, can be served and looked at; another use of an open file costs none.
        daemon.export("d0")
        assert len(daemon.rpc("device.list")) == made
        daemon.create("again", f"0 {SECTORS} linear {base} 0")
        before = descriptors(pid)
        daemon.rpc("snapshot.drop", snapshot="d1")
        wait_until(lambda: descriptors(pid) < before, "the store's descriptor to be closed")
        daemon.create("one-more", f"0 {SECTORS} snapshot {base} {folder}/1.cow P 8")
