"""PT-OCR: pictures of pt-PT text with questions about what is written there; no model is called."""
