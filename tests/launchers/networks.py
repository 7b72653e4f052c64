"""Two networks on this machine, as two nodes have them: namespaces joined by a cable of the kernel's (veth). Needs root."""
import os
import subprocess

import pytest

NEAR, FAR = f"chorus-near-{os.getpid()}", f"chorus-far-{os.getpid()}"
NEAR_ADDRESS, FAR_ADDRESS = "10.213.7.1", "10.213.7.2"
NEAR_END, FAR_END = f"ca{os.getpid()}"[:14], f"cb{os.getpid()}"[:14]


def inside(network):
    """What goes before a command that is to run there. Its process stays the command's own."""
    return ["ip", "netns", "exec", network]


def ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)


def set_cable(state):
    done = ip("-n", FAR, "link", "set", FAR_END, state)
    assert done.returncode == 0, done.stderr


def make_networks():
    """What went wrong, or nothing."""
    for command in (f"netns add {NEAR}", f"netns add {FAR}", f"link add {NEAR_END} type veth peer name {FAR_END}",
                    f"link set {NEAR_END} netns {NEAR}", f"link set {FAR_END} netns {FAR}",
                    f"-n {NEAR} addr add {NEAR_ADDRESS}/24 dev {NEAR_END}", f"-n {FAR} addr add {FAR_ADDRESS}/24 dev {FAR_END}",
                    f"-n {NEAR} link set {NEAR_END} up", f"-n {FAR} link set {FAR_END} up", f"-n {NEAR} link set lo up",
                    f"-n {FAR} link set lo up"):
        done = ip(*command.split())
        if done.returncode != 0:
            return f"ip {command}: {done.stderr.strip()}"
    return ""


def remove_networks():
    ip("netns", "del", NEAR)
    ip("netns", "del", FAR)


@pytest.fixture(scope="module", name="networks")
def two_networks():
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    try:
        failed = make_networks()
        if failed:
            pytest.skip(f"no network namespaces here: {failed}")
        yield
    except FileNotFoundError:
        pytest.skip("ip (iproute2) is not installed")
    finally:
        remove_networks()
