"""The replay buffer between actors and learner: prompt ledger, samplers, store, and the hub that serves them.

states.py     the states of an entry and the one table of legal transitions
ledger.py     every prompt of every epoch, and the counts that add up
machine.py    events in, results and pushes out; no sockets, no clock, no threads
service.py    the asyncio shell around the machine: sockets, timer, files
"""
