"""`hdb`, the service from the command line: `hdb NOUN VERB`, such as `hdb jobs list`, and short forms.

program.py      the whole command line, and its exit status
parser.py       commands in two levels
arguments.py    arguments that several commands have; options from the models of the contract
subjects.py generations.py jobs.py batches.py webhooks.py service.py    the commands of each resource
keys.py         API keys, where the service's own code is
pictures.py     writing pictures to files
progress.py     the progress of a job on one line, and waiting for it
output.py       lines for people, JSON for programs
"""
