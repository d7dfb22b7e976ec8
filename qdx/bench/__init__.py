"""Speed and memory of bundles, against each other and against what other tools made.

`bench` is the way in; `contenders` says who takes part, `calls` with which inputs, `worker` is the process of one
contender, `process` its handle, `rounds` takes the turns, `report` says what came out. Nothing is imported here: the
worker's memory is measured.
"""
