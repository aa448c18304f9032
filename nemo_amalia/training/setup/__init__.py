"""From RunConfig to Megatron Bridge's ConfigContainer."""
