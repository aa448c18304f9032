"""Before anybody queues: what a layout costs (`amalia plan`) and whether it runs at all (`amalia dryrun`)."""
