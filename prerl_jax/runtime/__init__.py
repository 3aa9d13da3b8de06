"""What a run needs from the machine and the disk: the device mesh, several processes, checkpoints, metrics files.

Import the modules by name (`from prerl_jax.runtime.mesh import MeshSpec`). Only the checkpoints need Orbax, whose
import takes most of a second.
"""
