"""Features: columns and their encoders compiled, what they were fit to, and the schema of what they give."""
