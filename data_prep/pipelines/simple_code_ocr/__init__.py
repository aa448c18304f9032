"""SimpleCodeOCR (section 5.1): functions as pictures, to be read back."""
