"""`amalia doctor`: whether this machine and its nodes can run what pyproject.toml and a job ask for."""
