"""How a server and its workers meet."""
