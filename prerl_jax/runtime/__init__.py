"""Machine and disk: the device mesh, several processes, checkpoints, metrics files, the compilation cache, profiles.

Import the modules by name (`from prerl_jax.runtime.mesh import MeshSpec`). Only the checkpoints need Orbax, whose
import takes most of a second.
"""
