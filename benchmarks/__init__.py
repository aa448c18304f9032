"""What is claimed about speed, measured: each module prints a table of medians over interleaved runs, and ratios."""
