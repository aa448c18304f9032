"""Samples that had to be dropped: counted in shared memory, limited, and listed by name."""
