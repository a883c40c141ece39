"""Fast forms of operations, each tested equal to a plain one; a reader may skip them."""
