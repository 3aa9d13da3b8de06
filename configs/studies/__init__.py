"""The studies that come with prerl_jax, one file each; installed, this folder is `prerl_jax.configs.studies`."""
