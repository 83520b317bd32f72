"""What processes of tests have imported when they are forked: all that starts no thread and reads no variable."""

# ruff: noqa: F401

import lavant.client._async.client
import lavant.client._sync.client
import lavant.client.cli.app
import lavant.client.cli.evaluate
import lavant.client.cli.export
import lavant.client.cli.rules
import lavant.client.cli.runs
import lavant.client.cli.scores
import lavant.server.__main__
import lavant.server.store.jetstream
