"""From the run schema to Megatron Bridge's loop: container, forward step, callbacks, entry of a rank."""
