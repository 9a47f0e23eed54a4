"""udmd is killed under load, again and again, and started with the same command line: nothing that was promised is lost.

5 kills, or UDM_KILLS of them; UDM_KILL_SEED replays the choices of a run (not its timing).
"""

import fcntl
import os
import random
import socket
import struct
import threading
import time

import pytest

import crashload
import udmtest

KILLS = int(os.environ.get("UDM_KILLS", "5"))
SEED = int(os.environ.get("UDM_KILL_SEED", str(random.randrange(1 << 30))))
SIZE = 32 << 20
CHUNKS = (4096, 16384)
LAYERS = 12  # of a redirected volume


class Story:
    """A daemon, an origin with its load, and the snapshots that come and go."""

    def __init__(self, folder, choices, redirect=False):
        self.choices, self.redirect = choices, redirect
        self.image = os.path.join(folder, "image")
        self.cows = os.path.join(folder, "cows")
        os.mkdir(self.cows)
        crashload.fill(self.image, SIZE)
        self.daemon = udmtest.Daemon(folder, state_dir=True)
        self.journal = os.path.join(folder, "journal")
        self.names = iter(f"snap{i}" for i in range(10_000))
        self.snapshots = {}  # name -> URI
        self.written = set()  # of those, the ones with writers of their own
        self.merging = {}  # still image -> the layer above, which is merged into it; snapshot -> the volume that goes back to it
        self.load = None

    def __enter__(self):
        self.daemon.start()
        self.daemon.create("vol", f"0 {SIZE // 512} " + (f"linear {self.image} 0" if self.redirect else f"snapshot-origin {self.image}"))
        self.origin_uri = self.daemon.export("vol")
        self.load = crashload.CrashLoad(self.journal, {"vol": self.origin_uri}, seed=self.choices.randrange(1 << 30))
        return self

    def __exit__(self, kind, *rest):
        self.load.__exit__(kind, *rest)
        self.daemon.__exit__(kind, *rest)

    # ------------------------------------------------------------------------------------- snapshots
    def take(self):
        name = next(self.names)
        self.load.ask(f"begin {name} vol")
        self.take_through(self.daemon.connection, name)
        self.taken(name)
        return name

    def take_through(self, connection, name):
        """Half of the copying ones as a script would with udmsetup."""
        chunk = self.choices.choice(CHUNKS)
        if self.redirect or self.choices.random() < 0.5:
            connection.rpc("snapshot.take", origins=[{"origin": "vol", "snapshot": name}], cow_dir=self.cows, size=2 * SIZE, chunk=chunk,
                           redirect=self.redirect)
            return
        store = os.path.join(self.cows, f"{name}.by-hand")
        with open(store, "wb") as file:
            file.truncate(2 * SIZE)
        connection.rpc("device.suspend", device="vol")
        connection.rpc("device.create", name=name, table=f"0 {SIZE // 512} snapshot {self.image} {store} P {chunk // 512}")
        connection.rpc("device.resume", device="vol")

    def taken(self, name):
        self.snapshots[name] = self.daemon.export(name)
        # Every other one is written as well, so that its own promises are tested too.
        if len(self.snapshots) % 2 == 0 and not self.redirect:
            self.written.add(name)
        self.load.ask(f"end {self.clients_of(name)}")

    def clients_of(self, name):
        return f"{name} {self.snapshots[name]}" + (" write" if name in self.written else "")

    def drop(self, name):
        self.load.ask(f"drop {name}")
        self.daemon.unexport(name)
        self.daemon.rpc("snapshot.drop", snapshot=name)
        del self.snapshots[name]

    def merge_down(self, name):
        """Slowly, so that the next kills find it under way."""
        self.load.ask(f"drop {name}")
        self.daemon.unexport(name)
        device = self.daemon.rpc("snapshot.drop", snapshot=name)["merging"]
        self.set_merge_rate(device, "1M")
        del self.snapshots[name]
        self.merging[name] = device

    def revert(self, name):
        """The volume becomes what its snapshot is; what the snapshot has is merged slowly."""
        self.load.ask(f"revert {name} vol")
        if self.choices.random() < 0.5:
            self.daemon.udm("snapshot", "merge", "--force", "--unexport", "--background", name)
        else:
            self.daemon.unexport(name)
            self.daemon.rpc("snapshot.merge", snapshot=name)
        self.reverted(name)

    def reverted(self, name):
        self.set_merge_rate("vol", "1M")
        self.load.ask(f"reverted {name}")
        self.merging[name] = "vol"
        del self.snapshots[name]

    def set_merge_rate(self, device, rate):
        """It lasts: also of the daemon that comes after a kill."""
        try:
            self.daemon.rpc("device.set", device=device, key="merge_rate", value=rate)
        except udmtest.RpcError:
            pass  # it merges no more

    def end_merge(self):
        for device in self.merging.values():
            self.set_merge_rate(device, None)
        udmtest.wait_until(lambda: self.listed() and not self.merging, "the merge to end", 60)

    def listed(self):
        """Without what is on its way out."""
        listed = {s["snapshot"]: s for s in self.daemon.rpc("snapshot.list")}
        merging = (lambda name, device: name in listed) if self.redirect else (lambda name, device: "snapshot-merge" in self.daemon.table(device))
        self.merging = {name: device for name, device in self.merging.items() if merging(name, device)}
        return {name: s for name, s in listed.items() if name not in self.merging}

    # ----------------------------------------------------------------------------------------- kills
    def kill_and_start(self):
        losses = self.load.counters()["losses"]
        self.daemon.kill()
        udmtest.wait_until(lambda: self.load.counters()["losses"] > losses, "the load to notice that the server is gone")
        self.daemon.start()
        udmtest.wait_until(lambda: self.load.counters()["connected"], "the load to be connected again", 60)

    def kill_within_take(self):
        """The take happens at some instant, or not at all; the state says which."""
        name = next(self.names)
        self.load.ask(f"begin {name} vol")
        self.kill_within(lambda connection: self.take_through(connection, name))
        if name in self.listed():
            self.taken(name)
        else:
            self.load.ask(f"abort {name}")

    def kill_within_revert(self, name):
        self.load.ask(f"revert {name} vol")
        self.daemon.unexport(name)
        self.kill_within(lambda connection: connection.rpc("snapshot.merge", snapshot=name))
        kept = self.listed().get(name)  # what the volume goes back to is listed until that is done
        if not kept or kept["state"] in ("merging", "merge-failed"):
            return self.reverted(name)
        self.snapshots[name] = self.daemon.export(name)
        self.load.ask(f"kept {self.clients_of(name)}")

    def kill_within(self, call):
        connection = self.daemon.connect()

        def attempt():
            try:
                call(connection)
            except (AssertionError, OSError, ValueError):
                pass  # the daemon died meanwhile

        thread = threading.Thread(target=attempt)
        started = time.monotonic()
        thread.start()
        delay = self.choices.uniform(0, 0.02)
        udmtest.wait_until(lambda: time.monotonic() - started >= delay, "the moment to kill")
        self.kill_and_start()
        thread.join(30)
        connection.close()


@pytest.mark.parametrize("way", ["copying", "redirected"])
def test_nothing_promised_is_lost_when_the_daemon_is_killed(folder, way):
    print(f"UDM_KILL_SEED={SEED} UDM_KILLS={KILLS}")
    choices = random.Random(SEED)
    with Story(folder, choices, redirect=way == "redirected") as story:
        story.take()
        story.take()
        if story.redirect:
            story.take()
        merges = reverts = 0  # merges under way at a kill; begun as the daemon was killed
        for kill in range(KILLS):
            story.load.wait_for_writes(choices.randrange(50, 3000))
            story.listed()
            merges += bool(story.merging)
            free = not story.merging  # (the top layer's merge forbids a take)
            if kill % 3 == 1 and len(story.snapshots) < LAYERS and free:
                story.kill_within_take()
            elif kill % 3 == 2 and not story.redirect and free and story.snapshots:
                story.kill_within_revert(choices.choice(sorted(story.snapshots)))
                reverts += 1
            else:
                story.kill_and_start()
            assert set(story.listed()) == set(story.snapshots)
            if story.merging and choices.random() < 0.4:
                story.end_merge()
            if len(story.snapshots) < (LAYERS if kill % 2 == 0 else 2) and not story.merging:
                story.load.wait_for_writes(choices.randrange(50, 500))
                story.take()
            if len(story.snapshots) > 3 and not story.redirect:
                story.load.wait_for_writes(choices.randrange(50, 500))
                story.drop(choices.choice(sorted(story.snapshots)))
            if len(story.snapshots) > 2 and not story.merging:
                story.load.wait_for_writes(choices.randrange(50, 500))
                (story.merge_down if story.redirect else story.revert)(choices.choice(sorted(story.snapshots)))
            if kill % 8 == 7:
                story.load.ask("verify")
        print(f"{KILLS} kills, {merges} of them in the middle of a merge, {reverts} as one began")
        story.load.wait_for_writes(1000)
        assert merges, "no kill came in the middle of a merge"
        story.end_merge()
        counters = story.load.finish()
        assert counters["losses"] == KILLS
        assert all(s["state"] == "active" for s in story.listed().values())

        # The same again, judged by a process that knows the journal only; then after an orderly stop.
        volumes = {"vol": story.origin_uri, **story.snapshots}
        status, said = crashload.check(story.journal, **volumes)
        assert status == 0, said
        story.daemon.stop()
        story.daemon.start()
        status, said = crashload.check(story.journal, **volumes)
        assert status == 0, said


def test_a_restart_waits_for_what_the_killed_daemon_still_holds(folder):
    """The kernel lets go of a killed daemon's files and sockets some milliseconds after the process is gone. Here it takes longer."""
    image = os.path.join(folder, "image")
    crashload.fill(image, 1 << 20)
    with udmtest.Daemon(folder, state_dir=True) as daemon:
        daemon.create("vol", f"0 2048 linear {image} 0")
        uri = daemon.export("vol")
        daemon.kill()
        path = uri.split("socket=")[1]
        os.unlink(path)
        with socket.socket(socket.AF_UNIX) as listener, open(image, "r+b") as file:
            listener.bind(path)
            listener.listen()
            F_OFD_SETLK = 37
            fcntl.fcntl(file, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            daemon.start()
            started = time.monotonic()
            udmtest.wait_until(lambda: time.monotonic() - started > 0.3, "some time to pass")
            assert daemon.process.poll() is None
        assert daemon.rpc("device.info", device="vol")["held_because"] is None
        assert daemon.rpc("export.list")[0]["uri"] == uri
        assert daemon.rpc("daemon.status")["warnings"] == []


def in_use(daemon, name):
    """Whether the snapshot can be used: there, with a live table, not invalid."""
    try:
        return "/" in daemon.status(name)
    except udmtest.RpcError:
        return False


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_store_that_was_missing_at_a_restart_is_never_trusted_again(folder, how):
    with Story(folder, random.Random(SEED)) as story:
        missing, other = story.take(), story.take()
        story.load.wait_for_writes(500)
        story.load.ask(f"drop {missing}")
        store = story.listed()[missing]["cow"]
        aside = store + ".aside"

        def restart(between):
            losses = story.load.counters()["losses"]
            story.daemon.kill() if how == "killed" else story.daemon.stop()
            between()
            story.daemon.start()
            udmtest.wait_until(lambda: story.load.counters()["losses"] > losses and story.load.counters()["connected"],
                               "the load to be connected again", 60)

        restart(lambda: os.rename(store, aside))
        assert not in_use(story.daemon, missing)
        assert in_use(story.daemon, other)
        story.load.wait_for_writes(500)  # the origin goes on, and the missing store gets no copies

        restart(lambda: os.rename(aside, store))
        assert not in_use(story.daemon, missing)
        assert in_use(story.daemon, other)

        # Nor by hand: a new device on it is invalid.
        try:
            story.daemon.create("again", f"0 {SIZE // 512} snapshot {story.image} {store} P 8")
            assert story.daemon.status("again").endswith("Invalid")
        except udmtest.RpcError as refused:
            assert os.path.basename(store) in str(refused)
        story.load.finish()
