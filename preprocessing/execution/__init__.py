"""Running tasks over buckets of users, in this process or on workers."""
