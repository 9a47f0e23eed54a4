#!/usr/bin/python3
"""Asks the real device mapper: boots Debian's kernel in an emulated machine and runs a shell script in it, as root, with raw
images as disks.

    oracle.py prepare                                      once; downloads some 80 MB of Debian packages, installs none
    oracle.py run SCRIPT [--disk NAME=FILE]... [--env NAME=VALUE]... [--timeout SECONDS]

An image is /dev/disk/NAME in the script and is changed in place. Standard output and error of the script come out; the exit status is
the script's, or 124 (no end in time), 125 (the machine failed), 126 (it cannot be prepared). When the script ends, the machine is
switched off as it is: remove devices first for a clean end.

It needs qemu-system-x86 (./dev deps oracle) and no KVM. What is prepared lies in $UDM_ORACLE_CACHE, else ~/.cache/udm/oracle.
"""

import argparse
import contextlib
import dataclasses
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.environ.get("UDM_ORACLE_CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "udm", "oracle")
LAYOUT = "2"  # raise it when prepare() puts other things in: what older versions prepared is then made anew

QEMU = "qemu-system-x86_64"
KERNEL = "linux-image-cloud-amd64"  # a package that depends on the newest kernel of this Debian
TOOLS = ["busybox-static", "dmsetup", "libdevmapper1.02.1", "libselinux1", "libudev1", "libpcre2-8-0", "libc6", "libcap2"]
MODULES = ["virtio_pci", "virtio_blk", "dm_mod", "dm_snapshot", "dm_delay", "dm_flakey", "dm_zero", "dm_mirror"]


class NoOracle(Exception):
    """It cannot be had here, and why."""


@dataclasses.dataclass
class Answer:
    status: int
    output: str
    kernel_log: str


# ------------------------------------------------------------------------------------------------ preparing
class Archive:
    """An initramfs in memory: the cpio format called newc."""

    def __init__(self):
        self.data = bytearray()
        self.number = 0
        self.folders = set()

    def _add(self, name, mode, content=b""):
        self.number += 1
        fields = [self.number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
        self.data += b"070701" + b"".join(b"%08X" % f for f in fields) + name.encode() + b"\0"
        self._pad()
        self.data += content
        self._pad()

    def _pad(self):
        self.data += b"\0" * (-len(self.data) % 4)

    def folder(self, name):
        if name and name not in self.folders:
            self.folder(os.path.dirname(name))
            self.folders.add(name)
            self._add(name, 0o040755)

    def file(self, name, content, mode=0o755):
        self.folder(os.path.dirname(name))
        self._add(name, 0o100000 | mode, content)

    def link(self, name, target):
        self.folder(os.path.dirname(name))
        self._add(name, 0o120777, target.encode())

    def finished(self):
        self._add("TRAILER!!!", 0)
        return bytes(self.data)


def command_output(*command, **options):
    done = subprocess.run(command, text=True, capture_output=True, **options)
    if done.returncode != 0:
        raise NoOracle(f"{' '.join(command[:4])}… failed: {done.stderr.strip()[-400:] or done.returncode}")
    return done.stdout


def kernel_package():
    depends = re.search(r"^Depends: (linux-image-[^ ,]+)", command_output("apt-cache", "show", KERNEL), re.MULTILINE)
    if not depends:
        raise NoOracle(f"apt knows no {KERNEL}: apt-get update?")
    return depends[1]


def fetch_and_unpack(packages, folder):
    """Downloads packages (apt checks their signatures) and unpacks them below folder; returns {name: version}."""
    debs = os.path.join(folder, "debs")
    os.makedirs(debs)
    command_output("apt-get", "-q", "-o", "APT::Sandbox::User=", "download", *packages, cwd=debs)
    versions = {}
    for deb in sorted(os.listdir(debs)):
        path = os.path.join(debs, deb)
        command_output("dpkg-deb", "-x", path, folder)
        name, version = command_output("dpkg-deb", "-W", "--showformat=${Package} ${Version}", path).split()
        versions[name] = version
    return versions


def find(folder, *names):
    """{name: path} of programs and libraries below folder."""
    found = {}
    for where, _, files in os.walk(folder):
        for name in set(files) & set(names):
            path = os.path.join(where, name)
            if os.path.isfile(path) and content(path).startswith(b"\x7fELF"):
                found[name] = path
    return found


def content(path):
    with open(path, "rb") as file:
        return file.read()


def modules_in_order(folder, wanted):
    """Paths of kernel modules, each after those it depends on, as the modules themselves say."""
    paths = {}
    for where, _, files in os.walk(folder):
        for name in files:
            if name.endswith(".ko"):
                paths[name[:-3].replace("-", "_")] = os.path.join(where, name)
    ordered = []

    def add(name):
        if name not in paths or paths[name] in ordered:  # not there: built into the kernel
            return
        depends = re.search(rb"\0depends=([^\0]*)\0", content(paths[name]))
        for other in depends[1].decode().split(",") if depends and depends[1] else []:
            add(other.replace("-", "_"))
        ordered.append(paths[name])

    for name in wanted:
        add(name)
    return ordered


def needed_libraries(folder, program):
    """Paths of the shared libraries a program needs, from what was unpacked."""
    found, waiting = {}, [program]
    while waiting:
        text = command_output("readelf", "-d", waiting.pop())
        for name in re.findall(r"\(NEEDED\).*\[(.+)\]", text):
            if name not in found:
                path = find(folder, name).get(name)
                if not path:
                    raise NoOracle(f"{name} is in none of the packages {' '.join(TOOLS)}")
                found[name] = path
                waiting.append(path)
    return found


def build(work, ready):
    package = kernel_package()
    system = os.path.join(work, "system")
    os.makedirs(system)
    versions = fetch_and_unpack([package, *TOOLS], system)
    abi = package.removeprefix("linux-image-")

    image = Archive()
    for folder in ("proc", "sys", "dev", "tmp", "run", "etc"):
        image.folder(folder)
    image.file("init", content(os.path.join(HERE, "init.sh")))
    image.file("bin/busybox", content(find(system, "busybox")["busybox"]))
    dmsetup = find(system, "dmsetup")["dmsetup"]
    image.file("sbin/dmsetup", content(dmsetup))
    for name, path in needed_libraries(system, dmsetup).items():
        image.file(("lib64/" if name.startswith("ld-linux") else "lib/x86_64-linux-gnu/") + name, content(path))
    order = modules_in_order(os.path.join(system, "lib/modules", abi), MODULES)
    for path in order:
        image.file("modules/" + os.path.basename(path), content(path), 0o644)
    image.file("modules/order", "".join(os.path.basename(p) + "\n" for p in order).encode(), 0o644)

    os.makedirs(ready)
    shutil.copy(os.path.join(system, "boot", "vmlinuz-" + abi), os.path.join(ready, "vmlinuz"))
    with open(os.path.join(ready, "initramfs"), "wb") as file:
        file.write(image.finished())
    with open(os.path.join(ready, "version"), "w", encoding="utf-8") as file:
        file.write(f"Linux {abi} ({package} {versions[package]}), dmsetup {versions['dmsetup']}\n")


@contextlib.contextmanager
def locked(path):
    with open(path, "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def prepare():
    """The folder with kernel, initramfs and version; made if it isn't there. NoOracle says why it can't be."""
    if not shutil.which(QEMU):
        raise NoOracle(f"{QEMU} is not installed (./dev deps oracle)")
    os.makedirs(CACHE, exist_ok=True)
    ready = os.path.join(CACHE, "layout-" + LAYOUT)
    with locked(os.path.join(CACHE, "lock")):
        if not os.path.isdir(ready):
            print("kernel oracle: downloading Debian's kernel, once", file=sys.stderr)
            with tempfile.TemporaryDirectory(dir=CACHE, prefix="preparing-") as work:
                build(work, os.path.join(work, "ready"))
                os.rename(os.path.join(work, "ready"), ready)
    return ready


def version():
    with open(os.path.join(prepare(), "version"), encoding="utf-8") as file:
        return file.read().strip()


# -------------------------------------------------------------------------------------------------- running
def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def run(script, disks=None, environment=None, timeout=120):
    """Runs the text of a shell script with `disks`, {name: path of a raw image}. NoOracle if the machine itself failed."""
    ready = prepare()
    disks = disks or {}
    with tempfile.TemporaryDirectory(prefix="udm-oracle-") as work:
        # A second archive behind the first: the kernel unpacks both into one tree.
        extra = Archive()
        variables = "".join(f"export {name}={quoted(value)}\n" for name, value in (environment or {}).items())
        extra.file("etc/script", (variables + script).encode())
        initramfs = os.path.join(work, "initramfs")
        with open(initramfs, "wb") as file:
            base = content(os.path.join(ready, "initramfs"))
            file.write(base + b"\0" * (-len(base) % 512) + extra.finished())
        said, log = os.path.join(work, "said"), os.path.join(work, "kernel")
        command = [
            QEMU, "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "512", "-nodefaults", "-no-user-config", "-display", "none",
            "-no-reboot", "-kernel", os.path.join(ready, "vmlinuz"), "-initrd", initramfs,
            "-append", "console=ttyS0 loglevel=5 panic=-1 oops=panic mitigations=off",
            "-serial", "file:" + log, "-serial", "file:" + said,
        ]
        for name, path in disks.items():
            if os.path.getsize(path) % 512:
                raise ValueError(f"{path}: its size is not a multiple of 512")
            escaped = os.path.abspath(path).replace(",", ",,")
            command += ["-drive", f"if=none,id=disk-{name},format=raw,discard=unmap,file={escaped}",
                        "-device", f"virtio-blk-pci,drive=disk-{name},serial={name}"]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
            errors = done.stderr
        except subprocess.TimeoutExpired:
            errors = None
        output = content(said).decode(errors="replace").replace("\r\n", "\n") if os.path.exists(said) else ""
        kernel_log = content(log).decode(errors="replace") if os.path.exists(log) else ""
        if errors is None:
            raise TimeoutError(f"the script did not end in {timeout} s; it said:\n{output[-2000:]}\n{kernel_log[-2000:]}")
        end = re.search(r"^oracle: the script ended with (\d+)\n\Z", output, re.MULTILINE)
        if not end:
            raise NoOracle(f"the machine ended early:\n{output[-2000:]}\n{kernel_log[-2000:]}\n{errors[-1000:]}")
        return Answer(int(end[1]), output[: end.start()], kernel_log)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("prepare")
    running = verbs.add_parser("run")
    running.add_argument("script")
    running.add_argument("--disk", action="append", default=[], metavar="NAME=FILE")
    running.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    running.add_argument("--timeout", type=int, default=120)
    running.add_argument("--kernel-log", action="store_true")
    arguments = parser.parse_args()
    try:
        if arguments.verb == "prepare":
            prepare()
            print(version())
            return 0
        with open(arguments.script, encoding="utf-8") as file:
            script = file.read()
        pairs = [dict(p.split("=", 1) for p in given) for given in (arguments.disk, arguments.env)]
        answer = run(script, pairs[0], pairs[1], arguments.timeout)
        print(answer.output, end="")
        if arguments.kernel_log:
            print(answer.kernel_log, file=sys.stderr)
        return answer.status
    except TimeoutError as error:
        print(error, file=sys.stderr)
        return 124
    except NoOracle as error:
        print(f"no kernel oracle: {error}", file=sys.stderr)
        return 126


if __name__ == "__main__":
    sys.exit(main())
