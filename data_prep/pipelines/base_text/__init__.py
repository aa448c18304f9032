"""Portuguese text as paragraphs, with questions about their sentences: no model is called."""
