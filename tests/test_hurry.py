"""Flags that one version of XLA knows and another does not must not end the suite."""

from hurry import FLAGS, accepted, known


def test_a_flag_that_xla_does_not_know_is_left_out():
    first, *_ = known(FLAGS)
    assert known((first, "--xla_no_such_flag=true")) == (first,)


def test_a_flag_that_xla_does_not_know_ends_the_process():
    assert accepted()
    assert not accepted("--xla_no_such_flag=true")
