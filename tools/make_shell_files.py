#!/usr/bin/python3
"""make_shell_files.py CHORUS FOLDER: the manual page (chorus.1) and the completions (chorus.bash, _chorus, chorus.fish) of the built program, from
what its --help says of each command."""
import dataclasses
import pathlib
import re
import subprocess
import sys

HELP_COLUMN = 30


@dataclasses.dataclass
class Option:
    names: list
    value: str  # "", or what the help calls it: NAME, N, TEXT
    help: str


@dataclasses.dataclass
class Command:
    path: tuple  # ("bench", "latency")
    about: str
    options: list = dataclasses.field(default_factory=list)
    positionals: list = dataclasses.field(default_factory=list)
    children: list = dataclasses.field(default_factory=list)


def help_of(chorus, path):
    return subprocess.run([chorus, *path, "--help"], capture_output=True, text=True, check=True).stdout


def entries(lines):
    """(what is left of the column, the help) of each entry; a long left side has its help on the next lines."""
    found = []
    for line in lines:
        if re.match(r"  \S", line):
            left, _, right = line[2:].partition("  ") if len(line) < HELP_COLUMN or line[HELP_COLUMN - 1] != " " else (line[2:HELP_COLUMN], "", line[HELP_COLUMN:])
            found.append([left.strip(), right.strip()])
        elif line.startswith(" " * HELP_COLUMN) and found:
            found[-1][1] = f"{found[-1][1]} {line.strip()}".strip()
    return found


def sections(text):
    """title -> lines; the usage and what is above it under None."""
    result, title = {None: []}, None
    for line in text.splitlines():
        if re.fullmatch(r"[A-Z][^:]*:", line):
            title = line[:-1]
        result.setdefault(title, []).append(line)
    return result


def option_of(left, about):
    names, _, value = left.partition(" ")
    names = [re.sub(r"\{.*\}", "", name) for name in names.split(",")]
    value = re.sub(r"\s*(REQUIRED|Excludes:.*|Needs:.*)", "", value).strip()
    return Option(names, value, about)


def read(chorus, path=(), about=""):
    text = help_of(chorus, path)
    parts = sections(text)
    command = Command(path, about or text.splitlines()[0])
    for title, lines in parts.items():
        if title in (None,) or title.startswith("Usage"):
            continue
        if title == "Subcommands":
            command.children = [read(chorus, (*path, name), child) for name, child in entries(lines)]
        elif title == "Positionals":
            command.positionals = [(left.split(" ")[0], child) for left, child in entries(lines)]
        else:
            command.options += [option_of(left, child) for left, child in entries(lines) if left.startswith("-")]
    return command


def commands(command):
    yield command
    for child in command.children:
        yield from commands(child)


# ---- the manual page ----


def roff(text):
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + escaped if escaped[:1] in (".", "'") else escaped


def manual(root, version):
    out = [f'.TH CHORUS 1 "" "chorus {version}" "User Commands"', ".SH NAME", f"chorus \\- {roff(root.about.split(': ', 1)[-1])}", ".SH SYNOPSIS"]
    leaves = [command for command in commands(root) if not command.children]
    for leaf in leaves:
        out += [f".B chorus {' '.join(leaf.path)}", f"[options]{''.join(' ' + name for name, _ in leaf.positionals)}", ".br"]
    out += [".SH DESCRIPTION", "Data\\-parallel LLM inference: N replicas of a whole engine answer one stream of requests, and the same request gives the same",
            "tokens, whatever the number of replicas, the batch, the cache, or a crash."]
    for leaf in leaves:
        out += [f".SH {' '.join(leaf.path).upper()}", roff(leaf.about) + "."]
        for name, about in leaf.positionals:
            out += [".TP", f".B {name}", roff(about)]
        for option in leaf.options:
            names = ", ".join(f"\\fB{roff(name)}\\fR" for name in option.names)
            out += [".TP", names + (f" \\fI{roff(option.value)}\\fR" if option.value else ""), roff(option.help)]
    out += [".SH EXIT STATUS", "0: done. 1: it failed. 2: the command, a file or the input is wrong. 3: some rows failed; each says why. 130: interrupted."]
    return "\n".join(out) + "\n"


# ---- completions ----

# What an option's value is completed with, where its help does not list it.
FILES = {"--input", "--output", "--output-json", "--tokenizer", "--api-key-file", "--cluster-key-file", "--render-chat"}


def choices(option):
    """The words that the help lists: "auto, bfloat16, float32", behind a colon if there is one."""
    listed = option.help.rsplit(": ", 1)[-1]
    words = re.split(r", (?:or )?|; | or ", re.sub(r" \(.*?\)", "", listed))
    plain = [word for word in words if re.fullmatch(r"[a-z0-9_-]+", word)]
    return plain if option.value in ("NAME", "") and option.value and len(plain) == len(words) and len(plain) > 1 else []


def long_names(option):
    return [name for name in option.names if name.startswith("-")]


def bash(root):
    out = ["# Completion of chorus for bash; made from its --help.", "_chorus() {", '  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command="" word',
           '  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do', '    case "$command $word" in']
    for command in commands(root):
        if command.path:
            out.append(f'      "{" ".join(command.path[:-1])} {command.path[-1]}") command="{" ".join(command.path)}" ;;')
    out += ["    esac", "  done", '  case "$command:$prev" in']
    for command in commands(root):
        for option in command.options:
            words = choices(option)
            names = "|".join(f'"{" ".join(command.path)}:{name}"' for name in option.names)
            if words:
                out.append(f'    {names}) COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$cur")); return ;;')
            elif FILES & set(option.names):
                out.append(f'    {names}) COMPREPLY=($(compgen -f -- "$cur")); return ;;')
    out += ["  esac", '  case "$command" in']
    for command in commands(root):
        words = [child.path[-1] for child in command.children] + [name for option in command.options for name in long_names(option)]
        out.append(f'    "{" ".join(command.path)}") [[ $cur == -* || {len(command.children)} -gt 0 ]] && COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$cur")) ;;')
    out += ["  esac", '  [[ ${#COMPREPLY[@]} -eq 0 && $cur != -* ]] && COMPREPLY=($(compgen -f -- "$cur"))', "}", "complete -o filenames -F _chorus chorus", ""]
    return "\n".join(out)


def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def zsh_spec(option):
    about = option.help.replace("[", "(").replace("]", ")").replace(":", ";").replace("'", "")
    words = choices(option)
    value = "" if not option.value else f":{option.value.lower()}:({' '.join(words)})" if words else f":{option.value.lower().replace(':', ';')}:_files"
    return [quoted(f"{name}[{about}]{value}") for name in long_names(option)]


def zsh(root):
    out = ["#compdef chorus", "# Completion of chorus for zsh; made from its --help."]
    for command in commands(root):
        out += ["", f"_chorus{''.join('_' + part for part in command.path)}() {{"]
        specs = [spec for option in command.options for spec in zsh_spec(option)]
        if command.children:
            names = " ".join(quoted(f"{child.path[-1]}:{child.about.replace(':', ';')}") for child in command.children)
            out += ["  local state", f"  local -a commands=({names})", "  _arguments -C \\", *[f"    {spec} \\" for spec in specs],
                    "    '1: :->command' '*:: :->rest'", "  case $state in", "    command) _describe command commands ;;", "    rest) case $words[1] in"]
            out += [f"      {child.path[-1]}) _chorus{''.join('_' + part for part in child.path)} ;;" for child in command.children]
            out += ["    esac ;;", "  esac"]
        else:
            out += ["  _arguments \\", *[f"    {spec} \\" for spec in specs], "    '*:file:_files'"]
        out.append("}")
    return "\n".join([*out, "", '_chorus "$@"', ""])


def fish(root):
    out = ["# Completion of chorus for fish; made from its --help.", "complete -c chorus -e"]
    for command in commands(root):
        seen = "; and ".join(f"__fish_seen_subcommand_from {part}" for part in command.path)
        others = " ".join(child.path[-1] for child in command.children)
        condition = " ".join(filter(None, [seen, "; and" if seen and others else "", f"not __fish_seen_subcommand_from {others}" if others else ""]))
        for child in command.children:
            out.append(f"complete -c chorus -f -n {quoted(condition)} -a {child.path[-1]} -d {quoted(child.about)}")
        for option in command.options:
            names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" if len(name) == 2 else f"-o {name[1:]}" for name in option.names)
            words = choices(option)
            value = "" if not option.value else f" -x -a {quoted(' '.join(words))}" if words else " -r"
            out.append(f"complete -c chorus{' -n ' + quoted(condition) if condition else ''} {names}{value} -d {quoted(option.help)}")
    return "\n".join([*out, ""])


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    chorus, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    root = read(chorus)
    version = subprocess.run([chorus, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0].removeprefix("chorus ")
    for name, text in (("chorus.1", manual(root, version)), ("chorus.bash", bash(root)), ("_chorus", zsh(root)), ("chorus.fish", fish(root))):
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
