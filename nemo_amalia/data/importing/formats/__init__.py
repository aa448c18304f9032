"""How other people's data lie on disk, one format a file, read into our samples."""
