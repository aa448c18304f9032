"""Images: token geometry, header parsing without decoding, and decoding into tiles."""
