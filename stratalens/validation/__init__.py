"""Tests that a reported feature passes or fails beyond the confirmation half: on other text, on chance, on tokens.

May import: evidence and the rooms that it may import.
"""
