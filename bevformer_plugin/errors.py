"""Errors whose messages are meant for people."""


class InputError(ValueError):
    """Raised for input that cannot be used; its message names the value and the remedy, so tools show it alone.

    Any other exception is a fault of the program, and tools let it end with its traceback.
    """


class NotFiniteError(InputError, FloatingPointError):
    """Raised in training when a loss, a prediction or a gradient is NaN or infinite."""
