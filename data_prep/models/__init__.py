"""Asking models: servers and routes, limits, answer cache, prompts, answers checked against a schema."""
