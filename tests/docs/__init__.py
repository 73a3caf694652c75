"""README and docs: every link, flag, route and snippet in them is held to the code."""
