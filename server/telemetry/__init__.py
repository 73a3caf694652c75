"""What an operator is told of a running server: metrics, log lines, traces. Answers no request."""
