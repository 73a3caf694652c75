"""Structured output: what an answer must look like, and the grammar that holds its tokens to it. Knows no HTTP."""
