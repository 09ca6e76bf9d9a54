"""`report.html`: the page of a result, one file that asks nothing of a network."""
