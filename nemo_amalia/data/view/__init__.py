"""`amalia data view`: an HTML page of samples as training sees them, with checks."""
