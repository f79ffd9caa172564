"""What a study keeps: the store, its lock, and the checkpoints of running trials.

That a file is damaged is found where it is read: `sqlite_file.py`, `trial_checkpoint.py`, `network_files.py`.
"""
