"""`overnight init`: a look at a file of events, and a folder in which nights can run.

look (files -> how they are written, some rows) -> traits (a column -> what its values are like)
-> roles (columns -> user, item, time, ...) -> describe (roles -> the dataset's YAML) -> folder (files, written or nothing)
"""
