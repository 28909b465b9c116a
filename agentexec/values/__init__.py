"""Values of the user's types: their JSON text, the way back, and the types that handlers declare."""
