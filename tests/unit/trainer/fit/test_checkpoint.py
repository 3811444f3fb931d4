"""Checkpoints: whole or not at all, and Ctrl-C is never lost in one."""

import os
import signal

import pytest
import torch

from trainer.fit.checkpoint import Checkpointer


class Interrupting:
    """Presses Ctrl-C while it is being pickled."""

    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGINT)
        return (dict, ())


def test_interrupt_while_saving_is_raised_once_the_file_is_whole(tmp_path):
    checkpointer = Checkpointer(tmp_path, 0.0)
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            checkpointer.save({"step": 1, "pressed": Interrupting()})
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, earlier)
    checkpointer.save({"step": 2, "weights": torch.ones(3)})
    state = checkpointer.load()
    assert state is not None
    assert state["step"] == 2


def test_damaged_file_counts_as_none(tmp_path):
    checkpointer = Checkpointer(tmp_path, 0.0)
    checkpointer.path.write_bytes(b"half")
    assert checkpointer.load() is None
    checkpointer.save({"step": 1})
    checkpointer.clear()
    assert checkpointer.load() is None
