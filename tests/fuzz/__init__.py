"""Mutated input: every file a user can hand in, changed at random, is used or refused with one message.

``python -m tests.fuzz --target nifti --seed 1 --start 4711 --count 1 --keep FOLDER`` repeats one input.
"""
