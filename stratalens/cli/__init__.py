"""Words to configuration, and what a person sees at the terminal: the only room that prints."""
