"""What the data pipelines share."""
