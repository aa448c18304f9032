"""Plain text: sentences and abbreviations."""
