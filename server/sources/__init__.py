"""Where adapters are fetched from: directories under allow-listed roots. Knows no HTTP route."""
