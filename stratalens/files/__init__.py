"""Files on disk: written completely or not at all, checked when they are read, without secrets in them.

May import: errors. Main parts: WorkDirectories, the directories that a run works in; `write_checksummed`, for files
whose damage is noticed. Imports nothing, so that `--help` stays fast.
"""
