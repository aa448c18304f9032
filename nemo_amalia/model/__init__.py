"""The AMALIA-VL model on Megatron-Core: tower, connector, decoder, and the layers they are built of."""
