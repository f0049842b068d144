"""Measurements of time and memory, side by side in one run; ``tools/benchmark.py`` prints them."""
