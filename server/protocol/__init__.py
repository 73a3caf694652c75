"""The wire types of the HTTP API, each field bounded. Knows no route, no engine and no status code."""
