"""HTTP routes: wire types in, text floor called, wire types out. Knows no tokens and no tensors."""
