"""From what the user wrote to the graph and the identity of a recipe."""
