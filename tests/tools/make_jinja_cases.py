#!/usr/bin/env python3
"""make_jinja_cases.py OUT.json -- small template cases with jinja2's answers, in the environment that transformers uses.

Run with PyPI jinja2 3.1.6. A case that fails has "error_type", the exception's class, instead of "output".
"""
import datetime
import json
import pathlib
import sys

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2026, 1, 15, 12, 0, 0)
VARIABLES = {
    "s": "Hello World", "u": "Grüße 雪 ß", "empty": "", "n": 7, "neg": -7, "f": 2.5, "big": 1e22, "small": 1e-7, "t": True,
    "no": None, "words": ["pear", "Apple", "fig", "apple"], "nums": [3, 1, 2], "nested": [[1, 2], [3]], "html": "<a href='x'>&</a>",
    "d": {"b": 1, "a": {"x": [1, 2.0, None, True]}, "C": "z"}, "lines": "one\ntwo\n\nthree", "spaced": "  a b  c ",
    "people": [{"name": "Ann", "age": 30, "tags": ["x"]}, {"name": "bob", "age": 25}, {"name": "Cid", "age": 30, "tags": []}],
}

# Printed with {{ }}, one a line; a backslash at the end carries it into the next.
EXPRESSIONS = (pathlib.Path(__file__).parent / "jinja_expressions.txt").read_text(encoding="utf-8").removesuffix("\n")

# Whole templates.
TEMPLATES = [
    "a{# c #}b", "a{#- c -#} b", "a {#- c #} b", "{# a\nb #}\nc", "a\n  {# c #}\nb", "{##}x", "{#-#}x", "{#--#} x", "{#",
    "{% raw %}{{ x }}{% y %}{% endraw %}!", "  {%- raw -%}  {{ x }}  {%- endraw -%}  !", "{% raw %}\n a {% endraw %}\nb", "{% raw %}x",
    "{%+ raw %} x {%+ endraw %} y", "a\n   {% raw %}\n  b\n  {% endraw %}\n c",
    "a\n  {% if t %}\n  b\n  {% endif %}\nc\n", "a\n  {%- if t -%}\n  b\n  {%- endif -%}\nc\n", "a\n  {%+ if t +%}\n  b\n  {%+ endif +%}\nc\n\n",
    "  {{ s }}  \n  {{- s -}}  \n x", "{{ s }}\n{{ s }}\n", "x {% if t %} y {% endif %} z", "{% if t %}\n\nA\n{% endif %}\n\nB",
    "\r\na\r\n{% if t %}\r\nb\r{% endif %}\n", "a\n\n", "a\n", "\n", "", " ", "{{ 'a\nb' }}", "\t{% set x = 1 %}\n\t{{ x }}", "é{%- if t %} ü {% endif -%} x",
    "\u3000{%- if t %}x{% endif %}", "a\u00a0\n\u00a0 {% if t %}x{% endif %}",
    "{% if n > 5 %}big{% elif n > 3 %}mid{% else %}small{% endif %}", "{% if no %}a{% elif nope %}b{% elif n %}c{% endif %}", "{% if %}x{% endif %}",
    "{% if t: %}x{% endif %}", "{% if t %}x", "{% endif %}", "{% if t %}x{% endfor %}", "{% foo %}", "{% %}", "{{ }}", "{{", "{%", "{{ 1 }", "{% if 1 }}",
    "{% for x in nums %}{{ x }},{% endfor %}", "{% for x in [] %}a{% else %}none{% endfor %}", "{% for x in nope %}a{% else %}none{% endfor %}",
    "{% for x in no %}a{% endfor %}", "{% for x in 5 %}a{% endfor %}", "{% for c in 'aé雪' %}[{{ c }}]{% endfor %}", "{% for k in d %}{{ k }}{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k, v in d|dictsort %}{{ k }};{% endfor %}", "{% for a, b in nested %}{% endfor %}",
    "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "{% for (a, b) in [(1, 2)] %}{{ a }}{{ b }}{% endfor %}",
    "{% for x in nums %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }};{% endfor %}",
    "{% for x in nums %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }};{% endfor %}", "{% for x in nums %}{{ loop.previtem is defined }}{{ loop.nextitem is undefined }}{% endfor %}",
    "{% for x in nums %}{{ loop.cycle('a', 'b') }}{% endfor %}", "{% for x in [1, 1, 2, 2, 1] %}{{ loop.changed(x) }}{% endfor %}", "{% for x in nums %}{{ loop.nope }}{% endfor %}",
    "{% for x in nums %}{{ loop }}{% break %}{% endfor %}", "{{ loop is defined }}{% for x in nums %}{% endfor %}{{ x is defined }}",
    "{% for x in range(10) if x is odd %}{{ x }}{{ loop.index }}{{ loop.last }}{{ loop.length }} {% endfor %}", "{% for x in range(10) if x > 20 %}a{% else %}none{% endfor %}",
    "{% for x in range(5) if loop.index %}{% endfor %}", "{% set ns = namespace(stop=false) %}{% for x in range(9) if not ns.stop %}{{ x }}{% if x == 3 %}{% set ns.stop = true %}{% endif %}{% endfor %}",
    "{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}", "{% for x in [1] %}{% break %}{% else %}e{% endfor %}",
    "{% break %}", "{% continue %}", "{% for x in nums %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}",
    "{% for x in nested recursive %}{% if x is iterable %}[{{ loop(x) }}]{% else %}{{ x }}@{{ loop.depth }}{% endif %}{% endfor %}", "{% for x in nums %}{{ loop(x) }}{% endfor %}",
    "{% for x in nums %}{% for y in nums %}{{ loop.index }}{{ loop.depth }}{% endfor %}-{{ loop.index }} {% endfor %}",
    "{% for x in nums %}{% set outer = loop %}{% for y in [1, 2] %}{{ outer.index }}.{{ loop.index }} {% endfor %}{% endfor %}",
    "{% for x in nums|reverse %}{{ x }}{% endfor %}", "{% for x in nums|select('odd') %}{{ x }}{{ loop.length }}{% endfor %}", "{% set g = nums|map('string') %}{{ g|list }}{{ g|list }}", "{% set g = nums|map('string') %}{{ g|first }}{{ g|list }}",
    "{% for x in 1, 2, 3 %}{{ x }}{% endfor %}", "{% for x in nums if x > 1 else [] %}{% endfor %}", "{% for x in (nums if t else []) %}{{ x }}{% endfor %}", "{% for x in nums if t %}{{ x }}{% endfor %}",
    "{% for loop in nums %}{{ loop }}{% endfor %}", "{% for 1 in nums %}{% endfor %}", "{% for x.y in nums %}{% endfor %}", "{% for x nums %}{% endfor %}",
    "{% set x = 1 %}{{ x }}", "{% set x, y = 1, 2 %}{{ x }}{{ y }}", "{% set x, y = nums %}", "{% set x = y = 1 %}", "{% set x %}a{{ n }}b{% endset %}[{{ x }}]", "{% set x | upper %}ab{% endset %}{{ x }}",
    "{% set x | replace('a', 'b') | upper %}aa{% endset %}{{ x }}", "{% set 1 = 2 %}", "{% set x = 1, 2 %}{{ x }}", "{% set x = [] %}{% set _ = x.append(1) %}", "{% set x.y = 1 %}", "{% set n.y = 1 %}",
    "{% set x = 0 %}{% for i in nums %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}", "{% set x = 0 %}{% if t %}{% set x = 5 %}{% endif %}{{ x }}", "{% if t %}{% set q = 5 %}{% endif %}{{ q }}", "{% for i in nums %}{% set q = i %}{% endfor %}[{{ q }}]",
    "{% for i in nums %}{{ q is defined }}{% set q = i %}{% endfor %}", "{% set ns = namespace(x=0) %}{% for i in nums %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}", "{% set ns = namespace(a=1) %}{% set ns.b = 2 %}{{ ns.a }}{{ ns.b }}{{ ns.c }}{{ ns['a'] }}{{ ns.c is defined }}",
    "{% set ns = namespace() %}{% set ns.x, y = 1, 2 %}{{ ns.x }}{{ y }}", "{% set ns = namespace(x=1) %}{% set ns.x %}block{% endset %}{{ ns.x }}", "{% set ns = namespace(d) %}{{ ns.b }}", "{{ namespace() is mapping }}{{ namespace() is iterable }}{{ namespace()|tojson }}",
    "{% macro m(a, b=2) %}{{ a }}-{{ b }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(b=5, a=4) }} {{ m() }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(z=2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}",
    "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}", "{% macro m(a) %}{{ a }}{{ varargs|length }}{{ kwargs.k }}{% endmacro %}{{ m(1, 2, k=3) }}", "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}", "{% macro m(a=1, b) %}{% endmacro %}",
    "{% macro m(a, b=n) %}{{ b }}{% endmacro %}{% set n = 100 %}{{ m(1) }}", "{% set x = 1 %}{% macro m() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}", "{% macro m() %}{% set x = 5 %}{{ x }}{% endmacro %}{{ m() }}{{ x is defined }}",
    "{% macro f(n) %}{% if n > 1 %}{{ n }}*{{ f(n - 1) }}{% else %}1{% endif %}{% endmacro %}{{ f(5) }}", "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}", "{% macro m() %}x{% endmacro %}{{ m }}{{ m.name }}{{ m.arguments }}{{ m is callable }}",
    "{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m('a')|upper }}{{ m('a')|length }}{{ 'a' in m('a') }}", "{% macro m() %}  x  {% endmacro %}[{{ m()|trim }}]", "{%- macro m() -%}\n  x\n{%- endmacro -%}\n[{{ m() }}]", "{% for i in nums %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}",
    "{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}body{% endcall %}", "{% macro m() %}{{ caller(1, 2) }}{% endmacro %}{% call(a, b) m() %}{{ a }}+{{ b }}{% endcall %}", "{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}", "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}",
    "{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}", "{% call n %}x{% endcall %}", "{% set x = 1 %}{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}{{ x }}{% endcall %}",
    "{% filter upper %}ab{{ s }}{% endfilter %}", "{% filter replace('a', 'b')|upper %}aa{% endfilter %}", "{% filter trim %}  x  {% endfilter %}", "{% filter %}x{% endfilter %}", "{% filter length %}ab{% endfilter %}", "{% filter escape %}<{% endfilter %}", "{% set a %}{% filter length %}ab{% endfilter %}{% endset %}{{ a }}",
    "{% with a=1, b=2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}", "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q is defined }}", "{% with a = n %}{% with a = a + 1 %}{{ a }}{% endwith %}{{ a }}{% endwith %}",
    "{% generation %}{{ s }}{% endgeneration %}", "a {%- generation -%} {{ s }} {%- endgeneration -%} b", "{% for x in nums %}{% generation %}{{ x }}{{ loop.index }}{% endgeneration %}{% endfor %}", "{% block b %}{{ s }}{% endblock %}", "{% print n, s %}",
    "{% do nums %}", "{% set c = cycler('a', 'b', 'c') %}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.next() }}", "{% set j = joiner(', ') %}{% for x in nums %}{{ j() }}{{ x }}{% endfor %}", "{% set j = joiner() %}{{ j() }}a{{ j() }}b",
    "{{ s\n}}\n{{\ns }}", "{{ '}}' }}", "{{ '%}' }}", "{{ \"{{ x }}\" }}", "{{ {'a': {'b': 1}} }}", "{{ {'a': {'b': 1}}}}", "{{{'a': 1}.a}}", "{{ [1, [2, [3]]][1][1][0] }}",
    "{% if 'a' in d and d.a is mapping and d.a.x %}ok{% endif %}", "{% if d.q is defined and d.q.z %}a{% else %}b{% endif %}", "{% if not (n == 7) != t %}a{% else %}b{% endif %}", "{{ d.a.x is iterable and d.a.x is not string and d.a.x is not mapping }}",
    "{% set x = nums[:] %}{{ x }}{{ nums[:2] }}{{ nums[2:] }}{{ nums[-2:] }}", "{% set content = s.split('</think>')[-1].lstrip('\\n') %}{{ content }}", "{{ (s.split(' ')|last).strip() }}", "{{- s|trim ~ '\\n' -}}\n\n x",
    "{% for m in people %}{% if (m.age == 30) != (loop.index0 % 2 == 0) %}{{ raise_exception('bad ' ~ m.name) }}{% endif %}{{ m.name }}{% endfor %}", "{% for p in people %}{{ p.tags[0] if p.tags else '-' }}{% endfor %}", "{% for p in people if p.tags is defined %}{{ p.name }}{{ ',' if not loop.last }}{% endfor %}",
    "{{ 'a' if n == 7 and t else 'b' }}{{ ('x' if no else 'y') ~ 'z' }}", "{% set a = 'x' if t else 'y' %}{{ a }}", "{{ people|map(attribute='name')|join(', ') if people else 'none' }}", "{{ '%02d:%02d'|format(5, 7) }}", "{{ 'A' < 'a' }}{{ [1,2,3] == [1,2,3] }}{{ 'abc' == \"abc\" }}",
    "{% set x = none %}{{ x|select('odd')|list }}{{ x|map('upper')|list }}{{ x|selectattr('a')|list }}", "{{ ''|map('upper')|list }}{{ 0|reject|list }}",
    "{% set a = {'x': 1} %}{% set b = dict(a, y=2) %}{{ b }}{{ a }}", "{% set t1 = (1, 'a') %}{% for i in t1 %}{{ i }}{% endfor %}{{ t1[1] }}", "{{ 1 }}{{ 1.0 }}{{ '1' }}{{ true }}{{ none }}{{ [] }}{{ {} }}{{ () }}", "{{ x if x is defined else 'undefined' }}", "{{ (nope or 'dflt')|upper }}",
    "{{ s | upper | lower }}{{ s|\nupper }}", "{{ s is defined }}{{ s is not defined }}{{ not s is defined }}", "{{ nums is iterable and nums|length }}", "{% set _ = 1 %}{{ _ }}", "{% set a = 1 %}{% set a = a + 1 %}{{ a }}", "{% set x = x|default(3) %}{{ x }}", "{% set n = n + 1 %}{{ n }}",
]


class TemplateRaised(jinja2.exceptions.TemplateError):
    pass


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller):
        return caller()


def raise_exception(message):
    raise TemplateRaised(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


def main():
    expressions, pending = [], ""
    for line in EXPRESSIONS.split("\n"):
        pending += line
        if pending.endswith("\\"):
            pending += "\n"
            continue
        expressions.append("{{ " + pending + " }}")
        pending = ""
    cases = []
    for source in expressions + TEMPLATES:
        case = {"template": source}
        try:
            case["output"] = environment().from_string(source).render(**json.loads(json.dumps(VARIABLES)))
            if " at 0x" in case["output"]:
                continue  # addresses differ from run to run
        except TemplateRaised as error:
            case["error_type"] = str(error)
        except SyntaxError:
            case["error_type"] = "TemplateSyntaxError"
        except Exception as error:
            case["error_type"] = type(error).__name__
        cases.append(case)
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        json.dump({"jinja2": jinja2.__version__, "variables": VARIABLES, "cases": cases}, out, ensure_ascii=False, indent=0)
    print(len(cases), "cases", sum("error_type" in case for case in cases), "errors")


if __name__ == "__main__":
    main()
