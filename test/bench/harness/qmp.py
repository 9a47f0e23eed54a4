"""qemu-storage-daemon's control protocol, as far as block jobs need it."""

import json
import socket


class Qmp:
    """A monitor of qemu-storage-daemon."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(300)
        self.socket.connect(path)
        self.file = self.socket.makefile("r", encoding="utf-8")
        self.events = []
        self._read()  # the greeting
        self.command("qmp_capabilities")

    def _read(self):
        line = self.file.readline()
        if not line:
            raise RuntimeError("qemu closed its monitor")
        return json.loads(line)

    def command(self, name, **arguments):
        self.socket.sendall(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        while True:
            answer = self._read()
            if "error" in answer:
                raise RuntimeError(f"qemu: {name}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
            self.events.append(answer)

    def wait_for(self, event):
        while True:
            for seen in self.events:
                if seen.get("event") == event:
                    self.events.remove(seen)
                    return seen
            self.events.append(self._read())

    def close(self):
        self.file.close()
        self.socket.close()
