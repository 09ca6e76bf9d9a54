"""Lexicons of concepts, and where their terms are in passages: all that a label without a language model may say."""
