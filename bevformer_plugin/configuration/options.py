"""Parsing of the ``key=value`` pairs of ``--cfg-options``."""

import ast

from bevformer_plugin.errors import InputError

OPENING, CLOSING, QUOTES = '([{', ')]}', '\'"'


def parse_config_options(pairs: list[str] | None) -> dict[str, object]:
    """Parse settings into a dict by dotted key, as ``Config.merge_from_dict`` takes them.

    A value is read as a Python literal if it is one: a number, True, None, quoted text, a list or a tuple. As in
    MMEngine, true and false may be lower-case, text in lists needs no quotes, and ``a,b`` is a list. Any other value
    is plain text. A value with a slash is also plain text unless brackets or quotes enclose it, because paths may
    contain spaces and commas.

    Raises:
        InputError: for a pair without ``=``, a key that is given twice, or brackets or quotes that are not closed.
    """
    options: dict[str, object] = {}
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
    """Parse the text of a value; ``pair`` is the whole option, for messages."""
    text = text.strip()
    enclosed = text[:1] in [*OPENING, *QUOTES]
    if '/' in text and not (enclosed and text[-1] in [*CLOSING, *QUOTES]):
        return text
    parts = _split(text, pair)
    if len(parts) > 1:
        return [_parse_value(part, pair) for part in parts if part]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):  # a TypeError for a dict or set of what cannot be hashed
        pass
    if (text[:1], text[-1:]) in (('(', ')'), ('[', ']')):
        values = [_parse_value(part, pair) for part in _split(text[1:-1], pair) if part.strip()]
        return tuple(values) if text[0] == '(' else values
    return _parse_word(text)


def _parse_word(text: str) -> object:
    """Parse true and false in any case, and numbers that are no Python literals; any other word is plain text."""
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
