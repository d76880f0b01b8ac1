"""The service: questions over HTTP, answered by the model in service.

app.py      the routes                         gate.py       keys, rates and sizes, before a route is asked
asking.py   the body of a request, read        batching.py   requests that wait, answered together by one thread
answers.py  sessions asked for -> answers      in_service.py the model by the pointer, changed while requests run
"""
