"""Errors of the processes that load data, told as those of the process that trains."""


def message_of(error: Exception) -> str:
    """What an error says; of one that a DataLoader's worker passed on, without the worker's traceback."""
    text = str(error)
    if text.startswith('Caught ') and 'DataLoader worker' in text:
        kind = type(error)
        qualified = kind.__name__ if kind.__module__ == 'builtins' else f'{kind.__module__}.{kind.__name__}'
        _, _, message = text.rpartition(f'\n{qualified}: ')
        return message.strip()
    return text
