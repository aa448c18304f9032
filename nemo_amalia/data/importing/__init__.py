"""`amalia data import`: existing datasets in, shards out, with every dropped record named."""
