"""Beartype as the suite uses it: an int is accepted where a float is expected, as type checkers do."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
