"""What lies on disk: written whole or not at all, read with distrust, never with secrets in it.

May import: errors. Main parts: WorkDirectories, the places that a run works in; `write_checksummed`, for files that
tell when they were altered. Empty, so that `--help` stays light.
"""
