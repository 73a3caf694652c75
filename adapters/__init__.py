"""The contract between training and server: what an adapter is on disk, the store it is published to, its base model.

Import from the modules: the names of a store need no torch, and this file keeps it so.
"""
