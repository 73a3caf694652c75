"""Where adapters are fetched from: directories under allow-listed roots, a hub, object stores. Knows no HTTP route."""
