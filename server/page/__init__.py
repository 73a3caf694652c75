"""The playground: a static page and what serves its bytes. Everything that it does goes through the public API."""
