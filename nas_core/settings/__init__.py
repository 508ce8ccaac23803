"""What a config can say about each thing that is chosen by name; what is built from it is elsewhere.

Nothing here imports PyTorch, so that a process which only conducts a run need not hold it.
"""
