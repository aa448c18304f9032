"""The content of `make demo`: drawn scenes, words, photographs, and the small pretrained pair."""
