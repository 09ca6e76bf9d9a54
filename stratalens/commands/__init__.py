"""The steps of each command, from its options to its result.

May import: report and the rooms below it. Main functions: `analyze`, `rank`, `label`, `report` and `dry_run`, each in
its own module. Imports nothing, so that `--help` stays fast.
"""
