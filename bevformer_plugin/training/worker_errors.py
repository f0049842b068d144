"""Messages of errors that happened in the worker processes that load data."""


def message_of(error: Exception) -> str:
    """Return the message of an error; a DataLoader's worker adds its traceback, which is cut off here."""
    text = str(error)
    if text.startswith('Caught ') and 'DataLoader worker' in text:
        kind = type(error)
        qualified = kind.__name__ if kind.__module__ == 'builtins' else f'{kind.__module__}.{kind.__name__}'
        _, _, message = text.rpartition(f'\n{qualified}: ')
        return message.strip()
    return text
