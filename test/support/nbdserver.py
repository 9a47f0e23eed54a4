"""nbdkit for a test, on a socket in its folder; killed and started again with what it was started with."""

import os
import signal
import subprocess

import udmtest


class Nbdkit:
    def __init__(self, folder, *words, name="kit"):
        self.path = os.path.join(str(folder), name + ".sock")
        self.uri = f"nbd+unix:///?socket={self.path}"
        self.command = ["nbdkit", "-f", "-U", self.path, *words]
        self.log = open(os.path.join(str(folder), name + ".log"), "ab")
        self.process = None

    def start(self):
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        udmtest.wait_until(self._is_up, "nbdkit to listen")
        return self

    def _is_up(self):
        assert self.process.poll() is None, f"{' '.join(self.command)} ended with {self.process.returncode}"
        return os.path.exists(self.path)

    def kill(self, how=signal.SIGKILL):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(how)
            self.process.wait(20)

    def signal(self, how):
        self.process.send_signal(how)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.kill()
        self.log.close()
