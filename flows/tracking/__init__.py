"""MLflow as a record of nights: runs, registered models, and the alias `champion`, which follows the pointer file.

    target.py     where runs are recorded: SQLite below the root, or a server; and whether
    flat.py       nested settings and facts -> flat parameters and numbers, without secrets
    night.py      the artifacts of a night -> what MLflow is to hold of it
    about.py      what no artifact says of tonight's run
    state.py      what MLflow was given so far, a small file below the root
    glance.py     whether the alias is where it was put, without importing MLflow
    moved.py      addresses in SQLite after the root was moved
    follow.py     gives MLflow what it lacks; never fails a night
    start.py      starts the client and ends it when it takes too long
    client.py     the only code that imports MLflow
    link.py       the run's page, as a link in Prefect's UI
    ui.py         MLflow's UI while `overnight serve` runs

Nothing is read back from MLflow: what is in service is what the pointer file says, and a night works without MLflow.
"""
