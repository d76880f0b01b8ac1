"""Raw events to sessions. Start reading at `pipeline.py`: index, plan, read, clean, fit, encode, commit, publish.

The words of this room, each with one meaning:

    event         a row of the source: somebody and an item at a time
    day           a local day of the dataset's time zone; a session belongs to the day in which it closes
    session       events of one user that belong together; open events are those of sessions not closed at midnight
    line          all days of one dataset made by the same words of its YAML; its ledger lists the finished ones
    part          the rows of one file that are of one day: what a finished day was made of
    account       where every row went, by day: read, kept, dropped (by step), quarantined (by rule)
    plan          rules, steps and features compiled against the columns, before a row is read
    feature       a column and the encoders applied to it, in order
    statistics    what an encoder counts in the rows of one day; they add up over days
    state         what statistics add up to; a day is encoded with that of the days before it; vocabularies are part of it
    bucket        all events of some users: what one task works on
    snapshot      finished days and a state published under `sessions/<id>`
"""
