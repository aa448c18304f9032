"""What the data sets share."""
