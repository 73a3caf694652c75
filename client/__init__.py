"""What the command line does against a store or a running server. Knows no model; stands on `adapters` alone."""
