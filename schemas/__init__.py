"""What the rooms hand to each other: datasets, feature schemas, artifact folders. Needs only pydantic and YAML."""
