"""Where a run's arrays lie: on one device, or a batch in equal parts on several."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from narrow_jax._typing import Params


def holding(data: object) -> list[jax.Device] | None:
    """Return the devices among which the samples of ``(x, y)`` are shared, None for one device."""
    x = data[0] if isinstance(data, tuple | list) and data else None
    devices = x.devices() if isinstance(x, jax.Array) else ()
    return sorted(devices, key=lambda device: device.id) if len(devices) > 1 else None


def on_one_device(tree: Params) -> Params:
    """Return the tree with what lies on a mesh on its first device: a mesh's axes would be part of every type."""

    def place(leaf: object) -> object:
        if not isinstance(leaf, jax.Array) or not isinstance(leaf.sharding, NamedSharding):
            return leaf
        return jax.device_put(leaf, SingleDeviceSharding(leaf.sharding.mesh.devices.flat[0]))

    return jax.tree.map(place, tree)


def on_each(sharding: NamedSharding | None, tree: Params) -> Params:
    """Return the tree as a whole on each of the devices that share a batch."""
    if sharding is None:
        return tree
    return jax.device_put(tree, NamedSharding(sharding.mesh, PartitionSpec()))


def shared_by(devices: Sequence[jax.Device] | None, batch: int) -> NamedSharding | None:
    """Return how a batch lies on several devices: its samples in equal parts."""
    if devices is None:
        return None
    if not len(devices) or batch % len(devices):
        raise ValueError(
            f"a batch of {batch} samples does not divide over {len(devices)} devices; expected a multiple of the "
            "number of devices: change batch_size or pass fewer devices"
        )
    mesh = Mesh(np.array(devices), ("batch",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec("batch"))
