"""Lexicons of concepts, and concepts and phrases found in passages: what labels without a language model consist of."""
