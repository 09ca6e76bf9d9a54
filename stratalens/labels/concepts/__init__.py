"""Lexicons of concepts, and where their terms stand in passages."""
