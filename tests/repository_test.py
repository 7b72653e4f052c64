"""What holds for every file of the repository: sizes, and that nothing lies about unused."""
import ast
import fnmatch
import pathlib
import re

from cxx_functions import functions

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = ["src", "sim", "tests", "bench", "tools", "python", "examples", "cmake"]
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
CXX = {".cc", ".h", ".cu", ".cuh"}
CODE = CXX | {".py", ".sh", ".cmake"}
DATA = ROOT / "tests" / "data"


def files(suffixes, folders=FOLDERS):
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*"))
            if path.suffix in suffixes and path.is_file() and DATA not in path.parents]


def name(path):
    return str(path.relative_to(ROOT))


def python_functions(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.lineno, node.end_lineno - node.lineno + 1, node.name


def test_no_file_is_too_long():
    lengths = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files(CODE)}
    assert not {path: lines for path, lines in lengths.items() if lines > FILE_LINES_MAX}


def test_no_function_is_too_long():
    wrong = []
    for path in files(CXX | {".py"}):
        text = path.read_text(encoding="utf-8")
        for line, lines, header in python_functions(text) if path.suffix == ".py" else functions(text):
            if lines > FUNCTION_LINES_MAX:
                wrong.append(f"{name(path)}:{line}: {lines} lines: {header}")
    assert not wrong, "\n".join(wrong)


SAMPLE = '''
namespace a { namespace {
#define BODY(x) \\
  if (x) { return; }
template <typename T>
struct Point : Base {
  int x{1};
  Point(int x)
      : x{x}, y(f({1, 2})) {
    g('{', "}{", R"(}}})");  // }
  }
  bool operator==(const Point& other) const = default;
  Point& operator=(Point&&) noexcept { return *this; }
 private:
  std::vector<int> all = {1, 2};
};
const std::map<int, int> table = {
    {1, 1'000},
    {2, f(3)},
};
enum class E : int { a, b };
template <typename T>
auto two(const T& t, Options options = {}) -> std::optional<int> {
  const auto inner = [&](int x) {
    return x;
  };
  for (;;) {
    if (t) { struct Local { int z; }; }
  }
}
TEST(Suite, Case) {
}
extern "C" {
int three() { return 3; }
}
}}
'''


def test_functions_are_found_by_their_braces():
    assert functions(SAMPLE) == [
        (8, 4, "Point(int x) : x"), (13, 1, "Point& operator=(Point&&) noexcept"), (22, 9, "template <typename T> auto two(const T& t, Options options ="),
        (31, 2, "TEST(Suite, Case)"), (34, 1, "int three()")]


def test_a_long_function_is_seen():
    body = "  int x;\n" * FUNCTION_LINES_MAX
    assert [lines for _, lines, _ in functions("void f() {\n" + body + "}\n")] == [FUNCTION_LINES_MAX + 2]
    assert [lines for _, lines, _ in python_functions("class A:\n  def f():\n" + "    x = 1\n" * FUNCTION_LINES_MAX)] == [FUNCTION_LINES_MAX + 1]


def is_built(path):
    """A CMakeLists.txt above it names the file, or globs it (as chorus_room does, all but main.cc)."""
    room_globs = re.findall(r"\$\{CMAKE_CURRENT_SOURCE_DIR\}/(\S*\*\S*\.cc)", (ROOT / "cmake" / "ChorusRoom.cmake").read_text(encoding="utf-8"))
    for folder in path.parents:
        if (folder / "CMakeLists.txt").exists():
            text = (folder / "CMakeLists.txt").read_text(encoding="utf-8")
            inside = str(path.relative_to(folder))
            globs = re.findall(r"\$\{CMAKE_CURRENT_SOURCE_DIR\}/(\S*\*\S*\.cc)", text) + (room_globs if "chorus_room(" in text else [])
            globbed = any(fnmatch.fnmatch(inside, glob) and inside.count("/") == glob.count("/") for glob in globs)
            return (globbed and path.name != "main.cc") or re.search(rf"(?<![\w/]){re.escape(inside)}(?!\w)", text) is not None
    return False


def test_every_source_file_is_in_a_target():
    sources = files({".cc", ".cu"})
    assert len(sources) > 100
    assert not [name(path) for path in sources if not is_built(path)]


def test_every_header_is_included():
    included = set()
    for path in files(CXX):
        for header in re.findall(r'#include "([^"]+)"', path.read_text(encoding="utf-8")):
            included |= {place for place in (ROOT / "src" / header, path.parent / header) if place.exists()}
    assert not [name(path) for path in files({".h", ".cuh"}) if path not in included]


def test_every_script_is_named():
    """A module or a program that nothing imports, runs or describes is unused."""
    texts = {path: path.read_text(encoding="utf-8") for path in [*files(CODE | {".md", ".txt"}), *DATA.rglob("README.md"), *(ROOT / "docs").rglob("*.md"),
                                                                 *ROOT.glob("*.md"), ROOT / "Makefile", ROOT / ".ci" / "run"]}
    scripts = [path for path in files({".py", ".sh"}) if not path.name.endswith("_test.py") or path.parent.name not in ("tests", "launchers", "clients", "page", "python")]
    assert not [name(script) for script in scripts
                if not any(re.search(rf"\b{script.stem}\b", text) for path, text in texts.items() if path != script)]


def test_every_data_file_is_named():
    """By a test or a README; or its folder is, which a test reads whole."""
    texts = [path.read_text(encoding="utf-8") for path in [*files(CODE), *DATA.rglob("README.md")] if path.name != "repository_test.py"]
    words = {word for text in texts for word in re.findall(r"[\w.-]+", text)}
    words |= {word.rstrip(".") for word in words}
    unnamed = [name(path) for path in sorted(DATA.rglob("*")) if path.is_file() and path.name not in words and path.parent.name not in words]
    assert not unnamed


def links(page):
    return {(page.parent / target.split("#")[0]).resolve() for target in re.findall(r"\]\(([^)\s:]+)\)", page.read_text(encoding="utf-8"))
            if target.split("#")[0]}


def test_every_page_is_linked_and_every_link_leads_somewhere():
    """A link to a folder (docs/decisions/) links its pages."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md"), *(ROOT / "models").rglob("*.md")]
    linked = {target for page in pages for target in links(page)}
    assert not [name(page) for page in pages if page.parent != ROOT and page not in linked and page.parent not in linked]
    assert not [f"{name(page)}: {target}" for page in pages for target in links(page) if not target.exists()]


CLASS = re.compile(r"^(?:class|struct|enum class|union) (\w+)(?: final)?\s*(?::(?!:)[^;{]*)?\{", re.MULTILINE)
NAMESPACE = re.compile(r"^namespace ?([\w:]*) \{|^\}  // namespace ?([\w:]*)$", re.MULTILINE)
# Two meanings of one header, of which a compiler sees one.
TWO_MEANINGS = {"simt::Shared"}


def classes(text):
    """The classes that a file defines where other files may, with their namespaces."""
    inside, found = [], []
    for event in sorted([*CLASS.finditer(text), *NAMESPACE.finditer(text)], key=re.Match.start):
        if event.re is CLASS:
            if "" not in inside:
                found.append("::".join([*inside, event[1]]))
        elif event[0].startswith("}"):
            inside.pop()
        else:
            inside.append(event[1])
    return found


def test_classes_are_read_with_their_namespaces():
    text = ("class A {\n};\nnamespace n {\nstruct B final : public A,\n    C {\n};\nclass D;\nstruct B::E {\n};\n"
            "namespace {\nclass F {\n};\n}  // namespace\nenum class G : int { g };\n}  // namespace n\n")
    assert classes(text) == ["A", "n::B", "n::G"]


def test_no_name_is_two_classes():
    """A program with two classes of one name has undefined behaviour, and no linker says so (one definition rule)."""
    holders = {}
    for path in files(CXX, ["src"]):
        for one in classes(path.read_text(encoding="utf-8")):
            holders.setdefault(one, set()).add(name(path))
    assert not {one: paths for one, paths in holders.items() if len(paths) > 1 and one not in TWO_MEANINGS}
