"""Networks of latent diffusion in the diffusers parameter layout (spec `diffusion.md`): see README.md."""
