#!/usr/bin/python3
"""check_deb.py [PACKAGE.deb]: the package in a bare Debian 12, which mmdebstrap makes in a temporary folder. As root.

Installs it by the guide's commands (docs/guide.md, ```sh debian), starts the server by the command of its systemd unit as an unprivileged user, asks it for a chat and by
`chorus ctl`, ends it, then removes and purges the package: a removal leaves the configuration alone, a purge nothing."""
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOBODY = 65534
CONFIGURATION = ["/etc/chorus", "/etc/chorus/chorus.conf"]
# What apt and dpkg keep of every package that was ever there.
KEPT = ("/var/lib/dpkg/", "/var/lib/apt/", "/var/cache/", "/var/log/", "/tmp/", "/proc/", "/sys/", "/dev/", "/run/", "/root/", "/srv/", "/etc/ld.so.cache", "/etc/resolv.conf", "/etc/hosts")
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


def fail(why):
    sys.exit(f"check_deb: {why}")


class BareDebian:
    def __init__(self, folder):
        self.folder = folder
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", "bookworm", folder], check=True)
        for name in ("resolv.conf", "hosts"):
            shutil.copy(f"/etc/{name}", folder / "etc" / name)

    def command(self, words, user=0):
        """In namespaces of its own, so that nothing stays mounted or running."""
        inside = f'mount -t proc proc "{self.folder}/proc" && exec /usr/sbin/chroot --userspec={user}:{user} "{self.folder}" "$@"'
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", inside, "sh", *words]

    def run(self, words, user=0, **options):
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "HOME": "/root"}
        done = subprocess.run(self.command(words, user), env=environment, check=False, capture_output=True, text=True, timeout=600, **options)
        if done.returncode != 0:
            fail(f"{shlex.join(words)} ended with status {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def shell(self, line):
        print(f"# {line}", flush=True)
        return self.run(["sh", "-ec", f"cd /root; {line}"])

    def files(self):
        found = self.run(["find", "/", "-xdev", "-not", "-path", "/proc/*"]).splitlines()
        return {path for path in found if not path.startswith(KEPT)}


def guide_lines():
    text = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    return [line for block in re.findall(r"^```sh debian\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) for line in block.splitlines()]


def install_model(debian):
    model = debian.folder / "srv" / "models" / "stories"
    shutil.copytree(ROOT / "models" / "stories260k", model)
    path = model / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": TEMPLATE}))
    for each in [model, *model.rglob("*")]:
        each.chmod(0o755 if each.is_dir() else 0o644)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def unit_command(debian, port):
    """The words of ExecStart, as systemd expands them: ${X} and $X from the environment file, $X into words."""
    (debian.folder / "etc/chorus/chorus.conf").write_text(
        f"CHORUS_MODEL=/srv/models/stories\nCHORUS_OPTIONS=--data-parallel-size 2 --port {port} --threads 1 --kv-cache-memory 32MiB\n")
    unit = (debian.folder / "lib/systemd/system/chorus.service").read_text()
    settings = dict(line.split("=", 1) for line in (debian.folder / "etc/chorus/chorus.conf").read_text().splitlines() if "=" in line and not line.startswith("#"))
    words = []
    for word in shlex.split(re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE)[1]):
        words += settings[word[1:]].split() if word.startswith("$") else [word]
    return words


def serve(debian):
    """As the unit does, with its RuntimeDirectory and NOTIFY_SOCKET."""
    port = free_port()
    runtime = debian.folder / "run/chorus"
    runtime.mkdir(mode=0o700, exist_ok=True)
    os.chown(runtime, NOBODY, NOBODY)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(debian.folder / "run/notify"))
        os.chmod(debian.folder / "run/notify", 0o777)
        notify.settimeout(60)
        environment = {"PATH": "/usr/bin:/bin", "NOTIFY_SOCKET": "/run/notify"}
        words = unit_command(debian, port)
        print(f"# {' '.join(words)}", flush=True)
        server = subprocess.Popen(debian.command(words, NOBODY), env=environment, stdout=subprocess.PIPE, text=True)
        try:
            while "READY=1" not in notify.recv(4096).decode():
                pass
            ask(debian, port)
            server_pid = next(int(pid) for pid in descendants(server.pid) if b"serve" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))
            os.kill(server_pid, signal.SIGTERM)
            if (status := server.wait(timeout=60)) != 0:
                fail(f"the server ended with status {status} after SIGTERM")
        finally:
            server.kill()
            server.wait()


def descendants(pid):
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [*children, *(below for child in children for below in descendants(child))]


def ask(debian, port):
    said = debian.run(["chorus", "chat", f"http://127.0.0.1:{port}", "--set", "temperature=0", "--set", "max_tokens=20"], NOBODY, input="Once upon a time\n")
    replicas = json.loads(debian.run(["chorus", "ctl", "list", "--json", "--control-socket", "/run/chorus/control"], NOBODY))["replicas"]
    print(said.strip())
    if len(said) < 20 or [replica["state"] for replica in replicas] != ["ready", "ready"]:
        fail(f"no answer, or not two ready replicas: {said!r}, {replicas}")


def check(debian, package):
    shutil.copy(package, debian.folder / "root")
    install_model(debian)
    debian.run(["apt-get", "update"])
    bare = debian.files()
    install, (remove, purge) = guide_lines()[:-2], guide_lines()[-2:]
    for line in install:
        print(debian.shell(line).splitlines()[-1])
    serve(debian)
    debian.shell(remove)
    debian.run(["apt-get", "autoremove", "-y", "--purge"])  # the libraries that came with it
    if (left := sorted(debian.files() - bare)) != CONFIGURATION:
        fail(f"a removal leaves {left}, not the configuration alone")
    debian.shell(purge)
    if left := sorted(debian.files() - bare):
        fail(f"a purge leaves {left}")
    if gone := sorted(bare - debian.files()):
        fail(f"what was there before is gone: {gone}")


def main():
    packages = [pathlib.Path(name) for name in sys.argv[1:]] or sorted((ROOT / "build").glob("chorus_*.deb"), key=os.path.getmtime)
    if not packages or os.geteuid() != 0:
        fail("give a package (make deb), and run this as root")
    with tempfile.TemporaryDirectory(prefix="chorus-debian-") as folder:
        os.chmod(folder, 0o755)
        check(BareDebian(pathlib.Path(folder) / "root"), packages[-1])
    print(f"{packages[-1].name}: installed, served, removed and purged in a bare Debian 12")


if __name__ == "__main__":
    main()
