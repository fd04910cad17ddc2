"""Runs expressions and small templates in the environment that transformers makes for chat templates.

    python xtask/golden/jinja.py

Writes crates/text/tests/golden/jinja.json: the variables, and for each source what it becomes: a text, the message
that it raises, or null where rendering fails in any other way.
"""

import json
from datetime import datetime
from pathlib import Path

import jinja2
import transformers
from transformers.utils import chat_template_utils

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "crates/text/tests/golden/jinja.json"
DATE = "2026-03-01"
VARIABLES = {
    "s": "Hello, World",
    "u": "Zürich 日本 🙂 ß",
    "quotes": "it's \"q\" <b>&</b>",
    "lines": "a\n  b\n\nc\n",
    "n": 7,
    "neg": -7,
    "f": 2.5,
    "tiny": 1e-05,
    "huge": 1e16,
    "t": True,
    "no": None,
    "empty": [],
    "numbers": [3, 1, 2],
    "words": ["b", "C", "a", "B"],
    "mixed": [1, "a", None, 2.0, True, [1], {"k": "v"}],
    "d": {"b": 1, "a": 2, "items": [1, 2], "name": "x"},
    "people": [
        {"name": "Ann", "age": 30, "city": "Bern", "tags": ["x", "y"]},
        {"name": "bob", "age": 25, "city": "Zug"},
        {"name": "Cid", "age": 30, "city": "bern", "tags": []},
    ],
    "tool": {
        "type": "function",
        "function": {
            "name": "f",
            "parameters": {"type": "object", "properties": {"q": {"type": "array", "items": {"type": "string"}}}},
        },
    },
}

EXPRESSIONS = r"""
none is iterable
tools is iterable
tools is none and documents is none
tools is defined and tools is not none
undefined_name is iterable
'x' is sequence
[] is sequence
(1, 2) is sequence
d is sequence
d.items() is sequence
range(2) is sequence
5 is sequence
5 is iterable
s is string
d is mapping
[] is mapping
d.items is callable
s.upper is callable
undefined_name is callable
5 is callable
namespace is callable
n is number
t is number
'5' is number
t is integer
n is integer
f is float
n is float
t is boolean
1 is boolean
1 is true
true is true
false is false
0 is false
n is odd
neg is odd
n is even
n is divisibleby 7
n is divisibleby(2)
'abc' is lower
'ABC' is upper
'123' is lower
n is eq 7
n is gt(3)
n is lessthan 3
n is ne 7
'a' is in 'abc'
1 is in [1, 2]
'upper' is filter
'nope' is filter
'defined' is test
none is sameas none
1 is sameas 1.0
undefined_name is undefined
d.nope is defined
d.nope.more is defined
'<' is escaped
('<'|safe) is escaped
not none is none
n is not none
'%s' % s
'%s and %s' % (1, 'a')
'%d items' % 3.9
'%05.2f|%-6s|%+d|%x|%o|%e|%g' % (3.14159, 'ab', 5, 255, 8, 12345.678, 0.00001)
'%(name)s is %(age)d' % people[0]
'%s' % [1]
'%s' % d
'%s %s' % 'a'
'%d' % 'a'
'%%|%c|%r' % ('x', 'y')
'%s' % none
'%5s|%-5s|%.2s' % ('abc', 'abc', 'abc')
'{} {}'.format(1, 'a')
'{0}{1}{0}'.format('a', 'b')
'{name}: {x:>5}|{y:.2f}'.format(name='n', x=3, y=2.5)
'{:,}'.format(1234567)
'{:08.3f}|{:+d}|{:<5}|{:^5}|{:*>5}'.format(3.14159, 5, 'a', 'b', 'c')
'{a[b]} {p.name}'.format(a={'b': 1}, p={'name': 'x'})
'{!r} {!s}'.format('a', 'b')
'{:x} {:b} {:#x} {:%}'.format(255, 5, 255, 0.5)
'{{}}'.format()
'{}'.format()
'<b>'|safe + '<i>'
'<i>' + '<b>'|safe
('<b>'|safe) ~ '<i>'
('<b>'|safe) * 2
'<b>'|safe|string + '<i>'
('%s'|safe) % '<'
['<'|safe, '<']|join('&')
'<a href="x">\'&'|e
quotes|escape
quotes|forceescape
quotes|e|e
quotes|striptags
('<'|safe).join(['>', 'a'])
'x'|int
'42'|int
' 42 '|int
'42.7'|int
'4_2'|int
'0x1f'|int
'0x1f'|int(base=16)
'ff'|int(0, 16)
'x'|int(default=5)
none|int
3.99|int
-3.99|int
true|int
[1]|int
'1e3'|int
'x'|float
'3.5'|float
'1e-5'|float
'inf'|float
none|float(1.5)
n|float
1e-05
1e-05 ~ ''
[1e-05, 1e16, 1.0, 0.1]
tiny
huge
1.0
100000000000000000000.0
0.1 + 0.2
1e300 * 1e10
3 / 2
4 / 2
7 // 2
-7 // 2
7 // -2
7.5 // 2
-7 % 3
7 % -3
-7.5 % 2
2 ** 10
2 ** -1
2 ** 0.5
-2 ** 2
2 ** 3 ** 2
1 / 0
1 % 0
10 - 2 - 3
2 + 3 * 4
'a' * 3
3 * 'ab'
[1] * 2
[1] + [2]
(1,) + (2,)
'a' + 1
1 + 'a'
'a' ~ 1 ~ none ~ true ~ 1.0
1 + 2 ~ 3
none + 'a'
'a' + none
true + true
true * 3
-true
+5
- 5 | abs
-5 | abs
(-5) | abs
99999999999999999999999999
99999999999999999999999999|tojson
9223372036854775807 + 1
18446744073709551616 * 2
1_000_000
0x1F + 0b11 + 0o17
1 < 2 < 3
1 < 3 < 2
3 > 2 > 1 == 1
'a' < 'b'
'a' < 1
none < 1
[1, 2] < [1, 3]
(1, 'a') < (1, 'b')
1 == 1.0
1 == true
'1' == 1
none == false
[1] == (1,)
{'a': 1} == {'a': 1.0}
undefined_name == none
undefined_name == other_undefined
1 in [1.0]
'a' in d
1 in d
'ell' in s
1 in s
'a' in none
'a' in undefined_name
'a' not in 'abc'
[1] in {}
1 and 'a'
0 or 'a'
'' or none
not ''
not 0 and 1
1 if false
(1 if false) is defined
'yes' if n > 5 else 'no'
'a' if false else 'b' if false else 'c'
undefined_name
undefined_name ~ 'x'
undefined_name + 'x'
undefined_name.x
undefined_name['x']
undefined_name()
undefined_name|length
undefined_name|list
undefined_name|upper
undefined_name|default('z')
''|default('z')
''|default('z', true)
none|default('z')
none|d('z', boolean=true)
[undefined_name]
undefined_name < 1
-undefined_name
no
true
[true, none, false]
mixed
d
{'a': 'it\'s', "b": "say \"x\"", 'c': 'both \' and "'}
['\n\t\\', 'é', '\x00', '\u200b', '\xa0', '🙂']
(1,)
()
(1, 'a', none)
{1: 2, none: 3, 'x': [1.5]}
{'a': 1, 'a': 2}
{1: 'a', 1.0: 'b', true: 'c'}
{[1]: 2}
d.items()
d.keys()
d.values()
d['items']
d.items
d.name
d['name']
d.nope
d['nope']
d.get('nope')
d.get('nope', 5)
d.get('b')
tool.function.parameters.properties.q.items.type
tool.function.parameters.properties.q['items'].type
tool['function']['name']
d.pop('b')
d.update({'x': 1})
numbers.append(4)
numbers.index(1)
numbers.index(9)
numbers.count(3)
numbers.0
numbers[0]
numbers[-1]
numbers[5]
numbers['a']
numbers[1.0]
numbers[true]
s[0]
s[-1]
s[50]
s[1:4]
s[::-1]
s[::2]
s[-3:]
s[:-3]
s[10:2]
u[1:3]
u[7]
u|length
u[::-1]
numbers[1:]
numbers[::-1]
numbers[:2] + numbers[2:]
(1, 2, 3)[1:]
range(10)[2:8:2]
range(10)[2:8:2]|list
no[1:]
d[1:]
5[0]
'abc'[::0]
s.upper()
s.lower()
s.title()
'hello wORLD'.capitalize()
'hello wORLD'.swapcase()
s.split(', ')
s.split()
' a  b '.split()
' a  b '.split(' ')
'a,b,c'.split(',', 1)
'a,b,c'.rsplit(',', 1)
'a b c '.split(none, 1)
' a b c'.rsplit(none, 1)
'a,b'.split('')
lines.splitlines()
lines.splitlines(true)
'a\r\nb\x0bc'.splitlines()
' x '.strip()
'xxaxx'.strip('x')
'xyaxy'.lstrip('xy')
'xyaxy'.rstrip('xy')
s.replace('l', 'L')
s.replace('l', 'L', 1)
'aaa'.replace('', '-')
s.startswith('He')
s.startswith(('x', 'H'))
s.endswith('ld')
s.startswith('ello', 1)
s.find('o')
s.find('o', 5)
s.find('z')
s.rfind('o')
s.index('z')
s.count('l')
'a'.ljust(5) ~ '|'
'a'.rjust(5, '*')
'a'.center(6, '-')
'ab'.center(5)
'5'.zfill(3)
'-5'.zfill(4)
'a\tb'.expandtabs(4)
'abc'.removeprefix('a').removesuffix('c')
'a=b=c'.partition('=')
'a=b=c'.rpartition('=')
'abc'.partition('=')
', '.join(['a', 'b'])
', '.join([1])
'abc'.isalpha()
'ab1'.isalnum()
'123'.isdigit()
'½'.isnumeric()
' '.isspace()
'Abc Def'.istitle()
'abc'.islower()
'a_1'.isidentifier()
'é'.isascii()
'ß'.upper()
'ΑΣ'.lower()
'ß'.casefold()
'they\'re bill\'s'.title()
'they\'re bill\'s'|title
'foo-bar (baz)'|title
(5).bit_length()
(2.0).is_integer()
s.nope
s.nope()
s.__class__
s|upper
s|lower
'hello wORLD'|capitalize
'  x '|trim
'xxaxx'|trim('x')
s|center(20)
s|length
d|length
5|length
s|first
numbers|first
empty|first
s|last
numbers|last
d|first
numbers|sum
people|sum(attribute='age')
[[1], [2]]|sum(start=[])
numbers|min
numbers|max
words|min
words|max
people|min(attribute='age')
empty|max
words|sort
words|sort(case_sensitive=true)
words|sort(reverse=true)
numbers|sort
mixed|sort
people|sort(attribute='age')|map(attribute='name')|list
people|sort(attribute='age,name', reverse=true)|map(attribute='name')|list
words|unique|list
words|unique(true)|list
people|unique(attribute='age')|map(attribute='name')|join(',')
numbers|reverse|list
s|reverse
words|join
words|join('-')
mixed|join(',')
people|join(', ', attribute='name')
people|map(attribute='tags')|list
people|map(attribute='tags', default=[])|list
people|map(attribute='tags.0')|list
words|map('upper')|list
words|map('replace', 'b', 'x')|list
words|map('nope')|list
words|map|list
no|map('upper')|list
5|map('upper')|list
numbers|select|list
[0, 1, '', 'a', none]|select|list
numbers|select('odd')|list
numbers|select('gt', 1)|list
numbers|reject('odd')|list
people|selectattr('tags')|map(attribute='name')|list
people|selectattr('age', 'equalto', 30)|map(attribute='name')|list
people|selectattr('tags', 'defined')|list|length
people|rejectattr('age', '==', 30)|map(attribute='name')|list
people|rejectattr('tags')|map(attribute='name')|list
people|selectattr('age', '>', 26)|first
people|groupby('age')
people|groupby('city')|map(attribute='grouper')|list
people|groupby('city', case_sensitive=true)|map(attribute=0)|list
people|groupby('tags', default='none')|length
d|dictsort
d|dictsort(by='value')
{'b': 1, 'A': 2}|dictsort
{'b': 1, 'A': 2}|dictsort(true)
{'b': 1, 'A': 2}|dictsort(false, 'value', true)
d|items|list
undefined_name|items|list
5|items|list
d|list
s|list
numbers|list
numbers|batch(2)|list
numbers|batch(2, 0)|list
numbers|slice(2)|list
numbers|slice(2, 'x')|list
42|round
42.55|round(1)
2.5|round
3.5|round
2.675|round(2)
-2.5|round
42.55|round(1, 'ceil')
42.55|round(method='floor')
1234|round(-2)
'a'|round
lines|indent
lines|indent(2)
lines|indent(2, true)
lines|indent(2, true, true)
lines|indent('> ', first=true)
lines|indent(width=3, blank=true)
'foo bar baz qux'|truncate(9)
'foo bar baz qux'|truncate(9, true)
'foo bar baz qux'|truncate(11)
'foo bar baz qux'|truncate(9, false, '..', 0)
'foo bar, baz-qux it\'s'|wordcount
u|wordcount
'the quick brown fox jumps'|wordwrap(10)
'abcdefghijk lm'|wordwrap(5)
'a b/ü?&'|urlencode
{'a b': 'c&d', 'e': 1}|urlencode
1000|filesizeformat
1500000|filesizeformat
1500000|filesizeformat(true)
1|filesizeformat
'%s-%s'|format('a', 1)
'%(a)s'|format(a=1)
s|replace('l', 'x')
s|replace('l', 'x', 1)
5|replace(5, 'x')
5|string
5|string ~ 'x'
5|upper
d|attr('items')
d|attr('b')
s|attr('upper')
{'class': 'a', 'x': none, 'y': '<'}|xmlattr
d|pprint
s|nope
s is nope
s|upper(1)
s|default(1, 2, 3)
numbers|join(sep='-')
d|tojson
mixed|tojson
u|tojson
u|tojson(ensure_ascii=true)
d|tojson(indent=2)
d|tojson(indent='--')
d|tojson(indent=0)
[]|tojson(indent=2)
d|tojson(2)
d|tojson(sort_keys=true)
d|tojson(separators=(',', ':'))
d|tojson(separators=(',', ':'), indent=1)
tool|tojson(indent=4)
[1e-05, 1e16, 1.0, 0.1, 1e300]|tojson
quotes|tojson
'\x7f\x00\u2028\b\f'|tojson
'\x7fé'|tojson(ensure_ascii=true)
(1, 2)|tojson
{1: 2, none: 3, true: 4, 1.5: 5}|tojson
{'b': 1, 'a': {'d': 1, 'c': 2}}|tojson(sort_keys=true)
undefined_name|tojson
d.items()|tojson
words|map('upper')|tojson
range(3)|tojson
('<'|safe)|tojson
'inf'|float|tojson
'nan'|float
d|tojson(nope=1)
range(5)|list
range(5)
range(1, 6, 2)|list
range(5, 0, -2)|list
range(3)|length
range(0)|list
range(1000000)
range('a')
range(1.5)
dict(a=1, b=2)
dict([('a', 1)])
dict({'a': 1}, b=2)
namespace(a=1)
namespace(a=1).a
namespace(a=1).b is defined
namespace(_a=1)
cycler('a', 'b').next()
cycler('a', 'b').current
joiner('|')() ~ 'x'
strftime_now('%Y-%m-%d %d %B %A')
strftime_now()
raise_exception('no ' ~ n)
raise_exception(5)
messages[0].role ~ messages[0]['content']
messages[0].get('name', 'nobody')
messages|length
bos_token ~ eos_token
add_generation_prompt
'a' 'b' "c"
'\x41\u00e9\n\101\d\''
"\"" ~ '\"'
d.b.real
n.real
s.format
s.upper|string|length > 10
words|map('upper')|length
words|map('upper')|first
words|map('upper')[0]
(words|map('upper'))[0]
(words|map('upper')|list)[0]
words|select('nope')|list
not undefined_name
undefined_name or 'x'
d.items()|list|length
d.keys()|list
d.keys()|join(',')
d.values()|list
d.items()|sort
d.keys()|sort
(d.items()|list)[0][1]
d.items()|map('first')|list
d.items()|map(attribute=0)|list
d.copy() == d
numbers.copy()
people[0]['tags'][-1]
people[0].tags.1
people[1].tags.0
people[0]|length
'a,b'|string|upper|lower
s|default|length
'abc'|list|join('.')
'abc'|first|upper
'a'|upper ~ 'b'|upper
1 + 2|string
-1|string
'x' ~ -1|abs
2 * 3 is eq 6
not 1 is eq 2
1 is eq 1 and 2 is eq 2
'a' is string and s is string or false
s is string is true
(s is string) is true
s is defined if true else 0
[1, 2, ]
{'a': 1, }
[(1), (2,), ()]
dict(**{'a': 1})
'{}{}'.format(*[1, 2])
range(*[1, 3])|list
'{a}'.format(**{'a': 1})
'x'.join
loop
caller
1,2
1, 2, 3
(1, 2) ~ ''
x y
1 +
{{
'a
)
"""

TEMPLATES = [
    "{% for x in numbers %}{{ loop.index }}/{{ loop.length }}:{{ x }}{{ ', ' if not loop.last }}{% endfor %}",
    "{% for x in numbers %}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.depth }}{% endfor %}",
    "{% for x in numbers %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }};{% endfor %}",
    "{% for x in numbers %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{% endfor %}",
    "{% for x in numbers %}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "{% for p in people %}{{ loop.changed(p.age) }}{% endfor %}",
    "{% for x in numbers if x > 1 %}{{ loop.index }}{{ loop.length }}{{ x }}{{ loop.last }} {% endfor %}",
    "{% for x in empty %}x{% else %}none{% endfor %}",
    "{% for x in numbers if x > 5 %}x{% else %}none{% endfor %}",
    "{% for x in none %}x{% endfor %}",
    "{% for x in undefined_name %}x{% else %}e{% endfor %}",
    "{% for x in 5 %}x{% endfor %}",
    "{% for c in 'añ🙂' %}[{{ c }}]{% endfor %}",
    "{% for k in d %}{{ k }} {% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in d|dictsort %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in d %}{{ k }}{% endfor %}",
    "{% for (a, b) in [(1, 2), (3, 4)] %}{{ a + b }} {% endfor %}",
    "{% for a, b in [(1, 2, 3)] %}{{ a }}{% endfor %}",
    "{% for g in people|groupby('age') %}{{ g.grouper }}:{{ g.list|length }}:{{ g[0] }} {% endfor %}",
    "{% for age, group in people|groupby('age') %}{{ age }}{{ group|map(attribute='name')|join }} {% endfor %}",
    "{% for b in numbers|batch(2) %}{{ b }}{% endfor %}",
    "{% for x in [1, 2, 3, 4] %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in [1, 2] %}{% for y in [1, 2] %}{% if y == 2 %}{% break %}{% endif %}{{ x }}{{ y }}{{ loop.index }} {% endfor %}{{ loop.index }}{% endfor %}",
    "{% for x in [[1, [2]], [3]] recursive %}{{ loop.depth }}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}{% endif %}{% endfor %}",
    "{% for x in numbers %}{{ loop(x) }}{% endfor %}",
    "{% for x in numbers %}{% set y = x %}{% endfor %}{{ y is defined }}",
    "{% set y = 0 %}{% for x in numbers %}{{ y }}{% set y = x %}{{ y }}{% endfor %}{{ y }}",
    "{% set ns = namespace(y=0) %}{% for x in numbers %}{% set ns.y = ns.y + x %}{% endfor %}{{ ns.y }}{{ ns }}",
    "{% set ns = namespace() %}{% set ns.a = [] %}{% set ns.a = ns.a + [1] %}{{ ns.a }}{{ ns['a'] }}{{ ns.b }}",
    "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}",
    "{% set ns = namespace(found=false) %}{% for x in numbers if not ns.found %}{{ x }}{% set ns.found = true %}{% endfor %}",
    "{% set d.x = 1 %}",
    "{% set ns = namespace() %}{% set ns._x = 1 %}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "{% set a = 1, 2 %}{{ a }}",
    "{% set a, b = [1] %}{{ a }}",
    "{% set x %}a{{ n }}b{% endset %}{{ x }}|{{ x is string }}",
    "{% set x | upper | trim %} a{{ n }}b {% endset %}[{{ x }}]",
    "{% if n %}{% set z = 1 %}{% endif %}{{ z }}",
    "{% if false %}{% set z = 1 %}{% endif %}{{ z is defined }}",
    "{% if n == 1 %}a{% elif n == 7 %}b{% else %}c{% endif %}",
    "{% if empty %}a{% elif none %}b{% elif '' %}c{% else %}d{% endif %}",
    "{% if n > 1 and not empty %}y{% endif %}",
    "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}",
    "{% set a = 5 %}{% with a = 1, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q is defined }}",
    "{% macro m(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, c=3) }} {{ m(b=1, a=0) }}",
    "{% macro m(a) %}[{{ a }}]{{ a is defined }}{% endmacro %}{{ m() }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}",
    "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}",
    "{% macro m(a) %}{{ a }}{{ varargs|join(',') }}{% endmacro %}{{ m(1, 2, 3) }}",
    "{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}x{{ n }}{% endcall %}",
    "{% macro m(l) %}{% for x in l %}{{ caller(x) }},{% endfor %}{% endmacro %}{% call(y) m(numbers) %}{{ y * 2 }}{% endcall %}",
    "{% macro m() %}a{% endmacro %}{% call m() %}x{% endcall %}",
    "{% macro m() %}{{ caller is defined }}{{ caller() }}{% endmacro %}{{ m() }}",
    "{% macro fact(k) %}{% if k > 1 %}{{ k * (fact(k - 1)|int) }}{% else %}1{% endif %}{% endmacro %}{{ fact(5) }}",
    "{% macro walk(x) %}{% if x is mapping %}{% for k, v in x.items() %}{{ k }}({{ walk(v) }}){% endfor %}{% elif x is iterable and x is not string %}{% for v in x %}{{ walk(v) }};{% endfor %}{% else %}{{ x }}{% endif %}{% endmacro %}{{ walk(tool) }}",
    "{% macro m() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ m() }}{% set x = 2 %}{{ m() }}",
    "{% macro m() %}{% set inner = 1 %}{% endmacro %}{{ m() }}{{ inner is defined }}",
    "{% for x in numbers %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}",
    "{% macro m(a) -%}\n  {{ a }}\n{%- endmacro %}[{{ m('x') }}]{{ m.name }}{{ m }}",
    "{% macro m(a) %}{{ a|safe + '<' }}{% endmacro %}{{ m('<') + '<' }}",
    "{% filter upper %}a{{ s }}{% endfilter %}",
    "{% filter replace('l', 'L')|trim %} {{ s }} {% endfilter %}",
    "{% block x %}a{{ n }}{% endblock %}",
    "{% set q = 1 %}{% block x %}{{ q }}{% endblock %}",
    "{% generation %}a{{ n }}{% endgeneration %}b",
    "a\n  {% generation %}\n  b\n  {%- endgeneration %}\nc",
    "{% generation %}{% set gg = 1 %}{% endgeneration %}{{ gg is defined }}",
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n{% endfor %}",
    "{% raw %}{{ x }}{% y %}{% endraw %}",
    "{%- raw -%}  {{ x }}  {%- endraw -%}  z",
    "a {# comment #} b",
    "a\n{# comment #}\nb",
    "a\n  {#- comment -#}\n  b",
    "  {% if true %}\n  a\n  {% endif %}\n  b\n",
    "  {%+ if true %}\n  a\n  {%+ endif +%}\n  b\n",
    "a  {%- if true -%}  b  {%- endif -%}  c",
    "a \n {{- n -}} \n b",
    "a \n {{ n }} \n b\n\n",
    "x\n\n",
    "x\n",
    "\n\nx",
    "{% if true %}\n\na{% endif %}\n\nb",
    "a\r\n{% if true %}\r\nb\r\n{% endif %}\r\nc",
    "{{ 'a' }}\n{{ 'b' }}\n",
    "{{ n }}  \n  {% set x = 1 %}  \n{{ x }}",
    "\t{% if true %}x{% endif %}\t\n",
    "a {% if true %} b {% endif %} c",
    "{{- 'a' }} {{ 'b' -}}  c",
    "{% print n, s %}",
    "{% do numbers.append(1) %}",
    "{% if %}{% endif %}",
    "{% endif %}",
    "{% for x in numbers %}",
    "{% unknown %}",
    "{% include 'x' %}",
    "{% extends 'x' %}",
    "{% from 'x' import y %}",
    "{% break %}",
    "{% if false %}{{ 1 / 0 }}{% endif %}ok",
    "{% if false %}{{ x|nope }}{% endif %}ok",
    "{% set x = raise_exception('bad') %}",
    "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}{{ raise_exception('role ' + m.role) }}{% endif %}{{ m.role }}{% endfor %}",
    "{% macro m() %}{{ raise_exception('deep') }}{% endmacro %}{{ [1]|map('upper')|list }}{{ m() }}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{% set _ = c.reset() %}{{ c.next() }}",
    "{% set j = joiner(', ') %}{% for x in numbers %}{{ j() }}{{ x }}{% endfor %}",
    "{% set g = words|map('upper') %}{{ g|list }}{{ g|list }}",
    "{% set g = words|select('string') %}{{ g|first }}{{ g|first }}{{ g|list }}",
    "{% set g = words|map('upper') %}{% for x in g %}{{ loop.length }}{{ x }}{{ loop.revindex }} {% endfor %}",
    "{% for x in words|map('upper') %}{{ x }}{% if not loop.last %},{% endif %}{% endfor %}",
    "{% for x in numbers|reverse %}{{ loop.length }}{{ x }}{% endfor %}",
    "{% for p in people if p.tags %}{{ p.name }}{% endfor %}",
    "{% for p in people if p.tags is defined and p.tags|length > 0 %}{{ p.name }}{{ loop.length }}{% endfor %}",
    "{% set messages = messages[1:] %}{{ messages|length }}",
    "{% set system = messages[0].content if messages[0].role == 'system' else '' %}[{{ system }}]",
    "{% if messages[-1]['role'] == 'user' and (messages|length) % 2 == 1 %}y{% endif %}",
    "{% if tools is iterable and tools | length > 0 %}tools{% else %}no tools{% endif %}",
    "{% if tools %}t{% endif %}{% if not tools is none %}x{% endif %}{{ tools }}",
    "{% for m in messages[::-1] %}{% set index = (messages|length - 1) - loop.index0 %}{{ index }}{{ m.role }} {% endfor %}",
    "{% set content = messages[0].content %}{% if '</think>' in content %}a{% else %}{{ content.split('</think>')[-1].lstrip('\\n') }}{% endif %}",
    "{% set x = '<think>a</think>b' %}{{ x.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') }}",
    "{% for tool in [tool] %}{{ tool | tojson }}\n{{ tool.function.parameters | tojson(indent=2) }}{% endfor %}",
    "{%- for k, v in tool.function.parameters.properties.items() %}{{ k }}: {{ v.type }}{{ '<' ~ v['items'].type ~ '>' if v['items'] }}{%- endfor %}",
    "{% for x in numbers %}{% if loop.first %}{% set w = 'first' %}{% endif %}{{ w }}|{% endfor %}",
    "{{ '' if n else 'x' }}{{ messages[0]['content'] | trim + '\\n' }}",
    "{{ ('a' if n else 'b') ~ '\\n\\n' }}{{ bos_token + '[INST] ' + messages[0].content + ' [/INST]' }}",
    "{% set loop_messages = messages %}{% for message in loop_messages %}{{ loop.index0 % 2 == 0 }}{% endfor %}",
    "{% if (1, 2) == (1, 2) and [1] != [2] %}y{% endif %}",
    "{% set x = {'a': {'b': [1, {'c': 'deep'}]}} %}{{ x.a.b[1].c }}{{ x['a']['b'].0 }}",
    "{% autoescape false %}<{{ '<' }}{% endautoescape %}",
    "{% for i in range(3) %}{{ i }}{% else %}x{% endfor %}{% for i in range(0) %}{{ i }}{% else %}x{% endfor %}",
    "{% set x = 1 -%}\n   y\n{%- set z = 2 %}\n   w",
    "{% for x in [1, 2] -%}\n  {{ x }}\n{%- endfor %}",
    "{% for x in [1, 2] %}\n  {{ x }}\n{% endfor %}\n",
    "{{ {'a': {'b': 1}}.a.b }}{{ {'a': 1}['a'] }}{{ [1, 2][1] }}{{ (1, 2).0 }}",
    "{{ \"}}\" }}{{ '%}' }}",
    "{% set x = '{{ not }}' %}{{ x }}",
    "{{ s if s is defined and s is not none else 'x' }}",
    "{% if not undefined_name %}u{% endif %}{% if undefined_name is not defined %}d{% endif %}",
    "{% if d.items is defined %}i{% endif %}{% if d.nope is defined and d.nope is not none %}n{% endif %}",
    "{% set _ = namespace(x=[]) %}{% for i in range(3) %}{% set _.x = _.x + [i] %}{% endfor %}{{ _.x }}",
    "{% macro a() %}A{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}",
    "{% macro loopy(k) %}{% for i in range(k) %}{{ i }}{% endfor %}{% endmacro %}{% for j in range(3) %}{{ loopy(j) }}|{{ loop.index }}{% endfor %}",
    "{{ '%s' | format(none) }}{{ '%.3f' | format(f) }}",
    "{% set x = messages | selectattr('role', 'equalto', 'user') | list %}{{ x | length }}{{ x[0].content }}",
    "{% set roles = messages | map(attribute='role') | list %}{{ roles }}{{ 'system' in roles }}",
    "{% for x in numbers %}{{ x }}{% break %}{% else %}E{% endfor %}{% for x in numbers %}{% continue %}{% else %}E{% endfor %}",
    "{% for x in numbers %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% else %}E{% endfor %}",
    "{% filter length %}abc{% endfilter %}",
    "{% for x in empty %}{{ x|nope }}{% endfor %}ok",
    "{% for x in empty %}{{ x is nope }}{% endfor %}ok",
    "{{ 'a' if true else n|nope }}{{ n|nope if false }}",
    "{{ numbers|truncate(9) }}{{ undefined_name|truncate }}",
    "{{ messages | map(attribute='content') | join('\\n') | indent(2) }}",
]


def sources():
    for line in EXPRESSIONS.strip("\n").split("\n"):
        yield "{{ " + line + " }}"
    yield from TEMPLATES


MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi <you> & \"me\""},
    {"role": "assistant", "content": "Hello!\n", "tool_calls": [{"function": {"name": "f", "arguments": {"q": 1}}}]},
    {"role": "user", "content": "  more  "},
]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


class FrozenDatetime(datetime):
    """`datetime` whose `now` is midnight of the frozen date."""

    @classmethod
    def now(cls, tz=None):
        return cls.fromisoformat(DATE)


def render(source):
    """What the source becomes; generators and methods print an address, so their text counts as any."""
    try:
        text, _ = chat_template_utils.render_jinja_template(
            [json.loads(json.dumps(MESSAGES))], chat_template=source, **SPECIAL, **json.loads(json.dumps(VARIABLES))
        )
        return {"prints_address": True} if " at 0x" in text[0] else text[0]
    except (jinja2.exceptions.UndefinedError, jinja2.exceptions.SecurityError, jinja2.exceptions.TemplateSyntaxError):
        return None
    except jinja2.exceptions.TemplateError as error:
        return {"raises": str(error)} if type(error) is jinja2.exceptions.TemplateError else None
    except Exception:
        return None


def main():
    chat_template_utils.datetime = FrozenDatetime
    cases = []
    for source in sources():
        cases.append([source, render(source)])
    golden = {
        "versions": {"transformers": transformers.__version__, "jinja2": jinja2.__version__},
        "date": DATE,
        "special": SPECIAL,
        "messages": MESSAGES,
        "variables": VARIABLES,
        "cases": cases,
    }
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    head = json.dumps({k: v for k, v in golden.items() if k != "cases"}, ensure_ascii=False)
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    OUTPUT.write_text(f'{head[:-1]}, "cases": [\n{lines}\n]}}\n')
    print(f"{OUTPUT}: {len(cases)} sources, {sum(case[1] is None for case in cases)} fail")


if __name__ == "__main__":
    main()
