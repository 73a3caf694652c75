"""The page in a real browser, before a real server whose model echoes. Run by `make test-browser`."""
