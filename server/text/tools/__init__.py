"""Tools: how their calls are found in an answer, and which are asked for. Knows no HTTP and no engine."""
