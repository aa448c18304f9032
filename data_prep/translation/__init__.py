"""Translation of one sample to pt-PT: segments, protected spans, guards."""
