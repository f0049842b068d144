"""Errors of the processes that load data, told as those of the process that trains."""


def message_of(error: Exception) -> str:
    """What an error says; of one that a DataLoader's worker passed on, without the worker's traceback."""
    text = str(error)
    if text.startswith('Caught ') and 'DataLoader worker' in text:
        _, _, message = text.rpartition(f'\n{type(error).__name__}: ')
        return message.strip()
    return text
