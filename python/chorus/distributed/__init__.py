"""The ranks that compute one model together: chorus.distributed.parallel_state."""
