"""What a run writes: tables, figures and the record of the run."""
