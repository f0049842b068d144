"""The ``key=value`` pairs of ``--cfg-options``."""

import ast

from bevformer_plugin.errors import InputError

OPENING, CLOSING, QUOTES = '([{', ')]}', '\'"'


def parse_config_options(pairs: list[str] | None) -> dict[str, object]:
    """Settings by dotted key, as ``Config.merge_from_dict`` takes them.

    A value is read as a Python literal where it is one: numbers, True, None, quoted text, lists and tuples. As in
    MMEngine, true and false may be written small, text in lists needs no quotes, and ``a,b`` is a list. Any other
    value is text as it stands, and so is a value with a slash that no bracket or quote encloses: a path may hold
    spaces and commas.

    Raises:
        InputError: for a pair without ``=``, a key that is given twice, or brackets or quotes that are not closed.
    """
    options = {}
    for pair in pairs or []:
        key, equals, text = pair.partition('=')
        if not (key and equals):
            raise InputError(
                f'--cfg-options takes key=value, got {pair!r}; put quotes around a pair with spaces: "key=a b"'
            )
        if key in options:
            raise InputError(f'--cfg-options sets {key} twice: to {options[key]!r} and to {text}')
        options[key] = _parse_value(text, pair)
    return options


def _parse_value(text: str, pair: str) -> object:
    """The value that a text stands for; ``pair`` is for the message."""
    text = text.strip()
    enclosed = text[:1] in [*OPENING, *QUOTES]
    if '/' in text and not (enclosed and text[-1] in [*CLOSING, *QUOTES]):
        return text
    parts = _split(text, pair)
    if len(parts) > 1:
        return [_parse_value(part, pair) for part in parts if part]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass
    if (text[:1], text[-1:]) in (('(', ')'), ('[', ']')):
        values = [_parse_value(part, pair) for part in _split(text[1:-1], pair) if part.strip()]
        return tuple(values) if text[0] == '(' else values
    return _parse_word(text)


def _parse_word(text: str) -> object:
    """True and false in any case, numbers that Python does not write so, else the text."""
    if text.lower() in ('true', 'false'):
        return text.lower() == 'true'
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _split(text: str, pair: str) -> list[str]:
    """Split at the commas that no bracket or quote encloses.

    Raises:
        InputError: if a bracket or quote is not closed.
    """
    parts, expected, quote = [''], [], ''
    for character in text:
        if quote:
            quote = '' if character == quote else quote
        elif character in QUOTES:
            quote = character
        elif character in OPENING:
            expected.append(CLOSING[OPENING.index(character)])
        elif character in CLOSING and (not expected or expected.pop() != character):
            raise InputError(f'--cfg-options {pair}: {character} closes no bracket')
        if character == ',' and not (quote or expected):
            parts.append('')
        else:
            parts[-1] += character
    if quote or expected:
        raise InputError(f'--cfg-options {pair}: {quote or expected[-1]} is missing at the end')
    return parts
