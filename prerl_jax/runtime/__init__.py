"""What a run needs from machine and disk: the mesh, start-up of many processes, checkpoints and metrics files.

The modules are imported by name (`from prerl_jax.runtime.mesh import MeshSpec`): checkpoints alone need Orbax, whose
import takes most of a second.
"""
