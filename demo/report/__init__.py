"""The demo's report page, its charts, and the README's figure."""
