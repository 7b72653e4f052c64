"""What a wheel needs of the machine that it comes to: packages by their names, in its error and in its documentation."""
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig

import pytest

import chorus
from chorus import _engine, _native

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from chorus_process import ROOT  # noqa: E402

PACKAGE = pathlib.Path(chorus.__file__).parent
# Of g++ and of every Debian.
EVERYWHERE = {"libc6", "libgcc-s1", "libstdc++6"}


@pytest.fixture(scope="module")
def error(tmp_path_factory):
    """What `import chorus` says where a library of the module is missing."""
    copy = tmp_path_factory.mktemp("without_a_library") / "chorus"
    shutil.copytree(PACKAGE, copy)
    module = copy / pathlib.Path(_native.__file__).name
    module.write_bytes(module.read_bytes().replace(b"\0libfmt.so.", b"\0libFMT.so."))
    done = subprocess.run([sys.executable, "-c", "import chorus"], capture_output=True, text=True, check=False, cwd=copy.parent)
    assert done.returncode != 0
    return done.stderr.splitlines()[-1]


def packages_of(*binaries):
    """Debian's packages of the libraries that they are linked with."""
    listed = subprocess.run(["objdump", "-p", *binaries], capture_output=True, text=True, check=True).stdout
    libraries = {name for name in re.findall(r"NEEDED +(\S+)", listed) if not name.startswith("ld-linux")}
    ours = sysconfig.get_config_var("MULTIARCH")  # the same may be there for other architectures
    owners = subprocess.run(["dpkg-query", "-S", *(f"*/{ours}/{name}" for name in libraries)], capture_output=True, text=True, check=True).stdout
    return {line.split(":")[0] for line in owners.splitlines()} - EVERYWHERE


def test_a_missing_library_is_told_by_its_package(error):
    assert error.startswith("ImportError: libFMT.so.") and "pip install ." in error


@pytest.mark.skipif(not shutil.which("dpkg-query"), reason="no Debian")
def test_the_packages_are_those_of_the_libraries(error):
    told = re.search(r"apt-get install ([^;]+);", error).group(1).split()
    assert set(told) == packages_of(_native.__file__, _engine.program_path())
    assert f"apt-get install {' '.join(told)}" in (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
