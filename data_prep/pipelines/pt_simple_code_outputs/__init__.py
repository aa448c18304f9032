"""PTSimpleCodeOutputs (section 5.1): short programs as pictures, asked for what they print in three formats."""
