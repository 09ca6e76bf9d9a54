"""The command line: arguments to configuration, and all output on the terminal; the only room that prints or exits.

May import: everything. Main parts: `main`, which runs the commands, and Terminal, which prints the messages of
a run. Imports nothing, so that `--help` stays fast.
"""
