"""Tests that a reported feature passes or fails beyond the confirmation half: on other text, on chance, on tokens.

May import: evidence and the rooms that it may import. Main types: Controls, TokenTest.
"""

from stratalens.validation.controls import Controls, control_warnings, make_controls

__all__ = ["Controls", "control_warnings", "make_controls"]
