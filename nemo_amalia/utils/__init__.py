"""Shared by every package: files, text, processes, devices and HTML pages. Imports nothing else of nemo_amalia."""
