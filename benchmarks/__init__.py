"""What is measured, and how it is compared with peers: over HTTP only, each server in a process of its own."""
