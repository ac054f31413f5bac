"""`hdb`, the service from the command line.

program.py   the command line itself: what it takes, what it ends with
commands.py  what each command does with the client
service.py   the commands that show what it runs, and what was used
webhooks.py  those of webhooks
keys.py      the commands that need the service's own settings: API keys
output.py    lines for people, JSON for programs
progress.py  how far a job is, on one line
"""
