"""Checks of settings that must be texts, lists of names or switches.

Values come from Python files and from the command line, on which ``a,b`` is a list and ``5`` a number: a value of
another type is refused where it enters, before it fails somewhere else.
"""

import os

from bevformer_plugin.errors import InputError


def check_text(name: str, value: object) -> None:
    """Refuse a setting that is no text.

    Args:
        name: name of the setting.
        value: its value.

    Raises:
        InputError: naming both, and how to write a text.
    """
    if isinstance(value, str):
        return
    written = ','.join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    raise InputError(
        f'{name} must be a text, not {value!r} of type {type(value).__name__}; if that is its name, put quotes around '
        f'it, on the command line too: "{name}=\'{written}\'"'
    )


def check_path(name: str, value: object) -> None:
    """Refuse a setting that is neither a text nor a path, with the error of :func:`check_text`."""
    if not isinstance(value, os.PathLike):
        check_text(name, value)


def check_names(name: str, value: object) -> None:
    """Refuse a setting that is no list of names, or an empty list.

    Args:
        name: name of the setting.
        value: its value.

    Raises:
        InputError: naming both, and how to write a list of names.
    """
    if isinstance(value, str):
        names = [part.strip() for part in value.split(',')]
        raise InputError(f'{name} must be a list of names, not the text {value!r}: put it in brackets, {name}={names}')
    if not isinstance(value, (list, tuple)) or not all(isinstance(entry, str) for entry in value):
        raise InputError(
            f"{name} must be a list of names, not {value!r}: put names in brackets, such as {name}=['a','b']"
        )
    if not value:
        raise InputError(f'{name} is empty: name at least one, or leave the setting out')


def check_switch(name: str, value: object) -> None:
    """Refuse a setting that is neither True nor False; any text but '' would count as True.

    Raises:
        InputError: naming the setting and its value.
    """
    if not isinstance(value, bool):
        raise InputError(f'{name} must be True or False, not {value!r}')
