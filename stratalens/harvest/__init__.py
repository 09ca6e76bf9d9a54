"""One pass over the text for all layers: model, SAEs and statistics meet here."""
