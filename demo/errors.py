"""The demo's own error: `demo.answer` runs where transformers is all there is, without nemo_amalia."""


class DemoError(Exception):
    """Something that the caller can fix: one line, exit code 2."""
