"""SePIC, Semantic Parsing of Image-based Code (section 5.1): what does the call of a pictured function print?"""
