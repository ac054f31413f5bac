"""For all tests: no hub, no AWS account, no settings of the developer's own."""

import os

# At import, not in a fixture: libraries read some of these once, and wider fixtures set others again for their tests.
for name in [name for name in os.environ if name.startswith(("HDB_", "AWS_"))]:
    del os.environ[name]
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
os.environ["HF_HUB_OFFLINE"] = "1"
