"""`report.html`, the page of a result."""
