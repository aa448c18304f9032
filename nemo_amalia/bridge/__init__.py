"""Hugging Face ``LlavaNextForConditionalGeneration`` <-> the Megatron model: config map, weight map, import, export."""
