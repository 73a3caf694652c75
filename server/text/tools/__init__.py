"""Tools: how functions enter a prompt, and how their calls are found in an answer. Knows no HTTP and no engine."""
