"""All watchers of a process: which there are, what is asked of them, what runs, and how they do."""
