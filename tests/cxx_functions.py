"""Where the functions of a C++ file begin and end, by its braces. For clang-format'ed code; no parser."""
import re

RAW_STRING = re.compile(r'R"([^()\\\s]*)\(.*?\)\1"', re.S)
# Comments, strings, characters (not the ' of 1'000) and preprocessor lines, in one pass: a quote in a comment opens nothing.
NOT_CODE = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|(?<![0-9A-Za-z_])\'(?:\\.|[^\'\\\n])+\'|^[ \t]*#(?:[^\n]*\\\n)*[^\n]*', re.S | re.M)
CONTAINER = re.compile(r"\b(namespace|class|struct|union|enum)\b[^()]*$|^extern\s*$")
CONSTRUCTOR = re.compile(r"\)\s*(noexcept\s*)?:(?!:)")


def code_of(text):
    """The text with everything that is not code blanked; every line keeps its place."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group(0))
    return NOT_CODE.sub(blank, RAW_STRING.sub(blank, text))


def functions(text):
    """(first line, line count, header) of each function; a lambda counts for the function around it."""
    code = code_of(text)
    found, open_braces = [], []  # of each open brace: what it is, and where a function's header begins
    header_at = 0
    for place, sign in enumerate(code):
        if sign == "{":
            kind = kind_of(code[header_at:place], open_braces)
            open_braces.append((kind, header_at))
            if kind != "value":
                header_at = place + 1
        elif sign == "}" and open_braces:
            kind, begin = open_braces.pop()
            if kind == "function":
                header = code[begin:place].lstrip()
                first = code.count("\n", 0, place - len(header)) + 1
                found.append((first, code.count("\n", 0, place) + 2 - first, " ".join(header.split("{")[0].split())))
            if kind != "value":
                header_at = place + 1
        elif sign == ";" and not (open_braces and open_braces[-1][0] == "value"):
            header_at = place + 1
    return found


def kind_of(header, open_braces):
    """"container" holds functions, "value" is part of the header before it, "body" is inside a function."""
    if any(kind in ("function", "body") for kind, _ in open_braces):
        return "body"
    if open_braces and open_braces[-1][0] == "value":
        return "value"
    header = re.sub(r"^\s*(public|private|protected):", "", header.strip()).strip()
    if CONTAINER.search(re.sub(r"template\s*<.*?>\s*(?=struct|class)", "", header, flags=re.S)):
        return "container"
    begins_member = CONSTRUCTOR.search(header) and re.search(r"[\w>]$", header) and not re.search(r"\b(const|noexcept|override)$", header)
    if "(" not in header or begins_member or re.search(r"(=|\breturn|,|\()$", header) or re.search(r"(?<![=!<>])=(?!=)", outside_parentheses(header)):
        return "value"
    return "function"


def outside_parentheses(header):
    while (shorter := re.sub(r"\([^()]*\)", "", header)) != header:
        header = shorter
    return re.sub(r"operator\s*=+", "operator", header)
