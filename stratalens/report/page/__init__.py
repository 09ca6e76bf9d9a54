"""`report.html`: the page of a result, a single file that loads nothing from the network."""
