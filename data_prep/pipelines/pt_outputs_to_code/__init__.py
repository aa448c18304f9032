"""PTOutputsToCode (section 5.1): which function and call printed what the picture shows?"""
