"""Build plans: many models, checkpoints, variants and profiles, from one file, on this machine or on a cluster.

schema.py     PLAN.toml -> builds
graph.py      builds -> tasks: what several builds share is one of its own
run.py        tasks in order, as many at a time as wanted; what fails stops what needs it, and nothing else
task.py       a task, in a process of its own
local.py      that process on this machine
cluster.py    the same on a worker of a Dask cluster
events.py     what happens, for people and for programs
summary.py    what came of it: a table, report.md, junit.xml, an exit code
"""
