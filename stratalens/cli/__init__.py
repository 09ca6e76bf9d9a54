"""Words to configuration, and what a person sees at the terminal: the only room that prints or exits.

May import: everything. Main parts: `main`, the dispatch to commands, and Terminal, what a run prints. Empty, so that
`--help` stays light.
"""
