"""Text on top of tokens: chat formats, detokenising, stop strings, model names. Knows no HTTP."""
