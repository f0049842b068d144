"""The operators in C++ for CPUs, compiled once with the machine's compiler and cached."""

from .library import find_compiler, load_library

__all__ = ['find_compiler', 'load_library']
