"""The environment: a server that holds nothing else, and the scratch databases on it."""
