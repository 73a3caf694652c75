"""Programs with other people's packages, run as `python -m tests.conformance.clients.NAME URL MODEL`.

Each asserts, and says what it proved. They run in environments of their own, which have none of the project's packages.
"""
