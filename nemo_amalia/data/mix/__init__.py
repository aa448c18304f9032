"""`amalia data mix`: how often each source is drawn."""
