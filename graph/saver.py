"""A run's checkpoints on the disk: the last ones alone, which are all that it goes on from."""

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.sqlite import SqliteSaver


class LastCheckpoints(SqliteSaver):
    """Keeps the last checkpoint of the graph, and of each attempt that is under way.

    Each holds the source of every trial so far, so that all of them together would grow with the
    square of the trials.
    """

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint; then those before it go, and with the graph's those of attempts."""
        stored = super().put(config, checkpoint, metadata, new_versions)
        at = stored["configurable"]
        older = "thread_id = ? AND checkpoint_id <> ? AND ? IN ('', checkpoint_ns)"
        given = (str(at["thread_id"]), str(at["checkpoint_id"]), at["checkpoint_ns"])
        with self.cursor() as cursor:
            cursor.execute(f"DELETE FROM checkpoints WHERE {older}", given)
            cursor.execute(f"DELETE FROM writes WHERE {older}", given)
        return stored
