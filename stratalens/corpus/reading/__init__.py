"""From the bytes of a file to rows of clean text, one at a time.

Unpacked (packing), decoded (encoding, decoding), cut into lines (lines), read as a format (formats and the modules of
the formats), its text picked from the columns and cleaned (rows, cleaning). What was unusual is noted (notes).
"""
