"""Generated programs run here and nowhere else: namespaces, seccomp, limits."""
