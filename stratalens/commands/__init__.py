"""The story of each command, from its options to its result.

May import: report and what lies below. Main functions: `analyze`, `rank`, `label`, `report` and `dry_run`, each in
its own module. Empty, so that `--help` stays light.
"""
