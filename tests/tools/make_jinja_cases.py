#!/usr/bin/env python3
"""make_jinja_cases.py OUT.json -- small template cases with jinja2's answers, in the environment that transformers uses.

Run with PyPI jinja2 3.1.6. A case that fails has "error_type", the exception's class, instead of "output".
"""
import datetime
import json
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

# Expressions, printed with {{ }}.
EXPRESSIONS = """
1 + 2 * 3 - 4 / 2
7 // 2 ~ ' ' ~ -7 // 2 ~ ' ' ~ 7 % 3 ~ ' ' ~ -7 % 3 ~ ' ' ~ 7 % -3
2 ** 3 ** 2
-2 ** 2
2 ** -1
7.5 // 2
-7.5 % 2
7 / 2
6 / 3
1e3
1e16
1.5e-5
0.0001
0.00001
123456789012345678.0
1_000 + 0x1f + 0b11 + 0o17
big
small
0.1 + 0.2
t + t
true and 0
0 or 'x'
not t
not no
1 < 2 < 3
1 < 3 < 2
1 == 1.0 == true
'a' < 'b'
'B' < 'a'
[1, 2] < [1, 3]
(1, 2) == (1, 2)
[1, 2] == (1, 2)
{'a': 1} == {'a': 1.0}
1 == '1'
no == none
nope == none
nope == nope2
1 in [1, 2]
'ell' in s
'x' not in s
'a' in d
3 in nested
1 in nope
'a' 'b' "c"
'a' ~ 1 ~ 2.0 ~ none ~ true ~ nope ~ [1, 'x']
s + '!' * 3
[1] + [2] * 2
(1,) + (2, 3)
(1,)
()
(1)
1, 2
[]
{}
{'a': 1, 2: 'b', none: [1.5], true: ("x",)}
{1: 'a', 1.0: 'b', true: 'c'}
"it's"
["it's", 'say "hi"', 'both \\' and "', 'tab\\t', 'nl\\n', '\\x07', 'é雪', '\\u200b']
'\\x41\\u00e9\\U0001F600\\101\\q'
'a\\
b'
s[0] ~ s[-1] ~ s[100]
s[2:5]
s[::-1]
s[::2]
s[-3:]
s[:-3]
s[5:2]
s[100:]
u[0:5]
u[::-1]
u[6]
u|length
nums[0]
nums[-1]
nums[9]
nums[1:]
nums[::-1]
nums[-100:2]
nums['x']
nums.x
nums.0
(1, 2, 3)[1:]
(1,2,3)[::-2]
d.a.x[1]
d['a']['x']
d.missing
d.missing.more
d['missing'] is defined
d.items()
d.keys()
d.values()
d.get('b')
d.get('q')
d.get('q', 5)
d.items()|list
d|items|list
d|list
d|length
d.items
no.x
no['x']
no.x.y
n.x
nope.x
nope['x']
nope()
s()
s.nope()
s.append('x')
nums.append(4)
nums.pop()
nums.append is defined
d.pop('a')
d.update({})
d.setdefault('a', 1)
d.copy()
nums.index(2)
nums.index(9)
nums.count(1)
s.__class__
''.__class__.__mro__
'yes' if t else 'no'
'yes' if no else 'no'
'yes' if no
'a' if no else 'b' if no else 'c'
1 if 2 if no else 3
s.upper() ~ s.lower() ~ s.title() ~ s.swapcase()
u.upper()
u.lower()
u.title()
'ǆ'.title() ~ 'ﬁ'.capitalize() ~ 'ΑΣ'.lower()
"they're bill's".title()
"they're bill's"|title
'hello (world) [x] {y} <z> a-b'|title
'hELLO wORLD'|capitalize
'hELLO wORLD'.capitalize()
spaced.strip() ~ '|' ~ spaced.lstrip() ~ '|' ~ spaced.rstrip() ~ '|'
'xxaxx'.strip('x') ~ 'abcab'.lstrip('ab') ~ 'abcab'.rstrip('ab')
'\\u3000a\\u00a0'.strip()
spaced.split()
spaced.split(' ')
spaced.split(' ', 1)
spaced.split(none, 1)
'a,b,c'.split(',')
'a,b,c'.split(',', 1)
'a,b,c'.split(sep=',', maxsplit=1)
'a,b,c'.rsplit(',', 1)
' a  b c '.rsplit(none, 1)
''.split()
''.split(',')
'abc'.split('')
lines.splitlines()
lines.splitlines(true)
'a\\r\\nb\\rc\\x0bd\\u2028e'.splitlines()
s.startswith('Hell') ~ s.startswith(('x', 'H')) ~ s.endswith('ld') ~ s.endswith('x') ~ s.startswith('World', 6)
s.startswith(1)
s.find('o') ~ s.rfind('o') ~ s.find('zz') ~ s.find('o', 5) ~ u.find('雪')
s.index('zz')
s.count('o') ~ s.count('') ~ s.count('l', 4)
s.replace('o', '0')
s.replace('o', '0', 1)
'abc'.replace('', '-')
','.join(['a', 'b'])
','.join([1])
', '.join('abc')
'abc'.isalpha() ~ '12'.isdigit() ~ 'a1'.isalnum() ~ ' '.isspace() ~ 'A'.isupper() ~ 'a'.islower() ~ ''.isdigit() ~ '½'.isnumeric() ~ '²'.isdigit()
'Ab Cd'.istitle() ~ 'a_1'.isidentifier() ~ '1a'.isidentifier() ~ 'é'.isascii()
'a-b-c'.partition('-')
'a-b-c'.rpartition('-')
'abc'.partition('x')
'7'.zfill(3) ~ '-7'.zfill(4)
'ab'.center(7, '*') ~ 'ab'.center(5, '*') ~ 'abc'.center(6, '*') ~ 'ab'.ljust(4) ~ '|' ~ 'ab'.rjust(4, '.')
'prefix-x'.removeprefix('prefix-') ~ 'x.txt'.removesuffix('.txt')
'a\\tb'.expandtabs(4)
'{} and {}'.format(1, 'x')
'{1} {0} {name!r} {name:>5}'.format(1, 2, name='x')
'{0[a]} {1.b}'.format({'a': 1}, {'b': 2})
'{:05d}|{:+d}|{:x}|{:#x}|{:,}|{:>6}|{:^7}|{:<4}|'.format(42, 42, 255, 255, 1234567, 'ab', 'mid', 'l')
'{:.2f}|{:8.3f}|{:e}|{:%}|{:g}|{}'.format(3.14159, 2.5, 12345.678, 0.25, 0.0001, 1.0)
'{:*^9}'.format('x') ~ '{:_>5}'.format(3)
'{{}} {}'.format(1)
'{} {}'.format(1)
'{x}'.format(y=1)
'%s and %d' % ('a', 5)
'%s' % 'x'
'%s' % [1, 2]
'%5d|%-5d|%05d|%+d|%x|%X|%o|%%' % (42, 42, 42, 42, 255, 255, 8)
'%.2f|%8.3f|%e|%g|%s' % (3.14159, 2.5, 12345.678, 0.00001, 1.5)
'%(a)s-%(b)05.1f' % {'a': 'x', 'b': 2.25}
'%r %s' % ('q', none)
'%s %s' % ('a',)
'%d' % 'x'
'%s' % (1, 2)
'%c%c' % (65, 'b')
'%5s|%-5s|%.2s' % ('ab', 'ab', 'abcdef')
'%s, %s!'|format('Hi', 'you')
'%(a)s'|format(a=1)
s|upper ~ s|lower ~ s|trim ~ s|length ~ s|count
spaced|trim ~ '|'
'xxaxx'|trim('x')
n|trim
nope|trim
no|upper
s|replace('o', '0') ~ s|replace('o', '0', 1)
n|replace(7, 8)
s|reverse
nums|reverse|list
nums|reverse|length
nums|sort
nums|sort(reverse=true)
words|sort
words|sort(case_sensitive=true)
words|sort(true)
people|sort(attribute='age')|map(attribute='name')|join(',')
people|sort(attribute='age,name')|map(attribute='name')|join(',')
people|sort(attribute='name', reverse=true)|map(attribute='name')|join(',')
[1, 'a']|sort
words|unique|list
words|unique(true)|list
[3, 1, 3]|unique|join
people|unique(attribute='age')|map(attribute='name')|list
nums|min ~ nums|max ~ words|min ~ words|max
[]|min
people|max(attribute='age')
nums|sum ~ nums|sum(start=10)
people|sum(attribute='age')
[1.5, 2]|sum
[[1], [2]]|sum(start=[])
nums|first ~ nums|last
[]|first
''|last
s|first ~ s|last
nums|join(', ')
nums|join
people|join('-', attribute='name')
[1, none, 'x', nope]|join('|')
nope|join
5|join
words|map('upper')|list
words|map('upper')
words|map('replace', 'p', 'b')|list
people|map(attribute='age')|list
people|map(attribute='tags', default='none')|list
people|map(attribute='tags.0', default='-')|list
nums|map('string')|map('int')|sum
nums|map
nums|map('nofilter')|list
words|select('equalto', 'fig')|list
nums|select|list
[0, 1, '', 'a', none]|select|list
[0, 1, '', 'a', none]|reject|list
nums|select('>', 1)|list
nums|reject('odd')|list
people|selectattr('age', 'equalto', 30)|map(attribute='name')|list
people|selectattr('tags')|map(attribute='name')|list
people|rejectattr('tags', 'defined')|map(attribute='name')|list
people|selectattr('name', 'in', ['Ann', 'Cid'])|list|length
nums|select('notest')|list
nums|select('odd')|length
nums|select('odd')|first
nope|default('x') ~ no|default('x') ~ no|default('x', true) ~ ''|d('e', boolean=true) ~ nope|default
nope.x|default('y')
d.missing|default('y')
'42'|int ~ '4.9'|int ~ 'x'|int ~ 'x'|int(5) ~ 3.99|int ~ '0x1f'|int(0, 16) ~ '  7 '|int ~ none|int ~ true|int
'-12'|int ~ '1_000'|int ~ '12abc'|int(default=-1)
'3.5'|float ~ 'x'|float ~ 'x'|float(1.5) ~ 3|float ~ 'inf'|float ~ '1e3'|float
42.55|round ~ ' ' ~ 42.55|round(1, 'floor') ~ ' ' ~ 42.45|round(1, 'ceil') ~ ' ' ~ 2.5|round ~ ' ' ~ 3.5|round ~ ' ' ~ 2.675|round(2) ~ ' ' ~ 7|round
1234.5678|round(-2)
neg|abs ~ -2.5|abs
5|string ~ none|string ~ [1]|string
s|list
d|dictsort
d|dictsort(true)
d|dictsort(false, 'value')
{'b': 1, 'a': 2}|dictsort(by='value', reverse=true)
{'b': 1, 'a': 2}|dictsort(by='x')
nums|batch(2)|list
nums|batch(2, 'x')|list
nums|slice(2)|list
range(7)|slice(3, 'x')|list
people|groupby('age')|list
people|groupby('age')|map(attribute='grouper')|list
people|groupby('tags', default='q')|map('first')|list
lines|indent
lines|indent(2, true)
lines|indent(2, true, true)
lines|indent('> ', first=true)
lines|indent(width=1, blank=true)
'foo bar baz qux'|truncate(9)
'foo bar baz qux'|truncate(9, true)
'foo bar baz qux'|truncate(11)
'foo bar baz qux'|truncate(11, false, '...', 0)
'foo bar baz qux'|truncate(2)
s|wordcount ~ "it's a b-c"|wordcount
html|escape
html|e|e
html|safe
html|safe ~ html
(html|safe) + '<b>'
'<b>' + (html|safe)
(html|escape).upper()
html|forceescape
'<b>%s</b>'|safe|format('<i>')
'a b&c/d?é'|urlencode
{'a': 1, 'b c': 'd&e'}|urlencode
'<p>x  <b>y</b></p>'|striptags
'x'|center(5) ~ '|'
123456|filesizeformat ~ 1|filesizeformat ~ 999|filesizeformat ~ 1234567|filesizeformat(true)
d|attr('items') is callable
s|attr('nope')
d|tojson
d|tojson(indent=2)
d|tojson(indent=0)
d|tojson(sort_keys=true)
d|tojson(separators=(',', ':'))
d|tojson(ensure_ascii=true, indent=4)
[u, '\\u007f\\x01"\\\\/', 1e22, 1.0, -0.0, 1e-7, true, none, [], {}, (1, 2)]|tojson
[u, '😀']|tojson(ensure_ascii=true)
{1: 2, none: 3, true: 4, 1.5: 5}|tojson
{(1, 2): 3}|tojson
nope|tojson
range(3)|tojson
d.items()|tojson
words|map('upper')|tojson
[[], [[]], {'a': []}, {'b': {}}]|tojson(indent=1)
'x'|tojson|safe
1e999|tojson
range(5)
range(1, 5)|list
range(5, 0, -2)|list
range(3)[1] ~ range(3)[-1] ~ range(3)[7]
range(3)|length ~ (range(3) is sequence) ~ (1 in range(3))
range(0)|list
range(1, 2, 0)
range(100001)
range('x')
dict(a=1, b='x')
dict({'a': 1}, b=2)
dict([('a', 1)])
dict(d, b=5)|tojson
namespace(a=1).a
namespace(a=1).b
namespace({'a': 3}).a
cycler('a', 'b').next()
joiner('|')() ~ 'x'
strftime_now('%Y-%m-%d %d %B %H:%M %b %A %j')
raise_exception('boom')
nofunc('x')
n is odd ~ n is even ~ n is divisibleby 7 ~ n is divisibleby(2)
n is defined ~ nope is defined ~ nope is undefined ~ no is none ~ n is not none
s is string ~ n is string ~ n is number ~ f is number ~ t is number ~ s is number
n is integer ~ t is integer ~ f is float ~ t is boolean ~ n is boolean
d is mapping ~ nums is mapping ~ nums is iterable ~ s is iterable ~ n is iterable ~ d is iterable ~ no is iterable ~ nope is iterable
nums is sequence ~ s is sequence ~ d is sequence ~ n is sequence ~ (1,2) is sequence ~ nope is sequence ~ (nums|map('string')) is sequence
t is true ~ t is false ~ 1 is true ~ no is false
s is upper ~ 'AB' is upper ~ 'ab' is lower
n is eq 7 ~ n is equalto 8 ~ n is ne 7 ~ n is gt 5 ~ n is lt(5) ~ n is ge 7 ~ n is le 6 ~ n is greaterthan 3 ~ n is lessthan 3
n is sameas 7 ~ t is sameas true ~ no is sameas none ~ 1 is sameas true
n is in [7, 8] ~ n is not in [7] ~ 'H' is in s
range is callable ~ s is callable ~ s.upper is callable ~ nope is callable
s is escaped ~ (s|safe) is escaped
'upper' is filter ~ 'nope' is filter ~ 'odd' is test
n is nosuchtest
n is divisibleby
not n is odd
n is odd and f is float
n is not odd or true
n is defined and n
n is string is string
n|string|length
-n|abs
(-n)|abs
n + nums|length
'a' ~ n|string ~ 'b'
[n, s]|map('string')|join('-')|upper
1 + 'a'
'a' + 1
[1] + (2,)
'a' * 1.5
'a' - 'b'
1 - none
{} + {}
1 / 0
1 // 0
1 % 0
1.5 / 0
1 < 'a'
none < 1
[1] < 1
{} < {}
nope + 1
1 + nope
nope < 1
-nope
-'a'
+'5'
nope ~ 'x'
nope * 2
'%s' % nope
'x' in 5
5 in 'x'
[1, 2]|length > 1
{'a': [1, {'b': (2, none)}]}
s.upper
s[n]
s['upper']()
d['items']
loop
caller
true ~ True ~ false ~ False ~ none ~ None
'a' if nope is defined else 'b'
[x for x in y]
1 +
foo bar
'unclosed
{{}}
{'a' 1}
[1,,2]
f(1 2)
dict(a=1, 2)
dict(**{'z': 1})
range(*[1, 4])|list
dict(*[[('q', 1)]], **{'z': 1})
s.split(*[' ']) | join('+')
words|map(attribute=0)|list
words|map(attribute='0')|join
nested|map('first')|list
nested|map('sum')|list
nested|sum(start=[])
d.a.x|map('string')|join(',')
people[0].tags[0]
people[0]['name'][0]
people|map(attribute='name')|map('lower')|select('in', 'annbob')|list
people|length - 1
(people|first).name
people|last
(people|last).name|lower
[1, 2, 3][1:][0]
'abc'[1:][0]
('a', 'b')|join
[[1, 'a'], [2, 'b']]|map('last')|join
9223372036854775807
9223372036854775807 - 1
1.0 == 1
0.1
100.0
1e100
-0.0
3.0 * 2
7 // 2.0
1e15 + 0.5
123456.789e3
2 ** 0.5
10 ** 15
2 ** 62
true + 1
true == 1
[true, none, 1.0]
'é' ~ 'e\\u0301'
'日本語'[1]
'日本語'|length
'日本語'|reverse
'日本語'|list
'İ'.lower()|length
'ŉ'.upper()
'straße'.upper()
'STRASSE'.lower()
'ß'.title()
"a'b"|e
'a'|string|safe|upper
none|string|upper
nums|string
(nums|string)[0]
nums|list is sameas nums
nums|last|string ~ 'x'
no|default('x', boolean=true)
''|default('x')
''|default('x', true)
[]|default('x', true)
0|default('x')
nope|default(nope2)|default('z')
nope|length
nope|list
nope|first
nope|last
nope|string
nope|int
nope|upper
nope|reverse|list
nope|items|list
nope|dictsort
nope|sort
nope|map('upper')|list
nope|selectattr('x')|list
nope|tojson(indent=2)
n|length
none|length
none|list
none|items
none|join
none|first
none|tojson
n|first
n|list
n|upper
n|items
s|items
nums|items
s|dictsort
d|first
d|last
d|join(',')
d|sort
d|map('upper')|list
d|select('in', ['a', 'b'])|list
d|reverse|list
d.values()|list|length
d.keys()|sort|join
d.keys()|list|first
d.keys()[0]
d.items()|first
d.values()|map('string')|first
d.items()|length
'b' in d.keys()
1 in d.values()
('b', 1) in d.items()
d.keys() is iterable
d.keys() is sequence
d.keys() is mapping
n[1:]
no[:-1]
d[:1]
nope[1:]
d.items()[1:]
(nums|map('string'))[1:]
range(4)[1:]
range(4)[::-1]
range(4)[::-1]|list
range(0)[::-1]|list
range(9)[1:8:3]|list
namespace(a=1, b='x')
words|sort('age')
'ab'|safe|list
lines.splitlines('x')
""".strip("\n")

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
    "{% filter upper %}ab{{ s }}{% endfilter %}", "{% filter replace('a', 'b')|upper %}aa{% endfilter %}", "{% filter trim %}  x  {% endfilter %}", "{% filter %}x{% endfilter %}",
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


main()
