"""The worker: takes jobs from the queue and runs the method on its device."""
