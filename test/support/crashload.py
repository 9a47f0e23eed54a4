"""Drives test/system/crash_load, the load that survives its server and judges what is there afterwards."""

import queue
import re
import subprocess
import threading

import udmtest


def fill(path, size):
    """The content that a load starts from."""
    subprocess.run([udmtest.program("crash_load"), "--fill", str(path), str(size)], check=True)


def check(journal, **volumes):
    """Verifies volumes, NAME=URI, against a journal, in a process of its own. Returns (exit status, what it said)."""
    done = subprocess.run([udmtest.program("crash_load"), "--check", str(journal), *[f"{n}={u}" for n, u in volumes.items()]],
                          capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


class LoadEnded(AssertionError):
    """crash_load ended by itself; .status 2: something was read that must not be there."""

    def __init__(self, status, said):
        super().__init__(f"crash_load ended with {status}: {said}")
        self.status = status


class CrashLoad:
    def __init__(self, journal, origins, seed=1, connections=2, depth=16, patience=60, flush_may_fail=False):
        words = [udmtest.program("crash_load"), "--journal", str(journal), "--seed", str(seed), "--connections", str(connections),
                 "--depth", str(depth), "--patience", str(patience), *(["--flush-may-fail"] if flush_may_fail else []), *[f"{name}={uri}" for name, uri in origins.items()]]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.answer()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.strip())
        self.lines.put(None)

    def answer(self, timeout=120.0):
        line = self.lines.get(timeout=timeout)
        if line is None or line.startswith("failed"):
            said = line or "nothing"
            while line is not None:
                line = self.lines.get(timeout=timeout)
            raise LoadEnded(self.process.wait(timeout), said)
        return line

    def ask(self, command):
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # answer() says why it ended
        return self.answer()

    def counters(self):
        return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", self.ask("status"))}

    def wait_for_writes(self, more, timeout=60.0):
        """Until so many writes more were acknowledged."""
        wanted = self.counters()["acknowledged"] + more
        udmtest.wait_until(lambda: self.counters()["acknowledged"] >= wanted, f"{more} more writes", timeout)

    def finish(self):
        """Ends the load and verifies everything; the last counters."""
        self.ask("finish")
        last = self.answer()
        assert self.process.wait(30) == 0
        return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", last)}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        self.process.stdout.close()
