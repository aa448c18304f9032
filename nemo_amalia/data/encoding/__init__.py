"""From a conversation to tokens: chat template, cookers, encoders, and the Hugging Face folder they are read from."""
