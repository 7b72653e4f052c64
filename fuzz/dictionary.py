#!/usr/bin/python3
"""fuzz/dictionary.py TARGET: the dictionary of a fuzz target for libFuzzer's -dict, on standard output.

Its words are the string literals of the sources that the target runs, so that a word the parser learns to know is in the
dictionary the same day, and a few pieces of the syntax. Targets that read no text have none.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
JSON = ['{', '}', '[', ']', ',', ':', '"', '\\u0000', '\\ud800', '\\udc00', 'true', 'false', 'null', 'NaN', 'Infinity', '-0', '1e999', '1000000000000000019884624838656',
        '9223372036854775808', '-9223372036854775809', '0.1', '\ufeff']
JINJA = ['{{', '}}', '{%', '%}', '{#', '#}', '{%-', '-%}', '{%+', '|', '~', '//', '**', '==', '!=', '<=', '>=', '[::-1]', '[1:]', '(', ')', "'", '"', 'loop.', 'ns.', '\n']
REGEX = ['(?i:', '(?:', '(?=', '(?!', '(?<=', '(?<!', '(?>', '(?R)', '(?1)', '(?P<n>', '(?P=n)', '\\p{L}', '\\p{N}', '\\P{M}', '\\s+', '\\S', '\\R', '\\X', '\\K', '\\b', '\\1', '{1,3}', '{2,}',
         '*?', '+?', '*+', '++', '|', '[^', ']', '[[:alpha:]]', '(*LIMIT_MATCH=1)', '(*UTF)', '(*ACCEPT)', '\\x{10ffff}', '\\Q', '\\E', '^', '$']
CSV = [',', '"', '""', '\r\n', '\n', '\ufeff']
HTTP = ['GET ', 'POST ', ' HTTP/1.1\r\n', ' HTTP/1.0\r\n', 'Host: a\r\n', 'Content-Length: 5\r\n', 'Transfer-Encoding: chunked\r\n', 'Connection: close\r\n', 'Expect: 100-continue\r\n',
        '\r\n\r\n', '\r\n ', '5\r\n', '5;x=1\r\n', '0\r\n\r\n', '0\r\nX: y\r\n\r\n']
CALLS = ['<tool_call>', '</tool_call>', '<|python_tag|>', '[TOOL_CALLS]', '[ARGS]', '[CALL_ID]', '<think>', '</think>', '{"name": "f", "arguments": {', 'f{', ';']
# Of each target: the folders whose words it takes, and pieces of its syntax.
TARGETS = {
    'json': ([], JSON),
    'safetensors': (['weights'], JSON),
    'gguf': (['gguf'], []),
    'config': (['config/model', 'config/rope', 'config/generation', 'models'], JSON),
    'quantized': (['config/quantization', 'weights'], JSON),
    'tokenizer_load': (['tokenizer'], JSON + REGEX),
    'tokenize': ([], ['<s>', '</s>', '<unk>', '<0x0A>', '\u2581', '\ufffd']),
    'pattern': (['tokenizer/pattern', 'tokenizer/regex'], REGEX),
    'template_text': (['jinja'], JINJA),
    'chat': (['frontend'], JSON),
    'prompt_line': (['frontend'], JSON),
    'workflow': (['workflow'], JSON),
    'csv': (['workflow'], CSV),
    'http_request': (['server/http'], HTTP),
    'api_body': (['server/openai', 'frontend'], JSON),
    'model_output': (['server/openai/call_scanner'], JSON + CALLS),
}


def words_of(prefixes):
    words = set()
    for path in sorted((ROOT / 'src').glob('**/*.cc')):
        name = path.relative_to(ROOT / 'src').as_posix()
        if name.startswith(tuple(prefixes)) and not name.endswith('_test.cc'):
            words.update(re.findall(r'"([A-Za-z_][A-Za-z0-9_.\-]{1,30})"', path.read_text()))
    return sorted(words)


def entry(word):
    return '"' + ''.join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f'\\x{b:02x}' for b in word.encode()) + '"'


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    prefixes, syntax = TARGETS.get(sys.argv[1], ([], []))
    for word in [*syntax, *(words_of(prefixes) if prefixes else [])]:
        print(entry(word))


if __name__ == '__main__':
    main()
