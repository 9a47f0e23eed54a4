"""udmd is killed while a mirror is written, again and again, also while a leg is away, comes back, or is copied to.

What was acknowledged before a completed flush is there, and two reads of a sector never disagree: crash_load judges that (test_kill.py). Here
the legs are compared as well: after each kill, before anybody mends anything, wherever the log says that they are equal; and all of them,
byte for byte, when the copy after it has ended.

UDM_KILLS and UDM_KILL_SEED as in test_kill.py.
"""

import os
import random
import re

import pytest

import crashload
import nbdserver
import udmtest

KILLS = int(os.environ.get("UDM_KILLS", "5"))
SEED = int(os.environ.get("UDM_KILL_SEED", str(random.randrange(1 << 30))))
SIZE = 32 << 20
REGION = 32 << 10
REGIONS = SIZE // REGION
BITMAP = 1024  # where it begins in the log


def read(path, first=0, length=-1):
    with open(path, "rb") as file:
        file.seek(first)
        return file.read(length)


class Story:
    """A mirror with a disk log, one leg of which (`far`) is a file that nbdkit serves; and its load."""

    def __init__(self, folder, choices, legs):
        self.choices = choices
        self.legs = [os.path.join(folder, f"leg{i}") for i in range(legs)]
        self.log = os.path.join(folder, "log")
        self.far = 1 if legs == 2 else 0  # of three it is the one that counts, until it fails
        for leg in self.legs:
            with open(leg, "wb") as file:
                file.truncate(SIZE)
        crashload.fill(self.legs[0], SIZE)
        with open(self.log, "wb") as file:
            file.truncate(1 << 20)
        self.server = nbdserver.Nbdkit(folder, "file", self.legs[self.far])
        self.daemon = udmtest.Daemon(folder, state_dir=True)
        self.journal = os.path.join(folder, "journal")
        self.load = None
        self.compared = self.in_doubt = 0  # regions, over all kills: said to be equal; not

    def __enter__(self):
        self.server.start()
        self.daemon.start()
        words = " ".join(f"{self.server.uri if i == self.far else leg} 0" for i, leg in enumerate(self.legs))
        self.daemon.create("m", f"0 {SIZE // 512} mirror disk 2 {self.log} {REGION // 512} {len(self.legs)} {words} 2 handle_errors keep_log")
        self.daemon.udm("set", "m", "nbd_timeout=1", "leg_retry=200", "log_rest=200")
        self.uri = self.daemon.export("m")
        self.load = crashload.CrashLoad(self.journal, {"m": self.uri}, seed=self.choices.randrange(1 << 30))
        return self

    def __exit__(self, kind, *rest):
        self.load.__exit__(kind, *rest)
        self.daemon.__exit__(kind, *rest)
        self.server.__exit__(kind, *rest)

    # --------------------------------------------------------------------------------------------- looking
    def state(self):
        """Regions in sync, and a letter for each leg."""
        found = re.search(r" (\d+)/\d+ 1 ([A-Z]+) ", self.daemon.status("m"))
        return int(found[1]), found[2]

    def clean(self):
        """Of each region, whether the log says on its disk that the legs are equal there."""
        bits = read(self.log, BITMAP, REGIONS // 8)
        return [bits[r // 8] >> r % 8 & 1 == 1 for r in range(REGIONS)]

    def compare_clean_regions(self):
        """Of a mirror whose daemon is dead. The log first: what is marked later is not written any more."""
        clean = self.clean()
        for leg in self.legs:
            with open(leg, "rb") as file:
                data = [file.read(REGION) if wanted else file.seek(REGION, 1) for wanted in clean]
            first = data if leg == self.legs[0] else first
            different = [r for r in range(REGIONS) if clean[r] and data[r] != first[r]]
            assert not different, f"{leg} differs in regions {different[:10]}, which are clean in the log"
        self.compared += sum(clean)
        self.in_doubt += REGIONS - sum(clean)

    def rest(self):
        """Until everything is copied and clean; all legs are equal then."""
        self.daemon.udm("set", "m", "resync_rate=default")
        self.load.ask("hold")
        udmtest.wait_until(lambda: self.state() == (REGIONS, "A" * len(self.legs)), "all to be in sync again", 60)
        udmtest.wait_until(lambda: all(self.clean()), "all to be clean", 60)
        self.compare_all()
        self.load.ask("go")

    def compare_all(self):
        first = read(self.legs[0])
        for leg in self.legs[1:]:
            assert read(leg) == first, f"{leg} and {self.legs[0]} differ"

    # ----------------------------------------------------------------------------------------------- kills
    def kill(self, between=lambda: None):
        losses = self.load.counters()["losses"]
        self.daemon.kill()
        udmtest.wait_until(lambda: self.load.counters()["losses"] > losses, "the load to notice that the server is gone")
        self.compare_clean_regions()
        between()
        self.daemon.start()

    def wait_for_load(self):
        udmtest.wait_until(lambda: self.load.counters()["connected"], "the load to be connected again", 60)

    def write(self, least, most):
        self.load.wait_for_writes(self.choices.randrange(least, most))

    def lose_leg(self):
        self.server.kill()
        udmtest.wait_until(lambda: self.state()[1][self.far] in "DF", "the leg to be away", 30)
        self.write(20, 300)

    def is_copying(self):
        return self.state()[0] < REGIONS

    # Each leaves slow copying behind, for the one that comes next.
    def kill_in_sync(self):
        self.rest()
        self.daemon.udm("set", "m", "resync_rate=1M")
        self.write(20, 300)
        self.kill()
        self.wait_for_load()

    def kill_in_the_middle_of_a_copy(self):
        self.write(20, 100)
        assert self.is_copying(), "the kill of before left nothing to copy"
        self.kill()
        self.wait_for_load()

    def kill_while_a_leg_is_away(self):
        self.rest()
        self.lose_leg()
        self.daemon.udm("set", "m", "resync_rate=1M")
        if self.choices.random() < 0.5:
            self.kill(self.server.start)
        else:
            self.kill()
            self.wait_for_load()
            self.write(20, 300)
            self.server.start()
        self.wait_for_load()

    def kill_while_a_leg_comes_back(self):
        self.rest()
        self.lose_leg()
        self.daemon.udm("set", "m", "resync_rate=1M")
        self.server.start()
        udmtest.wait_until(lambda: "legs_away" not in self.daemon.rpc("table.status", device="m")[0]["details"], "the leg to be back", 30)
        self.write(20, 100)
        assert self.is_copying()
        self.kill()
        self.wait_for_load()

    KILLS = (kill_in_sync, kill_in_the_middle_of_a_copy, kill_while_a_leg_is_away, kill_in_the_middle_of_a_copy, kill_while_a_leg_comes_back)


@pytest.mark.parametrize("legs", [2, 3])
def test_a_mirror_loses_nothing_when_the_daemon_is_killed_and_its_legs_are_equal_again(folder, legs):
    print(f"UDM_KILL_SEED={SEED} UDM_KILLS={KILLS}")
    choices = random.Random(SEED)
    with Story(folder, choices, legs) as story:
        for kill in range(KILLS):
            Story.KILLS[kill % len(Story.KILLS)](story)
            if kill % 8 == 7:
                story.load.ask("verify")
        story.rest()
        print(f"{legs} legs, {KILLS} kills: {story.compared} regions equal as the log said, {story.in_doubt} in doubt")
        assert story.compared and story.in_doubt
        counters = story.load.finish()
        assert counters["losses"] == KILLS
        # The same again, judged by a process that knows the journal only; then after an orderly stop.
        status, said = crashload.check(story.journal, m=story.uri)
        assert status == 0, said
        story.daemon.stop()
        assert all(story.clean())
        story.compare_all()
        story.daemon.start()
        assert story.state() == (REGIONS, "A" * legs)
        status, said = crashload.check(story.journal, m=story.uri)
        assert status == 0, said
