"""How pushes and pulls travel between the parameter server and the workers."""
