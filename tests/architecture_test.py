"""The rooms' arrows: a room includes only rooms its CMakeLists.txt names, and only lower ones. Pure rooms touch no system."""
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
PYTHON = ROOT / "python"
PURE_ROOMS = {"request", "sched", "cluster"}
# A pure room has no thread, socket, clock or file.
IMPURE = re.compile(r'#include\s+<(thread|mutex|atomic|condition_variable|future|chrono|fstream|filesystem|unistd\.h|sys/|netinet/|poll\.h|ctime|random)')
INCLUDE = re.compile(r'#include\s+"([a-z_]+)/')


def room_order():
    text = (ROOT / "CMakeLists.txt").read_text()
    return re.search(r"foreach\(room (.*?)\)", text, re.S).group(1).split()


def dependencies(room):
    text = (SOURCE / room / "CMakeLists.txt").read_text()
    match = re.search(r"chorus_room\(\w+\s+DEPENDS\s+(.*?)(LIBRARIES|\))", text, re.S)
    direct = set(match.group(1).split()) if match else set()
    return direct


def sources(room):
    return [p for p in (SOURCE / room).rglob("*") if p.suffix in (".h", ".cc")]


def python_dependencies():
    """The rooms that the Python module names; it is above them all, and nothing includes it."""
    text = (PYTHON / "CMakeLists.txt").read_text()
    return set(re.search(r"set\(room_dependencies\s+(.*?)\)", text, re.S).group(1).split())


def test_every_room_is_in_the_list():
    rooms = {p.name for p in SOURCE.iterdir() if p.is_dir()}
    assert rooms == set(room_order())


def test_dependencies_point_down():
    order = room_order()
    for room in order:
        for dependency in dependencies(room):
            assert order.index(dependency) < order.index(room), f"{room} depends on {dependency}, which is not below it"


def test_includes_are_declared():
    wrong = []
    for room in room_order():
        if room == "testing":
            continue  # what tests of several rooms share looks at all of them
        allowed = dependencies(room) | {room}
        for path in sources(room):
            for included in INCLUDE.findall(path.read_text()):
                if included not in allowed and (SOURCE / included).is_dir():
                    if included == "testing" and path.name.endswith("_test.cc"):
                        continue
                    if path.name.endswith("_test.cc") and room_order().index(included) < room_order().index(room):
                        continue  # a test may look further down
                    wrong.append(f"{path.relative_to(ROOT)} includes {included}/, which {room}/CMakeLists.txt does not name")
    assert not wrong, "\n".join(wrong)


def test_the_python_module_names_the_rooms_that_it_includes():
    """Of cli and server it has nothing: they are programs of their own."""
    allowed = python_dependencies()
    assert allowed <= set(room_order()) - {"cli", "server", "ray", "testing"}
    included = {room for path in (PYTHON / "src").iterdir() for room in INCLUDE.findall(path.read_text())}
    assert included == allowed


def test_nothing_that_is_shipped_includes_test_helpers():
    wrong = [str(path.relative_to(ROOT)) for room in room_order() if room != "testing" for path in sources(room)
             if not path.name.endswith("_test.cc") and '#include "testing/' in path.read_text()]
    assert not wrong, wrong


def test_pure_rooms_touch_no_system():
    wrong = [f"{path.relative_to(ROOT)}: {line.strip()}" for room in PURE_ROOMS for path in sources(room)
             if not path.name.endswith("_test.cc") for line in path.read_text().splitlines() if IMPURE.match(line)]
    assert not wrong, "\n".join(wrong)


def test_ray_is_one_rooms_business():
    """Its library has another ABI: nothing of ours may come near it, nor it near ours."""
    wrong = [str(path.relative_to(ROOT)) for room in room_order() if room != "ray" for path in sources(room) if "#include <ray/" in path.read_text()]
    assert not wrong, wrong


def test_the_environment_is_read_in_one_place():
    wrong = [str(path.relative_to(ROOT)) for room in room_order() if room != "cli" for path in sources(room)
             if not path.name.endswith("_test.cc") and "getenv" in path.read_text()]
    assert not wrong, wrong
