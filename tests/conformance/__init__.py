"""The OpenAI surface, asked by the packages that people use. See docs/openai.md."""
